"""`mlhost rollback`, and what it shares with `mlhost uninstall`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from provision.cli import Session
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
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.cli.hosts import Ask
    from provision.model import Plan
    from provision.progress import Progress
    from provision.rollback import Asked
    from provision.transport import Transport


@click.command(epilog="""
\b
Examples:
  mlhost rollback --plan root@gpu-7              what would be taken back, what stays, and why
  mlhost rollback root@gpu-7                     take back the last run that changed something
  mlhost rollback --all --yes gpu-7 gpu-8        to before mlhost, on two machines, asking nothing
  mlhost rollback --run 20261123T070312-a1b2c3   one run of this machine

\b
Exit codes: 0 taken back (or nothing to take back), 1 failed or refused, 2 wrong usage, 4 unreachable; with --plan
3 where there is something to be taken back.
""")
@targets_argument
@click.option("--run", "run_id", metavar="ID", help="Take back this run; the others stay.")
@click.option("--all", "everything", is_flag=True, help="Take back all runs: to before mlhost.")
@click.option("--plan", "plan_only", is_flag=True, help="Show what would be taken back and what stays. Changes nothing.")
@click.option("-y", "--yes", is_flag=True, help="Answer the question about removing packages with yes.")
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
    run_id: str | None,
    everything: bool,
    plan_only: bool,
    yes: bool,
    lock_wait: int | None,
    timeout: float | None,
    connection: Connection,
    fleet: Fleet,
    output: Output,
) -> int:
    """Take back what mlhost has changed on machines, and nothing else.

    Files, package sources, keys, holds, services, groups and packages go back to what they were before; what somebody has changed since stays,
    and the plan says so. Images, containers and volumes are never touched.
    """
    if run_id and everything:
        raise UsageError("--run names one run, --all means all of them.", "Give one of the two.")
    from provision.rollback import Asked

    asked = Asked(run_id or "", everything)
    return carry_out(ctx, fleet.choose(ctx, targets, connection), connection, output, asked, plan_only=plan_only, yes=yes, lock_wait=lock_wait, timeout=timeout)


def carry_out(
    ctx: click.Context,
    targets: Sequence[str],
    connection: Connection,
    output: Output,
    asked: Asked,
    *,
    plan_only: bool,
    yes: bool,
    lock_wait: int | None,
    timeout: float | None,
) -> int:
    """Plan or carry out the way back on every target, print it, and give the exit code."""
    from provision.catalog import load as load_catalog
    from provision.cli.hosts import report_hosts
    from provision.cli.output import check_out
    from provision.look import RunOptions
    from provision.rollback import roll_back

    check_out(output)
    catalog = load_catalog()
    if plan_only:
        return _show(ctx, targets, connection, output, asked)
    words = " ".join(["mlhost status --follow", *targets])
    ctx.ensure_object(Session).interrupted = f"Stopped here. What has begun on the machine goes on there; follow it with: {words}"
    return report_hosts(
        ctx,
        targets,
        connection,
        output,
        lambda transport, progress, ask: roll_back(
            transport, asked, catalog, RunOptions(yes=yes, lock_wait=lock_wait, timeout=timeout, ask=ask), progress
        ),
    )


def _show(ctx: click.Context, targets: Sequence[str], connection: Connection, output: Output, asked: Asked) -> int:
    from provision.catalog import load as load_catalog
    from provision.cli.hosts import on_hosts, single_error, tracebacks
    from provision.cli.output import errors, look, write, write_json
    from provision.errors import Error
    from provision.report.backtext import back_text
    from provision.report.jsonout import error_json, many_json, plan_json
    from provision.report.text import error_text
    from provision.report.verdict import plan_exit_code, worst
    from provision.rollback import plan_rollback

    if output.format == "junit":
        raise UsageError("--plan has no JUnit form.", "Use --format text or json.")
    catalog = load_catalog()

    def planned(transport: Transport, progress: Progress, _ask: Ask | None) -> Plan:
        return plan_rollback(transport, asked, catalog, progress)

    results = on_hosts(targets, connection, output, planned)
    single_error(results)
    tracebacks(ctx, results)
    if output.format == "json":
        parts = [plan_json(result.value) if result.value else error_json(result.target, result.error) for result in results]
        write_json(parts[0] if len(parts) == 1 else many_json(parts), output)
    else:
        style = look(output)
        name = len(results) > 1
        texts = [
            back_text(r.value, style, verbose=output.verbose, target=r.target if name else "", uninstall=asked.uninstall) for r in results if r.value
        ]
        write("\n\n".join(texts), output)
        for result in results:
            if result.error is not None:
                errors(error_text(result.target, result.error, style))
    codes = [plan_exit_code(r.value) if r.value else r.error.exit_code if isinstance(r.error, Error) else 1 for r in results]
    return worst(codes)
