"""`mlhost image copy`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from provision.cli.image_options import gauge_of, on_term_tidy
from provision.cli.options import Connection, Fleet, connection_options, fleet_options
from provision.errors import Error, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provision.shipping.copy import End
    from provision.transport import SshOptions

HERE = ("here", "localhost", "this-machine")


@click.command(epilog="""
\b
Examples:
  mlhost image copy train:1 --to gpu-7                   from this machine's Docker
  mlhost image copy train:1 --from gpu-7                 to this machine's Docker
  mlhost image copy train:1 --from gpu-7 --to gpu-8 --to ada@gpu-9
  mlhost image copy train:1 -i fleet.yaml --to train     to every host of a group

\b
Exit codes: 0 the images are there and verified, 1 failed, 2 wrong usage, 4 unreachable. For several hosts the worst.
""")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--from", "giver", metavar="HOST", help="Take them from [user@]host[:port]. Default: this machine (`here`).")
@click.option("--to", "takers", multiple=True, metavar="HOST", help="Bring them to [user@]host[:port], or names of an inventory. Default: this machine. Repeatable.")
@click.option("--retries", type=click.IntRange(0, 100), default=1, show_default=True, metavar="N", help="Try so often again after a lost connection.")
@click.option("--level", type=click.IntRange(1, 19), default=3, show_default=True, metavar="N", help="How hard zstd compresses on the way.")
@fleet_options
@connection_options
@click.option("--no-color", is_flag=True, help="Plain text (also: the environment variable NO_COLOR).")
@click.pass_context
def copy(
    ctx: click.Context, *, images: tuple[str, ...], giver: str | None, takers: tuple[str, ...], retries: int, level: int, connection: Connection,
    fleet: Fleet, no_color: bool,
) -> int:
    """Copy images from one machine's Docker into another's over SSH, packed on the way and nowhere stored in between.

    Layers that the other Docker has already are not sent. From host to host the stream goes through this machine, so that the hosts need not know each
    other. Each image's id is compared at the end. On a host Docker must be open to the user who logs in, or to `sudo -n`.
    """
    from provision.cli.output import errors
    from provision.report.sanitize import line
    from provision.shipping.copy import copy as work
    from provision.shipping.gauge import megabytes

    options = connection.ssh_options()
    source = end(giver, (), options)
    chosen: Sequence[str] = [name for name in takers if name not in HERE]
    if fleet.inventory and chosen:
        chosen = fleet.choose(ctx, tuple(chosen), connection)
    targets = [end(name, chosen, options) for name in chosen]
    if (len(targets) < len(takers) and any(name in HERE for name in takers)) or not takers:
        targets.append(None)
    if source is None and targets == [None]:
        raise UsageError("Nothing to do: from this machine to this machine.", "Name another machine with --to or --from.")
    worst = 0
    with on_term_tidy(), gauge_of(no_color) as gauge:
        for target in targets:
            began = time.monotonic()
            try:
                done = work(images, source, target, gauge, retries, level)
            except Error as error:
                if len(targets) == 1:
                    raise
                errors(f"mlhost: {line(error.message, 2000)}\n{line(error.fix, 2000)}")
                worst = max(worst, error.exit_code)
                continue
            seconds = time.monotonic() - began
            if not done.sent:
                click.echo(f"{line(done.host)}: has {', '.join(line(name) for name, _ in done.images)} already")
                continue
            for name, image in done.images:
                click.echo(f"{line(done.host)}: {line(name)} {image}, verified")
            share = f"{done.layers} layers sent, {done.skipped} were there" if done.skipped else f"{done.layers} layers sent"
            click.echo(f"{line(done.host)}: {megabytes(done.sent)} in {seconds:.1f} s ({share})")
    return worst


def end(name: str | None, chosen: Sequence[str], options: SshOptions) -> End | None:
    """One end of the copy; None is this machine."""
    from provision.cli.hosts import reached
    from provision.shipping.copy import End
    from provision.transport import open_transport

    if name is None or name in HERE:
        return None
    target, own = reached(chosen, name, options)
    if target is None:
        return None
    return End(target, own, lambda: open_transport(target, own))
