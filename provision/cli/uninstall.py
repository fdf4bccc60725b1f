"""`mlhost uninstall`."""

from __future__ import annotations

import click

from provision.cli.options import (
    Connection,
    Fleet,
    Output,
    connection_options,
    fleet_options,
    lock_wait_option,
    output_options,
    targets_argument,
)
from provision.cli.rollback import carry_out


@click.command(epilog="""
\b
Examples:
  mlhost uninstall --plan root@gpu-7             what would go, what stays, and why
  mlhost uninstall root@gpu-7                    back to before mlhost; images, containers and volumes stay
  mlhost uninstall --purge-data --yes gpu-7      these too, without a question

\b
Exit codes: 0 taken back (or nothing to take back), 1 failed or refused, 2 wrong usage, 4 unreachable; with --plan
3 where there is something to be taken back.
""")
@targets_argument
@click.option("--purge-data", is_flag=True, help="Delete Docker's data too: all images, containers and volumes. Asks first.")
@click.option("--plan", "plan_only", is_flag=True, help="Show what would be taken back and what stays. Changes nothing.")
@click.option("-y", "--yes", is_flag=True, help="Answer every question (removing packages, deleting Docker's data) with yes.")
@lock_wait_option
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Stop following the work after this long; it goes on.")
@fleet_options
@connection_options
@output_options("text", "json", "junit")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    targets: tuple[str, ...],
    purge_data: bool,
    plan_only: bool,
    yes: bool,
    lock_wait: int | None,
    timeout: float | None,
    connection: Connection,
    fleet: Fleet,
    output: Output,
) -> int:
    """Take back everything that mlhost has changed on machines, and mlhost itself.

    That is `mlhost rollback --all`, and after it mlhost's own journal, receipts and environment go too. Without --purge-data all images,
    containers and volumes stay where they are.
    """
    from provision.rollback import Asked

    asked = Asked(everything=True, uninstall=True, purge=purge_data)
    return carry_out(ctx, fleet.choose(ctx, targets, connection), connection, output, asked, plan_only=plan_only, yes=yes, lock_wait=lock_wait, timeout=timeout)
