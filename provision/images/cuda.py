"""Which CUDA release an image should have, so that it runs on all of a fleet's drivers and GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.cudafit import native_cuda
from provision.errors import Failed
from provision.rows import version_key


class NoFit(Failed):
    """No published CUDA image suits all these hosts."""


@dataclass(frozen=True)
class Host:
    """What one host is: its name, its driver's version ("550.163.01", "550"), and its GPUs' generations ("ampere"); both may be empty."""

    name: str
    driver: str
    generations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The release ("12.4.1"), the system it is on ("ubuntu22.04"), the reasons in sentences, and whether its image was seen to be published."""

    release: str
    system: str
    why: tuple[str, ...]
    verified: bool

    def image(self, flavor: str) -> str:
        """The reference of the image: `base`, `runtime`, `devel`, `cudnn-runtime` or `cudnn-devel`."""
        return f"docker.io/nvidia/cuda:{self.release}-{flavor}-{self.system}"

    @property
    def wheels(self) -> str:
        """What wheels for the newest CUDA that fits are tagged with: `cu124`."""
        return "cu" + "".join(self.release.split(".")[:2])


def choose(hosts: Sequence[Host], images: Mapping[str, Any], cuda: Mapping[str, Any] | None = None, wanted: str = "") -> Choice:
    """The newest published release that every host's driver runs by itself, and every GPU is known to. `images` and `cuda` are the data files' contents;
    `wanted` ("12.4" or "12.4.1") insists on a release. Raises NoFit.

    A driver runs newer minor releases of its major one as well, but not what is compiled at run time (PTX from newer compilers), so that is not relied on.
    """
    why: list[str] = []
    newest: tuple[int, ...] = (999,)
    oldest: tuple[int, ...] = (0,)
    newest_of = oldest_of = ""
    for host in hosts:
        native = native_cuda(host.driver, cuda) if host.driver else None
        if host.driver and native is None:
            raise NoFit(f"{host.name}: driver {host.driver} is older than every CUDA known here.", "Update its driver (`mlhost setup`).")
        if native is not None and version_key(native) < newest:
            newest, newest_of = version_key(native), f"driver {host.driver} ({host.name}) serves CUDA {native} and older by itself"
        for generation in host.generations:
            first, last = images["generation"].get(generation, ("", ""))
            if last and version_key(last) < newest[: len(version_key(last))]:
                newest, newest_of = (*version_key(last), 999), f"{host.name} has a {generation.capitalize()} GPU, which CUDA {last} is the last to know"
            if first and version_key(first) > oldest:
                oldest, oldest_of = version_key(first), f"{host.name} has a {generation.capitalize()} GPU, which CUDA {first} is the first to know"
    why += [text for text in (newest_of, oldest_of) if text]
    for row in sorted(images["cuda"], key=lambda row: version_key(row["release"]), reverse=True):
        key = version_key(row["release"])
        if wanted and key[: len(version_key(wanted))] != version_key(wanted):
            continue
        if key[:2] <= newest and key[:2] >= oldest:
            why += [f"CUDA {row['release']} is the newest below that with a published image"] if newest_of and not wanted else []
            return Choice(row["release"], row["systems"][0], tuple(why), bool(row["seen"]))
    said = "; ".join(why) or f"there is none for {wanted}"
    raise NoFit(f"No CUDA image suits them all: {said}.", "Update the oldest driver (`mlhost setup`), or make an image for each part of the fleet.")
