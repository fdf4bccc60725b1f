"""The support bundle: what somebody else needs to see of a host, in one file, without secrets. `mlhost doctor --capture` reads it."""

from __future__ import annotations

import gzip
import io
import json
import platform
import re
import secrets
import tarfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from provision import __version__
from provision.errors import Error, UsageError
from provision.redaction import scrub, scrub_capture
from provision.shipped import shipped

if TYPE_CHECKING:
    from provision.catalog import Catalog
    from provision.look import RunOptions
    from provision.playbook import Loaded
    from provision.progress import Progress
    from provision.transport import Transport

FOLDER = "mlhost-support"
CAPTURE = f"{FOLDER}/capture.txt"
MOST_MEMBERS, MOST_BYTES = 200, 64 << 20
TIMEOUT = 60.0

README = """\
A support bundle of mlhost {version} for {host}, made {when}.

capture.txt      what the host's probe printed (mlhost doctor --capture THIS-FILE reads it)
diagnosis.txt    what mlhost doctor says about it; diagnosis.json the same for programs
plan.txt         what mlhost setup would do there, with the playbook {playbook}
versions.json    mlhost, Python, and the machine it ran on
host/            mlhost's own journal on the host: the last runs, the proof; logs of the driver's installation

Passwords, tokens, keys and account numbers were taken out ({gone} stands for each). Host names and addresses were not.
"""


def collect(transport: Transport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress) -> dict[str, bytes]:
    """The files of a bundle, from one deep look at the host and its journal. Changes nothing there."""
    from provision.examine import look_deep

    progress.stage(transport.name, "looking")
    capture = look_deep(transport, loaded, options)
    progress.stage(transport.name, "reading mlhost's journal")
    return files(capture, journal(transport), loaded, catalog, transport.name)


def journal(transport: Transport) -> dict[str, str]:
    """What mlhost left on the host, by a name for each piece."""
    from provision.capture import split
    from provision.sh import Sh

    mark = secrets.token_hex(8)
    script = Sh(shipped("scripts/bundle.sh"))
    answer = transport.run(script, mark, sudo=True, timeout=TIMEOUT)
    return {name: section.text for name, section in split(answer.out, mark).items() if name != "probe"}


def files(capture: bytes, pieces: Mapping[str, str], loaded: Loaded, catalog: Catalog, host: str) -> dict[str, bytes]:
    """The files of a bundle by their paths, secrets removed. Pure but for the clock and this machine's versions. Raises ProbeFailed for no capture."""
    from provision.examine import diagnosed
    from provision.report.diagnosis import diagnosis_json, diagnosis_text

    clean = scrub_capture(capture)
    diagnosis = diagnosed(clean, None, catalog)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    versions = {"mlhost": __version__, "python": platform.python_version(), "controller": platform.platform(), "made": when}
    found = {
        "README": README.format(version=__version__, host=host, when=when, playbook=loaded.path or "gpu-host", gone="***"),
        "diagnosis.txt": diagnosis_text(diagnosis, verbose=True) + "\n",
        "diagnosis.json": json.dumps(diagnosis_json(diagnosis, target=host), indent=2) + "\n",
        "plan.txt": _plan(clean, loaded, catalog),
        "versions.json": json.dumps(versions, indent=2) + "\n",
        **{f"host/{re.sub(r'[^A-Za-z0-9._/-]', '-', name)}": text for name, text in pieces.items()},
    }
    return {CAPTURE: clean, **{f"{FOLDER}/{name}": scrub(text).encode("utf-8", "replace") for name, text in found.items()}}


def _plan(capture: bytes, loaded: Loaded, catalog: Catalog) -> str:
    from provision.look import plan_from_capture
    from provision.report.text import plan_text

    try:
        return plan_text(plan_from_capture(capture, loaded, catalog)[1], verbose=True) + "\n"
    except Error as error:
        return f"No plan could be made: {error}\n"


def pack(members: Mapping[str, bytes]) -> bytes:
    """A .tar.gz with these files, readable by their owner only; the same files give the same bytes."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0, filename="") as squeezed, tarfile.open(fileobj=squeezed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o600
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def capture_in(content: bytes) -> bytes:
    """The capture in a support bundle; content that is no archive is taken for a capture itself. Nothing is unpacked to a disk.

    Raises UsageError for an archive that is broken, too big, or has no capture.
    """
    if content[:2] != b"\x1f\x8b":
        return content
    again = "Name what `mlhost support-bundle` or `mlhost facts --format raw` wrote."
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as squeezed:
            whole = squeezed.read(MOST_BYTES + 1)
        if len(whole) > MOST_BYTES:
            raise UsageError(f"The bundle is larger than {MOST_BYTES >> 20} MiB when unpacked.", again)
        with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
            for _ in range(MOST_MEMBERS):
                member = archive.next()
                if member is None:
                    break
                if member.name == CAPTURE and member.isreg():
                    file = archive.extractfile(member)
                    return file.read() if file else b""
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise UsageError(f"The bundle cannot be read: {type(error).__name__}: {str(error)[:200]}.", again) from None
    raise UsageError("The archive holds no capture of mlhost's.", again)
