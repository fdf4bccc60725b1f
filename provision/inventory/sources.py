"""From what stands after `-i` to an inventory: which reader a source is for, and reading its file."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Optional

from provision.errors import UsageError
from provision.inventory import ansible, own, terraform
from provision.inventory.model import Inventory, join
from provision.playbook_yaml import Map, Node, show
from provision.single import refuse

FILES = ("mlhost", "ansible", "terraform")
MAX_BYTES = 64 << 20
MAX_NODES = 2_000_000
KINDS = "A source is a file (mlhost's YAML, Ansible's INI, YAML or `--list` JSON, Terraform's output JSON), ssh:PATTERN, aws:… or azure:…."
_CLOUD = re.compile(r"(aws|azure):(?![0-9]+$)")


def is_cloud(text: str) -> bool:
    """Whether a target is a cloud's source (`aws:tag:Role=gpu`) and no host with a port (`aws:22`)."""
    return bool(_CLOUD.match(text))


def resolve(sources: Sequence[str], ssh_config: Optional[str] = None) -> Inventory:
    """All sources together. Reads files and, for clouds, asks their APIs. Raises UsageError for what is wrong with one of them."""
    return join([_one(source, ssh_config) for source in sources])


def _one(source: str, ssh_config: Optional[str]) -> Inventory:
    kind, colon, rest = source.partition(":")
    if is_cloud(source):
        refuse(source)
    if colon and kind == "ssh":
        from provision.inventory import sshhosts

        return sshhosts.read(rest, ssh_config)
    if colon and kind == "aws":
        from provision.inventory import aws

        return aws.read(source)
    if colon and kind == "azure":
        from provision.inventory import azure

        return azure.read(source)
    if colon and kind in FILES:
        return _file(rest, kind)
    return _file(source, "")


def _file(source: str, kind: str) -> Inventory:
    path, sign, output = source.partition("#")
    if os.path.exists(source):
        path, sign, output = source, "", ""
    if sign and kind not in ("", "terraform"):
        raise UsageError(f"{show(source)}: `#` names an output of Terraform, not of {kind}.", KINDS)
    text = _text(path)
    name = "standard input" if path == "-" else path
    first = text.lstrip()[:1]
    if first == "{" or kind == "terraform" or (first == "[" and _is_json(text)):
        return _json(text, name, kind, output if sign else "")
    if sign:
        raise UsageError(f"{show(source)}: `#` names an output of Terraform, and this is no JSON.", KINDS)
    if kind == "ansible" and not _yaml_name(name):
        return _beside(ansible.ini(text, name), name)
    if kind != "mlhost" and not _yaml_name(name) and _is_ini(text):
        return _beside(ansible.ini(text, name), name)
    tree = _tree(text, name)
    return _from_tree(tree, name, kind)


def _from_tree(tree: Optional[Node], name: str, kind: str) -> Inventory:
    keys = {key.text for key, _ in tree.entries} if isinstance(tree, Map) else set()
    if kind == "ansible" or (kind != "mlhost" and not keys & set(own.TOP) and ansible.looks_like_yaml(tree)):
        if not isinstance(tree, Map):
            raise UsageError(f"{show(name, 200)}: an Ansible inventory in YAML is a mapping of groups.", KINDS)
        if {"plugin"} & keys:
            raise UsageError(f"{show(name, 200)}: this is the configuration of an Ansible inventory plugin.", ansible.RESOLVE)
        return _beside(ansible.yaml(tree, name), name)
    if "plugin" in keys:
        raise UsageError(f"{show(name, 200)}: this is the configuration of an Ansible inventory plugin.", ansible.RESOLVE)
    return own.read(tree, name)


def _json(text: str, name: str, kind: str, output: str) -> Inventory:
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        at = f":{error.lineno}:{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        words = error.msg if isinstance(error, json.JSONDecodeError) else "too deeply nested"
        raise UsageError(f"{show(name, 200)}{at}: not valid JSON: {words}.", KINDS) from None
    if kind == "terraform" or output or terraform.looks_like(document):
        return terraform.read(document, name, output)
    if isinstance(document, dict) and (kind == "ansible" or ansible.looks_like_list(document)):
        return ansible.listed(document, name)
    if isinstance(document, list):
        return terraform.read(document, name)
    return _from_tree(_tree(text, name), name, kind)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _yaml_name(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _is_ini(text: str) -> bool:
    """Whether a text without a YAML name is Ansible's INI: it has a section, or does not begin with `key:`."""
    lines = [line for line in (raw.strip() for raw in text.splitlines()) if line and line[0] not in "#;"]
    if any(ansible.SECTION.fullmatch(line) for line in lines):
        return True
    return bool(lines) and not re.match(r"---|.*:(\s|$)", lines[0])


def _tree(text: str, name: str) -> Optional[Node]:
    from provision.playbook_reader import Reader

    return Reader(lambda line, column: f"{show(name, 200)}:{line + 1}:{column + 1}", MAX_NODES).read(text)


def _text(path: str) -> str:
    shown = show(path, 200)
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        elif os.path.isdir(path):
            raise UsageError(f"{shown} is a directory.", ansible.RESOLVE)
        else:
            with open(os.path.expanduser(path), "rb") as file:
                raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"The inventory {shown} cannot be read: {(error.strerror or str(error)).lower()}.", KINDS) from None
    except ValueError:
        raise UsageError(f"{shown} is no path of an inventory.", KINDS) from None
    if len(raw) > MAX_BYTES:
        raise UsageError(f"The inventory {shown} is larger than {MAX_BYTES >> 20} MiB.", KINDS)
    if raw.startswith(b"#!"):
        raise UsageError(f"{shown} is a program, which is not run here.", ansible.RESOLVE)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{shown}:{line}: byte 0x{raw[error.start]:02x} is not UTF-8 text.", "Save the inventory as UTF-8.") from None


def _beside(found: Inventory, name: str) -> Inventory:
    """With a note where variables lie beside an Ansible file, which only Ansible reads."""
    folder = os.path.dirname(os.path.abspath(name))
    there = [part for part in ("group_vars", "host_vars") if os.path.isdir(os.path.join(folder, part))]
    if not there:
        return found
    note = f"{show(name, 200)}: {' and '.join(there)} beside it are not read. {ansible.RESOLVE}"
    return Inventory(found.hosts, (*found.notes, note))
