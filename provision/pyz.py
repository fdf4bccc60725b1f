"""The single file for machines without pip: `python -m provision.pyz [-o mlhost.pyz]`.

A zip archive that Python runs: this package, the playbooks, and the pure Python part of what they need, at the versions and hashes of
`provision/data/pyz.txt`. The same sources give the same bytes, wherever and whenever it is built (with the same zlib); members have the date that
SOURCE_DATE_EPOCH says (https://reproducible-builds.org/specs/source-date-epoch/), without it the oldest that a zip archive can have.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from provision import __version__
from provision.errors import Error, Failed
from provision.playbook import directories
from provision.shipped import shipped
from provision.single import MARK, local_only

PINS = "data/pyz.txt"
WANTED = ("click", "jinja2", "PyYAML", "requests", "rich", "tomli")
"""What mlhost imports on the machine it works on. rich's own needs, Pygments and markdown-it, are for parts of it that mlhost does not use."""
UNUSED = ("markdown-it-py", "mdurl", "Pygments")
OLDEST = "3.9"
# Wheels for this machine's sake: where there is no pure one, the Python files of a compiled one do the same without the rest.
ASK: tuple[str, ...] = ("download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", f"--python-version={OLDEST}", "--implementation=cp")
ASK += ("--abi=cp39", "--abi=none", "--platform=manylinux2014_x86_64", "--platform=any")
HEAD = """\
# The packages in mlhost.pyz, for every Python from 3.9 on, in pip's own form. Only their Python files are taken; for PyYAML, MarkupSafe and
# charset-normalizer those are the ones of a compiled wheel. Made anew by: python -m provision.pyz --renew > provision/data/pyz.txt
"""
SHEBANG = b"#!/usr/bin/env python3\n"
# Read by whatever Python is called python3 there, however old.
MAIN = f"""import sys
if sys.version_info < ({OLDEST.replace(".", ", ")}):
    sys.exit("mlhost needs Python {OLDEST} or newer to run; this is " + sys.version.split()[0] + ". Run it from another machine: mlhost setup user@host")
from provision.unpack import main
main()
"""
_LEFT = (".pyc", ".pyo", ".orig", ".rej", ".swp", "~")
_LICENCE = re.compile(r"[^/]+\.dist-info/(licenses/.+|(LICEN[CS]E|COPYING|NOTICE|AUTHORS)[^/]*)")
_PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})")
_FIRST = 315532800  # 1980-01-01


@dataclass(frozen=True)
class Built:
    """The file, its size in bytes, and its sha256 (hex)."""

    path: Path
    size: int
    sha256: str


def build(out: Path, wheels: Path | None = None) -> Built:
    """Make the single file at `out`. The packages are fetched by pip, with its own settings, or taken from the folder `wheels`.

    In the single file itself, it is copied: it is what it would build. Raises Failed where a package cannot be had or is not the pinned one.
    """
    if local_only():
        own = Path(os.path.abspath(sys.argv[0]))
        if not zipfile.is_zipfile(own):
            raise Failed("This mlhost came out of a single file that is not at hand.", "Copy mlhost.pyz itself.")
        return _written(out, own.read_bytes())
    if wheels is not None:
        return _written(out, archive(_members(wheels)))
    with tempfile.TemporaryDirectory(prefix="mlhost-pyz-") as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text(shipped(PINS))
        _pip(*ASK, "--no-deps", "--require-hashes", "--dest", folder, "--requirement", str(pins))
        return _written(out, archive(_members(Path(folder))))


def pinned() -> dict[str, tuple[str, str]]:
    """The packages in the single file: name -> version, sha256 of the wheel."""
    return {match[1]: (match[2], match[3]) for match in _PIN.finditer(shipped(PINS))}


def archive(members: Mapping[str, bytes]) -> bytes:
    """An archive that Python runs, of members by their paths in it: always the same for the same members."""
    when = time.gmtime(max(int(os.environ.get("SOURCE_DATE_EPOCH") or 0), _FIRST))[:6]
    file = io.BytesIO()
    file.write(SHEBANG)
    with zipfile.ZipFile(file, "w") as target:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, when)
            info.create_system, info.external_attr, info.compress_type = 3, (stat.S_IFREG | 0o644) << 16, zipfile.ZIP_DEFLATED
            target.writestr(info, members[name], compresslevel=9)
    return file.getvalue()


def _members(wheels: Path) -> dict[str, bytes]:
    package = Path(__file__).resolve().parent
    found = {"__main__.py": MAIN.encode(), MARK: f"mlhost {__version__}\n".encode()}
    found.update(_folder(package, "provision", without=("specs",)))
    for place in reversed(directories()):
        found.update(_folder(Path(place), "provision/playbooks"))
    there = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in sorted(wheels.glob("*.whl"))}
    for name, (version, sha256) in pinned().items():
        if sha256 not in there:
            raise Failed(f"The wheel of {name} {version} with the sha256 {sha256} is not in {wheels}.", "Fetch it with pip, or leave --wheels out.")
        found.update(_wheel(there[sha256]))
    return found


def _folder(folder: Path, name: str, without: Sequence[str] = ()) -> dict[str, bytes]:
    """The files that are part of mlhost below a folder; nothing that an editor or Python has left there."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(_LEFT)}
    return {
        f"{name}/{inner.as_posix()}": path.read_bytes()
        for inner, path in found.items()
        if inner.parts[0] not in without and not any(part.startswith((".", "__pycache__")) for part in inner.parts)
    }


def _wheel(path: Path) -> dict[str, bytes]:
    """A wheel's Python files, certificates and licences; nothing compiled."""
    with zipfile.ZipFile(path) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist() if name.endswith((".py", ".pem")) or _LICENCE.fullmatch(name)}


def _written(out: Path, content: bytes) -> Built:
    """Put the file in place in one step."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{out.name}-", dir=str(out.parent), delete=False) as file:
            file.write(content)
        Path(file.name).chmod(0o755)
        os.replace(file.name, out)
    except OSError as error:
        raise Failed(f"{out} cannot be written: {error.strerror}.", "Name another place.") from None
    return Built(out, len(content), hashlib.sha256(content).hexdigest())


def _pip(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Failed(
            f"pip could not fetch the packages for the single file: {' '.join(last)[:500]}",
            "It needs pip and a package index in reach; or name a folder that has the wheels with --wheels.",
        )


def renewed() -> str:
    """The text of the pins with the newest versions that run under OLDEST, as the package index has them now."""
    with tempfile.TemporaryDirectory(prefix="mlhost-pyz-") as folder:
        _pip(*ASK, "--dest", folder, *WANTED)
        lines = []
        for path in sorted(Path(folder).glob("*.whl")):
            name, version = path.name.split("-")[:2]
            if name.replace("_", "-").lower() not in (unused.lower() for unused in UNUSED):
                lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n")
    return HEAD + "".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """The command; 1 where it failed."""
    parser = argparse.ArgumentParser(prog="python -m provision.pyz", description="Build mlhost as a single file that needs Python alone.")
    parser.add_argument("-o", "--out", type=Path, default=Path("mlhost.pyz"), metavar="FILE")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="take the packages from here and ask no package index")
    parser.add_argument("--renew", action="store_true", help=f"print {PINS} with the newest versions instead")
    asked = parser.parse_args(words)
    try:
        if asked.renew:
            print(renewed(), end="")
        else:
            built = build(asked.out, asked.wheels)
            print(f"{built.sha256}  {built.path}  ({built.size / 1e6:.1f} MB)")
    except Error as error:
        print(f"mlhost: {error.message}\n{error.fix}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
