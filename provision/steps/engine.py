"""Which Docker Engine is on the host, and which one there will be."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

from provision.model import Facts, Problem
from provision.rows import Platform
from provision.spec import DockerSpec
from provision.steps import plural

# Packages that carry an engine, best known first, and whose they are where they are not the distribution's own: moby-engine is Microsoft's, on
# Azure's images; docker was Docker's before 2017, and is the distribution's own on some with rpm packages.
ENGINE_PACKAGES = {"docker-ce": "docker-ce", "docker.io": "distro", "moby-engine": "moby"}
# What goes with moby-engine; neither Docker's nor the distribution's engine can stand beside it.
MOBY = ("moby-engine", "moby-cli", "moby-buildx", "moby-compose", "moby-containerd", "moby-runc", "moby-tini")


@dataclass(frozen=True)
class Engine:
    """The engine that will be there once the plan is carried out. `version` "" = whatever is newest; `fresh` = there is none yet;
    `changes` = its packages are replaced by this plan, which restarts it."""

    source: str
    version: str
    fresh: bool
    changes: bool = False

    def at_least(self, *wanted: int) -> bool:
        """Whether the version is known to be `wanted` or newer; the newest of Docker's own repository always is."""
        if not self.version:
            return self.source == "docker-ce" and self.changes
        return numbers(self.version) >= wanted


@dataclass(frozen=True)
class Present:
    """The engine on the host: `source` docker-ce, distro, moby, other (no package of its own), "" = none."""

    source: str
    package: str
    version: str

    @property
    def name(self) -> str:
        """`Docker 29.7.2 from docker-ce`."""
        origin = f" from {self.package}" if self.package else ""
        return f"Docker {self.version}{origin}" if self.version else f"a Docker of unknown version{origin}"


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of an upstream or package version: `5:29.7.2-1~debian` -> (29, 7, 2)."""
    match = re.match(r"(?:\d+:)?v?(\d+(?:\.\d+)*)", version)
    return tuple(int(n) for n in match.group(1).split(".")) if match else ()


def upstream(version: str) -> str:
    """The upstream version in a package's: `5:29.7.2-1~debian` -> 29.7.2."""
    return ".".join(map(str, numbers(version)))


def satisfies(version: str, wanted: str) -> bool:
    """Whether an upstream or package version is the wanted one, exact or by whole leading numbers: 29.7.2 satisfies 29.7, not 29.70."""
    want = numbers(wanted)
    return not want or numbers(version)[: len(want)] == want


def fits(version: str, wanted: str) -> bool:
    """Whether a package's version is as a pattern says; the epoch counts only where the pattern has one."""
    bare = version.partition(":")[2] or version
    return fnmatch.fnmatchcase(version, wanted) or fnmatch.fnmatchcase(bare, wanted)


def exactly(version: str, wanted: str) -> bool:
    """Whether a package's version is that of `wanted` to its last digit, whatever the epoch and the packaging's own suffix."""
    bare = version.partition(":")[2] or version
    return bare == wanted or (bare.startswith(wanted) and bare[len(wanted)] not in "0123456789.")


def there(facts: Facts, name: str) -> str:
    """The version of a package that is there, be it only half installed; "" if it is not."""
    package = (facts.packages or {}).get(name)
    return package.version if package and package.status not in ("config-files", "not-installed") else ""


def engine_packages(platform: Platform) -> dict[str, str]:
    """Packages that carry an engine on this platform, and whose they are."""
    own = platform.distro_docker_packages[:1]
    return {**ENGINE_PACKAGES, **dict.fromkeys(own, "distro")}


def present(facts: Facts, platform: Platform) -> Present:
    """The engine that is on the host."""
    server = (facts.docker.server or "") if facts.docker else ""
    for package, source in engine_packages(platform).items():
        version = there(facts, package)
        if version:
            # What runs may be older than what is installed, or be the snap's.
            return Present(source, package, upstream(version) or server)
    if facts.docker and not facts.docker.snap and not facts.docker.podman_docker and (facts.docker.dockerd or server):
        dockerd = facts.docker.dockerd
        return Present("other", "", server or ("" if dockerd.startswith("/") else dockerd))
    return Present("", "", "")


def beside(facts: Facts, spec: DockerSpec) -> list[Problem]:
    """Other things that answer to `docker` and that a second engine would silently double."""
    docker, problems = facts.docker, []
    if docker and docker.snap and "snap" not in spec.beside:
        problems.append(
            Problem(
                "docker/snap",
                "Docker is installed here as a snap, which has its own daemon and configuration and cannot see the NVIDIA toolkit.",
                "Remove it (`sudo snap remove docker`; add `--purge` only if its containers and images may go), or say that it may stay "
                "beside: `--set docker.beside=[snap]`.",
            )
        )
    if docker and docker.rootless_users and "rootless" not in spec.beside:
        problems.append(
            Problem(
                "docker/rootless",
                f"A rootless Docker belongs to {', '.join(docker.rootless_users)} on this host; a second, rootful engine would stand beside it.",
                "Say that it may stay beside (`--set docker.beside=[rootless]`), or remove it as that user with "
                "`dockerd-rootless-setuptool.sh uninstall`.",
            )
        )
    if docker and docker.podman_docker and not there(facts, "podman-docker"):
        problems.append(
            Problem(
                "docker/podman",
                "The command `docker` is a script of podman's on this host, and belongs to no package that could be removed.",
                "Remove or rename that script (`command -v docker` shows where it is).",
            )
        )
    return problems


def fate(facts: Facts) -> str:
    """What a restart of the daemon does to the containers that run, as a clause; "" if none runs."""
    docker = facts.docker
    if not docker or not docker.running_containers:
        return ""
    running = plural(docker.running_containers, "container is", "containers are") + " running"
    if docker.live_restore:
        return f"{running} and will go on (live-restore)"
    return f"{running} and will stop; those with a restart policy come back"


def restarts(facts: Facts) -> tuple[str, ...]:
    """The entry for a plan's `restarts` where Docker is restarted; empty if it does not run."""
    if not facts.docker or not facts.docker.server:
        return ()
    return (f"docker.service ({fate(facts) or 'no container is running'})",)
