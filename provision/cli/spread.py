"""Hosts worked on by the machines of a cluster (`--engine`), with the display, the reports and the exit code here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from provision.errors import UsageError

if TYPE_CHECKING:
    import click

    from provision.cli.options import Connection, Output, Pacing
    from provision.fleet.pace import Pace
    from provision.model import HostReport
    from provision.progress import Progress
    from provision.spread.job import Job
    from provision.transport import SshOptions


def spread(
    ctx: click.Context,
    hosts: Sequence[str],
    connection: Connection,
    output: Output,
    pacing: Pacing,
    pace: Pace | None,
    job_of: Callable[[str, str, SshOptions], Job],
) -> int:
    """As `provision.cli.hosts.report_each`, with every host's job, `job_of(name, target, options)`, carried out by a worker of the cluster.

    Raises UsageError for what cannot be had there; Unreachable where the cluster cannot be.
    """
    from provision.cli.hosts import report_each
    from provision.spread.dask import address_of, cluster

    address = address_of(pacing.engine or "")
    if not hosts:
        raise UsageError("--engine is for other machines, and no target is named.", "Name hosts, or an inventory with -i.")
    if connection.ask_sudo_password or connection.sudo_password_file == "-":  # noqa: S105 - a file name
        raise UsageError(
            "--engine sends no password to the workers.", "Use --sudo-password-file FILE with a file that every worker has, or a login that needs none."
        )
    with cluster(address, pacing.reboots_at_once or connection.parallel) as there:

        def elsewhere(name: str, target: str, options: SshOptions, progress: Progress) -> HostReport:
            return there.run(job_of(name, target, options), progress)

        return report_each(ctx, hosts, connection._replace(sudo_password_file=None), output, pace=pace, elsewhere=elsewhere)
