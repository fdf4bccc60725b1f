"""What of a tree goes to a host and what comes back: a comparison of three states, in which nobody's edits are lost. Pure.

The states are the tree here, its copy there, and the base: both as they were when they were last made the same. A file is what its size, times and
mode say; nothing is hashed, as what differs in them is sent or fetched, and what turns out to be the same is no conflict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

IGNORE_FILE = ".mlhostignore"
# What no training reads and every host has anew; a line `!.git` in the ignore file wins over it.
DEFAULT_IGNORED = (".git/", "__pycache__/", ".venv/", ".mypy_cache/", ".pytest_cache/", ".ipynb_checkpoints/", ".DS_Store", "*.pyc")
FORTH, BACK = "forth", "back"


@dataclass(frozen=True)
class Rule:
    """One line of an ignore file."""

    pattern: re.Pattern[str]
    folder: bool
    keep: bool


@dataclass(frozen=True)
class Both:
    """A file of the base: its marks here and there."""

    here: str
    there: str


@dataclass(frozen=True)
class Moves:
    """What to do, in names relative to the tree. `fetch`: from there, over what is unchanged here; `aside`: from there, beside ours, which was changed
    too; `send`, `remove`: there; `gone`: removed there by somebody, and still here."""

    fetch: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    send: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


def rules(text: str) -> tuple[Rule, ...]:
    """An ignore file in the format of gitignore(5): `*`, `?`, `[…]`, `**`, `/` at the beginning or inside anchors, at the end means folders, `!` keeps."""
    found = []
    for raw in (*DEFAULT_IGNORED, *text.splitlines()):
        row = raw.rstrip("\r").rstrip(" ") if not raw.endswith("\\ ") else raw
        if not row or row.startswith("#"):
            continue
        keep = row.startswith("!")
        row = row[1:] if keep else row[1:] if row.startswith(("\\#", "\\!")) else row
        folder = row.endswith("/")
        row = row.rstrip("/")
        if row:
            with suppress(re.error):  # a range like [z-a], which fits nothing
                found.append(Rule(_pattern(row), folder, keep))
    return tuple(found)


def _pattern(row: str) -> re.Pattern[str]:
    """One line's pattern for a path without a slash at either end."""
    parts = row.lstrip("/").split("/")
    text = "" if "/" in row else "(?:.*/)?"
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            text += ".*" if last else "(?:.*/)?"
        else:
            text += _glob(part) + ("" if last else "/")
    return re.compile(text + r"\Z", re.DOTALL)


def _glob(part: str) -> str:
    """The regular expression for one part of a path."""
    text, at = "", 0
    while at < len(part):
        char, at = part[at], at + 1
        end = part.find("]", at + 1) if char == "[" else -1
        if char == "*":
            text += "[^/]*"
        elif char == "?":
            text += "[^/]"
        elif end > 0:
            inside, at = part[at:end], end + 1
            negated = inside.startswith(("!", "^"))
            escaped = re.sub(r"([\\\[^&~|])", r"\\\1", inside[negated:])
            text += f"(?!/)[{'^' if negated else ''}{escaped}]"
        else:
            if char == "\\" and at < len(part):
                char, at = part[at], at + 1
            text += re.escape(char)
    return text


def ignored(path: str, folder: bool, given: tuple[Rule, ...]) -> bool:
    """Whether a path (relative, without its ignored parents) is ignored: the last rule that fits decides."""
    verdict = False
    for rule in given:
        if (folder or not rule.folder) and rule.pattern.match(path):
            verdict = not rule.keep
    return verdict


def hidden(path: str, given: tuple[Rule, ...]) -> bool:
    """Whether a file is ignored, itself or by a folder that it is in."""
    return _folder_hidden(path.rpartition("/")[0], given) or ignored(path, False, given)


@lru_cache(maxsize=100_000)
def _folder_hidden(folder: str, given: tuple[Rule, ...]) -> bool:
    return bool(folder) and (_folder_hidden(folder.rpartition("/")[0], given) or ignored(folder, True, given))


def moves(base: Mapping[str, Both], here: Mapping[str, str], there: Mapping[str, str], way: str) -> Moves:
    """What to do before a run (`forth`: the copy becomes what is here) and after it (`back`: what changed there comes here).

    `here` and `there` are marks by name. On the way forth too, what changed there since is fetched first: it is the result of a run whose connection
    was lost. On the way back nothing is sent and nothing is removed on either side.
    """
    fetch, aside, send, remove, gone = [], [], [], [], []
    for name in sorted({*base, *here, *there}):
        old, ours, theirs = base.get(name), here.get(name), there.get(name)
        we_changed = ours is not None and (old is None or ours != old.here)
        they_changed = theirs is not None and (old is None or theirs != old.there)
        if they_changed:
            if we_changed:
                aside.append(name)
                send += [name] if way == FORTH else []
            elif ours is not None or old is None:
                fetch.append(name)
            else:
                aside.append(name)  # we have removed it, and it was made anew there
        elif we_changed or (ours is not None and theirs is None):
            if theirs is None and old is not None and not we_changed and way == BACK:
                gone.append(name)
            elif way == FORTH:
                send.append(name)
        elif ours is None and old is not None and theirs is not None and way == FORTH:
            remove.append(name)
    return Moves(tuple(fetch), tuple(aside), tuple(send), tuple(remove), tuple(gone))


def listing(data: bytes) -> dict[str, str]:
    """The marks that scripts/run/tree.sh lists: rows `mark TAB name`, names with their newlines escaped by `?` are left out there."""
    found = {}
    for row in data.decode("utf-8", "surrogateescape").split("\n"):
        mark, tab, name = row.partition("\t")
        if tab and safe(name):
            found[name] = mark
    return found


def safe(name: str) -> bool:
    """Whether a name from a host may be written here: relative, inside the tree, a plain one."""
    parts = name.split("/")
    return bool(name) and not name.startswith("/") and not any(part in ("", ".", "..") for part in parts) and "\0" not in name and "\n" not in name


def beside(name: str, host: str, taken: Iterable[str]) -> str:
    """A name for a version that must not replace ours: `model.py.from-gpu-7`, numbered where that is taken."""
    label = re.sub(r"[^A-Za-z0-9._-]", "-", host.rpartition("@")[2]) or "host"
    first, number, all_taken = f"{name}.from-{label}", 2, set(taken)
    text = first
    while text in all_taken:
        text, number = f"{first}.{number}", number + 1
    return text


def summary(moved: int, size: int) -> str:
    """`3 files, 1.2 MB`; `size` in bytes."""
    amount = f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB" if size >= 1000 else f"{size} bytes"
    return f"{moved} file{'' if moved == 1 else 's'}, {amount}"
