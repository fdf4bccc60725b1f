"""`mlhost support-bundle`."""

from __future__ import annotations

import re
import time

import click

from provision.cli.options import (
    Connection,
    Fleet,
    Output,
    Playbook,
    connection_options,
    fleet_options,
    output_options,
    playbook_options,
    targets_argument,
)
from provision.errors import UsageError


@click.command(epilog="""
\b
Examples:
  mlhost support-bundle                          this machine
  mlhost support-bundle --out gpu-7.tar.gz root@gpu-7
  mlhost doctor --capture gpu-7.tar.gz           what the one who gets it does

\b
Exit codes: 0 written, 1 failed, 2 wrong usage, 4 unreachable.
""")
@targets_argument
@click.option("--capture", metavar="FILE", help="Make it from what `mlhost facts --format raw` printed elsewhere (`-`: standard input).")
@playbook_options
@fleet_options
@connection_options
@output_options("text")
@click.pass_context
def command(
    ctx: click.Context, *, targets: tuple[str, ...], capture: str | None, desired: Playbook, connection: Connection, fleet: Fleet, output: Output
) -> int:
    """Pack what a helper needs to see of a machine into one file.

    In it: one deep look at the machine, mlhost's own journal there, the plan, the diagnosis and versions. Passwords, tokens, keys and account
    numbers are taken out; host names and addresses stay. Look through it before you share it. Changes nothing.
    """
    from provision.cli.output import check_out, write_bytes

    check_out(output)
    hosts = fleet.choose(ctx, targets, connection)
    if len(hosts) > 1 or (hosts and capture):
        raise UsageError("A support bundle is of one machine.", "Name one target, or one --capture.")

    from provision.catalog import load as load_catalog
    from provision.cli.fleet import name_of
    from provision.cli.hosts import on_hosts, single_error, tracebacks
    from provision.cli.trees import capture_bytes
    from provision.look import RunOptions
    from provision.report.layout import count
    from provision.supportbundle import collect, files, pack

    loaded, catalog = desired.load(), load_catalog()
    if capture is not None:
        members = files(capture_bytes(None, None, capture, loaded), {}, loaded, catalog, name_of(capture))
    else:
        options = RunOptions(steps=desired.steps(loaded))
        results = on_hosts(hosts, connection, output, lambda transport, progress, _ask: collect(transport, loaded, catalog, options, progress))
        single_error(results)
        tracebacks(ctx, results)
        members = results[0].value or {}
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", hosts[0] if hosts else "here").strip("-.")
    where = output.out or f"mlhost-support-{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar.gz"
    content = pack(members)
    write_bytes(content, output._replace(out=where), 0o600)
    click.echo(f"{where}: {count(len(members), 'file')}, {(len(content) + 1023) // 1024} KiB. Look through it before you share it.")
    return 0
