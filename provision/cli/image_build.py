"""`mlhost image build`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from provision.cli.image_options import display_options, gauge_of, on_term_tidy
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.images.compare import Difference
    from provision.images.dockerfile import Stage

READ = 1 << 20


@click.command(epilog="""
\b
Examples:
  mlhost image build -t train:1 .                docker build, and a word about what would not run elsewhere
  mlhost image build --pin .                     write the digest of every base image into the Dockerfile
  mlhost image build --reproducible -t train:1 .
  mlhost image build --reproducible --check -t train:1 .

\b
Exit codes: 0 built (with --check: twice the same), 1 failed or the two builds differ, 2 wrong usage or an image named by a moving tag.
""")
@click.argument("folder", default=".", metavar="[FOLDER]")
@click.option("-t", "--tag", metavar="NAME[:TAG]", help="What to call the image. Default: the folder's name.")
@click.option("-f", "--file", "dockerfile", metavar="FILE", help="The Dockerfile. Default: FOLDER/Dockerfile.")
@click.option("--reproducible", is_flag=True, help="The same inputs give the same image id: bases by digest, no network in the build proper, no times.")
@click.option("--check", is_flag=True, help="Build twice, and tell which files differ. Implies --reproducible.")
@click.option("--pin", is_flag=True, help="Write the digests of base images into the Dockerfile first.")
@click.option("--build-arg", "arguments", multiple=True, metavar="NAME=VALUE", help="As for docker build. Repeatable.")
@click.option("--target", default="", metavar="STAGE", help="Build this stage instead of the last.")
@click.option("--builder", type=click.Choice(("auto", "buildkit", "classic")), default="auto", show_default=True, help="What builds; auto: BuildKit where buildx is.")
@click.option("-q", "--quiet", is_flag=True, help="The builder's output only if it fails.")
@display_options
def build(
    *, folder: str, tag: str | None, dockerfile: str | None, reproducible: bool, check: bool, pin: bool, arguments: tuple[str, ...],
    target: str, builder: str, quiet: bool, no_color: bool,
) -> int:
    """Build an image, and warn of what would not run on other machines.

    With --reproducible the bases must be pinned by digest; what needs a network happens in a stage named `fetch`, and the rest is built without one;
    times after SOURCE_DATE_EPOCH (the environment's, or that of the last commit) are taken out of the new layers. Docker's own cache is not used for it.
    """
    from provision.cli.output import errors
    from provision.images.dockerfile import moving, stages
    from provision.report.sanitize import line
    from provision.shipping import builder as work

    reproducible |= check
    path = dockerfile or os.path.join(folder, "Dockerfile")
    if not os.path.isdir(folder):
        raise UsageError(f"{folder} is no folder.", "Name the folder that the image is built from.")
    text = read(path)
    given = dict(pair(word) for word in arguments)
    if pin:
        text = pinned_file(path, text, given)
    found = stages(text, given)
    for one in snags(folder, path, text):
        errors(f"warning: {line(one)}")
    if reproducible:
        refuse_moving(path, moving(found), found)
    if target and target.lower() not in {stage.name for stage in found}:
        raise UsageError(f"The Dockerfile has no stage named {target}.", f"It has: {', '.join(stage.name for stage in found if stage.name) or 'none with a name'}.")
    name = tag or default_tag(folder)
    epoch, why = work.epoch_of(folder) if reproducible else (-1, "")
    buildkit = work.has_buildkit() if builder == "auto" else builder == "buildkit"
    wanted = work.Wanted(folder, text, found, name if ":" in name.rpartition("/")[2] else f"{name}:latest", given, epoch, buildkit, target, quiet)
    if not reproducible:
        work.run(wanted, work.command(wanted, folder, path, wanted.tag))
        click.echo(f"{line(wanted.tag)}: built")
        return 0
    with on_term_tidy(), gauge_of(no_color) as gauge:
        image, differences, stale = work.reproducible(wanted, gauge, check)
    click.echo(f"{line(wanted.tag)}: {image}")
    click.echo(f"{'BuildKit' if buildkit else 'classic builder'}, SOURCE_DATE_EPOCH {epoch} ({why})")
    if stale:
        errors(
            f"warning: {len(stale)} compiled Python files ({line(stale[0])}) name their sources' times, which were changed: Python will compile them anew "
            "at every start. Declare `ARG SOURCE_DATE_EPOCH` in the stage that installs."
        )
    if check:
        return tell(differences)
    return 0


def tell(differences: tuple[Difference, ...], limit: int = 200) -> int:
    """Print what differs; 0 where nothing does, else 1."""
    from provision.report.sanitize import line

    if not differences:
        click.echo("The two builds are identical: the same image id, layer by layer.")
        return 0
    click.echo(f"The two builds differ in {len(differences)} places:")
    told = set[str]()
    for one in differences[:limit]:
        click.echo(f"  {one.where}: {line(one.path, 300)}: {line(one.what, 300)}")
        if one.hint and one.hint not in told:
            told.add(one.hint)
            click.echo(f"      {line(one.hint, 400)}")
    if len(differences) > limit:
        click.echo(f"  … and {len(differences) - limit} more")
    return 1


def read(path: str) -> str:
    """A Dockerfile. Raises UsageError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(READ)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Name a Dockerfile with -f, or write one with `mlhost image init`.") from None


def pair(word: str) -> tuple[str, str]:
    """NAME=VALUE of --build-arg; without a value that of the environment. Raises UsageError."""
    name, sign, value = word.partition("=")
    if not name or (not sign and name not in os.environ):
        raise UsageError(f"--build-arg {word} has no value.", "Write --build-arg NAME=VALUE.")
    return name, value if sign else os.environ[name]


def default_tag(folder: str) -> str:
    """A tag from the folder's name."""
    import re

    name = re.sub(r"[^a-z0-9]+", "-", os.path.basename(os.path.abspath(folder)).lower()).strip("-")
    return name or "image"


def refuse_moving(path: str, found: tuple[Stage, ...], all_stages: tuple[Stage, ...]) -> None:
    """Raise UsageError where an image is named by something that may mean another one tomorrow."""
    from provision.images.dockerfile import copied_from

    if found:
        rows = "; ".join(f"line {stage.start.first}: {stage.base or stage.written}" for stage in found)
        raise UsageError(f"{path} names images by tags, which move ({rows}).", "Write their digests in with `mlhost image build --pin`, and commit that.")
    for one in copied_from(all_stages):
        raise UsageError(f"{path}, line {one.first}: files come from an image named by a tag, which moves.", "Give that image a stage of its own (FROM … AS …), which --pin can pin.")


def pinned_file(path: str, text: str, arguments: Mapping[str, str]) -> str:
    """Write digests into a Dockerfile, asking Docker's own copies first and registries next; gives the new text. Raises UsageError, Failed."""
    from provision.cli.output import errors
    from provision.images.dockerfile import moving, pinned, stages
    from provision.report.sanitize import line
    from provision.shipping.digests import digest_of

    wanted = moving(stages(text, arguments))
    digests = {}
    for name in dict.fromkeys(stage.base for stage in wanted):
        digests[name], where = digest_of(name)
        errors(f"{line(name)} is {digests[name]} ({where})")
    new = pinned(text, digests)
    if new != text:
        temporary = f"{path}.{os.getpid()}"
        try:
            with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(new)
            os.chmod(temporary, os.stat(path).st_mode & 0o777)
            os.replace(temporary, path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}.", "Make it writable.") from None
    return new


def snags(folder: str, path: str, text: str) -> list[str]:
    """What would tie the image to this machine, a sentence for each place."""
    from provision.catalog import packaged
    from provision.images.portability import missing, warnings
    from provision.shipping.context import files

    texts = {os.path.basename(path): text}
    for below, full in files(folder):
        name = os.path.basename(below)
        if name in LOOKED_INTO or name.endswith((".sh", ".cmake", ".mk")):
            try:
                if os.path.isfile(full) and os.path.getsize(full) < READ // 4 and len(texts) < 200:
                    with open(full, encoding="utf-8", errors="replace") as file:
                        texts[below] = file.read()
            except OSError:
                continue
    data = packaged("images")
    rows = (*warnings(texts, data["portability"]), *missing(texts, data["needs"]))
    return [f"{one.file}, line {one.line}: {one.found}: {one.why}. Instead: {one.instead}." for one in rows]


LOOKED_INTO = ("Makefile", "CMakeLists.txt", "setup.py", "setup.cfg", "pyproject.toml", "requirements.txt", "environment.yml", "meson.build")
