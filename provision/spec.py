"""The desired state as values: what a playbook says, with every default. `provision.playbook` reads YAML into it, strictly.

Each field's metadata holds its documentation and what it admits; the reference in the docs is generated from it.
Kinds: choice, bool, text, int, path, url, version (quoted text, digits and dots), texts (list), json (any mapping), size ("50m"), limit ("unlimited" or a number),
limits (mapping name -> limit), section (nested).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def _key(default: Any, kind: str, doc: str, choices: tuple[str, ...] = (), secret: bool = False) -> Any:
    return field(default=default, metadata={"kind": kind, "doc": doc, "choices": choices, "secret": secret})


def _map(kind: str, doc: str) -> Any:
    return field(default_factory=dict, metadata={"kind": kind, "doc": doc, "choices": (), "secret": False})


def _section(cls: type, doc: str) -> Any:
    return field(default_factory=cls, metadata={"kind": "section", "doc": doc, "choices": (), "secret": False})


@dataclass(frozen=True)
class Log:
    """Docker's log rotation."""

    max_size: str = _key(
        "",
        "size",
        "Rotate a container's log at this size (for example `50m`); empty leaves Docker's default, which never rotates.",
    )
    max_file: int = _key(3, "int", "How many rotated log files to keep; used with `max_size`.")


@dataclass(frozen=True)
class DockerSpec:
    """The Docker Engine."""

    source: str = _key(
        "auto",
        "choice",
        "Where the engine comes from: Docker's own repository (`docker-ce`), the distribution (`distro`), or `auto`: "
        "an engine already there is kept; else Docker's own where it serves the system and can be reached, else the distribution's.",
        ("auto", "docker-ce", "distro"),
    )
    version: str = _key(
        "", "version", "Engine version, exact (`29.7.2`) or a prefix (`29.7`, `29`); empty takes the newest. Must be quoted."
    )
    users: tuple[str, ...] = _key(
        (), "texts", "Users to put into the `docker` group. Membership is equivalent to root on the host."
    )
    remove_conflicts: bool = _key(
        False,
        "bool",
        "Consent to removing (never purging) packages that conflict with the chosen engine. Without it the plan names them and refuses.",
    )
    beside: tuple[str, ...] = _key(
        (),
        "texts",
        "Other Docker installations that may stay beside the engine: any of `snap`, `rootless`. Without consent the plan refuses.",
    )
    data_root: str = _key(
        "",
        "path",
        "Docker's data directory. With it images are kept there too (the classic image store), not in `/var/lib/containerd`.",
    )
    log: Log = _section(Log, "Log rotation for containers.")
    live_restore: str = _key(
        "", "choice", "Containers survive a restart of the daemon: `yes`, `no`, or empty to leave it.", ("", "yes", "no")
    )
    shm_size: str = _key(
        "",
        "size",
        "Default size of `/dev/shm` in containers (for example `8g`); Docker's own default of 64 MiB breaks PyTorch data loaders.",
    )
    ulimits: Mapping[str, str] = _map(
        "limits", "Default limits of containers, for example `{memlock: unlimited, nofile: 1048576}`."
    )
    insecure_registries: tuple[str, ...] = _key((), "texts", "Registries (host:port) used without TLS.")
    daemon: Mapping[str, Any] = _map(
        "json", "Any further keys of `daemon.json`, merged; keys that are already there and not named here stay."
    )


