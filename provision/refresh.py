"""For maintainers: `python -m provision.refresh [--check]` asks the vendors and brings the catalog's newest versions, keys and dates up to date.

It prints what would change as a diff and writes it (`--check` only prints, and exits 1 where more than dates differ). What a person must decide (a suite
that is gone, a key that changed, a branch that came or went) is told and never written. Only `newest` and `verified` of branches, repositories and
keys are written, and fingerprints that were unknown.
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision import vendors
from provision.catalog import Catalog, load
from provision.errors import Error
from provision.model import OsRelease
from provision.rows import Platform, Repository, Row, version_key
from provision.shipped import parsed_toml
from provision.vendors import Vendors

DATA = Path(__file__).resolve().parent / "data"
RELEASES = "https://docs.nvidia.com/datacenter/tesla/drivers/releases.json"


@dataclass(frozen=True)
class Edit:
    """A value to write: in a data file, in the table of this kind whose keys have these values."""

    file: str
    table: str
    where: tuple[tuple[str, str], ...]
    key: str
    value: str


@dataclass(frozen=True)
class Found:
    """What asking gave: values to write, and sentences for a person."""

    edits: tuple[Edit, ...] = ()
    notices: tuple[str, ...] = ()


def ask(catalog: Catalog, data: Mapping[str, Mapping[str, Any]], asked: Vendors, today: str) -> Found:
    """Everything the vendors say that the catalog does not. One vendor that cannot be reached is a notice, not the end."""
    edits: list[Edit] = []
    notices: list[str] = []
    for part in (_branches, _toolkit, _docker, _keys, _cuda, _installers):
        try:
            for found in part(catalog, data, asked, today):
                (edits if isinstance(found, Edit) else notices).append(found)  # type: ignore[arg-type]
        except Error as error:
            notices.append(f"{error.message} {error.fix}")
    return Found(tuple(edits), tuple(dict.fromkeys(notices)))


def _branches(_: Catalog, data: Mapping[str, Mapping[str, Any]], asked: Vendors, today: str) -> Iterator[Edit | str]:
    releases = asked.releases(RELEASES)
    if releases is None:
        yield f"{RELEASES} is not there any more."
        return
    known = {row["number"]: row for row in data["drivers"]["branch"]}
    for number, newest in releases.items():
        row = known.get(number)
        if row is None:
            if int(number) > max(map(int, known)):
                yield f"Driver branch {number} ({newest}) is new: it needs a row in drivers.toml."
            continue
        where = (("number", number),)
        if version_key(newest) > version_key(row["newest"]):
            yield Edit("drivers", "branch", where, "newest", newest)
        if version_key(newest) >= version_key(row["newest"]):
            yield Edit("drivers", "branch", where, "verified", today)


def _toolkit(catalog: Catalog, data: Mapping[str, Mapping[str, Any]], asked: Vendors, today: str) -> Iterator[Edit | str]:
    seen = set()
    for platform in _platforms(catalog, ("x86_64",)):
        repository = catalog.repository("toolkit", platform)
        if repository is None or repository.uri in seen:
            continue
        seen.add(repository.uri)
        packages = _packages(asked, repository, platform)
        if packages is None:
            yield f"{repository.uri} is not there any more."
            continue
        row = next(r for r in data["repositories"]["repository"] if r["name"] == "toolkit" and platform.family in r["family"])
        family = row["family"] if isinstance(row["family"], str) else row["family"][0]
        newest = vendors.newest(packages.get("nvidia-container-toolkit", ()))
        if platform.toolkit_newest and newest != platform.toolkit_newest:
            yield f"The newest toolkit for {platform.name} is {newest}, not {platform.toolkit_newest} as its row says ({repository.uri})."
        where = (("name", "toolkit"), ("family", family))
        if version_key(newest) > version_key(row["newest"]):
            yield Edit("repositories", "repository", where, "newest", newest)
        if newest:
            yield Edit("repositories", "repository", where, "verified", today)


def _docker(catalog: Catalog, _: Mapping[str, Mapping[str, Any]], asked: Vendors, __: str) -> Iterator[Edit | str]:
    newest: dict[str, str] = {}
    frozen = {}
    for platform in _platforms(catalog, ("x86_64",)):
        repository = catalog.repository("docker", platform)
        if repository is None or repository.index_url in newest:
            continue
        packages = _packages(asked, repository, platform)
        if packages is None:
            yield f"Docker does not serve {platform.name} any more ({repository.index_url})."
            continue
        newest[repository.index_url] = vendors.newest(packages.get("docker-ce", ()))
        frozen[repository.index_url] = platform
    current = max(newest.values(), key=version_key, default="")
    for url, version in newest.items():
        platform = frozen[url]
        if platform.docker_frozen and platform.docker_newest and version != platform.docker_newest:
            yield f"Docker's newest for {platform.name} is {version}, not {platform.docker_newest} as its row says ({url})."
        elif platform.docker_frozen is (version == current):
            state = "frozen, but has the current" if platform.docker_frozen else "not frozen, but stops at"
            yield f"The row of {platform.name} says {state} {version} ({url})."


def _keys(catalog: Catalog, data: Mapping[str, Mapping[str, Any]], asked: Vendors, today: str) -> Iterator[Edit | str]:
    urls: dict[str, str] = {}
    for platform in _platforms(catalog, ("x86_64",)):
        for name in ("docker", "toolkit", "epel"):
            repository = catalog.repository(name, platform)
            if repository is not None and repository.key_url:
                urls[repository.key_url] = " ".join(repository.fingerprints)
    for url, pinned in urls.items():
        answer = asked.key(url)
        if answer is None:
            yield f"The key {url} is not there any more."
        elif not set(answer[0]) <= set(pinned.split()):
            yield f"THE KEY HAS CHANGED: {url} has {', '.join(answer[0])}; pinned is {pinned}. Ask the vendor why before anything else."
    for row in data["repositories"]["key"]:
        if row["file"].startswith("RPM-GPG"):
            continue
        for system in row["systems"]:
            yield from _cuda_key(row, system, asked, today)


def _cuda_key(row: Row, system: str, asked: Vendors, today: str) -> Iterator[Edit | str]:
    url = f"https://developer.download.nvidia.com/compute/cuda/repos/{system}/x86_64/{row['file']}"
    answer = asked.key(url)
    where = (("file", row["file"]),)
    if answer is None:
        yield f"The key {url} is not there any more."
    elif not row["fingerprint"]:
        fingerprints, digest = answer
        if len(fingerprints) != 1 or not fingerprints[0].endswith(row["file"].split(".", 1)[0].upper()):
            yield f"{url} holds {', '.join(fingerprints)}, which is not the key it is named after."
        elif row.get("sha256", digest) != digest:
            yield f"{url} has the sha256 {digest}, not {row['sha256']} as others pinned it."
        else:
            yield f"The fingerprint of {row['file']} is now known; take it out of `withheld` of {system} once a second source confirms {fingerprints[0]}."
            yield Edit("repositories", "key", where, "fingerprint", fingerprints[0])
            yield Edit("repositories", "key", where, "verified", today)
    elif set(answer[0]) != {row["fingerprint"]}:
        yield f"THE KEY HAS CHANGED: {url} has {', '.join(answer[0])}; pinned is {row['fingerprint']}. Ask the vendor why before anything else."
    else:
        yield Edit("repositories", "key", where, "verified", today)


def _cuda(catalog: Catalog, data: Mapping[str, Mapping[str, Any]], asked: Vendors, _: str) -> Iterator[Edit | str]:
    known = [row["number"] for row in data["drivers"]["branch"]]
    seen = set()
    for platform in _platforms(catalog, ("x86_64", "aarch64")):
        repository = catalog.repository("cuda", platform)
        if repository is None or repository.uri in seen:
            continue
        seen.add(repository.uri)
        packages = _packages(asked, repository, platform)
        if packages is None:
            yield f"NVIDIA does not serve {repository.uri} any more."
            continue
        served = sorted(vendors.driver_branches(packages), key=int)
        if not served:
            yield f"No driver was found in {repository.uri}."
            continue
        row = f"as the row of {platform.base} says"
        if int(served[0]) > int(platform.cuda_first):
            yield f"{repository.uri} begins with branch {served[0]}, not {platform.cuda_first} {row}."
        if served[-1] != (platform.cuda_last or known[-1]):
            yield f"{repository.uri} ends with branch {served[-1]}, not {platform.cuda_last or known[-1] + ', the newest known,'} {row}."


def _installers(_: Catalog, data: Mapping[str, Mapping[str, Any]], asked: Vendors, today: str) -> Iterator[Edit | str]:
    """The checksums of .run files, as NVIDIA publishes them beside the files. They are compared and never written: a pin is confirmed, not followed."""
    drivers = data["drivers"]
    newest = {row["number"]: row["newest"] for row in drivers["branch"]}
    for row in drivers["runfile"]:
        url = f"{drivers['installer']['base']}/{row['path']}.sha256sum"
        answer = asked.get(url)
        digest = re.match(r"[0-9a-f]{64}\b", answer.decode("ascii", "replace")) if answer is not None else None
        if digest is None:
            yield f"{url} is not there, or no checksum: see whether the file itself is."
        elif digest[0] != row["sha256"]:
            yield f"THE FILE HAS CHANGED: {url} says {digest[0]}; pinned is {row['sha256']}. Ask the vendor why before anything else."
        else:
            yield Edit("drivers", "runfile", (("version", row["version"]), ("arch", row["arch"])), "verified", today)
        if version_key(newest[row["branch"]]) > version_key(row["version"]):
            yield f"Branch {row['branch']} is at {newest[row['branch']]}; the installer for {row['arch']} is still {row['version']} in drivers.toml."


def _packages(asked: Vendors, repository: Repository, platform: Platform) -> dict[str, list[str]] | None:
    if platform.family != "debian":
        return asked.rpm_packages(repository.uri)
    if repository.components:
        folder = f"{repository.uri}/dists/{repository.suite}/{repository.components[0]}/binary-{platform.deb_arch}"
        return asked.deb_packages(folder)
    return asked.deb_packages(repository.uri)


def _platforms(catalog: Catalog, arches: Sequence[str]) -> Iterator[Platform]:
    for row in catalog.systems:
        for arch in arches:
            version = row.get("minimum") or row["version"]
            yield catalog.platform(OsRelease(row["id"], version, row.get("codename", "")), arch)


# ---------------------------------------------------------------- writing


def rewritten(text: str, edit: Edit) -> str:
    """The text of a data file with one value changed, everything else (comments, order, spaces) as it was. Raises KeyError where there is no such row."""
    blocks = re.split(rf"(?m)^(?=\[\[{re.escape(edit.table)}\]\]$)", text)
    for number, block in enumerate(blocks[1:], 1):
        own, rest = _own(block)
        if all(re.search(rf'(?m)^{re.escape(k)} = (?:\[)?"{re.escape(v)}"', own) for k, v in edit.where):
            changed, count = re.subn(rf'(?m)^{re.escape(edit.key)} = "[^"\n]*"$', f'{edit.key} = "{edit.value}"', own, count=1)
            if count:
                return "".join([*blocks[:number], changed + rest, *blocks[number + 1 :]])
    raise KeyError(f"{edit.file}.toml has no [[{edit.table}]] with {dict(edit.where)} and {edit.key}")


def _own(block: str) -> tuple[str, str]:
    """A table's own lines, and what follows it."""
    following = re.search(r"(?m)^\[", block[2:])
    at = following.start() + 2 if following else len(block)
    return block[:at], block[at:]


