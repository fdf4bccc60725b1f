"""`mlhost image save` and `mlhost image load`."""

from __future__ import annotations

import time

import click

from provision.cli.image_options import display_options, gauge_of, on_term_tidy
from provision.errors import UsageError

FORMATS = ("zst", "gz", "tar")


@click.command(epilog="""
\b
Examples:
  mlhost image save train:1                      train-1.tar.zst and train-1.tar.zst.sha256
  mlhost image save train:1 serve:2 --out both.tar.zst
  mlhost image save train:1 --out - | ssh gpu-7 docker load
  sha256sum -c train-1.tar.zst.sha256            what anybody can check without mlhost

\b
Exit codes: 0 saved, 1 failed (nothing is left under the file's name), 2 wrong usage.
""")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--out", metavar="FILE", help="Write here (`-`: standard output) instead of to NAME-TAG.tar.zst.")
@click.option("--format", "wanted", type=click.Choice(FORMATS), help="Compress so. Default: zst, or gz where there is no zstd.")
@click.option("--level", type=click.IntRange(1, 22), metavar="N", help="How hard to compress: 1 to 22 for zst (default 3), 1 to 9 for gz (default 6).")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--through-docker", is_flag=True, help="Use `docker save` even where Docker's folder could be read directly.")
@display_options
def save(*, images: tuple[str, ...], out: str | None, wanted: str | None, level: int | None, force: bool, through_docker: bool, no_color: bool) -> int:
    """Save images of this machine's Docker into one compressed file, with a checksum beside it.

    All cores compress. As root, layers are read where Docker's overlay2 driver keeps them, and each is checked against its digest; otherwise, and with
    other drivers, they come through `docker save`. The file gets its name when it is whole. `docker load` and `mlhost image load` read it.
    """
    from provision.cli.output import errors
    from provision.report.sanitize import line
    from provision.shipping.gauge import megabytes
    from provision.shipping.pipes import packing
    from provision.shipping.save import save as work

    began = time.monotonic()
    with on_term_tidy(), gauge_of(no_color) as gauge:
        done = work(images, out, packing(wanted, level), gauge, direct=not through_docker, force=force)
    seconds = time.monotonic() - began
    text = (
        f"{line(done.path)}: {megabytes(done.size)} from {megabytes(done.unpacked)} in {seconds:.1f} s "
        f"({megabytes(done.unpacked / max(seconds, 1e-3))}/s; read {'directly' if done.way == 'directly' else 'through docker save'}, packed by {done.program})"
    )
    rows = [text, f"sha256 {done.sha256}", *(f"{line(image.asked)} {image.id}" for image in done.images)]
    if done.path == "-":
        errors("\n".join(rows))
    else:
        click.echo("\n".join(rows))
    return 0


@click.command(epilog="""
\b
Examples:
  mlhost image load train-1.tar.zst              checked against train-1.tar.zst.sha256, where that is there
  ssh gpu-7 cat train-1.tar.zst | mlhost image load -

\b
Exit codes: 0 loaded and verified, 1 failed, 2 wrong usage.
""")
@click.argument("file", metavar="FILE")
@click.option("--sha256", metavar="DIGEST", help="What the file must have. Default: what FILE.sha256 says.")
@click.option("--no-checksum", is_flag=True, help="Load although there is no checksum to compare with, without saying so.")
@display_options
def load(*, file: str, sha256: str | None, no_checksum: bool, no_color: bool) -> int:
    """Load an archive of images into this machine's Docker: all of it, checked, or nothing.

    Reads what `mlhost image save` and `docker save` write, compressed with zstd or gzip or not at all. Docker gets the end of it only when the
    checksum has proved right and the archive whole; afterwards Docker is asked for each image, and its id is compared with the archive's.
    """
    from provision.cli.output import errors
    from provision.report.sanitize import line
    from provision.shipping.gauge import megabytes
    from provision.shipping.load import load as work

    if sha256 and no_checksum:
        raise UsageError("--sha256 and --no-checksum exclude each other.", "Use one of them.")
    began = time.monotonic()
    with on_term_tidy(), gauge_of(no_color) as gauge:
        done = work(file, gauge, sha256)
    for image in done.images:
        proof = "its id is the saved one" if image.proof == "id" else "its layers are the saved ones, under this image store's own id"
        click.echo(f"{line(', '.join(image.tags) or 'untagged')}: {image.id}, verified: {proof}")
    checked = f"sha256 {done.checksum} is right" if done.checksum else "no checksum to compare with; Docker compared each layer's digest"
    click.echo(f"{line(file)}: {megabytes(done.size)} in {time.monotonic() - began:.1f} s; {checked}")
    if not done.checksum and not no_checksum:
        errors(f"mlhost: there is no {line(file)}.sha256, so nobody could tell whether this is the file that was saved.")
    return 0
