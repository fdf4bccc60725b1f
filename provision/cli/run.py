"""`mlhost run`: a command in a container, as if it were a program of this machine. What only some calls need is imported by them."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.dockrun.request import Request, Settings

ALIAS = "alias dockrun='mlhost run'"


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="""
\b
Examples:
  mlhost run python:3.13 python train.py --data /data/faces
  mlhost run --tree pytorch/pytorch python train.py       only this directory is seen
  mlhost run --gpus device=0,1 IMAGE python train.py
  mlhost run --dry-run IMAGE python train.py              the docker command; --explain says why
  mlhost run --host ada@gpu-7 IMAGE python train.py       there, with this directory; results come back
  mlhost run --alias >> ~/.bashrc                         `dockrun IMAGE COMMAND` from now on

\b
Exit codes: the command's own, 128 + n for signal n; 125 Docker could not start it, 126 it cannot be executed, 127 it is not
in the image; before it runs: 1 failed or refused, 2 wrong usage, 4 unreachable.
""",
)
@click.argument("image", required=False)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--tree", "mount", flag_value="tree", default=None, help="Mount the working directory alone, at /host and its own path.")
@click.option("--whole-host", "mount", flag_value="host", help="Mount the whole machine at /host (the default, unless a file says `tree`).")
@click.option("-v", "--volume", "volumes", multiple=True, metavar="HOST[:CONTAINER][:ro]", help="Mount this too; without CONTAINER at /host/HOST. Repeatable.")
@click.option("-T", "--no-translate", is_flag=True, help="Pass absolute paths on as they are. For one path: write it with two slashes.")
@click.option("--gpus", metavar="all|none|N|device=LIST", help="These GPUs: by number or UUID. Without it all there are, or the CPU.")
@click.option("-e", "--env", "variables", multiple=True, metavar="NAME[=VALUE]", help="Pass a variable on; values are in no docker command line. Repeatable.")
@click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Variables from a file as Docker reads it. Repeatable.")
@click.option("--shm-size", metavar="SIZE", help="Shared memory, like 8g (default: half the memory; none is taken before it is used).")
@click.option("--ipc", metavar="MODE", help="`host` shares the machine's own shared memory instead.")
@click.option("--network", metavar="NAME", help="Docker's network, for example `host` or `none`.")
@click.option("-P", "--publish", multiple=True, metavar="[HOST:]PORT", help="Publish a port of the container. Repeatable.")
@click.option("--platform", default="", metavar="OS/ARCH", help="The image for another architecture.")
@click.option("--entrypoint", metavar="PROGRAM", help="Instead of the image's own entry point.")
@click.option("--docker", "docker_words", multiple=True, metavar="OPTION", help="Any other option of `docker run`, as one word. Repeatable.")
@click.option("--host", metavar="[USER@]HOST[:PORT]", help="Run there, on a copy of the working directory; what changed comes back.")
@click.option("-F", "--ssh-config", metavar="FILE", help="With --host: ssh's -F.")
@click.option("--identity", multiple=True, metavar="FILE", help="With --host: log in with this private key. Repeatable.")
@click.option("--known-hosts", metavar="FILE", help="With --host: this known_hosts file.")
@click.option("--host-keys", type=click.Choice(("enforce", "accept-new", "ignore")), help="With --host: unknown host keys (default: enforce).")
@click.option("-p", "--playbook", metavar="NAME|FILE", help="Take the defaults of its `run:` section.")
@click.option("--dry-run", is_flag=True, help="Print the docker command and run nothing.")
@click.option("--explain", is_flag=True, help="The same, with the reason for every part.")
@click.option("--alias", is_flag=True, help="Print a line for your shell that makes this `dockrun`.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--debug", is_flag=True, expose_value=False, callback=lambda ctx, _p, value: _debug(ctx, value), help="Show a traceback with an error.")
@click.pass_context
def command(_ctx: click.Context, /, *, image: str | None, command: tuple[str, ...], alias: bool, dry_run: bool, explain: bool, **given: Any) -> int:
    """Run a command in a container as if it were a program of this machine.

    The whole machine is at /host, the working directory is the same, absolute paths of this machine are translated, what is written is yours,
    GPUs are there if there are any, and the container is gone afterwards, however it ended.
    """
    if alias:
        click.echo(ALIAS)
        return 0
    if not image:
        raise UsageError("Which image?", "mlhost run [OPTIONS] IMAGE COMMAND…, for example: mlhost run python:3.13 python train.py")
    request = _request(image, command, given)
    say = _silent if given["quiet"] else _say
    if given["host"]:
        from provision.launch.there import Login, run_there

        login = Login(given["host"], given["ssh_config"], given["identity"], given["known_hosts"], given["host_keys"])
        return run_there(request, login, say, click.echo if dry_run or explain else None, explain)
    _refuse_remote_engine(request)
    from provision.launch.here import run_here

    return run_here(request, say, click.echo if dry_run or explain else None, explain)


def _debug(ctx: click.Context, value: bool) -> None:
    from provision.cli import Session

    ctx.ensure_object(Session).debug |= value


def _say(text: str) -> None:
    from provision.report.sanitize import line

    print(f"mlhost: {line(text, 2000)}", file=sys.stderr, flush=True)


def _silent(text: str) -> None:
    """For --quiet."""


def _request(image: str, command: tuple[str, ...], given: dict[str, Any]) -> Request:
    """What was asked, from the files' settings and the options. Raises UsageError."""
    from provision.dockrun import request as asked
    from provision.dockrun.compose import container_name

    if image.startswith("-") or any(c.isspace() for c in image):
        raise UsageError(f"{image!r} is no image.", "Options come before the image, the command after it.")
    chosen = _settings(given)
    values: dict[str, str] = {}
    names: list[str] = []
    for text in given["variables"]:
        name, value = asked.variable(text)
        values.pop(name, None)
        if value is None:
            names.append(name)
        else:
            values[name] = value
    file_names: set[str] = set()
    for path in given["env_files"]:
        file_names.update(asked.env_file(_read(path), path))
    terminal = _is_terminal(0) and _is_terminal(1)
    return asked.Request(
        image=image,
        command=command,
        cwd=_cwd(),
        settings=chosen,
        env=tuple(dict.fromkeys(n for n in names if n not in values)),
        values=values,
        env_files=given["env_files"],
        file_names=frozenset(file_names),
        volumes=tuple(asked.volume(text) for text in (*chosen.volumes, *given["volumes"])),
        translate=not given["no_translate"],
        terminal=terminal,
        input=_reads(),
        entrypoint=given["entrypoint"],
        publish=given["publish"],
        docker=given["docker_words"],
        platform=given["platform"],
        name=container_name(image, os.urandom(4).hex()),
        environment=dict(os.environ),
    )


