"""mlhost's own inventory: YAML with `hosts`, `groups` and `defaults`, read strictly. Text in, `Inventory` out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Optional

from provision.errors import UsageError
from provision.inventory import checks
from provision.inventory.model import ALL, Host, Inventory
from provision.inventory.patterns import spread
from provision.playbook_schema import nearest
from provision.playbook_yaml import NULL, Map, Node, Scalar, Seq, show

TOP = ("hosts", "groups", "defaults")
SETTINGS = ("user", "port", "identity", "playbook", "set", "vars")
HOST_KEYS = ("address", *SETTINGS)
GROUP_KEYS = ("hosts", "children", *SETTINGS)
EXAMPLE = "For example:  hosts: {gpu-1: {address: 10.0.0.7, user: ubuntu}}"


@dataclass
class _Settings:
    """What a host, a group or the defaults say; None and nothing are for somebody else to say."""

    address: Optional[str] = None
    user: Optional[str] = None
    port: Optional[int] = None
    identity: Optional[str] = None
    playbook: Optional[str] = None
    sets: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def over(self, below: _Settings) -> _Settings:
        return _Settings(
            self.address,
            self.user or below.user,
            self.port or below.port,
            self.identity or below.identity,
            self.playbook or below.playbook,
            {**below.sets, **self.sets},
            {**below.variables, **self.variables},
        )


@dataclass
class _Group:
    settings: _Settings
    members: list[tuple[str, str]]  # name, where
    children: list[tuple[str, str]]


def read(tree: Optional[Node], path: str) -> Inventory:
    """The inventory in a YAML tree. `path` is the file's, which paths in it are relative to. Raises UsageError with file, line and column."""
    top = _map(tree, path, "an inventory") if tree is not None else {}
    _known(top, TOP, "an inventory")
    base = os.path.dirname(os.path.abspath(path))
    defaults = _settings(_entries(top, "defaults"), SETTINGS, "defaults", base)
    said, places = _hosts(top, base)
    groups = {name: _group(name, node, base) for name, node in _named(top, "groups", "group")}
    for name, one in groups.items():
        if name in said or name == ALL:
            raise UsageError(f"{path}: {name!r} is the name of a group and of something else.", "Give the group another name.")
        for child, where in one.children:
            if child not in groups:
                raise _no_such(child, where, "group", groups)
        for member, where in one.members:
            if member not in said:
                raise _no_such(member, where, "host", said)
    order = _outer_first(groups, path)
    members = {group: _members(groups, group) for group in order}
    hosts = []
    for name, own in said.items():
        inside = [group for group in order if name in members[group]]
        settings = defaults
        for group in inside:
            settings = groups[group].settings.over(settings)
        hosts.append(_host(name, own.over(settings), tuple(group for group in groups if group in inside), places[name]))
    return Inventory(tuple(hosts))


def _host(name: str, settings: _Settings, groups: tuple[str, ...], where: str) -> Host:
    if settings.address is None:
        checks.address(name, where)
    sets = tuple(f"{key}={value}" for key, value in settings.sets.items())
    return Host(
        name, settings.address or name, settings.user, settings.port, settings.identity, groups, settings.playbook, sets, settings.variables, where
    )


def _hosts(top: Mapping[str, tuple[Scalar, Node]], base: str) -> tuple[dict[str, _Settings], dict[str, str]]:
    said: dict[str, _Settings] = {}
    places: dict[str, str] = {}
    for key, node in _section(top, "hosts"):
        for name in spread(key.text, key.where):
            checks.name(name, key.where)
            if name in said:
                raise UsageError(f"{key.where}: the host {name!r} is there twice; it is also at {places[name]}.", "Write it once.")
            said[name] = _settings(_entry_map(node, f"host {name}"), HOST_KEYS, f"host {show(name)}", base)
            if name != key.text and said[name].address:
                raise UsageError(f"{node.where}: several hosts ({show(key.text)}) cannot have one `address`.", "Leave it out, or name each host.")
            places[name] = key.where
    return said, places


def _group(name: str, node: Node, base: str) -> _Group:
    entries = _entry_map(node, f"group {name}")
    settings = _settings(entries, GROUP_KEYS, f"group {show(name)}", base)
    members = [(one, word.where) for word in _words(entries, "hosts") for one in spread(word.text, word.where)]
    return _Group(settings, members, [(word.text, word.where) for word in _words(entries, "children")])


def _members(groups: Mapping[str, _Group], name: str) -> set[str]:
    found = {member for member, _ in groups[name].members}
    for child, _ in groups[name].children:
        found |= _members(groups, child)
    return found


def _outer_first(groups: Mapping[str, _Group], path: str) -> list[str]:
    """Groups so that each comes after those it is a child of: what is said nearer to the host wins. Raises UsageError for a circle."""
    order: list[str] = []
    state: dict[str, int] = {}

    def visit(name: str) -> None:
        if state.get(name) == 1:
            raise UsageError(f"{path}: the group {name!r} is its own child.", "Take one `children` entry out.")
        if name not in state:
            state[name] = 1
            for child, _ in groups[name].children:
                visit(child)
            state[name] = 2
            order.append(name)

    for name in reversed(list(groups)):
        visit(name)
    return order[::-1]


