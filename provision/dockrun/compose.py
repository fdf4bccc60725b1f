"""The docker command, each group of its words with the reason for it. Pure: request and machine in, command out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from provision import cudafit
from provision.cudafit import ImageConfig
from provision.dockrun import gpus, paths
from provision.dockrun.machine import Image, Machine
from provision.dockrun.request import TREE, Request
from provision.errors import Failed, UsageError

INSIDE = "/mlhost"
# What Docker Desktop shares with its machine by default (docs.docker.com/desktop/settings-and-maintenance/settings, file sharing).
MAC_FOLDERS = ("/Users", "/Volumes", "/private", "/tmp")  # noqa: S108 - a name to mount, not a file to make


@dataclass(frozen=True)
class Part:
    """Words that belong together, and why they are there."""

    words: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Command:
    """`docker run …`, in its parts. `environment` is what the process that is started gets besides its own, so that no value is in argv; `notes` are
    for the user. `name` is the container's; `accounts` the stem of the files prepared for it, "" for none."""

    parts: tuple[Part, ...]
    environment: Mapping[str, str]
    notes: tuple[str, ...]
    name: str
    accounts: str
    gpus: int = 0

    @property
    def argv(self) -> list[str]:
        """The whole command."""
        return [word for part in self.parts for word in part.words]


def mount(source: str, target: str, read_only: bool = False) -> str:
    """The value of docker's --mount, which is a row of CSV: any path can be said in it, which `-v` cannot."""
    row = ["type=bind", f"source={source}", f"target={target}", *(["readonly"] if read_only else [])]
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row)
    return text.getvalue()


def compose(request: Request, machine: Machine, disk: paths.Disk, tree: str = "", only_below: bool = False) -> Command:
    """The command for a machine. `tree` is where the working directory is there, if not under its own name: it is a copy then. `only_below`: the
    machine's own files are not this one's, so nothing but the tree and the volumes is known of it.

    Raises UsageError for what cannot be meant, Failed for what cannot be had.
    """
    view, mounts = _mounts(request, machine, disk, tree)
    engine = machine.engine
    given = gpus.give(request.settings.gpus, machine)
    env, environment, notes = _environment(request, machine, given)
    notes = [*given.notes, *notes]
    parts = [Part(("docker", "run", "--rm"), "the container is removed when the command has ended"),
             Part(("--name", request.name), "so that it can be ended from outside, also when mlhost is killed")]
    if engine is None or engine.init:
        parts.append(Part(("--init",), "a small process 1, so that signals end the command and data loaders leave no zombies"))
    if request.input:
        parts.append(Part(("--interactive",), "the command reads this standard input"))
    if request.terminal:
        parts.append(Part(("--tty",), "standard input and output are a terminal"))
    accounts = _who(machine)
    user = _user(machine)
    parts += user
    parts += mounts
    if accounts:
        for file in ("passwd", "group"):
            parts.append(Part(("--mount", mount(f"{accounts}.{file}", f"/etc/{file}", True)), f"the image's own /etc/{file} with {machine.user} in it"))
    parts.append(Part(("--mount", mount(machine.cache, INSIDE)), f"a home for {machine.user} and compiled CUDA kernels, kept from run to run"))
    parts.append(Part(("--workdir", paths.inside(request.cwd, view.mounts) or request.cwd), "where you are"))
    parts += env
    parts += [Part(words, why) for words, why in given.words]
    parts += _memory(request, machine)
    parts += _extras(request, machine)
    words = paths.command(request.command, view) if request.translate else tuple(paths.Word(word) for word in request.command)
    if only_below:
        words = tuple(paths.Word(w.text, w.why, w.warning.replace("on this machine, but not in the container", "here, but not on the host")) for w in words)
    notes += [word.warning for word in words if word.warning]
    changed = [f"{old} is {new.text} inside: {new.why}" for old, new in zip(request.command, words) if new.text != old]
    parts.append(Part((request.image,), "the image"))
    if words:
        parts.append(Part(tuple(word.text for word in words), "; ".join(changed) or "the command, as it was given"))
    return Command(tuple(parts), environment, tuple(dict.fromkeys(notes)), request.name, accounts, given.count)