def _settings(given: dict[str, Any]) -> Settings:
    from provision.dockrun.request import settings
    from provision.launch.look import user_settings

    layers: list[tuple[str, dict[str, Any]]] = list(user_settings())
    if given["playbook"]:
        import dataclasses

        from provision import playbook

        layers.append((f"playbook {given['playbook']}", dataclasses.asdict(playbook.load(str(given["playbook"])).spec.run)))
    own = {key: given[key] for key in ("mount", "gpus", "shm_size", "ipc", "network") if given[key] is not None}
    return settings([*layers, ("the command line", own)])


def _refuse_remote_engine(request: Request) -> None:
    """Folders are mounted where the engine is: on another machine they would be others."""
    host = (request.environment or {}).get("DOCKER_HOST", "")
    if host and not host.startswith(("unix://", "npipe://", "/")):
        raise UsageError(f"DOCKER_HOST is {host.partition('@')[2] or host}: that engine does not see this machine's files.", "Unset it, or use --host.")


def _cwd() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise UsageError("The working directory is gone.", "Change into one that is there.") from None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"--env-file {path} cannot be read: {reason}.", "Name a readable file of NAME=VALUE lines.") from None


def _is_terminal(number: int) -> bool:
    try:
        return os.isatty(number)
    except OSError:
        return False


def _reads() -> bool:
    """Whether standard input is there to be read: not closed, and not a terminal that another job has."""
    try:
        return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False

