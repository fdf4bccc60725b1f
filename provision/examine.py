"""The doctor's round: one deep look at a host, the diagnosis, and, where that is wanted, what is safe to mend through the ordinary plan."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from provision.doctor.checks import CHECKS
from provision.doctor.diagnose import CONFIRMED, Diagnosis, diagnose
from provision.doctor.failures import load
from provision.doctor.seen import Seen
from provision.errors import ProbeFailed

if TYPE_CHECKING:
    from provision.catalog import Catalog
    from provision.doctor.texts import Text
    from provision.look import RunOptions
    from provision.model import HostReport, Section
    from provision.playbook import Loaded
    from provision.progress import Progress
    from provision.transport import Transport

TIMEOUT = 420.0


@dataclass(frozen=True)
class Examined:
    """What came of it. `capture` is the raw answer of the (first) look; `report` and `before` are there where something was mended."""

    diagnosis: Diagnosis
    capture: bytes = b""
    before: Diagnosis | None = None
    items: tuple[str, ...] = ()
    report: HostReport | None = None


def look_deep(transport: Transport, loaded: Loaded, options: RunOptions) -> bytes:
    """The raw answer of one deep probe. Raises Unreachable and SudoError kinds."""
    from provision.probe import probe_args, probe_script
    from provision.watched import watched, watched_disks

    args = probe_args(
        secrets.token_hex(8),
        asked_at=int(time.time()), paths=watched(loaded.spec, options.steps), disks=watched_disks(loaded.spec), deep=True,
    )
    result = transport.run(probe_script(), *args, sudo=True, timeout=TIMEOUT)
    if b"@@" + args[0].encode() not in result.out:
        said = result.err.decode(errors="replace").strip().splitlines()
        raise ProbeFailed(f"{transport.name}: the probe gave no answer." + (f" It said: {said[-1][:200]}" if said else ""))
    return result.out


def diagnosed(capture: bytes, given: Text | None, catalog: Catalog, host: str = "") -> Diagnosis:
    """The diagnosis of a capture. Raises ProbeFailed for what is none. Pure."""
    from provision.capture import split

    return of_sections(split(capture), given, catalog, host)


def of_sections(sections: Mapping[str, Section], given: Text | None, catalog: Catalog, host: str = "") -> Diagnosis:
    """The diagnosis of a capture's sections. Pure."""
    from provision.facts import parse

    return diagnose(Seen(parse(sections, host), sections, catalog), given, load(), CHECKS)


def of_text(given: Text) -> Diagnosis:
    """What a text alone can mean. Pure."""
    return diagnose(None, given, load(), CHECKS)


def examine(transport: Transport, loaded: Loaded, catalog: Catalog, given: Text | None, options: RunOptions, progress: Progress) -> Examined:
    """Look at a host and say what is wrong with it. Changes nothing."""
    progress.stage(transport.name, "looking")
    capture = look_deep(transport, loaded, options)
    return Examined(diagnosed(capture, given, catalog), capture)


def mend(transport: Transport, loaded: Loaded, catalog: Catalog, given: Text | None, options: RunOptions, progress: Progress) -> Examined:
    """Look, carry out the part of the ordinary plan that puts the confirmed findings right and asks for nothing, and look again."""
    from provision import run

    first = examine(transport, loaded, catalog, given, options, progress)
    wanted = dict.fromkeys(item for f in first.diagnosis.findings if f.certainty == CONFIRMED for item in f.failure.fix)
    if not wanted:
        return first
    report = run.setup(transport, loaded, catalog, replace(options, only=tuple(wanted), reboot="never", yes=False, ask=None), progress)
    again = examine(transport, loaded, catalog, given, options, progress)
    return replace(again, capture=first.capture, before=first.diagnosis, items=tuple(wanted), report=report)
