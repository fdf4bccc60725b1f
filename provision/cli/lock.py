"""`mlhost lock`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provision.catalog import Catalog
    from provision.cli.hosts import Ask, Work
    from provision.locking import Resolved, System
    from provision.look import RunOptions
    from provision.plan import Step
    from provision.playbook import Loaded
    from provision.progress import Progress
    from provision.transport import Transport


@click.command(epilog="""
\b
Examples:
  mlhost lock                                     this machine, into mlhost.lock
  mlhost lock -i fleet.yaml -o fleet.lock         a class for every kind of host there
  mlhost lock --capture gpu-7.txt --capture cpu.txt
  mlhost setup --locked fleet.lock -i fleet.yaml  every host gets exactly that, or is told why not

\b
A capture is made by `mlhost facts --format raw --packages` on such a host.

\b
Exit codes: 0 the lock was written, 1 a host cannot be locked, 2 wrong usage or playbook, 4 unreachable,
5 unsupported. Nothing is written unless all of it could be.
""")
@targets_argument
@playbook_options
@click.option("--capture", "captures", multiple=True, metavar="FILE", help="Lock the kind of host that this was captured on, asking this machine's apt. Repeatable.")
@click.option("-o", "--out", default="mlhost.lock", show_default=True, metavar="FILE", help="Where to write the lock (`-`: standard output).")
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
    connection: Connection,
    fleet: Fleet,
    out: str,
    no_color: bool,
) -> int:
    """Write down what the playbook comes to on hosts: exact package versions with hashes, keys, kernels, image digests.

    Each host's own apt is asked, with package sources and lists in a temporary folder: nothing on the host is changed. Hosts of one kind
    (distribution, version, architecture, GPUs) share a class in the lock. The file is text, made to be kept in git and compared.
    """
    from provision.lockfile import classified, dump

    found = resolved(ctx, targets, desired, captures, connection, fleet, Output("text", None, False, no_color))
    lock = classified(each.kind for _, each in found)
    text = dump(lock, header(desired))
    if out == "-":
        sys.stdout.write(text)
        return 0
    write(text, out)
    click.echo(f"{out}: " + "; ".join(f"{name} ({len(kind.packages)} packages)" for name, kind in lock.classes.items()))
    return 0


def header(desired: Playbook) -> tuple[str, ...]:
    """The comment at the head of a lock: of which desired state it is, without anything that differs from day to day."""
    import shlex

    from provision import __version__
    from provision.report.sanitize import line, redact

    words = ["-p", desired.playbook, *(word for value in desired.sets for word in ("--set", value))]
    return (
        f"Made by `mlhost lock` {__version__}. Do not edit versions by hand; make it again.",
        f"Use it: mlhost setup --locked FILE {line(redact(' '.join(map(shlex.quote, words))), 4000)}",
    )


def write(text: str, path: str) -> None:
    """The lock's file. Raises UsageError where it cannot be written."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.", "Name another file with --out.") from None


def resolved(
    ctx: click.Context, targets: tuple[str, ...], desired: Playbook, captures: tuple[str, ...], connection: Connection, fleet: Fleet, output: Output,
    elsewhere: bool = False,
) -> list[tuple[System, Resolved]]:
    """What the playbook comes to on each host or capture. `elsewhere`: this machine's apt is asked for hosts too.

    Raises what the first host that failed did.
    """
    hosts = fleet.choose(ctx, targets, connection) if targets or fleet.inventory or fleet.limit or not captures else ()
    loaded = desired.load()
    steps = desired.steps(loaded)

    from provision.catalog import load as load_catalog
    from provision.cli.trees import capture_bytes
    from provision.locking import resolve, system
    from provision.look import RunOptions

    catalog, options = load_catalog(), RunOptions()
    found = []
    for capture in captures:
        seen = system(capture, capture_bytes(None, None, capture, loaded), loaded, steps)
        found.append((seen, resolve(seen, catalog, options)))
    if hosts or not captures:
        from provision.cli.hosts import on_each

        wanted = desired.for_each(ctx, hosts, loaded, steps)
        results = on_each(hosts, connection, output, lambda name: _work(catalog, options, *wanted(name), elsewhere))
        for result in results:
            if result.error is not None:
                raise result.error
            if result.value is not None:
                found.append(result.value)
    return found


def _work(catalog: Catalog, options: RunOptions, loaded: Loaded, steps: Sequence[Step], elsewhere: bool) -> Work[tuple[System, Resolved]]:
    from provision.locking import resolve, system
    from provision.look import observe

    def work(transport: Transport, progress: Progress, _ask: Ask | None) -> tuple[System, Resolved]:
        progress.stage(transport.name, "looking")
        raw, _ = observe(transport, loaded.spec, steps, record=True)
        seen = system(transport.name, raw, loaded, steps, transport)
        progress.stage(transport.name, "asking for packages")
        return seen, resolve(seen, catalog, options, elsewhere)

    return work
