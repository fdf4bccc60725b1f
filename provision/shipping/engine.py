"""The Docker of this machine, through its own client: contexts, DOCKER_HOST and logins are whatever the user's client makes of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.errors import Failed, UsageError
from provision.report.sanitize import line


class NoDocker(Failed):
    """There is no Docker here, or it does not answer."""


class NoSuchImage(Failed):
    """Docker has no image of that name."""


@dataclass(frozen=True)
class Image:
    """An image that a Docker has: its id, what it was asked for by, its tags and registry digests, layers (uncompressed digests) and bytes on disk."""

    id: str
    asked: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    diff_ids: tuple[str, ...]
    size: int
    arch: str

    @property
    def names(self) -> tuple[str, ...]:
        """What it is to be called where it arrives: the name it was asked for by, if that is a tag."""
        return tuple(tag for tag in self.tags if tag in (self.asked, f"{self.asked}:latest", f"docker.io/library/{self.asked}"))


@dataclass(frozen=True)
class About:
    """What a Docker says of itself: storage driver, folder, whether containerd keeps the images, version."""

    driver: str
    root: str
    containerd_store: bool
    version: str
    arch: str


def ours(*words: str) -> tuple[str, ...]:
    """The command line of this machine's Docker client. Raises NoDocker where there is none."""
    program = shutil.which("docker")
    if program is None:
        raise NoDocker("There is no `docker` on this machine's PATH.", "Install Docker (`mlhost setup`), or name a host that has it.")
    return (program, *words)


def call(*words: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
    """What a short Docker command prints. Raises NoDocker, NoSuchImage, or Failed with Docker's own words."""
    command = ours(*words)
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, env={**os.environ, **(env or {})})
    if done.returncode:
        raise problem(words, done.stderr.decode("utf-8", "replace"), "this machine")
    return done.stdout.decode("utf-8", "replace")


def problem(words: Sequence[str], said: str, where: str) -> Failed:
    """The error for a Docker command that failed, from what it said."""
    text = line(said.strip().splitlines()[-1] if said.strip() else "nothing", 400)
    low = said.lower()
    if "no such image" in low or "reference does not exist" in low:
        return NoSuchImage(f"{where}: Docker has no such image: {text}", "See `docker images`; pull or build it first.")
    if "permission denied" in low and "sock" in low:
        return NoDocker(f"{where}: this user may not talk to Docker.", "Run as root (sudo), or join the group docker (`docker.users` in a playbook).")
    if "cannot connect to the docker daemon" in low or "is the docker daemon running" in low or "error during connect" in low:
        return NoDocker(f"{where}: Docker does not answer. It said: {text}", "Start it (`systemctl start docker`), or see `mlhost doctor`.")
    return Failed(f"{where}: `docker {' '.join(words[:2])}` failed. It said: {text}", "See what Docker's own log says (journalctl -u docker).")


def check_name(text: str) -> str:
    """A reference as an argument: nothing that Docker could take for an option. Raises UsageError."""
    if not text or text.startswith("-") or any(c.isspace() or ord(c) < 32 for c in text):
        raise UsageError(f"{text!r} is no name of an image.", "Write it as `docker images` shows it: name, name:tag or an id.")
    return text


def images(names: Sequence[str]) -> tuple[Image, ...]:
    """What this machine's Docker knows of images. Raises NoSuchImage, NoDocker, UsageError."""
    for name in names:
        check_name(name)
    return parsed(names, call("image", "inspect", *names))


def parsed(names: Sequence[str], text: str) -> tuple[Image, ...]:
    """The images in what `docker image inspect NAMES` printed. Raises Failed where that cannot be read."""
    try:
        rows = json.loads(text)
        return tuple(_image(name, row) for name, row in zip(names, rows))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Failed("What `docker image inspect` printed cannot be read.", "Check that `docker` is Docker's own client.") from None


def _image(name: str, row: Mapping[str, Any]) -> Image:
    return Image(
        id=str(row["Id"]),
        asked=name,
        tags=tuple(row.get("RepoTags") or ()),
        digests=tuple(row.get("RepoDigests") or ()),
        diff_ids=tuple((row.get("RootFS") or {}).get("Layers") or ()),
        size=int(row.get("Size") or 0),
        arch=str(row.get("Architecture") or ""),
    )


def about() -> About:
    """What this machine's Docker says of itself. Raises NoDocker."""
    return parsed_about(call("info", "--format", "{{json .}}"))


def parsed_about(text: str) -> About:
    """The same from what `docker info --format '{{json .}}'` printed. Raises NoDocker where there was no answer."""
    try:
        row = json.loads(text)
    except ValueError:
        row = {}
    if not row.get("ServerVersion"):
        said = "; ".join(row.get("ServerErrors") or ()) or "nothing"
        raise problem(("info",), said if "docker" in said.lower() else f"Cannot connect to the Docker daemon: {said}", "this machine")
    status = [tuple(pair) for pair in row.get("DriverStatus") or () if isinstance(pair, list)]
    return About(
        driver=str(row.get("Driver") or ""),
        root=str(row.get("DockerRootDir") or ""),
        containerd_store=("driver-type", "io.containerd.snapshotter.v1") in status,
        version=str(row["ServerVersion"]),
        arch=str(row.get("Architecture") or ""),
    )