def _who(machine: Machine) -> str:
    """The stem of the account files: one for every image and caller. None for root, whom every image knows."""
    if machine.uid == 0 or (machine.engine and machine.engine.rootless):
        return ""
    image = re.sub(r"[^0-9a-f]", "", machine.image.id.partition(":")[2])[:16] if machine.image else "IMAGE"
    return f"{machine.cache}/accounts/{image}-{machine.uid}-{machine.gid}"


def _user(machine: Machine) -> list[Part]:
    engine = machine.engine
    if engine and engine.rootless:
        return [Part(("--user", "0:0"), f"Docker is rootless: root inside is {machine.user} outside, who then owns what is written")]
    parts = [Part(("--user", f"{machine.uid}:{machine.gid}"), f"what is written belongs to {machine.user}")]
    others = [gid for gid in machine.groups if gid not in (machine.gid, 0)]
    if others and machine.system != "Darwin":
        parts.append(Part(tuple(word for gid in others for word in ("--group-add", str(gid))), f"{machine.user}'s other groups, for what these may read"))
    if engine and engine.remapped:
        parts.append(Part(("--userns", "host"), "the engine renumbers users, and what is written would belong to nobody"))
    return parts


def _mounts(request: Request, machine: Machine, disk: paths.Disk, tree: str) -> tuple[paths.View, list[Part]]:
    cwd, parts = request.cwd, []
    found: list[paths.Mount] = []
    only_tree = request.settings.mount == TREE or bool(tree)
    if only_tree:
        if cwd == "/":
            raise UsageError("The working directory is /, so the tree would be the whole machine.", "Change into your project, or use --whole-host.")
        found.append(paths.Mount(cwd, paths.HOST + cwd, True))
        what = f"this tree's copy there, as {cwd}" if tree else "the working directory and nothing else of this machine"
        parts.append(Part(("--mount", mount(tree or cwd, paths.HOST + cwd)), what))
    elif machine.system == "Darwin":
        if not any(paths.below(cwd, folder) for folder in MAC_FOLDERS):
            raise UsageError(f"{cwd} is not among what Docker on a Mac shows to containers ({', '.join(MAC_FOLDERS)}).", "Work below your home directory.")
        for folder in MAC_FOLDERS[:3]:
            found.append(paths.Mount(folder, paths.HOST + folder))
            parts.append(Part(("--mount", mount(folder, paths.HOST + folder)), "a Mac's folders that Docker can show to containers"))
    else:
        found.append(paths.Mount("/", paths.HOST))
        parts.append(Part(("--mount", mount("/", paths.HOST)), "the whole machine at /host; --tree mounts the working directory alone"))
    for volume in request.volumes:
        target = volume.target or paths.HOST + volume.source
        found.append(paths.Mount(volume.source, target, True))
        parts.append(Part(("--mount", mount(volume.source, target, volume.read_only)), "asked for by --volume"))
    return paths.View(tuple(found), cwd, machine.home if not tree else "", disk, only_tree), parts


def _environment(request: Request, machine: Machine, given: gpus.Given) -> tuple[list[Part], dict[str, str], list[str]]:
    """The variables: ours unless the user says otherwise, then the user's by name only."""
    values = dict(request.values or {})
    around = request.environment or {}
    asked = {*values, *request.env, *request.file_names}
    parts, notes = [], []

    def ours(name: str, value: str, why: str) -> None:
        if name not in asked:
            parts.append(Part(("--env", f"{name}={value}"), why))

    ours("PYTHONUNBUFFERED", "1", "Python's output comes at once, also through a pipe")
    ours("HOME", f"{INSIDE}/home", "the image's home directories are not this user's to write")
    for name in ("USER", "LOGNAME"):
        ours(name, machine.user if machine.uid and not (machine.engine and machine.engine.rootless) else "root", "as programs ask for who they are")
    ours("CUDA_CACHE_PATH", f"{INSIDE}/cuda", "CUDA kernels compiled once are there the next time")
    if request.terminal and "TERM" in around:
        parts.append(Part(("--env", "TERM"), "your terminal's kind"))
    cuda = values.get("CUDA_VISIBLE_DEVICES", around.get("CUDA_VISIBLE_DEVICES"))
    if cuda is not None and "CUDA_VISIBLE_DEVICES" not in request.file_names:
        said = gpus.visible(cuda, machine, given)
        notes += [said] if said else []
        if "CUDA_VISIBLE_DEVICES" not in asked:
            parts.append(Part(("--env", "CUDA_VISIBLE_DEVICES"), "yours, checked against the GPUs that are there"))
    for path in request.env_files:
        parts.append(Part(("--env-file", path), "Docker reads the values itself"))
    for name in dict.fromkeys((*request.settings.env, *request.env, *values)):
        if name in values or name in around:
            parts.append(Part(("--env", name), "by name: its value is in no command line"))
        elif name in request.env:
            notes.append(f"-e {name}: there is no such variable here, so the container gets none.")
    return parts, values, notes


