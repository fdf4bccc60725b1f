"""Which hosts a command is for: names on the command line, an inventory's, and what the last run left undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, overload

import click

from provision.cli.options import Connection, Fleet, Playbook
from provision.errors import Error, UsageError

if TYPE_CHECKING:
    from provision.inventory.model import Host
    from provision.plan import Step
    from provision.playbook import Loaded


class NothingLeft(Error):
    """The last run left nothing to try again."""

    exit_code = 0


class Chosen(Sequence[str]):
    """The names of the hosts, as a command's targets are; with what an inventory says of them, and what was asked for."""

    def __init__(self, names: Sequence[str], hosts: Mapping[str, Host], sources: Sequence[str], words: Sequence[str], retried: Sequence[str] = ()) -> None:
        """`sources` and `words` are the `-i` and the targets of the command line; `retried` what the last run had left undone."""
        self._names = tuple(names)
        self.hosts, self.sources, self.words, self.retried = hosts, tuple(sources), tuple(words), tuple(retried)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._names[index]

    def __len__(self) -> int:
        return len(self._names)


def choose(ctx: click.Context, targets: Sequence[str], fleet: Fleet, connection: Connection, retry: bool = False) -> Sequence[str]:
    """The hosts that an inventory, a limit or the last run leave of the targets, in the inventory's order.

    Raises UsageError for what is wrong with an inventory or a pattern, and where nothing is left to work on; NothingLeft for a retry of nothing.
    """
    from provision.inventory.model import Host, Inventory
    from provision.inventory.patterns import select
    from provision.inventory.sources import is_cloud, resolve

    command = ctx.info_name or ""
    sources, words, retried = list(fleet.inventory), list(targets), None
    if retry:
        from provision.fleet.memory import recall

        last = recall(command)
        retried = last.failed
        if not sources and not words:
            sources, words = list(last.sources), list(last.targets)
    sources += [word for word in words if is_cloud(word)]
    plain = [word for word in words if not is_cloud(word)]
    if sources:
        inventory = resolve(sources, connection.ssh_config)
        _tell(inventory.notes)
        hosts = select(inventory, plain)
        known = {host.name: host for host in hosts}
    else:
        inventory = Inventory(tuple(Host(word, word) for word in plain))
        hosts, known = inventory.hosts, {}
    if fleet.limit:
        wanted = {host.name for host in select(inventory, fleet.limit, "--limit: ")}
        hosts = tuple(host for host in hosts if host.name in wanted)
    if not hosts:
        where = f" in {', '.join(sources)}" if sources else ""
        raise UsageError(f"There is no host to work on{where}.", "`mlhost inventory SOURCE` shows what a source has.")
    if retried is not None:
        hosts = tuple(host for host in hosts if host.name in set(retried))
        if not hosts:
            raise NothingLeft(f"The last `mlhost {command}` left nothing to try again.")
    return Chosen([host.name for host in hosts], known, sources, plain, retried or ())


def _tell(notes: Sequence[str]) -> None:
    from provision.cli.output import errors
    from provision.report.sanitize import line

    for note in notes[:20]:
        errors(f"mlhost: {line(note, 1000)}")
    if len(notes) > 20:
        errors(f"mlhost: and {len(notes) - 20} more such notes; `mlhost inventory SOURCE` shows them all.")


def about(targets: Sequence[str], name: Optional[str]) -> Optional[Host]:
    """What an inventory says of a host, where it came from one."""
    return targets.hosts.get(name) if isinstance(targets, Chosen) and name is not None else None


class Wanted:
    """The desired state of every host: the command line's, with what the inventory says for one. What is given on the command line wins."""

    def __init__(self, ctx: click.Context, targets: Sequence[str], desired: Playbook, loaded: Loaded, steps: Sequence[Step]) -> None:
        """`loaded` and `steps` are the command line's own. Raises UsageError naming the host whose values cannot be."""
        from click.core import ParameterSource

        given = ctx.get_parameter_source("playbook") not in (ParameterSource.DEFAULT, None)
        self._common = (loaded, steps)
        self._own: dict[str, tuple[Loaded, Sequence[Step]]] = {}
        made: dict[Playbook, tuple[Loaded, Sequence[Step]]] = {}
        for name in targets:
            host = about(targets, name)
            if host is None or (not host.sets and (given or not host.playbook)):
                continue
            own = Playbook(desired.playbook if given or not host.playbook else host.playbook, (*host.sets, *desired.sets))
            if own not in made:
                try:
                    made[own] = _loaded(own)
                except UsageError as error:
                    raise UsageError(f"{host.where}: the host {name}: {error.message}", error.fix) from None
            self._own[name] = made[own]

    def of(self, name: Optional[str]) -> tuple[Loaded, Sequence[Step]]:
        """A host's desired state and own steps."""
        return self._own.get(name or "", self._common)


def _loaded(desired: Playbook) -> tuple[Loaded, Sequence[Step]]:
    loaded = desired.load()
    return loaded, desired.steps(loaded)
