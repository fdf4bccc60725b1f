"""Terraform's (and OpenTofu's) outputs: the JSON of `terraform output -json`, or of `terraform output -json NAME`. Parsed JSON in, `Inventory` out.

An output is hosts where it is an address, a list or mapping of addresses, or of objects with an address in them. What is not is left out and
named in the notes, unless the output was asked for by name. The document's shape: developer.hashicorp.com/terraform/cli/commands/output.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from provision.errors import UsageError
from provision.inventory import checks
from provision.inventory.model import Host, Inventory
from provision.playbook_yaml import show

ADDRESS = ("address", "ansible_host", "host", "hostname", "public_ip", "public_ip_address", "public_dns", "fqdn", "private_ip", "private_ip_address", "ip", "ipv4_address")
USER = ("user", "ssh_user", "username", "admin_username", "ansible_user")
PORT = ("port", "ssh_port", "ansible_port")
KEY = ("identity", "private_key_file", "ansible_ssh_private_key_file")
NAME = ("name", "id")
_DNS = re.compile(r"(?=.{4,253}$)(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
SHAPE = "An output of hosts is an address, or a list or mapping of addresses or of objects with an `address`, `public_ip` or `private_ip`."


def looks_like(document: Any) -> bool:
    """Whether parsed JSON is all outputs of a configuration."""
    return isinstance(document, Mapping) and bool(document) and all(isinstance(v, Mapping) and {"value", "sensitive"} <= set(v) for v in document.values())


def read(document: Any, path: str, wanted: str = "") -> Inventory:
    """The hosts of all outputs, or of the one named. Raises UsageError naming the file and the output."""
    where = show(path, 200)
    if not looks_like(document):
        if wanted:
            raise UsageError(f"{where} is not all outputs, so it has none by name.", "Make it with `terraform output -json`, without a name.")
        hosts = list(_hosts(document, "terraform", where, sure=True))
        return Inventory(tuple(_unique(hosts)))
    if wanted and wanted not in document:
        from difflib import get_close_matches

        near = get_close_matches(wanted, list(document), 1)
        raise UsageError(f"{where} has no output {wanted!r}.", f"Did you mean `{near[0]}`?" if near else f"It has {', '.join(document) or 'none'}.")
    found: list[Host] = []
    notes = []
    for name, output in document.items():
        if wanted and name != wanted:
            continue
        place = f"{where}: output {show(name)}"
        if output["sensitive"] and not wanted:
            notes.append(f"{place} is sensitive and was left out; name it (`{path}#{name}`) to take it.")
            continue
        hosts = list(_hosts(output["value"], checks.name(name, place, "group"), place, sure=bool(wanted)))
        if not hosts and wanted:
            raise UsageError(f"{place} holds no host.", SHAPE)
        if not hosts:
            notes.append(f"{place} holds no address and was left out.")
        found += hosts
    return Inventory(tuple(_unique(found)), tuple(notes))


def _hosts(value: Any, group: str, where: str, *, sure: bool) -> Iterator[Host]:
    """The hosts in a value. Where it is not sure that they are ones, texts must look like addresses."""
    if isinstance(value, Mapping) and _first(value, ADDRESS) is None:
        parts = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        parts = [("", item) for item in value]
    else:
        parts = [("", value)]
    if not sure and not all(_is_host(item) for _, item in parts):
        return
    for number, (key, item) in enumerate(parts):
        yield _host(item, key, group, f"{where}[{key or number}]")


def _is_host(item: Any) -> bool:
    if isinstance(item, Mapping):
        return _first(item, ADDRESS) is not None
    return isinstance(item, str) and _is_address(item)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return bool(_DNS.fullmatch(text))
    return True


def _host(item: Any, key: str, group: str, where: str) -> Host:
    if isinstance(item, Mapping):
        address = _first(item, ADDRESS)
        if address is None:
            raise UsageError(f"{where}: there is no address in it.", SHAPE)
        user, port = _first(item, USER), _first(item, PORT)
        others = {str(k): str(v) for k, v in item.items() if isinstance(v, (str, int, float, bool)) and k not in (*ADDRESS, *USER, *PORT, *KEY, *NAME)}
        return Host(
            checks.name(key or _first(item, NAME) or address, where),
            checks.address(address, where),
            checks.user(user, where) if user else None,
            checks.port(port, where) if port else None,
            _first(item, KEY),
            (group,),
            variables=others,
            where=where,
        )
    if not isinstance(item, str) or not item:
        raise UsageError(f"{where}: {show(str(item))!r} is no host.", SHAPE)
    at = checks.whole(item, where)
    return Host(checks.name(key or at.host, where), at.host, at.user, at.port, groups=(group,), where=where)


def _first(item: Mapping[str, Any], keys: tuple[str, ...]) -> Optional[str]:
    return next((str(item[key]) for key in keys if isinstance(item.get(key), (str, int)) and not isinstance(item[key], bool) and item[key] != ""), None)


def _unique(hosts: list[Host]) -> list[Host]:
    """One host for each name; the same host in several outputs is in several groups."""
    from provision.inventory.model import join

    return list(join([Inventory((host,)) for host in hosts]).hosts)
