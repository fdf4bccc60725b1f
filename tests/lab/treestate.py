"""What a tree host has become, as values that two of them can be compared by."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from provision import render_back
from provision.capture import split
from tests.lab.treehost import TreeHost

STATE = "var/lib/mlhost"
# What differs from run to run and means nothing: logs, caches, what dpkg and passwd keep of their own last state, locks.
NOISE = re.compile(
    r"var/log(/.*)?|var/cache/.*|var/lib/dpkg/(.*-old|available|lock.*|triggers/Lock|info|parts|updates|tmp\.ci)?|"
    r"etc/(passwd|group|shadow|gshadow|subuid|subgid)-|etc/\.pwd\.lock|var/lib/apt/lists/(lock|partial)|var/lib/apt/extended_states|"
    r"etc/dpkg/dpkg.cfg.d(/.*)?|etc/dpkg|var/lib/apt/periodic(/.*)?|srv(/.*)?|run(/.*)?|tmp(/.*)?|dev(/.*)?|proc|sys|(etc|var|var/lib|usr|var/lib/apt|var/lib/apt/lists|root)|.*\.dpkg-new"
)
KEPT = re.compile(rf"{STATE}/(runs|backup|pending)(/.*)?|{STATE}/(receipts|proof|lock\.guard)|{STATE}")


def tree(host: TreeHost) -> dict[str, str]:
    """Every path that the host has beyond what it began with, with kind, mode, owner and content. Times do not count, nor does mlhost's own folder."""
    found = {}
    for path in _paths(host.upper):
        name = str(path.relative_to(host.upper))
        if NOISE.fullmatch(name) or name == STATE or name.startswith(f"{STATE}/"):
            continue
        text = _described(path, name)
        if text != next((_described(Path(lower) / name, name) for lower in host.lower.split(":") if os.path.lexists(Path(lower) / name)), ""):
            found[name] = text
    return found


def leftovers(host: TreeHost) -> list[str]:
    """Half-written files anywhere, and what is in mlhost's own folder and has no business there."""
    names = [str(path.relative_to(host.upper)) for path in _paths(host.upper)]
    half = re.compile(r".*(/\.mlhost\.[^/]*|\.mlhost|\.mlhost-back|\.dpkg-(new|tmp))")
    own = [name for name in names if name.startswith(f"{STATE}/") and not KEPT.fullmatch(name)]
    unfinished = [name for name in names if re.fullmatch(rf"{STATE}/runs/[^/]*\.new", name)]
    return sorted({*own, *unfinished, *(name for name in names if half.fullmatch(name))})


def packages(host: TreeHost) -> list[str]:
    """name version status of every package that was added."""
    rows = []
    for block in (host.upper / "var/lib/dpkg/status").read_text().split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", block, re.MULTILINE))
        if fields:
            rows.append(f"{fields['Package']} {fields['Version']} {fields['Status']}")
    return sorted(rows)


def receipts(host: TreeHost) -> list[str]:
    """What the product itself reads as receipts (also those of work that was cut off), whoever wrote them and however often."""
    sections = split(host.run(render_back.lookback(), "lab").out, "lab")
    lines = [*sections["receipts"].text.splitlines(), *(sections["pending"].text.splitlines() if "pending" in sections else [])]
    return sorted({line.partition("\t")[2] for line in lines})


def originals(host: TreeHost) -> dict[str, str]:
    """For each file that was written: what a rollback to the beginning would put back."""
    lines = (host.upper / STATE / "receipts").read_text().splitlines()
    found = {}
    for run, kind, path in (line.split("\t")[:3] for line in lines if line.count("\t") >= 2):
        if kind in ("file", "aside") and path not in found:
            backup = host.upper / STATE / "backup" / run / path.lstrip("/")
            absent = backup.with_name(backup.name + ".mlhost-absent")
            found[path] = "absent" if absent.exists() else _described(backup, "") if backup.exists() else "LOST"
    return found


def _paths(top: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(top):
        for name in (*folders, *names):
            yield Path(folder, name)


def _described(path: Path, name: str) -> str:
    status = path.lstat()
    text = f"{stat.S_IFMT(status.st_mode):o} {stat.S_IMODE(status.st_mode):o} {status.st_uid}:{status.st_gid}"
    if stat.S_ISLNK(status.st_mode):
        return f"{text} -> {os.readlink(path)}"
    if stat.S_ISCHR(status.st_mode):
        return "gone"
    if not stat.S_ISREG(status.st_mode):
        return text
    data = path.read_bytes()
    if name == "var/lib/dpkg/status":
        data = "\n\n".join(sorted(data.decode().split("\n\n"))).encode()
    return f"{text} {hashlib.sha256(data).hexdigest()}"
