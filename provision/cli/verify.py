"""`mlhost verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from provision.cli.locked import locked_option, read_lock
from provision.cli.options import (
    Connection,
    Fleet,
    Output,
    Pacing,
    Playbook,
    connection_options,
    fleet_options,
    output_options,
    pace_options,
    playbook_options,
    targets_argument,
)

if TYPE_CHECKING:
    from provision.model import HostReport
    from provision.transport import SshOptions


@click.command(epilog="""
\b
Examples:
  mlhost verify                                  this machine
  mlhost verify root@gpu-7 root@gpu-8
  mlhost verify --format junit --out report.xml gpu-7
  mlhost verify -i fleet.yaml 'train,!gpu-9'
  mlhost verify --reload --reboot gpu-7          also whether it lasts
  mlhost verify --locked fleet.lock gpu-7        also that it is at exactly the locked versions
  mlhost verify --format nagios                  one line and Nagios's exit code, for a monitor

\b
Exit codes: 0 proved, 7 not what the playbook says, 1 failed, 2 wrong usage or playbook, 4 unreachable,
5 unsupported. For several hosts that of the host worst off, in the order 1, 7, 2, 4, 5, 0.
With --format nagios: 0 OK, 2 CRITICAL (a layer is broken), 3 UNKNOWN (could not look).
""")
@targets_argument
@playbook_options
@locked_option
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Stop a check that takes longer than this.")
@click.option("--reload", is_flag=True, help="Also prove that running containers keep their GPUs through `systemctl daemon-reload`, which this runs.")
@click.option("--reboot", is_flag=True, help="Also reboot each host and prove it again. Not for the machine that this runs on.")
@click.option("--deep", is_flag=True, help="Also run a program that computes on a GPU; its image is pulled (`smoke.workload`).")
@fleet_options
@pace_options
@connection_options
@output_options("text", "json", "junit", "nagios", "prometheus", report=True)
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
    locked: str | None,
    timeout: float | None,
    reload: bool,
    reboot: bool,
    deep: bool,
) -> int:
    """Prove that machines are what the playbook says, layer by layer. Changes nothing unless asked to.

    It looks at every layer from the machine up to Docker, then runs containers: with GPUs, `nvidia-smi` in them must see exactly the GPUs that
    the host and the PCI bus have, however they are asked for. The first broken layer is named; those above it often only suffer from it.
    """
    from provision.cli.ahead import ahead, look_ahead
    from provision.cli.output import check_out

    check_out(output)
    hosts = fleet.choose(ctx, targets, connection, pacing.retry_failed)
    pace = pacing.pace(connection)
    opened = None if pacing.engine else ahead(hosts, connection)
    loaded = desired.load()
    steps = desired.steps(loaded)
    held = read_lock(locked)
    first = look_ahead(opened, loaded.spec, steps, held.names if held else ())

    from provision import prove, run
    from provision.catalog import load as load_catalog
    from provision.cli.hosts import Work, report_each

    catalog = load_catalog()
    wanted, reboots = desired.for_each(ctx, hosts, loaded, steps), pacing.reboots(connection)
    depth = prove.Depth(reload, reboot, deep)

    def told(code: int) -> int:
        if output.format != "nagios":
            return code
        from provision.report.monitoring import nagios_code

        return nagios_code(code)


    if pacing.engine:
        from provision.cli.spread import spread
        from provision.spread.job import Job

        def job(name: str, target: str, options: SshOptions) -> Job:
            own, _ = wanted(name)
            return Job(name, target, options, own, connection.sudo_password_file, timeout=timeout, depth=depth)

        return told(spread(ctx, hosts, connection, output, pacing, pace, job))

    def work(name: str | None) -> Work[HostReport]:
        own, own_steps = wanted(name)
        options = run.RunOptions(timeout=timeout, steps=own_steps, first=first, reboots=reboots, pinned=held.pinned(own.digest) if held else None)
        return lambda transport, progress, _ask: prove.verify(transport, own, catalog, options, progress, depth)

    return told(report_each(ctx, hosts, connection, output, work, opened, pace))
