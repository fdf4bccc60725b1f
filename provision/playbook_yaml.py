"""Playbook text -> a small tree that knows where each value stands. YAML is bounded and plain here: one document, no tags, no duplicate keys.

Everything that can be wrong with a text ends in `UsageError` naming file, line and column (both counted from 1).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Union

from provision.errors import UsageError

MAX_BYTES = 1024 * 1024

STR, INT, FLOAT, BOOL, NULL = "str", "int", "float", "bool", "null"
_PLAIN = re.compile("true|false|0|[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Scalar:
    """One word or text as written. `tag` is what YAML takes it for (str, int, float, bool, null, timestamp, …); quoted text is always str."""

    text: str
    tag: str
    where: str


@dataclass(frozen=True)
class Seq:
    """A list."""

    items: tuple[Node, ...]
    where: str


@dataclass(frozen=True)
class Map:
    """Keys in the order written, each once; merge keys (`<<`) are already resolved."""

    entries: tuple[tuple[Scalar, Node], ...]
    where: str


Node = Union[Scalar, Seq, Map]


def show(text: str, limit: int = 80) -> str:
    """Text for a message: shortened, and with what a terminal should not be sent written as escapes."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in cut)


def read(path: str) -> str:
    """The text of the playbook at `path` (UTF-8, at most 1 MiB, a byte order mark is dropped). Raises UsageError with the system's reason."""
    name = show(path, 200)
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except ValueError:
        raise UsageError(f"{name}: a path cannot hold a NUL byte or such characters.", "Give the playbook's path.") from None
    except OSError as exc:
        reason = os.strerror(exc.errno).lower() if exc.errno else str(exc)
        raise UsageError(f"{name}: the playbook cannot be read: {reason}.",
                         "Give a readable YAML file or the name of a packaged playbook.") from None
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{name}: the file is larger than 1 MiB.", "A playbook is a short YAML file; is this the right one?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        before = raw[: exc.start]
        line, column = before.count(b"\n") + 1, exc.start - (before.rfind(b"\n") + 1) + 1
        raise UsageError(f"{name}:{line}:{column}: byte 0x{raw[exc.start]:02x} is not UTF-8 text.",
                         "Save the playbook as UTF-8.") from None


def parse(text: str, name: str) -> Node | None:
    """The text's one document, None if it is empty. `name` stands before line and column in messages. Raises UsageError."""
    from provision.playbook_reader import Reader

    return Reader(lambda line, column: f"{show(name, 200)}:{line + 1}:{column + 1}").read(text)


def parse_value(text: str, where: str) -> Node | None:
    """A value written in YAML on the command line; messages name `where`. Raises UsageError."""
    if _PLAIN.fullmatch(text):  # what most are needs no YAML reader
        return Scalar(text, BOOL if text in ("true", "false") else INT, where)
    from provision.playbook_reader import Reader

    return Reader(lambda _line, _column: where).read(text)
