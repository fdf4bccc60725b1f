"""`mlhost bundle`."""

from __future__ import annotations

import os
import sys

import click

from provision.cli.locked import read_lock
from provision.cli.options import (
    Connection,
    Fleet,
    Output,
    Playbook,
    connection_options,
    fleet_options,
    playbook_options,
    show_tracebacks,
    targets_argument,
)
from provision.errors import UsageError


@click.command(epilog="""
\b
Examples:
  mlhost bundle -o gpu-hosts.bundle root@gpu-7            all that a host like gpu-7 lacks
  mlhost bundle --capture gpu-7.txt --capture cpu.txt     for hosts that cannot be reached from here
  mlhost bundle --lock fleet.lock -o fleet.bundle         exactly what is in a lock
  mlhost bundle --image nvcr.io/nvidia/pytorch:25.10-py3 --sign ~/.ssh/id_ed25519 --capture gpu-7.txt
  mlhost setup --bundle gpu-hosts.bundle --bundle-sha256 HASH gpu-9     without any network there

\b
A capture is made by `mlhost facts --format raw --packages` on such a host. This machine needs apt, dpkg-deb and gpg,
and for --image a Docker engine (or name a file that `docker save` wrote).

\b
Exit codes: 0 the bundle was written, 1 failed, 2 wrong usage or playbook, 4 unreachable, 5 unsupported.
""")
@targets_argument
@playbook_options
@click.option("--capture", "captures", multiple=True, metavar="FILE", help="For hosts like the one this was captured on. Repeatable.")
@click.option("--lock", "locked", metavar="FILE", help="Everything in this lock, at exactly its versions; then no host and no capture is needed.")
@click.option("--image", "images", multiple=True, metavar="IMAGE|FILE", help="A container image to bring along, pulled here or saved by `docker save`. Repeatable.")
@click.option("--sign", metavar="KEY", help="Sign it with this SSH private key, for `mlhost setup --verify-key`.")
@click.option("-o", "--out", default="mlhost.bundle", show_default=True, metavar="FILE", help="Where to write the bundle.")
@fleet_options
@connection_options
@click.option("--debug", is_flag=True, expose_value=False, callback=show_tracebacks, help="Show a traceback with an error.")
@click.option("--no-color", is_flag=True, help="Plain text (also: the environment variable NO_COLOR).")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    targets: tuple[str, ...],
    desired: Playbook,
    captures: tuple[str, ...],
    locked: str | None,
    images: tuple[str, ...],
    sign: str | None,
    connection: Connection,
    fleet: Fleet,
    out: str,
    no_color: bool,
) -> int:
    """Put everything that hosts of some kinds need into one file, for hosts without any network.

    Packages with all they depend on, keys, images, and a manifest with the SHA-256 of each. Hosts are only looked at, or not even that: a capture
    of one host of a kind stands for all of them. The hash that is printed at the end proves the bundle wherever it is taken.
    """
    from provision.bundling import make
    from provision.lockfile import classified

    if sign and not os.path.isfile(sign):
        raise UsageError(f"--sign {sign} is no file.", "Name an SSH private key.")
    held = read_lock(locked, "--lock")
    if held is not None:
        if targets or captures or fleet.inventory:
            raise UsageError("--lock says already what is wanted for which hosts.", "Leave out the hosts and captures, or --lock.")
        lock = held.lock
    else:
        from provision.cli.lock import resolved

        found = resolved(ctx, targets, desired, captures, connection, fleet, Output("text", None, False, no_color), elsewhere=True)
        lock = classified(each.kind for _, each in found)

    def told(text: str) -> None:
        if sys.stderr.isatty():
            click.echo(text, err=True)

    digest = make(lock, images, out, sign=sign, told=told)
    size = os.path.getsize(out)
    packages = sum(1 for kind in lock.classes.values() for package in kind.packages.values() if package.uri)
    click.echo(f"{out}: {size / 1e6:.1f} MB, {packages} packages for {', '.join(lock.classes)}")
    click.echo(f"sha256: {digest}")
    return 0
