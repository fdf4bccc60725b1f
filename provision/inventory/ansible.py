"""Ansible's inventories: INI and YAML files, and what `ansible-inventory --list` prints. Text or tree in, `Inventory` out.

The file formats and the order in which variables win are those of Ansible's documentation ("How to build your inventory"): all, then parent
groups, then child groups (of one depth by name), then the host. Of the variables only those that say where a host is are used. What a plain
reader cannot know (templates, vaults, plugins, group_vars) is named, with the command that resolves it: `ansible-inventory --list`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from provision.errors import UsageError
from provision.inventory import checks
from provision.inventory.model import ALL, Host, Inventory
from provision.inventory.patterns import spread
from provision.playbook_yaml import NULL, Map, Node, Scalar, Seq, show

RESOLVE = "Let Ansible resolve it: `ansible-inventory -i FILE --list > hosts.json`, and give hosts.json."
UNGROUPED = "ungrouped"
ADDRESS = ("ansible_host", "ansible_ssh_host")
PORT = ("ansible_port", "ansible_ssh_port")
USER = ("ansible_user", "ansible_ssh_user")
KEY = ("ansible_ssh_private_key_file", "ansible_private_key_file")
NOT_TAKEN = ("ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_password", "ansible_ssh_pass", "ansible_become_password", "ansible_become_pass")
SECTION = re.compile(r"\[([^\[\]]+)\]\s*(?:[#;].*)?")


@dataclass
class _Group:
    hosts: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class _Found:
    """What a file says, before it is put together."""

    groups: dict[str, _Group] = field(default_factory=dict)
    hosts: dict[str, dict[str, str]] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)

    def group(self, name: str) -> _Group:
        return self.groups.setdefault(name, _Group())

    def host(self, name: str, where: str) -> dict[str, str]:
        self.where.setdefault(name, where)
        return self.hosts.setdefault(checks.name(name, where), {})


# ---------------------------------------------------------------- INI


def ini(text: str, path: str) -> Inventory:
    """An INI inventory. Raises UsageError with file and line."""
    found = _Found()
    section, kind = UNGROUPED, "hosts"
    declared: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        where = f"{show(path, 200)}:{number}"
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        head = SECTION.fullmatch(line)
        if head:
            section, _, kind = head.group(1).partition(":")
            kind = kind or "hosts"
            if kind not in ("hosts", "children", "vars"):
                raise UsageError(f"{where}: [{show(head.group(1))}] is no section.", "There are [group], [group:children] and [group:vars].")
            checks.name(section, where, "group")
            if kind != "vars":
                found.group(section)
            declared.setdefault(section, where)
        elif kind == "vars":
            key, equals, value = line.partition("=")
            if not equals:
                raise UsageError(f"{where}: {show(line)!r} is no variable.", "Write name=value.")
            found.group(section).variables[key.strip()] = _plain(value.strip())
        elif kind == "children":
            child = line.split()[0]
            found.group(section).children.append(checks.name(child, where, "group"))
            declared.setdefault(child, where)
            found.group(child)
        else:
            _host_line(found, section, line, where)
    return _together(found, path)


def _host_line(found: _Found, section: str, line: str, where: str) -> None:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        raise UsageError(f"{where}: unbalanced quotes.", "Close them.") from None
    values: dict[str, str] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{where}: {show(word)!r} is no variable.", "After a host come name=value pairs.")
        values[key] = value
    name, port = words[0], ""
    with_port = re.fullmatch(r"((?:[^:\[\]]|\[[^\]]*\])+):([0-9]+)", name)
    if with_port:
        name, port = with_port.groups()
    for one in spread(name, where):
        host = found.host(one, where)
        host.update({"ansible_port": port} if port else {})
        host.update(values)
        found.group(section).hosts.append(one)


def _plain(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


# ---------------------------------------------------------------- YAML


def looks_like_yaml(tree: Optional[Node]) -> bool:
    """Whether a tree is an Ansible inventory: groups at the top, each with hosts, children or vars and nothing else."""
    if not isinstance(tree, Map) or not tree.entries:
        return False
    for _, node in tree.entries:
        if isinstance(node, Scalar) and node.tag == NULL:
            continue
        if not isinstance(node, Map) or not {key.text for key, _ in node.entries} <= {"hosts", "children", "vars"}:
            return False
    return True


def yaml(tree: Map, path: str) -> Inventory:
    """A YAML inventory. Raises UsageError with file, line and column."""
    found = _Found()
    _yaml_groups(found, tree)
    return _together(found, path)


def _yaml_groups(found: _Found, node: Map) -> list[str]:
    names = []
    for key, value in node.entries:
        name = checks.name(key.text, key.where, "group")
        names.append(name)
        group = found.group(name)
        for part, inside in _entries(value, f"the group {show(name)}"):
            if part.text == "children":
                children = inside if isinstance(inside, Map) else Map((), inside.where)
                if not isinstance(inside, Map) and not _empty(inside):
                    raise UsageError(f"{inside.where}: `children` is a mapping of groups.", RESOLVE)
                group.children += _yaml_groups(found, children)
            elif part.text == "vars":
                group.variables.update(_variables(inside))
            elif part.text == "hosts":
                for host, variables in _entries(inside, "`hosts`"):
                    for one in spread(host.text, host.where):
                        found.host(one, host.where).update(_variables(variables))
                        group.hosts.append(one)
            else:
                raise UsageError(f"{part.where}: a group has no key `{show(part.text)}`.", "It has hosts, children and vars.")
    return names


def _empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.tag == NULL


def _entries(node: Node, what: str) -> tuple[tuple[Scalar, Node], ...]:
    if _empty(node):
        return ()
    if isinstance(node, Seq) and what == "`hosts`":
        raise UsageError(f"{node.where}: `hosts` is a mapping in Ansible's YAML.", "Write `name:` on a line of its own, without a dash.")
    if not isinstance(node, Map):
        raise UsageError(f"{node.where}: {what} is a mapping.", RESOLVE)
    return node.entries


def _variables(node: Node) -> dict[str, str]:
    return {key.text: value.text for key, value in _entries(node, "`vars`") if isinstance(value, Scalar) and not _empty(value)}


# ---------------------------------------------------------------- ansible-inventory --list


def looks_like_list(document: Any) -> bool:
    """Whether parsed JSON is what `ansible-inventory --list` (or a dynamic inventory's `--list`) prints."""
    if not isinstance(document, Mapping) or not document:
        return False
    if "_meta" in document:
        return True
    return all(isinstance(value, Mapping) and value and set(value) <= {"hosts", "children", "vars"} for value in document.values()) and not any(
        isinstance(value.get("hosts"), Mapping) or isinstance(value.get("children"), Mapping) for value in document.values()
    )


def listed(document: Mapping[str, Any], path: str) -> Inventory:
    """The JSON of `ansible-inventory --list`. Raises UsageError naming the file and the key."""
    found = _Found()
    for name, value in document.items():
        where = f"{show(path, 200)}: {show(str(name))}"
        if name == "_meta":
            continue
        group = found.group(checks.name(str(name), where, "group"))
        parts = {"hosts": value} if isinstance(value, list) else value
        if not isinstance(parts, Mapping):
            raise UsageError(f"{where}: a group is an object with hosts, children and vars.", RESOLVE)
        for host in _strings(parts.get("hosts", []), f"{where}.hosts"):
            found.host(host, where)
            group.hosts.append(host)
        group.children += _strings(parts.get("children", []), f"{where}.children")
        variables = parts.get("vars", {})
        if isinstance(variables, Mapping):
            group.variables.update(_scalars(variables))
    hostvars = document.get("_meta", {}).get("hostvars", {}) if isinstance(document.get("_meta", {}), Mapping) else {}
    for name, variables in hostvars.items() if isinstance(hostvars, Mapping) else ():
        if isinstance(variables, Mapping):
            found.host(str(name), f"{show(path, 200)}: _meta.hostvars.{show(str(name))}").update(_scalars(variables))
    for group in list(found.groups.values()):
        for child in group.children:
            found.group(child)
    return _together(found, path)


def _strings(value: Any, where: str) -> list[str]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise UsageError(f"{where} is not a list of names.", RESOLVE)


def _scalars(values: Mapping[str, Any]) -> dict[str, str]:
    """Plain values as texts; what a vault holds stays marked."""
    return {
        str(key): "!vault" if isinstance(value, Mapping) and "__ansible_vault" in value else str(value)
        for key, value in values.items()
        if isinstance(value, (str, int, float, bool)) or (isinstance(value, Mapping) and "__ansible_vault" in value)
    }


# ---------------------------------------------------------------- together


def _together(found: _Found, path: str) -> Inventory:
    depth = _depths(found, path)
    direct: dict[str, list[str]] = {name: [] for name in found.hosts}
    for name, group in found.groups.items():
        for host in group.hosts:
            if name != ALL:
                direct[host].append(name)
    parents: dict[str, list[str]] = {name: [] for name in found.groups}
    for name, group in found.groups.items():
        for child in group.children:
            parents[child].append(name)
    notes: dict[str, None] = {}
    hosts = []
    for called, own in found.hosts.items():
        inside: dict[str, None] = {}
        todo = list(direct[called])
        while todo:
            group_name = todo.pop()
            if group_name not in inside:
                inside[group_name] = None
                todo += parents[group_name]
        inside.pop(ALL, None)
        ordered = sorted(inside, key=lambda group: (depth[group], group))
        merged: dict[str, str] = dict(found.groups[ALL].variables) if ALL in found.groups else {}
        for group_name in ordered:
            merged.update(found.groups[group_name].variables)
        merged.update(own)
        groups = tuple(each for each in found.groups if each in inside and each != UNGROUPED)
        one = _host(called, merged, groups, found.where[called], notes)
        hosts += [one] if one else []
    return Inventory(tuple(hosts), tuple(notes))


def _depths(found: _Found, path: str) -> dict[str, int]:
    """How deep each group lies below `all`, by the longest way. Raises UsageError for a circle."""
    depth: dict[str, int] = dict.fromkeys(found.groups, 1)
    for _ in range(len(found.groups) + 1):
        moved = False
        for name, group in found.groups.items():
            for child in group.children:
                below = 1 if name == ALL else depth[name] + 1
                if depth[child] < below:
                    depth[child], moved = below, True
        if not moved:
            return depth
    raise UsageError(f"{show(path, 200)}: groups are children of one another in a circle.", "Take one child out.")


def _host(name: str, values: Mapping[str, str], groups: tuple[str, ...], where: str, notes: dict[str, None]) -> Optional[Host]:
    connection = values.get("ansible_connection", "ssh")
    if connection not in ("ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh"):
        notes[f"{where}: {name} is left out, because it is not reached over SSH (ansible_connection={show(connection)})."] = None
        return None
    for key in NOT_TAKEN:
        if values.get(key):
            notes[f"{show(key)} is not taken from Ansible inventories; put such things into ssh_config, or give the sudo password's option."] = None

    def only(keys: tuple[str, ...]) -> Optional[str]:
        text = next((values[key] for key in keys if values.get(key)), None)
        if text and ("{{" in text or "{%" in text or text == "!vault"):
            kind = "is in a vault" if text == "!vault" else "is a template"
            raise UsageError(f"{where}: {keys[0]} of {name} {kind}.", RESOLVE)
        return text

    address, port, user, key_file = only(ADDRESS), only(PORT), only(USER), only(KEY)
    others = {key: value for key, value in values.items() if not key.startswith("ansible_")}
    return Host(
        name,
        checks.address(address or name, where),
        checks.user(user, where) if user else None,
        checks.port(port, where) if port else None,
        os.path.expanduser(key_file) if key_file else None,  # relative to the working directory, as for ansible
        groups,
        variables=others,
        where=where,
    )