def _memory(request: Request, machine: Machine) -> list[Part]:
    asked = request.settings
    if asked.ipc:
        shared = [Part(("--ipc", asked.ipc), "asked for")]
        return shared if asked.ipc == "host" or not asked.shm_size else [*shared, Part(("--shm-size", asked.shm_size), "asked for")]
    if asked.shm_size:
        return [Part(("--shm-size", asked.shm_size), "asked for")]
    memory = machine.engine.memory if machine.engine else 0
    size = f"{memory // 2 >> 20}m" if memory else "8g"
    return [Part(("--shm-size", size), f"{'half the memory' if memory else 'some memory'} may be shared: data loaders need more than Docker's 64 MiB; nothing is taken before it is used")]


def _extras(request: Request, machine: Machine) -> list[Part]:
    parts = []
    if machine.engine and machine.engine.selinux:
        parts.append(Part(("--security-opt", "label=disable"), "SELinux would hide this machine's files, and relabelling them would harm the machine"))
    if request.settings.network:
        parts.append(Part(("--network", request.settings.network), "asked for"))
    for port in request.publish:
        parts.append(Part(("--publish", port), "asked for"))
    if request.platform:
        parts.append(Part(("--platform", request.platform), "asked for"))
    if request.entrypoint is not None:
        parts.append(Part(("--entrypoint", request.entrypoint), "asked for"))
    parts += [Part((word,), "asked for by --docker") for word in request.docker]
    return parts


def misfit(request: Request, machine: Machine, image: ImageConfig | Image, given: int) -> Failed | None:
    """Why an image cannot run here: it is not there for this architecture, or asks for more than the driver gives. None where nothing is known against it."""
    if isinstance(image, ImageConfig) and image.offered and not request.platform:
        return Failed(f"{request.image} is not there for {machine.arch or 'this machine'}, only for {' and '.join(image.offered)}.",
                      "Take an image for this machine's architecture, or name one with --platform (emulated, slowly).")
    disabled = {**(request.environment or {}), **(request.values or {})} if "NVIDIA_DISABLE_REQUIRE" in {*request.env, *(request.values or {})} else {}
    if not given or not machine.driver or disabled.get("NVIDIA_DISABLE_REQUIRE", "").lower() in ("1", "true", "yes", "on", "t"):
        return None
    config = image if isinstance(image, ImageConfig) else ImageConfig(request.image, image.env, image.labels)
    need = cudafit.refused(config, machine.driver, [gpu.name for gpu in machine.gpus])
    if need is None:
        return None
    newest = cudafit.native_cuda(machine.driver)
    return Failed(
        f"{request.image} asks for {need.condition} ({need.variable}), but driver {machine.driver} gives no more than CUDA {newest}.",
        f"Take an image for CUDA {newest} or older, or a newer driver (`mlhost setup --set driver.branch=…`); --gpus none runs without GPUs, "
        "-e NVIDIA_DISABLE_REQUIRE=1 without this check.",
    )


def shown(command: Command, explain: bool = False) -> str:
    """The command to copy; with `explain` the reasons below it, as comments."""
    import shlex

    rows = [" ".join(shlex.quote(word) for word in part.words) for part in command.parts]
    text = " \\\n  ".join(rows)
    if not explain:
        return text
    return text + "\n\n" + "\n".join(f"# {row}\n#     {part.why}" for row, part in zip(rows, command.parts))


def container_name(image: str, mark: str) -> str:
    """A name that says what runs: `mlhost-run-pytorch-1a2b3c4d`."""
    last = re.sub(r"[^A-Za-z0-9_.-]", "", PurePosixPath(image.partition("@")[0]).name.partition(":")[0])[:40] or "image"
    return f"mlhost-run-{last}-{mark}"
