"""`mlhost apply`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision.cli import Session
from provision.cli.options import Connection, Fleet, Output, connection_options, fleet_options, lock_wait_option, output_options
from provision.errors import Refused, UsageError

if TYPE_CHECKING:
    from provision.cli.hosts import Ask
    from provision.model import Check, HostReport, Plan
    from provision.plan import Step
    from provision.progress import Progress
    from provision.savedplan import Saved
    from provision.transport import Transport


@click.command(epilog="""
\b
Examples:
  mlhost plan --out gpu-7.plan root@gpu-7        make a plan; read it, have it reviewed
  mlhost apply gpu-7.plan                        carry it out, if the host still is as it was
  mlhost apply -i fleet.yaml train.plan          a plan that was made with that inventory
  mlhost apply --reboot fleet.plan gpu-7         one host of a plan for several

\b
Exit codes: those of `mlhost setup`; 1 also where a host is not as it was when the plan was made (nothing is
changed then), 2 also for a file that is no plan, is damaged, or was made by another version.
""")
@click.argument("file", metavar="PLANFILE", type=click.Path())
@click.argument("targets", nargs=-1, metavar="[TARGET]...", callback=lambda _c, _p, value: tuple(dict.fromkeys(value)))
@click.option("-y", "--yes", is_flag=True, help="Answer every question (a reboot) with yes.")
@click.option("--reboot/--no-reboot", default=None, help="Allow or forbid a reboot where one is needed; wins over the playbook.")
@lock_wait_option
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Stop a stage of the work that takes longer than this.")
@click.option("--after-reboot", is_flag=True, hidden=True, help="Go on with what was begun before a reboot of this machine.")
@fleet_options
@connection_options
@output_options("text", "json", "junit", report=True)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    file: str,
    targets: tuple[str, ...],
    yes: bool,
    reboot: bool | None,
    lock_wait: int | None,
    timeout: float | None,
    after_reboot: bool,
    connection: Connection,
    fleet: Fleet,
    output: Output,
) -> int:
    """Carry out a plan that was made with `mlhost plan --out` and reviewed.

    Each host is looked at again and planned for again with the same playbook values. Where anything that was decided, or the script itself,
    would be another one now, nothing is changed on that host and the differences are shown. Else it goes as with `mlhost setup`.
    """
    from provision.cli.fleet import HERE
    from provision.cli.output import check_out

    check_out(output)
    saved = read_file(file)
    names = [host.target or HERE for host in saved.hosts]
    unknown = [target for target in targets if target not in names]
    if unknown:
        raise UsageError(f"{file} is no plan for {', '.join(unknown)}.", f"It is for {', '.join(names)}.")
    steps = load_steps(saved, file)

    from provision import run
    from provision.catalog import load as load_catalog
    from provision.cli.hosts import report_hosts

    catalog = load_catalog()
    chosen = [host for host in saved.hosts if not targets or (host.target or HERE) in targets]
    if len(chosen) > 1 and any(host.target is None for host in chosen):
        raise UsageError(f"{file} is for this machine and others.", "Name which of them.")
    wanted = reboot if reboot is not None or not yes else True
    allowed = saved.loaded.spec.reboot if wanted is None else "allow" if wanted else "never"
    shown = [host.target for host in chosen if host.target]
    ctx.ensure_object(Session).interrupted = (
        f"Stopped here. What has begun on the machine goes on there; follow it with: {' '.join(['mlhost status --follow', *shown])}"
    )
    itself = self_command(file, reboot=wanted, lock_wait=lock_wait, timeout=timeout)

    def work(transport: Transport, progress: Progress, ask: Ask | None) -> HostReport:
        def agreed(where: Transport, plan: Plan) -> tuple[Check, ...]:
            return checks(saved, getattr(progress, "name", ""), where, plan, options)

        options = run.RunOptions(
            reboot=allowed, lock_wait=lock_wait, timeout=timeout, ask=ask, self_command=itself, steps=steps, agreed=None if after_reboot else agreed
        )
        return run.setup(transport, saved.loaded, catalog, options, progress)

    hosts = fleet.choose(ctx, tuple(shown), connection) if shown else ()
    return report_hosts(ctx, hosts, connection, output, work)


def checks(saved: Saved, name: str, transport: Transport, plan: Plan, options: object) -> tuple[Check, ...]:
    """What is not as it was reviewed."""
    from provision import run
    from provision.cli.fleet import HERE
    from provision.model import Check
    from provision.savedplan import differences

    host = next(host for host in saved.hosts if (host.target or HERE) == name)
    assert isinstance(options, run.RunOptions)  # noqa: S101 - narrows the type
    found = differences(host, plan, None)
    if not found and not plan.problems:
        found = differences(host, plan, run.with_keys(plan, saved.loaded.spec, options, transport))
    return tuple(Check(difference.id, "failed", difference.text) for difference in found)


def read_file(path: str) -> Saved:
    """The plan file. Raises UsageError for one that cannot be read, is none, is damaged, or is of another version."""
    from provision.savedplan import MAX_BYTES, read

    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"The plan file {path} cannot be read: {reason}.", "Make one with `mlhost plan --out FILE`.") from None
    return read(content, path)


def load_steps(saved: Saved, path: str) -> tuple[Step, ...]:
    """The own steps' code, if it still is what the plan was made with. Raises Refused where it is not."""
    if not saved.steps:
        return ()
    from provision import ownsteps

    for (name, before), (_, now) in zip(saved.steps, ownsteps.digests([name for name, _ in saved.steps])):
        if before != now:
            raise Refused(f"The step {name} has been changed since {path} was made. Nothing was changed.", "Review a new plan: `mlhost plan --out FILE`.")
    return ownsteps.load_steps([name for name, _ in saved.steps], "")


def self_command(file: str, *, reboot: bool | None, lock_wait: int | None, timeout: float | None) -> tuple[str, ...]:
    """The command that continues this run on this machine after a reboot."""
    package_parent = str(Path(__file__).resolve().parent.parent.parent)
    words = ["/usr/bin/env", f"PYTHONPATH={package_parent}", sys.executable, "-m", "provision", "apply", os.path.abspath(file), "--after-reboot"]
    words += [] if reboot is None else ["--reboot" if reboot else "--no-reboot"]
    words += [] if lock_wait is None else ["--lock-wait", str(lock_wait)]
    words += [] if timeout is None else ["--timeout", str(timeout)]
    return tuple(words)
