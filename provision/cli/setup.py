"""`mlhost setup`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision.cli import Session
from provision.cli.options import (
    Connection,
    Output,
    Playbook,
    connection_options,
    output_options,
    playbook_options,
    targets_argument,
)

if TYPE_CHECKING:
    from provision.playbook import Loaded


@click.command(epilog="""
\b
Examples:
  mlhost setup                                   this machine
  mlhost setup root@gpu-7 ada@gpu-8:2222         two machines over SSH, at once
  mlhost setup --yes --reboot gpu-7              ask nothing, reboot if that is needed
  mlhost setup -p docker-host --set docker.source=distro gpu-7
  mlhost setup --format junit --out report.xml gpu-7 gpu-8

\b
Exit codes: 0 set up and proved (or nothing to change), 1 failed or refused, 2 wrong usage or playbook,
4 unreachable, 5 unsupported, 6 reboot needed but not allowed, 7 verification failed. For several hosts
that of the host worst off, in the order 1, 7, 2, 4, 5, 6, 0.
""")
@targets_argument
@playbook_options
@click.option("-y", "--yes", is_flag=True, help="Answer every question (a reboot, removing conflicting packages) with yes.")
@click.option("--reboot/--no-reboot", default=None, help="Allow or forbid a reboot where one is needed; wins over the playbook.")
@click.option("--lock-wait", type=click.IntRange(min=0), metavar="SECONDS", help="Wait so long for cloud-init and package manager locks.")
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Stop a stage of the work that takes longer than this.")
@connection_options
@output_options("text", "json", "junit")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    targets: tuple[str, ...],
    desired: Playbook,
    connection: Connection,
    output: Output,
    yes: bool,
    reboot: bool | None,
    lock_wait: int | None,
    timeout: float | None,
) -> int:
    """Set machines up as GPU container hosts, and prove it.

    Without a target it works on this machine, else on each target over SSH. It plans, carries the plan out, reboots where that is needed and
    allowed, runs a container as proof, and reports. What is right already is left alone: a second run changes nothing.

    The work goes on on the machine if the connection breaks or this command is stopped; the same command, or `mlhost status --follow`, finds
    it again.
    """
    from provision.cli.ahead import ahead, look_ahead
    from provision.cli.output import check_out

    check_out(output)
    opened = ahead(targets, connection)
    loaded = desired.load()
    steps = desired.steps(loaded)
    first = look_ahead(opened, loaded.spec, steps)

    from provision import run
    from provision.catalog import load as load_catalog
    from provision.cli.hosts import report_hosts

    catalog = load_catalog()
    allowed = loaded.spec.reboot if reboot is None else "allow" if reboot else "never"
    ctx.ensure_object(Session).interrupted = (
        "Stopped here. What has begun on the machine goes on there; follow it with: "
        f"{' '.join(['mlhost status --follow', *targets])}"
    )
    itself = self_command(desired, loaded, yes=yes, reboot=reboot, lock_wait=lock_wait, timeout=timeout)
    return report_hosts(
        ctx,
        targets,
        connection,
        output,
        lambda transport, progress, ask: run.setup(
            transport,
            loaded,
            catalog,
            run.RunOptions(yes=yes, reboot=allowed, lock_wait=lock_wait, timeout=timeout, ask=ask, self_command=itself, steps=steps, first=first),
            progress,
        ),
        opened,
    )


def self_command(
    desired: Playbook, loaded: Loaded, *, yes: bool, reboot: bool | None, lock_wait: int | None, timeout: float | None
) -> tuple[str, ...]:
    """The command that continues this run on this machine after a reboot, from any directory and without a terminal."""
    package_parent = str(Path(__file__).resolve().parent.parent.parent)
    words = ["/usr/bin/env", f"PYTHONPATH={package_parent}", sys.executable, "-m", "provision", "setup"]
    words += ["--playbook", os.path.abspath(loaded.path) if loaded.path else desired.playbook]
    words += [word for value in desired.sets for word in ("--set", value)]
    words += ["--yes"] if yes else []
    words += [] if reboot is None else ["--reboot" if reboot else "--no-reboot"]
    words += [] if lock_wait is None else ["--lock-wait", str(lock_wait)]
    words += [] if timeout is None else ["--timeout", str(timeout)]
    return tuple(words)