@dataclass(frozen=True)
class DriverSpec:
    """The NVIDIA driver."""

    install: str = _key(
        "auto", "choice", "`auto` installs a driver where a GPU has none; `never` leaves the driver alone.", ("auto", "never")
    )
    branch: str = _key(
        "auto", "text", 'Driver branch (`"580"`), or `auto`: the long-term branch that serves the oldest GPU. Must be quoted.'
    )
    flavor: str = _key(
        "auto", "choice", "Kernel module flavour, or `auto`: what the GPUs' generation needs.", ("auto", "open", "proprietary")
    )
    source: str = _key(
        "auto",
        "choice",
        "`distro` (Ubuntu's signed prebuilt modules, Debian's non-free), `cuda` (NVIDIA's repository, DKMS), `runfile` (NVIDIA's .run installer, DKMS; "
        "only for systems that no repository serves), or `auto`: packages where there are any, else the installer.",
        ("auto", "distro", "cuda", "runfile"),
    )
    minimum: str = _key(
        "", "version", "The oldest driver version that is good enough; a working older one is then replaced only with `replace`."
    )
    replace: bool = _key(False, "bool", "Consent to replacing a working driver that does not satisfy `branch` or `minimum`.")
    drift: str = _key(
        "auto",
        "choice",
        "What keeps the GPU working after unattended updates: `prebuilt` (signed modules follow the kernel by a metapackage), `dkms` (modules are "
        "built for every new kernel, whose headers follow by a metapackage), `hold` (kernel and driver packages are not updated), or `auto`: "
        "prebuilt where there are prebuilt modules, else dkms, else hold.",
        ("auto", "hold", "prebuilt", "dkms"),
    )


@dataclass(frozen=True)
class ToolkitSpec:
    """The NVIDIA Container Toolkit."""

    install: str = _key(
        "auto",
        "choice",
        "`auto` installs the NVIDIA Container Toolkit where there is a GPU; `never` leaves it alone.",
        ("auto", "never"),
    )
    version: str = _key("", "version", "Toolkit version, exact or a prefix; all four packages get the same. Must be quoted.")
    default_runtime: bool = _key(False, "bool", "Make `nvidia` Docker's default runtime.")


@dataclass(frozen=True)
class SmokeSpec:
    """The container that proves the result."""

    enabled: bool = _key(True, "bool", "Prove the result by running a container.")
    image: str = _key(
        "embedded",
        "text",
        "`embedded`: a small image made on the host, no registry needed; or an image reference, best by digest. What it asks of the driver "
        "(`NVIDIA_REQUIRE_CUDA`) is looked up in its registry before anything is changed or pulled.",
    )
    workload: str = _key(
        "",
        "text",
        "The image that `mlhost verify --deep` runs: its own command must compute on a GPU and end with 0. Empty takes one of NVIDIA's samples that fits the driver.",
    )


@dataclass(frozen=True)
class Mirror:
    """A place that stands in for a vendor's repository."""

    url: str = _key("", "url", "Base URL that replaces the vendor's.")
    key_url: str = _key(
        "", "url", "Where the signing key is, if the mirror signs anew; default: the vendor's key at its place under `url`."
    )
    fingerprint: str = _key(
        "", "text", "Full fingerprint of the mirror's own signing key, if it signs anew; default: the vendor's pinned one."
    )


@dataclass(frozen=True)
class Mirrors:
    """Where to fetch from instead of the vendors."""

    docker: Mirror = _section(Mirror, "In place of `https://download.docker.com`.")
    toolkit: Mirror = _section(Mirror, "In place of `https://nvidia.github.io/libnvidia-container`.")
    cuda: Mirror = _section(Mirror, "In place of `https://developer.download.nvidia.com/compute/cuda/repos`.")
    registry: tuple[str, ...] = _key((), "texts", "Registry mirrors for Docker Hub pulls (`registry-mirrors`).")
    driver: str = _key("", "url", "In place of `https://us.download.nvidia.com`, for the driver's .run installer, whose checksum is pinned.")


@dataclass(frozen=True)
class Proxy:
    """The way out of a closed network."""

    http: str = _key("", "url", "Proxy for http, used by apt, the Docker daemon and its pulls.", secret=True)
    https: str = _key("", "url", "Proxy for https; default: the one for http.", secret=True)
    no_proxy: tuple[str, ...] = _key((), "texts", "Hosts that are reached directly.")


