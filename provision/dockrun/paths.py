"""Absolute paths in a command's words: which of them are paths of this machine, and what they are called inside. Pure, given a look at the disk.

The rules, in the order in which they are asked, are those of docs/run.md. They err on the side of what a program run here would have done: a path
that is there is this machine's, and so is one to be made below a folder that is there; what every system has (/usr, /etc, /dev …) is the image's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

HOST = "/host"
# Every Linux image has its own of these.
IMAGE_OWN = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/dev", "/proc", "/sys", "/run", "/boot", "/mlhost", HOST)
# Every host has these (refspecs.linuxfoundation.org/FHS_3.0), so that their being there says nothing of what is to be made in them.
EVERYWHERE = ("/", "/home", "/opt", "/var", "/mnt", "/media", "/srv", "/root", "/Users", "/Volumes", "/private")
# Where images keep their own programs; a first word from there is not this machine's.
PROGRAMS = ("/opt", "/root", "/home/jovyan", "/workspace", "/app")
_ASSIGNED = re.compile(r"([+~]{0,2}-{0,2}[A-Za-z_][\w.@-]*=)(.+)", re.DOTALL)
_GLUED = re.compile(r"(-[A-Za-z]|@|file://)(/.*)", re.DOTALL)
_LINKS = 40


class Disk(Protocol):
    """What may be asked of this machine's files."""

    def exists(self, path: str) -> bool:
        """Whether something is there, be it a link that leads nowhere."""

    def link(self, path: str) -> str | None:
        """Where a symbolic link points; None for what is none."""


@dataclass(frozen=True)
class Mount:
    """A folder of this machine and where it is inside. `certain`: every path below it is meant, whether it is there or not."""

    source: str
    target: str
    certain: bool = False


@dataclass(frozen=True)
class Word:
    """A word of the command: as it is passed on, why it differs ("" where it does not), and what to tell the user of it."""

    text: str
    why: str = ""
    warning: str = ""


@dataclass(frozen=True)
class View:
    """What of this machine is inside, and where. `cwd` and `home` are always this machine's."""

    mounts: tuple[Mount, ...]
    cwd: str
    home: str
    disk: Disk
    tree_only: bool = False


def below(path: str, folder: str) -> bool:
    """Whether a path is a folder or in it."""
    return folder in ("/", path) or path.startswith(folder.rstrip("/") + "/")


def inside(path: str, mounts: Sequence[Mount]) -> str | None:
    """What a path is called inside, by the innermost mount that holds it; None where none does."""
    holding = [mount for mount in mounts if below(path, mount.source)]
    if not holding:
        return None
    mount = max(holding, key=lambda m: len(m.source))
    return (mount.target.rstrip("/") + path[len(mount.source.rstrip("/")) :]).rstrip("/") or "/"


def command(words: Sequence[str], view: View) -> tuple[Word, ...]:
    """Every word of a command with its paths translated; the first is a program, for which the image comes first."""
    return tuple(word(text, view, first=number == 0) for number, text in enumerate(words))


def word(text: str, view: View, first: bool = False) -> Word:
    """One word. A path alone, `name=/path`, `--name=/path`, `-I/path`, `@/path`, `file:///path`, and lists of paths joined by `:` or `,`."""
    if not text.startswith("/"):
        for pattern in (_ASSIGNED, _GLUED):
            found = pattern.fullmatch(text)
            if found and (found[2].startswith("/") or (pattern is _ASSIGNED and _GLUED.fullmatch(found[2]))):
                value = word(found[2], view)
                return Word(found[1] + value.text, value.why, value.warning)
        return Word(text, warning=_outside(text, view))
    for separator in (":", ","):
        parts = text.split(separator)
        if len(parts) > 1 and all(part.startswith("/") for part in parts) and not view.disk.exists(text):
            each = [word(part, view) for part in parts]
            return Word(separator.join(part.text for part in each), next((p.why for p in each if p.why), ""), next((p.warning for p in each if p.warning), ""))
    return _path(text, view, first)


def _path(text: str, view: View, first: bool) -> Word:
    if text.startswith("//") or "\n" in text or "\0" in text:
        return Word(text)  # `//path` is the escape: the same path to any Linux, and not ours
    path = _plain(text)
    why = _ours(path, view, first)
    if not why:
        return Word(text)
    path = _physical(path, view.disk)
    to = inside(path, view.mounts)
    if to is None:
        missing = f"{text} is there on this machine, but not in the container, which sees {' and '.join(m.source for m in view.mounts)} only; add -v {text}"
        return Word(text, warning=missing if view.disk.exists(path) else "")
    return Word(to + ("/" if text.endswith("/") and not to.endswith("/") else ""), why)


def _ours(path: str, view: View, first: bool) -> str:
    """Why a path is this machine's; "" where it is the image's."""
    if below(path, view.cwd) and view.cwd != "/":
        return f"{path} is in the working directory"
    certain = next((m for m in view.mounts if m.certain and below(path, m.source)), None)
    if certain:
        return f"{path} is in {certain.source}, which is mounted"
    if any(below(path, folder) for folder in IMAGE_OWN) or path == "/":
        return ""
    if first and any(below(path, folder) for folder in PROGRAMS) and not _personal(path, view):
        return ""
    if view.disk.exists(path):
        return f"{path} is there on this machine"
    if first:
        return ""
    folder = path
    while folder != "/" and not view.disk.exists(folder):
        folder = folder.rpartition("/")[0] or "/"
    if folder in EVERYWHERE and not (_personal(path, view) and folder != "/"):
        return ""
    return f"{path} can be made in {folder}, which is there on this machine"


def _personal(path: str, view: View) -> bool:
    return view.home not in ("", "/") and below(path, view.home)


def _outside(text: str, view: View) -> str:
    """What to say of a relative path that leads out of what the container sees."""
    if not view.tree_only or not (text == ".." or text.startswith("../") or "/../" in text):
        return ""
    path = _plain(f"{view.cwd}/{text}")
    if inside(path, view.mounts) is None and view.disk.exists(path):
        return f"{text} is {path}, which the container does not see; add -v {path}, or use --whole-host"
    return ""


def _plain(path: str) -> str:
    """Without doubled slashes, `.` and a slash at the end. `..` is taken away by its words, as shells do."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return "/" + "/".join(parts)


def _physical(path: str, disk: Disk) -> str:
    """The path without links that are absolute: those would lead to the image's own files inside. Relative ones work there as here."""
    done, rest, links = "", [part for part in path.split("/") if part], 0
    while rest:
        part = rest.pop(0)
        to = disk.link(f"{done}/{part}")
        if to is not None and to.startswith("/") and links < _LINKS:
            links += 1
            rest = [p for p in _plain(to).split("/") if p] + rest
            done = ""
        else:
            done = f"{done}/{part}"
    return done or "/"
