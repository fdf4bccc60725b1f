"""A container on this machine, and what is the same wherever it runs: the image made ready, docker run to its end, its end explained."""

from __future__ import annotations

from typing import Callable, Optional, Union

from provision.cudafit import ImageConfig
from provision.dockrun import compose, ends, gpus
from provision.dockrun.compose import Command
from provision.dockrun.machine import Image, Machine
from provision.dockrun.request import Request
from provision.errors import Error, Failed
from provision.launch.look import Here, LocalDisk, Place, Say, look, prepare, pull


def run_here(request: Request, say: Say, show: Optional[Callable[[str], None]] = None, explain: bool = False) -> int:
    """Run it on this machine and return the command's exit code; with `show` only print what would be run. Raises Error kinds."""
    place = Here()
    found = ready(place, request, look(place, request.image), show is not None, say)
    made = compose.compose(request, found, LocalDisk())
    for note in made.notes:
        say(note)
    if show:
        show(compose.shown(made, explain))
        return 0
    prepare(place, found, made.accounts)
    return execute(place, request, made, say)


def ready(place: Place, request: Request, found: Machine, dry: bool, say: Say) -> Machine:
    """The machine with the image there and fit for it. Raises Failed, before anything is pulled where that can be known."""
    if found.engine is None:
        if not dry:
            raise no_engine(place, found)
        say(f"Docker cannot be asked ({found.trouble}), so this is for a machine about which nothing is known.")
        return found
    count = gpus.give(request.settings.gpus, found).count
    if found.image is not None:
        _fits(request, found, found.image, count)
        return found
    if count:
        asked = _registry(request, found, say)
        if asked is not None:
            _fits(request, found, asked, count)
    if dry:
        return found
    pull(place, request.image, request.platform, say)
    found = look(place, request.image)
    if found.image is None:
        raise Failed(f"{request.image} was pulled, but Docker does not show it.", "Run it again.")
    _fits(request, found, found.image, count)
    return found


def execute(place: Place, request: Request, made: Command, say: Say) -> int:
    """Run it, and explain how it ended where that needs explaining. Returns the exit code."""
    from provision.launch import child

    for name in request.values or {}:
        if ends.secretive(name):
            say(f"-e {name}=…: the value is in mlhost's own command line; export it and write -e {name}, or use --env-file.")
    try:
        ended = child.run(place, made.argv, made.environment, made.name, request.terminal, request.input)
    except FileNotFoundError as error:
        raise Failed(f"{error.filename} is not installed here.", "Run `mlhost setup`.") from None
    if ended.lost:
        from provision.transport.errors import ConnectionLost

        raise ConnectionLost(f"{place.name}: the connection was lost; the container {made.name} goes on there.",
                             f"`docker logs -f {made.name}` there shows it. The next `mlhost run --host` from here brings back what it has written.")
    if ended.code:
        program = made.parts[-1].words if request.command else ()
        say_end = ends.explained(ended.code, ended.said, program, ended.signalled)
        remedy = ends.known(ended.said) if ended.code == 125 and ends.own_words(ended.said) else ""
        for text in (say_end, remedy):
            if text:
                say(text)
    return ended.code


def no_engine(place: Place, found: Machine) -> Failed:
    """Why there is no Docker to run anything."""
    there = "" if isinstance(place, Here) else f" {place.name}"
    if "not installed" in found.trouble:
        return Failed(f"{place.name}: there is no Docker.", f"Run `mlhost setup{there}`.")
    if "permission denied" in found.trouble.lower():
        remedy = f"Put {found.user} into the group docker: `mlhost setup{there} --set 'docker.users=[{found.user}]'`, and log in again; or use sudo."
        return Failed(f"{place.name}: {found.user} may not use Docker.", remedy)
    return Failed(f"{place.name}: Docker does not answer: {found.trouble}", ends.known(found.trouble) or "`mlhost doctor` names what is broken.")


def _fits(request: Request, found: Machine, image: Union[ImageConfig, Image], count: int) -> None:
    wrong = compose.misfit(request, found, image, count)
    if wrong:
        raise wrong


def _registry(request: Request, found: Machine, say: Say) -> Optional[ImageConfig]:
    """What the registry says of the image, None where it does not say."""
    from provision import imageconfig

    arch = found.engine.arch if found.engine and found.engine.arch else found.arch
    if request.platform:
        arch = request.platform.partition("/")[2].partition("/")[0] or request.platform
    try:
        return imageconfig.ask(request.image, arch)
    except Error as error:
        say(f"What the image needs could not be asked before it is pulled: {error.message}")
        return None