@dataclass(frozen=True)
class Storage:
    """A local disk for Docker's data."""

    disk: str = _key(
        "",
        "text",
        "A disk to mount: a device path (`/dev/disk/by-id/…`), or `instance-store` for the first blank local NVMe disk of a cloud instance. "
        "It is formatted only while it is blank.",
    )
    path: str = _key("/mnt/scratch", "path", "Where it is mounted, at every boot before Docker starts.")


@dataclass(frozen=True)
class RunSpec:
    """What `mlhost run` does where its command line says nothing else."""

    mount: str = _key(
        "host",
        "choice",
        "What containers see of the machine: all of it at `/host` (`host`), or the working directory alone (`tree`).",
        ("host", "tree"),
    )
    gpus: str = _key("", "text", "Which GPUs: `all`, `none`, `device=0,1`; empty takes all there are, or the CPU.")
    shm_size: str = _key("", "size", "Shared memory of a container (`8g`); empty allows half the machine's memory.")
    ipc: str = _key("", "text", "Docker's `--ipc`, for example `host`.")
    network: str = _key("", "text", "Docker's `--network`, for example `host` or `none`.")
    volumes: tuple[str, ...] = _key((), "texts", "Folders mounted besides: `/data:ro` is `/host/data` inside, `/data:/data` the same path.")
    env: tuple[str, ...] = _key((), "texts", "Names of variables that are passed on where the caller has them; never values.")


@dataclass(frozen=True)
class Preflight:
    """What must hold before anything is changed."""

    root_free_gb: int = _key(
        0, "int", "Free space wanted on `/` in GB before installing; 0 takes what the plan is known to need."
    )
    docker_free_gb: int = _key(0, "int", "Free space wanted in Docker's data directory in GB; 0 takes the default of 2.")
    lock_wait: int = _key(900, "int", "Seconds to wait for cloud-init and for package manager locks that others hold.")
    repair: bool = _key(
        False, "bool", "Consent to `dpkg --configure -a` where an earlier package operation was cut off by somebody else."
    )
    allow_container: bool = _key(False, "bool", "Go on inside a container (for tests of images); refused otherwise.")


@dataclass(frozen=True)
class Spec:
    """A whole playbook."""

    name: str = _key("", "text", "What this playbook is called in reports.")
    extends: str = _key("", "text", "A playbook (packaged name or file) whose values are the defaults of this one.")
    gpu: str = _key(
        "auto",
        "choice",
        "`auto`: a GPU host where there is an NVIDIA GPU, else a Docker host; `required`: refuse without a GPU; `ignore`: Docker only.",
        ("auto", "required", "ignore"),
    )
    reboot: str = _key(
        "ask",
        "choice",
        "`allow` a reboot where one is needed, `never`, or `ask` (without a terminal: never). `--reboot/--no-reboot` on the command line wins.",
        ("ask", "allow", "never"),
    )
    docker: DockerSpec = _section(DockerSpec, "The Docker Engine.")
    driver: DriverSpec = _section(DriverSpec, "The NVIDIA driver.")
    toolkit: ToolkitSpec = _section(ToolkitSpec, "The NVIDIA Container Toolkit.")
    smoke: SmokeSpec = _section(SmokeSpec, "The proof.")
    mirrors: Mirrors = _section(Mirrors, "Mirrors of the vendors' repositories.")
    proxy: Proxy = _section(Proxy, "Proxy for apt, the Docker daemon and pulls alike.")
    storage: Storage = _section(Storage, "A local disk for Docker's data.")
    run: RunSpec = _section(RunSpec, "Defaults of `mlhost run -p` with this playbook, and on the hosts that are set up with it (`/etc/mlhost/run.toml`).")
    preflight: Preflight = _section(Preflight, "What is checked before anything is changed.")
    steps: tuple[str, ...] = _key(
        (),
        "texts",
        "Steps of your own: paths of Python files (relative to the playbook) or names of `mlhost.steps` entry points.",
    )
