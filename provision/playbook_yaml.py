"""Playbook text -> a small tree that knows where each value stands. YAML is bounded and plain here: one document, no tags, no duplicate keys.

Everything that can be wrong with a text ends in `UsageError` naming file, line and column (both counted from 1).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

import yaml

from provision.errors import UsageError

MAX_BYTES = 1024 * 1024
MAX_NODES = 10_000
MAX_DEPTH = 32

STR, INT, FLOAT, BOOL, NULL = "str", "int", "float", "bool", "null"
_NAMESPACE = "tag:yaml.org,2002:"
# What YAML 1.1 admits in a text; checked first because the two loaders report the rest differently.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
    return _Reader(lambda line, column: f"{show(name, 200)}:{line + 1}:{column + 1}").read(text)


def parse_value(text: str, where: str) -> Node | None:
    """A value written in YAML on the command line; messages name `where`. Raises UsageError."""
    return _Reader(lambda _line, _column: where).read(text)


class _Reader:
    """One pass over the events to bound them, then composed nodes turned into a tree of our own."""

    def __init__(self, where: Callable[[int, int], str]) -> None:
        self._where = where
        self._nodes = 0

    def read(self, text: str) -> Node | None:
        bad = _UNPRINTABLE.search(text)
        if bad:
            line, column = text.count("\n", 0, bad.start()), bad.start() - (text.rfind("\n", 0, bad.start()) + 1)
            raise UsageError(f"{self._where(line, column)}: character U+{ord(bad.group()):04X} does not belong in a YAML text.",
                             "Is this the right file? A playbook is plain text.")
        try:
            self._bound(text)
            root = yaml.compose(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            where = self._where(mark.line, mark.column) if mark else self._where(0, 0)
            what = exc.problem or exc.context or "it cannot be read"
            lines = text.split("\n")
            shown = lines[mark.line] if mark and mark.line < len(lines) else ""
            tab = "\t" in shown[: len(shown) - len(shown.lstrip())]
            fix = "Indent with spaces, not tabs." if tab else "Look at this line and the one before it: indentation, a missing quote or colon?"
            raise UsageError(f"{where}: not valid YAML: {show(what)}.", fix) from None
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as exc:
            # The pure Python loader lets chr() and int() fail on absurd escapes and directives.
            raise UsageError(f"{self._where(0, 0)}: not valid YAML: {show(str(exc))}.", "Is this the right file?") from None
        return None if root is None else self._node(root, 0)

    def _at(self, thing: Any) -> str:
        mark = thing.start_mark
        return self._where(mark.line, mark.column)

    def _bound(self, text: str) -> None:
        depth = nodes = documents = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise UsageError(f"{self._at(event)}: a second YAML document begins here.",
                                     "A playbook is one document: drop the `---` or split the file.")
            elif isinstance(event, yaml.NodeEvent):
                nodes += 1
                tag = getattr(event, "tag", None)
                if tag is not None:
                    raise UsageError(f"{self._at(event)}: the tag `{show(tag)}` is not allowed.",
                                     "Playbooks use plain YAML: leave the tag out, quote what must stay text.")
                if isinstance(event, yaml.CollectionStartEvent):
                    depth += 1
                self._check(nodes, depth, event)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _check(self, nodes: int, depth: int, thing: Any) -> None:
        if depth > MAX_DEPTH:
            raise UsageError(f"{self._at(thing)}: nested deeper than {MAX_DEPTH} levels.", "No setting is that deep.")
        if nodes > MAX_NODES:
            raise UsageError(f"{self._at(thing)}: more than {MAX_NODES} values, aliases counted as often as they are used.",
                             "A playbook is a short file.")

    def _node(self, node: Any, depth: int) -> Node:
        self._nodes += 1
        self._check(self._nodes, depth, node)
        where = self._at(node)
        if isinstance(node, yaml.ScalarNode):
            return Scalar(node.value, node.tag[len(_NAMESPACE):] if node.tag.startswith(_NAMESPACE) else node.tag, where)
        if isinstance(node, yaml.SequenceNode):
            return Seq(tuple(self._node(item, depth + 1) for item in node.value), where)
        return Map(self._entries(node, depth), where)

    def _entries(self, node: Any, depth: int) -> tuple[tuple[Scalar, Node], ...]:
        own: dict[str, tuple[Scalar, Node]] = {}
        merged: dict[str, tuple[Scalar, Node]] = {}
        for key_node, value_node in node.value:
            key = self._node(key_node, depth + 1)
            if not isinstance(key, Scalar):
                raise UsageError(f"{key.where}: a key must be a word, not a list or a mapping.",
                                 "If this is a value, put it after its key and a colon.")
            value = self._node(value_node, depth + 1)
            if key.tag == "merge":
                for other in value.items if isinstance(value, Seq) else (value,):
                    if not isinstance(other, Map):
                        raise UsageError(f"{key.where}: `<<` merges mappings only.",
                                         "Write `<<: *anchor` where the anchor marks a mapping.")
                    for entry in other.entries:
                        merged.setdefault(entry[0].text, entry)
                continue
            if key.text in own:
                raise UsageError(f"{key.where}: the key `{show(key.text)}` is here twice; first at {own[key.text][0].where}.",
                                 "Keep one of them.")
            own[key.text] = (key, value)
        return (*own.values(), *(entry for text, entry in merged.items() if text not in own))
