"""`mlhost status`."""

from __future__ import annotations

import click

from provision.cli import Session
from provision.cli.options import Connection, Fleet, Output, connection_options, fleet_options, output_options, targets_argument


@click.command(epilog="""
\b
Examples:
  mlhost status                                  this machine
  mlhost status -i fleet.yaml                    every host of an inventory
  mlhost status --follow root@gpu-7              watch the run there to its end

\b
Exit codes: 0 where the run that is shown ended well or goes on, or where there is none; 6 where it waits for
a reboot; 1 where it failed.
""")
@targets_argument
@click.option("-f", "--follow", is_flag=True, help="Watch a run that goes on until it ends.")
@fleet_options
@connection_options
@output_options("text", "json")
@click.pass_context
def command(ctx: click.Context, targets: tuple[str, ...], connection: Connection, fleet: Fleet, output: Output, follow: bool) -> int:
    """Show or follow a run that goes on (or ended) on a machine.

    A run is on the machine itself and needs no connection; this only reads its journal.
    """
    from provision.cli.hosts import report_hosts
    from provision.cli.output import check_out
    from provision.status import status

    check_out(output)
    ctx.ensure_object(Session).interrupted = "Stopped watching. What runs on the machine goes on there."
    return report_hosts(ctx, fleet.choose(ctx, targets, connection), connection, output, lambda transport, progress, _ask: status(transport, follow, progress))
