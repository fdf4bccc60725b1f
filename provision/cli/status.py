"""`mlhost status`."""

from __future__ import annotations

import click

from provision.cli import Session
from provision.cli.locked import locked_option, read_lock
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


@click.command(epilog="""
\b
Examples:
  mlhost status                                  this machine
  mlhost status -i fleet.yaml                    every host of an inventory, a line each
  mlhost status -i fleet.yaml --report fleet.html
  mlhost status -i fleet.yaml --locked fleet.lock       also what is not at the locked versions
  mlhost status -v gpu-7                         with the whole plan
  mlhost status --follow root@gpu-7              watch the run there to its end

\b
Exit codes: 0 as the playbook wants, or a run goes on; 3 changes pending or drifted; 6 a run waits for a reboot;
1 the last run failed and left something to do, or what is to do would be refused; 4 unreachable; 5 unsupported;
2 wrong usage. With --follow: 0 where the run ended well, 1 where it failed, 6 where it waits for a reboot.
""")
@targets_argument
@playbook_options
@locked_option
@click.option("-f", "--follow", is_flag=True, help="Watch a run that goes on until it ends.")
@fleet_options
@connection_options
@output_options("text", "json", report=True)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    targets: tuple[str, ...],
    desired: Playbook,
    connection: Connection,
    fleet: Fleet,
    output: Output,
    locked: str | None,
    follow: bool,
) -> int:
    """Show how machines stand: what mlhost did there last, and what has drifted since. Changes nothing.

    One look at each host is compared with the playbook. What was right after mlhost's last run there, and is not now, has drifted; it is
    named, with why. A run that is going on is on the machine itself and needs no connection; `--follow` watches it.
    """
    from provision import status
    from provision.catalog import load as load_catalog
    from provision.cli.hosts import Work, report_each
    from provision.cli.output import check_out
    from provision.model import HostReport

    check_out(output)
    ctx.ensure_object(Session).interrupted = "Stopped watching. What runs on the machine goes on there."
    hosts = fleet.choose(ctx, targets, connection)
    loaded = desired.load()
    held = read_lock(locked)
    wanted, catalog = desired.for_each(ctx, hosts, loaded, desired.steps(loaded)), load_catalog()

    def work(name: str | None) -> Work[HostReport]:
        loaded, steps = wanted(name)
        own = status.Wanted(loaded, catalog, steps, held.pinned(loaded.digest) if held else None)
        return lambda transport, progress, _ask: status.status(transport, follow, progress, None if follow else own)

    return report_each(ctx, hosts, connection, output, work, remember=False, text=None if follow else stands)


def stands(reports: object, style: object, *, verbose: bool = False) -> str:
    """How the hosts stand, as text."""
    from provision.report.statustext import status_text

    return status_text(reports, style, verbose=verbose)  # type: ignore[arg-type]