def differences(folder: Path, edits: Sequence[Edit]) -> dict[str, tuple[str, str]]:
    """File name -> its text before and after, for every file that changes."""
    found: dict[str, tuple[str, str]] = {}
    for edit in edits:
        name = f"{edit.file}.toml"
        before, after = found.get(name, (None, None))
        if before is None or after is None:
            before = after = (folder / name).read_text(encoding="utf-8")
        found[name] = (before, rewritten(after, edit))
    return {name: texts for name, texts in found.items() if texts[0] != texts[1]}


def diff(changes: Mapping[str, tuple[str, str]]) -> str:
    """The changes as a unified diff with enough around each to see which row it is."""
    lines: list[str] = []
    for name, (before, after) in sorted(changes.items()):
        lines += difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"data/{name}", f"data/{name}", n=5)
    return "".join(lines)


def _toml(folder: Path, name: str) -> dict[str, Any]:
    return parsed_toml((folder / f"{name}.toml").read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None, today: str = "") -> int:
    """Exit code 0: nothing to say, or written; 1: something for a person to decide, or (with --check) more than dates differ."""
    parser = argparse.ArgumentParser(prog="python -m provision.refresh", description="Bring the catalog up to date with what the vendors serve.")
    parser.add_argument("--check", action="store_true", help="only show what would change, and exit 1 if more than dates would")
    parser.add_argument("--via", default="", metavar="URL", help="ask this server, which has the vendors' files under /HOST/PATH")
    parser.add_argument("--data", type=Path, default=DATA, metavar="FOLDER", help="the data files to bring up to date")
    options = parser.parse_args(arguments)
    data: dict[str, dict[str, Any]] = {}

    def read(name: str) -> dict[str, Any]:
        if name not in data:
            data[name] = _toml(options.data, name)
        return data[name]

    read("drivers"), read("repositories")
    found = ask(load(read, enable_all=True), data, Vendors(options.via), today or datetime.datetime.now(datetime.timezone.utc).date().isoformat())
    changes = differences(options.data, found.edits)
    sys.stdout.write(diff(changes))
    for notice in found.notices:
        sys.stdout.write(f"! {notice}\n")
    if not options.check:
        for name, (_, after) in changes.items():
            (options.data / name).write_text(after, encoding="utf-8")
    return int(bool(found.notices) or (options.check and any(edit.key != "verified" for edit in found.edits)))


if __name__ == "__main__":
    sys.exit(main())
