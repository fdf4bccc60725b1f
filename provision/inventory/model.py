"""The one value that every source of hosts is read into. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Optional

from provision.errors import UsageError

_SECRET = re.compile(r"pass(w|phrase)|secret|token|credential|api[_-]?key|vault", re.IGNORECASE)
ALL = "all"


@dataclass(frozen=True)
class Host:
    """One host of an inventory.

    `name` is what it is called there and what is shown; `address` where it is reached (host name, IP address or ssh_config Host). What is None
    is for the command line and ssh_config to decide. `playbook` and `sets` win over those of the command line's defaults, not over what was
    given there. `where` says what it was read from.
    """

    name: str
    address: str
    user: Optional[str] = None
    port: Optional[int] = None
    identity: Optional[str] = None
    groups: tuple[str, ...] = ()
    playbook: Optional[str] = None
    sets: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    where: str = ""

    @property
    def target(self) -> str:
        """`[user@]host[:port]`, as a transport takes it."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


@dataclass(frozen=True)
class Inventory:
    """Hosts in the order of their source, each name once. `notes` are what a source has that was left out, for standard error."""

    hosts: tuple[Host, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group -> the names of its hosts, in the hosts' order."""
        found: dict[str, list[str]] = {}
        for host in self.hosts:
            for group in host.groups:
                found.setdefault(group, []).append(host.name)
        return {group: tuple(names) for group, names in found.items()}


def join(parts: Sequence[Inventory]) -> Inventory:
    """Several inventories as one. Raises UsageError where two give the same name to different hosts."""
    hosts: dict[str, Host] = {}
    for part in parts:
        for host in part.hosts:
            known = hosts.setdefault(host.name, host)
            if known.target != host.target:
                raise UsageError(
                    f"{host.where}: the host {host.name!r} is {host.target} here, and {known.target} in {known.where}.",
                    "Give one of them another name.",
                )
            if known is not host:
                groups = tuple(dict.fromkeys((*known.groups, *host.groups)))
                hosts[host.name] = replace(known, groups=groups, variables={**host.variables, **known.variables})
    return Inventory(tuple(hosts.values()), tuple(note for part in parts for note in part.notes))


def shown(name: str, value: str) -> str:
    """A variable's value for people: `***` for what is named like a secret."""
    return "***" if value and _SECRET.search(name) else value
