"""`mlhost setup`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision.cli import Session
from provision.cli.bake import Image, for_gpu_option
from provision.cli.locked import Chosen, held_options
from provision.cli.options import (
    Connection,
    Fleet,
    Output,
    Pacing,
    Playbook,
    connection_options,
    fleet_options,
    lock_wait_option,
    output_options,
    pace_options,
    playbook_options,
    targets_argument,
)
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.model import HostReport
    from provision.playbook import Loaded
    from provision.transport import SshOptions


@click.command(epilog="""
\b
Examples:
  mlhost setup                                   this machine
  mlhost setup root@gpu-7 ada@gpu-8:2222         two machines over SSH, at once
  mlhost setup --yes --reboot gpu-7              ask nothing, reboot if that is needed
  mlhost setup -p docker-host --set docker.source=distro gpu-7
  mlhost setup -i fleet.yaml --canary 1 --batch 25% --max-failures 5% train
  mlhost setup --locked fleet.lock -i fleet.yaml
  mlhost setup --bundle gpu-hosts.bundle --bundle-sha256 HASH gpu-9     without a network there
  mlhost setup -i aws:region=eu-west-1,tag:Role=gpu
  mlhost setup --format junit --out report.xml gpu-7 gpu-8
  mlhost setup --root /mnt/image --for-gpu l4    an unpacked or mounted system that becomes an image

\b
Exit codes: 0 set up and proved (or nothing to change), 1 failed or refused, 2 wrong usage or playbook,
4 unreachable, 5 unsupported, 6 reboot needed but not allowed, 7 verification failed. For several hosts
that of the host worst off, in the order 1, 7, 2, 4, 5, 6, 0.
""")
@targets_argument
@playbook_options
@click.option("-y", "--yes", is_flag=True, help="Answer every question (a reboot, removing conflicting packages) with yes.")
@click.option("--reboot/--no-reboot", default=None, help="Allow or forbid a reboot where one is needed; wins over the playbook.")
@held_options
@lock_wait_option
@click.option("--root", metavar="DIR", help="Make the unpacked or mounted system at DIR an image: nothing is started, its first boot finishes the rest.")
@for_gpu_option
@click.option("--arch", metavar="ARCH", help="With --root: the tree's architecture as `uname -m` has it.")
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Stop a stage of the work that takes longer than this.")
@fleet_options
@pace_options
@connection_options
@output_options("text", "json", "junit", report=True)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    targets: tuple[str, ...],
    desired: Playbook,
    connection: Connection,
    fleet: Fleet,
    pacing: Pacing,
    output: Output,
    yes: bool,
    reboot: bool | None,
    chosen: Chosen,
    lock_wait: int | None,
    timeout: float | None,
    root: str | None,
    arch: str | None,
    for_gpu: tuple[str, ...],
) -> int:
    """Set machines up as GPU container hosts, and prove it.

    Without a target it works on this machine, else on each target over SSH. It plans, carries the plan out, reboots where that is needed and
    allowed, runs a container as proof, and reports. What is right already is left alone: a second run changes nothing.

    With --root it works inside an unpacked or mounted system instead, and nothing of this machine is touched.

    The work goes on on the machine if the connection breaks or this command is stopped; the same command, or `mlhost status --follow`, finds
    it again.
    """
    image = Image(root, arch, for_gpu)
    image.check((targets, fleet.inventory, fleet.limit, pacing.retry_failed))
    if root is not None and chosen.words():
        raise UsageError("--root makes an image, which is not held to a lock or a bundle.", "Leave out --locked and --bundle.")
    if root is not None:
        from provision.cli import bake

        return bake.setup(ctx, image, desired, output, yes=yes, reboot=reboot, lock_wait=lock_wait, timeout=timeout)
    from provision.cli.ahead import ahead, look_ahead
    from provision.cli.output import check_out

    check_out(output)
    hosts = fleet.choose(ctx, targets, connection, pacing.retry_failed)
    pace = pacing.pace(connection)
    opened = None if pacing.engine else ahead(hosts, connection)
    loaded = desired.load()
    steps = desired.steps(loaded)
    held = chosen.open()
    first = look_ahead(opened, loaded.spec, steps, held.names if held else ())

    from provision import run
    from provision.catalog import load as load_catalog
    from provision.cli.hosts import Work, report_each

    bringing = chosen.bringing(held)
    catalog = load_catalog()
    wanted, reboots = desired.for_each(ctx, hosts, loaded, steps), pacing.reboots(connection)
    ctx.ensure_object(Session).interrupted = (
        "Stopped here. What has begun on the machine goes on there; follow it with: "
        f"{' '.join(['mlhost status --follow', *(word for source in fleet.inventory for word in ('-i', source)), *targets])}"
        + ("\nGo on with what is undone by adding --retry-failed to the same command." if len(hosts) > 1 else "")
    )

    def allowed(own: Loaded) -> str:
        return own.spec.reboot if reboot is None else "allow" if reboot else "never"

    if pacing.engine:
        if held:
            raise UsageError("--engine carries no lock and no bundle to the workers.", "Leave out --engine, or --locked and --bundle.")
        from provision.cli.spread import spread
        from provision.spread.job import Job

        def job(name: str, target: str, options: SshOptions) -> Job:
            own, _ = wanted(name)
            return Job(name, target, options, own, connection.sudo_password_file, yes, allowed(own), lock_wait, timeout)

        return spread(ctx, hosts, connection, output, pacing, pace, job)
    itself = self_command(desired, loaded, yes=yes, reboot=reboot, lock_wait=lock_wait, timeout=timeout, held=chosen.words())

    def work(name: str | None) -> Work[HostReport]:
        own, own_steps = wanted(name)
        return lambda transport, progress, ask: run.setup(
            transport,
            own,
            catalog,
            run.RunOptions(
                yes=yes, reboot=allowed(own), lock_wait=lock_wait, timeout=timeout, ask=ask, self_command=itself, steps=own_steps, first=first, reboots=reboots,
                pinned=held.pinned(own.digest) if held else None, bundle=bringing, offline=bringing is not None,
            ),
            progress,
        )

    return report_each(ctx, hosts, connection, output, work, opened, pace)


def self_command(
    desired: Playbook, loaded: Loaded, *, yes: bool, reboot: bool | None, lock_wait: int | None, timeout: float | None, held: Sequence[str] = ()
) -> tuple[str, ...]:
    """The command that continues this run on this machine after a reboot, from any directory and without a terminal."""
    package_parent = str(Path(__file__).resolve().parent.parent.parent)
    words = ["/usr/bin/env", f"PYTHONPATH={package_parent}", sys.executable, "-m", "provision", "setup"]
    words += ["--playbook", os.path.abspath(loaded.path) if loaded.path else desired.playbook]
    words += [word for value in desired.sets for word in ("--set", value)]
    words += ["--yes"] if yes else []
    words += [] if reboot is None else ["--reboot" if reboot else "--no-reboot"]
    words += [] if lock_wait is None else ["--lock-wait", str(lock_wait)]
    words += held
    words += [] if timeout is None else ["--timeout", str(timeout)]
    return tuple(words)
