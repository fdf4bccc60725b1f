"""`mlhost image init`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from provision.cli.options import (
    Connection,
    Fleet,
    Output,
    Playbook,
    connection_options,
    fleet_options,
    output_options,
    playbook_options,
)
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.catalog import Catalog
    from provision.images.cuda import Host
    from provision.model import Facts

READ = 4 << 20


@click.command(epilog="""
\b
Examples:
  mlhost image init                              for this machine's driver, or the one that mlhost would install
  mlhost image init -i fleet.yaml                for the oldest driver of a fleet
  mlhost image init --host gpu-7 --host gpu-8 ~/src/train
  mlhost image init --driver 535 --apt libgl1
  mlhost image init --capture gpu-7.txt          from what `mlhost facts --format raw` printed there

\b
Exit codes: 0 written, 1 no CUDA suits all hosts (or failed), 2 wrong usage or a file is there already, 4 unreachable.
""")
@click.argument("folder", default=".", metavar="[FOLDER]")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="It is to run on [user@]host[:port], or names of an inventory. Repeatable.")
@click.option("--driver", "drivers", multiple=True, metavar="VERSION", help="It is to run with this driver: 550.163.01, or just 550. Repeatable.")
@click.option("--capture", "captures", multiple=True, metavar="FILE", help="It is to run on a host with this capture. Repeatable.")
@click.option("--cuda", "wanted", default="", metavar="X.Y", help="This CUDA, if it suits them.")
@click.option("--apt", "packages", multiple=True, metavar="PACKAGE", help="Have this Debian package in the image. Repeatable.")
@click.option("--force", is_flag=True, help="Replace a Dockerfile and .dockerignore that are there.")
@click.option("--print", "show", is_flag=True, help="Print the Dockerfile instead of writing anything.")
@playbook_options
@fleet_options
@connection_options
@output_options("text")
@click.pass_context
def init(
    ctx: click.Context, *, folder: str, hosts: tuple[str, ...], drivers: tuple[str, ...], captures: tuple[str, ...], wanted: str,
    packages: tuple[str, ...], force: bool, show: bool, desired: Playbook, fleet: Fleet, connection: Connection, output: Output,
) -> int:
    """Write a Dockerfile and a .dockerignore for a Python ML project, with a CUDA that runs on the hosts it is for.

    Looks for requirements (locked by hash or not), pyproject.toml, uv's and poetry's locks, and conda's environments. The Dockerfile says why each thing
    is as it is: which CUDA and for whose driver, what is fetched with a network and what is built without, and that the image does not run as root.
    """
    import re

    from provision.catalog import packaged
    from provision.images.cuda import choose
    from provision.images.project import READ as NAMES
    from provision.images.project import detect
    from provision.images.template import write
    from provision.report.sanitize import line

    if not os.path.isdir(folder):
        raise UsageError(f"{folder} is no folder.", "Name the project's folder.")
    for package in packages:
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?", package):
            raise UsageError(f"--apt {package} is no name of a Debian package.", "Write name or name=version.")
    if wanted and not re.fullmatch(r"\d+\.\d+(\.\d+)?", wanted):
        raise UsageError(f"--cuda {wanted} is no CUDA release.", "Write it as 12.4 or 12.4.1.")
    targets = [os.path.join(folder, name) for name in ("Dockerfile", ".dockerignore")]
    there = [path for path in targets if os.path.lexists(path)]
    if there and not (force or show):
        raise UsageError(f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} there already.", "Look with --print, or replace with --force.")
    found = known_hosts(ctx, hosts, drivers, captures, desired, fleet, connection, output)
    data = packaged("images")
    project = detect(texts(folder, NAMES), sorted(os.listdir(folder)), data)
    written = write(project, choose(found, data, wanted=wanted), packages)
    if show:
        click.echo(written.dockerfile, nl=False)
        return 0
    for path, text in zip(targets, (written.dockerfile, written.dockerignore)):
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}.", "Name a folder that you may write to.") from None
        click.echo(f"{line(path)}: written")
    source = f"{project.kind}, from {project.file}" if project.file else "no list of dependencies was found"
    click.echo(f"project: {source}{'' if project.hashed else ', not locked by hash'}")
    for note in written.notes:
        click.echo(f"next: {line(note, 400)}")
    return 0


def texts(folder: str, names: tuple[str, ...]) -> dict[str, str]:
    """Those of some files that are there and can be read."""
    found = {}
    for name in names:
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
                found[name] = file.read(READ)
        except OSError:
            continue
    return found


def known_hosts(
    ctx: click.Context, hosts: tuple[str, ...], drivers: tuple[str, ...], captures: tuple[str, ...], desired: Playbook, fleet: Fleet,
    connection: Connection, output: Output,
) -> list[Host]:
    """The hosts that the image is for: as named, or this machine. One without a driver counts as if mlhost had installed one."""
    import re

    from provision import run
    from provision.capture import split
    from provision.catalog import load, packaged
    from provision.cli.fleet import name_of
    from provision.cli.hosts import on_hosts
    from provision.cli.trees import capture_bytes
    from provision.facts import parse
    from provision.images.cuda import Host

    planned = str(packaged("drivers")["preferred"][0])
    found = []
    for driver in drivers:
        plain = re.fullmatch(r"(\d{3}(?:\.\d+)*)(?:\.[xX*])?", driver)
        if plain is None:
            raise UsageError(f"--driver {driver} is no driver's version.", "Write it as nvidia-smi shows it: 550.163.01, or just the branch: 550.")
        found.append(Host("--driver", plain[1]))
    catalog = load()
    loaded = desired.load()
    for capture in captures:
        found.append(host_of(name_of(capture), parse(split(capture_bytes(None, None, capture, loaded))), catalog, planned))
    chosen = fleet.choose(ctx, hosts, connection)
    if chosen or not found:
        for result in on_hosts(chosen, connection, output, lambda transport, _p, _a: run.facts_of(transport, loaded.spec, catalog)):
            if result.error is not None:
                raise result.error
            if result.value is not None:
                found.append(host_of(result.target, result.value[1], catalog, planned))
    return found


def host_of(name: str, facts: Facts, catalog: Catalog, planned: str) -> Host:
    """What of a host counts here."""
    from provision.images.cuda import Host

    models = [catalog.gpu(device.device, device.subsystem.split(":")[-1] or None) for device in facts.gpus]
    generations = tuple(dict.fromkeys(model.generation for model in models if model.generation))
    driver = (facts.nvidia.driver_version or facts.nvidia.loaded or facts.nvidia.on_disk) if facts.nvidia else ""
    return Host(name if driver else f"{name} (which has none yet)", driver or planned, generations)