def _settings(entries: Mapping[str, tuple[Scalar, Node]], allowed: Iterable[str], what: str, base: str) -> _Settings:
    _known(entries, tuple(allowed), what)
    text = {key: _text(node, key) for key, (_, node) in entries.items() if isinstance(node, Scalar) and node.tag != NULL}
    where = {key: node.where for key, (_, node) in entries.items()}
    for key in ("address", "user", "port", "identity", "playbook"):
        if key in entries and not isinstance(entries[key][1], Scalar):
            raise UsageError(f"{where[key]}: `{key}` is a single value.", EXAMPLE)
    playbook = text.get("playbook")
    if playbook and ("/" in playbook or playbook.endswith((".yaml", ".yml"))):
        playbook = os.path.normpath(os.path.join(base, os.path.expanduser(playbook)))
    identity = text.get("identity")
    return _Settings(
        checks.address(text["address"], where["address"]) if "address" in text else None,
        checks.user(text["user"], where["user"]) if "user" in text else None,
        checks.port(text["port"], where["port"]) if "port" in text else None,
        os.path.normpath(os.path.join(base, os.path.expanduser(identity))) if identity else None,
        playbook,
        dict(_pairs(entries, "set")),
        dict(_pairs(entries, "vars")),
    )


def _pairs(entries: Mapping[str, tuple[Scalar, Node]], key: str) -> Iterator[tuple[str, str]]:
    """A mapping of plain values; a list becomes what `--set` takes for one."""
    for name, node in _section(entries, key):
        if isinstance(node, Scalar):
            yield name.text, "" if node.tag == NULL else node.text
        elif isinstance(node, Seq) and all(isinstance(item, Scalar) for item in node.items):
            yield name.text, json.dumps([item.text for item in node.items if isinstance(item, Scalar)])
        else:
            raise UsageError(f"{node.where}: `{key}` holds single values and lists of them.", "Write `docker.version: \"29.7\"`, with dots.")


# ---------------------------------------------------------------- the tree

def _map(node: Optional[Node], path: str, what: str) -> dict[str, tuple[Scalar, Node]]:
    if node is None or (isinstance(node, Scalar) and node.tag == NULL):
        return {}
    if not isinstance(node, Map):
        raise UsageError(f"{node.where or path}: {show(what)} is a mapping.", EXAMPLE)
    return {key.text: (key, value) for key, value in node.entries}


def _entry_map(node: Node, what: str) -> dict[str, tuple[Scalar, Node]]:
    return _map(node, "", what)


def _entries(top: Mapping[str, tuple[Scalar, Node]], key: str) -> dict[str, tuple[Scalar, Node]]:
    return _map(top[key][1], "", f"`{key}`") if key in top else {}


def _section(top: Mapping[str, tuple[Scalar, Node]], key: str) -> Iterator[tuple[Scalar, Node]]:
    """The entries of a mapping; a list of names stands for a mapping of names without more."""
    if key not in top:
        return
    node = top[key][1]
    if isinstance(node, Seq) and key == "hosts":
        for item in node.items:
            if not isinstance(item, Scalar):
                raise UsageError(f"{item.where}: a list of hosts holds names.", EXAMPLE)
            yield item, Scalar("", NULL, item.where)
        return
    yield from _map(node, "", f"`{key}`").values()


def _named(top: Mapping[str, tuple[Scalar, Node]], key: str, what: str) -> Iterator[tuple[str, Node]]:
    for name, node in _section(top, key):
        yield checks.name(name.text, name.where, what), node


def _words(entries: Mapping[str, tuple[Scalar, Node]], key: str) -> list[Scalar]:
    if key not in entries:
        return []
    node = entries[key][1]
    if isinstance(node, Seq) and all(isinstance(item, Scalar) for item in node.items):
        return [item for item in node.items if isinstance(item, Scalar)]
    raise UsageError(f"{node.where}: `{key}` of a group is a list of names.", f"Write `{key}: [one, two]`.")


def _text(node: Scalar, key: str) -> str:
    if not node.text.strip():
        raise UsageError(f"{node.where}: `{key}` is empty.", "Give a value, or leave the key out.")
    return node.text


def _known(entries: Mapping[str, tuple[Scalar, Node]], allowed: tuple[str, ...], what: str) -> None:
    for key, (scalar, _) in entries.items():
        if key not in allowed:
            near = nearest(key, allowed)
            hint = f"Did you mean `{near[0]}`?" if near else f"There are {', '.join(allowed)}."
            raise UsageError(f"{scalar.where}: {what} has no key `{show(key)}`.", hint)


def _no_such(name: str, where: str, what: str, known: Iterable[str]) -> UsageError:
    near = nearest(name, known)
    return UsageError(f"{where}: there is no {what} {name!r}.", f"Did you mean `{near[0]}`?" if near else f"List it under `{what}s` first.")
