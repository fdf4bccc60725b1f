"""Free space, whole disks, and the paths that were asked about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from provision.facts.system import MountPoint
from provision.facts.text import ABSENT, Sections, get, number, rows, words
from provision.model import BlockDevice, Disk, PathFact

# Every repetition is bounded, so that no line takes longer than its length.
_GAP = r"[ \t]{1,60}"
_COUNT = rf"{_GAP}([0-9]{{1,20}}|-)"
_SHARE = rf"{_GAP}(?:-?[0-9]{{1,20}}%|-)"
_FREE = rf"{_GAP}(-?[0-9]{{1,20}}|-)"
_DF = re.compile(rf"(?<=\S){_COUNT}{_COUNT}{_FREE}{_SHARE}{_GAP}(/.*)\Z")
_BOTH = re.compile(rf"(?<=\S){_COUNT}{_COUNT}{_FREE}{_SHARE}{_COUNT}{_COUNT}{_FREE}{_SHARE}{_GAP}(/.*)\Z")
_KINDS = {"regular file": "file", "regular empty file": "file", "directory": "dir", "symbolic link": "link"}


def disks(sections: Sections, mounts: Iterable[MountPoint]) -> dict[str, Disk]:
    """Free space by the path asked for. df answers in the order of the paths; where it left one out, none can be told apart. GNU's tells of space
    and inodes at once (section df_both), others are asked twice, in POSIX format (df, df_inodes)."""
    asked = list(rows(get(sections, "disk_paths").text))
    filesystems = {mount.path: mount.filesystem for mount in mounts}
    both = list(_rows(_BOTH, get(sections, "df_both").text))
    blocks = [row[:3] + row[-1:] for row in both] or list(_rows(_DF, get(sections, "df").text))
    inodes = [row[3:] for row in both] or list(_rows(_DF, get(sections, "df_inodes").text))
    if len(blocks) != len(asked):
        return {}
    found: dict[str, Disk] = {}
    for index, (path, row) in enumerate(zip(asked, blocks)):
        total, free, mount = number(row[0]), number(row[2]), row[3]
        if total is None or free is None:
            continue
        nodes = inodes[index] if len(inodes) == len(asked) else ("", "", "", "")
        found.setdefault(path, Disk(path, mount, free, total, number(nodes[2]) if number(nodes[0]) else None, filesystems.get(mount, "")))
    return found


def _rows(form: re.Pattern[str], text: str) -> Iterator[tuple[str, ...]]:
    """The columns of every line of df's but its headings."""
    for row in list(rows(text))[1:]:
        parts = form.search(row.strip())
        if parts:
            yield parts.groups()


def block_devices(sections: Sections, mounts: Iterable[MountPoint]) -> tuple[BlockDevice, ...] | None:
    """The whole disks. `content` is "" only where the probe saw that nothing is on one; "unknown" where it could not look."""
    section = get(sections, "blocks")
    if section.rc != 0:
        return () if section.rc == ABSENT else None
    by_device: dict[str, list[MountPoint]] = {}
    for mount in mounts:
        if mount.device.startswith("/dev/"):
            by_device.setdefault(mount.device[5:], []).append(mount)
    found = []
    for row in rows(section.text):
        head, _, model = row.partition(" model=")
        name, _, rest = head.partition(" ")
        before, _, kind = rest.partition(" type=")
        values = words(before)
        size = number(values.get("sectors"))
        if not size or size < 0 or values.get("ro") == "1":
            continue
        parts = [part for part in values.get("parts", "").split(",") if part]
        own = by_device.get(name, [])
        used = own + [mount for part in parts for mount in by_device.get(part, [])]
        found.append(BlockDevice(
            name=name, size=size * 512, model=model.strip(), partitions=len(parts), mounts=tuple(mount.path for mount in used),
            content=_content(values, kind.strip(), own),
        ))
    return tuple(found)


def _content(values: dict[str, str], kind: str, mounts: list[MountPoint]) -> str:
    if mounts:
        return mounts[0].filesystem
    if values.get("parts"):
        return "partitions"
    if values.get("holders"):
        return "used by " + values["holders"].rstrip(",")
    code = values.get("blkid")
    if code == "0":
        return kind or "unknown"
    return "" if code == "2" and not kind else "unknown"


def paths(sections: Sections) -> tuple[dict[str, PathFact], tuple[str, ...]]:
    """The paths asked about, and those that are unknown."""
    status: dict[str, tuple[str, str, str]] = {}
    for row in rows(get(sections, "stat").text):
        mode, owner, kind, path = (*row.split("|", 3), "", "", "")[:4]
        status[path] = (mode, owner, kind)
    sums: dict[str, str] = {}
    for row in rows(get(sections, "sha256").text):
        digest, _, path = row.lstrip("\\").partition("  ")
        if re.fullmatch(r"[0-9a-f]{64}", digest):
            sums[path] = digest
    found: dict[str, PathFact] = {}
    unknown: list[str] = []
    for name, section in sections.items():
        kind, _, path = name.partition(":")
        if kind != "path":
            continue
        real = section.text.partition("\n")[0]
        if section.rc == ABSENT:
            found[path] = PathFact(path, "absent")
        elif section.rc == 0 and real in status:
            mode, owner, type_text = status[real]
            found[path] = PathFact(path, _KINDS.get(type_text, "other"), mode.zfill(4), owner, sums.get(real, ""))
        else:
            unknown.append(path)
    return found, tuple(unknown)
