"""`mlhost image push`."""

from __future__ import annotations

import time

import click

from provision.cli.image_options import display_options, gauge_of, on_term_tidy


@click.command(epilog="""
\b
Examples:
  mlhost image push registry.example/team/train:1
  mlhost image push train:1 registry.example/team/train:1        tags it so first

\b
Exit codes: 0 pushed, 1 failed or refused, 2 wrong usage.
""")
@click.argument("image", metavar="IMAGE")
@click.argument("name", required=False, metavar="[NAME]")
@display_options
def push(*, image: str, name: str | None, no_color: bool) -> int:
    """Push an image, and ask the registry whether it has it under that digest.

    Docker's own client pushes, with its logins and credential helpers. The digest that is printed is what to name the image by, so that it cannot move.
    """
    from provision.report.sanitize import line
    from provision.shipping.gauge import megabytes
    from provision.shipping.push import push as work

    began = time.monotonic()
    with on_term_tidy(), gauge_of(no_color) as gauge:
        done = work(image, name or image, gauge)
    repository = done.name if ":" not in done.name.rpartition("/")[2] else done.name.rpartition(":")[0]
    click.echo(f"{line(repository)}@{done.digest}")
    size = f", {megabytes(done.size)} there" if done.size else ""
    click.echo(f"{line(done.name)}: {done.sent} layers sent, {done.there} were there{size}, in {time.monotonic() - began:.1f} s; {line(done.proof, 300)}")
    return 0
