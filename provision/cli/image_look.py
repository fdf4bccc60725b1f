"""`mlhost image history` and `mlhost image compare`."""

from __future__ import annotations

import contextlib
import os

import click

from provision.cli.image_options import display_options, gauge_of
from provision.cli.options import Output, output_options
from provision.errors import UsageError


@click.command(epilog="""
\b
Examples:
  mlhost image history train:1
  mlhost image history train:1 -f docker/Dockerfile     with the Dockerfile's lines beside it
  mlhost image history train:1 --format json

\b
Exit codes: 0 shown, 1 no such image or no Docker, 2 wrong usage.
""")
@click.argument("image", metavar="IMAGE")
@click.option("-f", "--file", "dockerfile", metavar="FILE", help="Find each layer's line in this Dockerfile. Default: ./Dockerfile, where it fits.")
@output_options("text", "json")
def history(*, image: str, dockerfile: str | None, output: Output) -> int:
    """Show how an image came about: every step in full, its size, its layer's digest, and the Dockerfile's line where that is known.

    Oldest first, as in a Dockerfile. Nothing is cut off.
    """
    from provision.cli.image_build import read
    from provision.cli.output import as_shown, check_out, look, write, write_json
    from provision.images import history as work
    from provision.shipping import engine
    from provision.shipping.gauge import megabytes

    check_out(output)
    found = engine.images([image])[0]
    rows = engine.call("history", "--no-trunc", "--human=false", "--format", "{{json .}}", found.id)
    steps = work.steps(rows, found.diff_ids)
    path = dockerfile or ("Dockerfile" if os.path.isfile("Dockerfile") else None)
    if path:
        # One that merely lies here need not be this image's, nor be one at all.
        with contextlib.nullcontext() if dockerfile else contextlib.suppress(UsageError):
            steps = work.placed(steps, read(path))
    if output.format == "json":
        document = {"schema": 1, "image": found.id, "tags": list(found.tags), "size": found.size, "steps": [vars(step) for step in steps]}
        write_json(document, output)
    else:
        head = f"{image}: {found.id}, {megabytes(found.size)}, {len(found.diff_ids)} layers"
        write(as_shown(work.text(head, steps, path or "", look(output).width, output.verbose, megabytes), output), output)
    return 0


@click.command(epilog="""
\b
Examples:
  mlhost image compare train:1 train:2
  mlhost image compare mine:1 registry.example/theirs:1

\b
Exit codes: 0 identical, 1 different (or failed), 2 wrong usage.
""")
@click.argument("first", metavar="IMAGE")
@click.argument("second", metavar="IMAGE")
@display_options
def compare(*, first: str, second: str, no_color: bool) -> int:
    """Tell which files differ between two images of this machine's Docker: layer by layer, in content, mode, owner, time or link."""
    from provision.report.sanitize import line
    from provision.shipping.builder import differences

    with gauge_of(no_color) as gauge:
        same, found = differences(first, second, gauge)
    if same:
        click.echo(f"{line(first)} and {line(second)} are one and the same image.")
        return 0
    if not found:
        click.echo(f"{line(first)} and {line(second)} hold the same files and settings, but not byte for byte the same archives.")
        return 1
    click.echo(f"{line(first)} and {line(second)} differ in {len(found)} places:")
    for one in found:
        click.echo(f"  {one.where}: {line(one.path, 300)}: {line(one.what, 300)}")
    return 1
