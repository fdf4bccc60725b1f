"""`mlhost verify`."""

from __future__ import annotations

import click

from provision.cli.options import (
    Connection,
    Output,
    Playbook,
    connection_options,
    output_options,
    playbook_options,
    targets_argument,
)


@click.command(epilog="""
\b
Examples:
  mlhost verify                                  this machine
  mlhost verify root@gpu-7 root@gpu-8
  mlhost verify --format junit --out report.xml gpu-7

\b
Exit codes: 0 proved, 7 not what the playbook says, 1 failed, 2 wrong usage or playbook, 4 unreachable,
5 unsupported. For several hosts that of the host worst off, in the order 1, 7, 2, 4, 5, 0.
""")
@targets_argument
@playbook_options
@click.option("--timeout", type=click.FloatRange(min=1), metavar="SECONDS", help="Stop a check that takes longer than this.")
@connection_options
@output_options("text", "json", "junit")
@click.pass_context
def command(
    ctx: click.Context, *, targets: tuple[str, ...], desired: Playbook, connection: Connection, output: Output, timeout: float | None
) -> int:
    """Prove that machines are what the playbook says. Changes nothing.

    It looks at everything the plan would look at, then runs the smoke container: with GPUs, `nvidia-smi` in it must see exactly the GPUs that
    the host and the PCI bus have.
    """
    from provision.cli.ahead import ahead, look_ahead
    from provision.cli.output import check_out

    check_out(output)
    opened = ahead(targets, connection)
    loaded = desired.load()
    steps = desired.steps(loaded)
    first = look_ahead(opened, loaded.spec, steps)

    from provision import prove, run
    from provision.catalog import load as load_catalog
    from provision.cli.hosts import report_hosts

    catalog = load_catalog()
    options = run.RunOptions(timeout=timeout, steps=steps, first=first)
    return report_hosts(
        ctx, targets, connection, output, lambda transport, progress, _ask: prove.verify(transport, loaded, catalog, options, progress), opened
    )
