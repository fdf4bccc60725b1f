"""YAML into the tree of `provision.playbook_yaml`. Apart from it because a packaged playbook needs no YAML reader, whose import takes longer than all else
about a playbook."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

from provision.errors import UsageError
from provision.playbook_yaml import Map, Node, Scalar, Seq, show

MAX_NODES = 10_000
MAX_DEPTH = 32
_NAMESPACE = "tag:yaml.org,2002:"
# What YAML 1.1 admits in a text; checked first because the two loaders report the rest differently.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Reader:
    """One pass over the events to bound them, then composed nodes turned into a tree of our own."""

    def __init__(self, where: Callable[[int, int], str], max_nodes: int = MAX_NODES) -> None:
        self._where = where
        self._max_nodes = max_nodes
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
        if nodes > self._max_nodes:
            raise UsageError(f"{self._at(thing)}: more than {self._max_nodes} values, aliases counted as often as they are used.",
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
