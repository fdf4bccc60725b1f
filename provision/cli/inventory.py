"""`mlhost inventory`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from provision.cli.options import Output, output_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provision.inventory.model import Host


@click.command(epilog="""
\b
Examples:
  mlhost inventory fleet.yaml                    mlhost's own file, or Ansible's (INI, YAML)
  mlhost inventory fleet.yaml --limit 'train,!gpu-9'
  ansible-inventory --list | mlhost inventory -
  mlhost inventory outputs.json#gpu_nodes        from `terraform output -json`
  mlhost inventory 'ssh:gpu-*'                   hosts that ssh_config names
  mlhost inventory aws:region=eu-west-1,tag:Role=gpu
  mlhost inventory azure:group=train,tag:Role=gpu --format json

\b
Exit codes: 0 shown, 1 refused (by a cloud), 2 wrong usage or a wrong inventory, 4 unreachable.
""")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--limit", multiple=True, metavar="PATTERN", help="Only these hosts: names, groups, * and ?, `!not`, `&and`. Repeatable.")
@click.option("-F", "--ssh-config", metavar="FILE", help="For ssh:PATTERN: read this ssh_config instead of the usual ones.")
@output_options("text", "json", "hosts")
def command(*, sources: tuple[str, ...], limit: tuple[str, ...], ssh_config: str | None, output: Output) -> int:
    """Show which hosts a source has, as `-i SOURCE` would take them. Connects to no host.

    A SOURCE is a file (mlhost's YAML, Ansible's INI, YAML or --list JSON, Terraform's output JSON; `-`: standard input), ssh:PATTERN, or a
    cloud: aws:KEY=VALUE,… and azure:KEY=VALUE,…. `--format hosts` prints one [user@]host[:port] a line.
    """
    from provision.cli.output import check_out, errors, write, write_json
    from provision.inventory.patterns import select
    from provision.inventory.sources import resolve
    from provision.report.sanitize import line

    check_out(output)
    found = resolve(sources, ssh_config)
    for note in found.notes:
        errors(f"mlhost: {line(note, 1000)}")
    hosts = select(found, limit, "--limit: ")
    if output.format == "json":
        write_json({"schema": 1, "hosts": [as_json(host) for host in hosts], "notes": list(found.notes)}, output)
    elif output.format == "hosts":
        write("\n".join(line(host.target) for host in hosts), output)
    else:
        write(as_text(hosts, output.verbose), output)
    return 0


def as_json(host: Host) -> dict[str, object]:
    """One host for programs; what is named like a secret is `***`."""
    from provision.inventory.model import shown

    return {
        "name": host.name,
        "target": host.target,
        "address": host.address,
        "user": host.user,
        "port": host.port,
        "identity": host.identity,
        "groups": list(host.groups),
        "playbook": host.playbook,
        "set": [_set(text) for text in host.sets],
        "variables": {name: shown(name, value) for name, value in host.variables.items()},
        "source": host.where,
    }


def as_text(hosts: Sequence[Host], verbose: bool) -> str:
    """A line for each host, and how many there are."""
    from provision.inventory.model import shown
    from provision.report.layout import count
    from provision.report.sanitize import line

    names = max((len(line(host.name)) for host in hosts), default=0)
    targets = max((len(line(host.target)) for host in hosts), default=0)
    rows = []
    for host in hosts:
        words = [",".join(host.groups)]
        words += [f"playbook={host.playbook}"] if host.playbook else []
        words += [_set(text) for text in host.sets]
        rows.append(f"{line(host.name):<{names}}  {line(host.target):<{targets}}  {line(' '.join(word for word in words if word), 400)}".rstrip())
        if verbose:
            rows += [f"    {line(name)}: {line(shown(name, value), 400)}" for name, value in host.variables.items()]
            rows += [f"    from {line(host.where)}"]
    return "\n".join([*rows, count(len(hosts), "host")])


def _set(text: str) -> str:
    """A `--set` for people: the login in a URL and what is named like a secret is `***`."""
    import re

    from provision.inventory.model import shown

    name, _, value = text.partition("=")
    return f"{name}={shown(name, re.sub(r'://[^/?#@]*@', '://***@', value))}"
