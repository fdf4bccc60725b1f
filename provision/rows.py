"""The catalog's answers: frozen values, made from rows of `data/*.toml` by `provision.catalog`. Empty strings mean that there is none.

Named tuples, because every run imports all of them and a dataclass takes ten times as long to make.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class KernelRule(NamedTuple):
    """A kind of kernel by a pattern for `uname -r`; the other values are filled with {kernel} and the pattern's groups."""

    match: str
    flavor: str
    headers: tuple[str, ...]
    meta: str
    headers_version: str = ""  # beginning of the headers' version, where their names do not carry the release
    extra: tuple[str, ...] = ()
    docker: tuple[str, ...] = ()
    compiler: str = ""
    cc: str = ""


class Platform(NamedTuple):
    """A system as the plan sees it: the last place that looks at a distribution's name."""

    id: str
    name: str
    version: str
    codename: str  # of the base: the suite in package sources
    family: str
    arch: str
    deb_arch: str
    base_id: str
    base_version: str
    derivative_of: str  # "Ubuntu 24.04" for Linux Mint 22
    deb822: bool
    apt: str
    docker_tree: str  # "" where Docker publishes nothing
    docker_suite: str
    docker_version_suffix: str
    docker_frozen: bool  # Docker publishes nothing new for it
    docker_remove: tuple[str, ...]  # packages that Docker's own conflict with
    distro_docker_packages: tuple[str, ...]
    distro_docker_version: str
    distro_docker_remove: tuple[str, ...]  # packages that the distribution's engine conflicts with
    toolkit: bool  # NVIDIA publishes the container toolkit for it
    cuda: str  # directories in NVIDIA's repository
    cuda_arch: str
    cuda_key: str
    cuda_first: str  # driver branches in it; last "" = current
    cuda_last: str
    driver_sources: tuple[str, ...]  # best first
    components: tuple[str, ...]  # of the distribution's archive, needed for its driver packages
    nonfree: str  # the same as words
    distro_driver: str  # branch that the distribution itself packages
    kernel_flavor_pattern: str
    headers: tuple[str, ...]
    headers_meta: str
    initramfs: str
    initramfs_update: str
    init: str
    python3: str
    eol: str  # ISO date
    package_manager: str = "apt"  # the one expected: apt, dnf, dnf5, yum, tdnf, zypper
    locks: str = "apt-mark"  # how packages are held: apt-mark, versionlock, tdnf, zypper
    lock_packages: tuple[str, ...] = ()  # what that needs
    lock_wait: bool = True  # the package manager can wait for its own lock
    key_armor: bool = True  # it takes signing keys as armoured text; else in binary form only
    prerequisites: tuple[str, ...] = ()  # packages without which it cannot use an https source with a key of its own
    rpm_arch: str = ""  # "" on systems with deb packages
    modular: bool = False  # NVIDIA's repository groups drivers into module streams
    epel: bool = False  # drivers built here need dkms from EPEL
    epel_package: str = ""  # the distribution's own package that brings EPEL with its key
    extra_repositories: tuple[str, ...] = ()  # of the distribution, off by default, needed beside EPEL
    kernels: tuple[KernelRule, ...] = ()  # first match wins; empty on systems with deb packages
    docker_newest: str = ""  # the last version in a frozen tree
    docker_packages: tuple[str, ...] = ()  # what that tree has, where it is not everything
    toolkit_tree: str = "deb"  # folder of NVIDIA's toolkit repository
    toolkit_newest: str = ""  # the last version in it, where it gets no new ones
    docker_repository: str = ""  # the distribution's own repository that its engine is in, where that may be switched off
    docker_enable: str = ""  # command that switches it on, where no file names it
    dkms: bool = True  # a module that is built here can be built anew for later kernels
    toolkit_avoid: tuple[str, ...] = ()  # versions in the toolkit's repository that cannot be installed here
    docker_starts: bool = True  # installing the engine starts it
    toolkit_distro: tuple[str, ...] = ()  # the distribution's own toolkit packages, preferred where there are any
    driver_remove: tuple[str, ...] = ()  # packages that NVIDIA's own conflict with
    preferred_branches: tuple[str, ...] = ()  # instead of the catalog's, where its repository has none of those
    withheld: tuple[tuple[str, str], ...] = ()  # repository that exists and is not used, and why
    selinux: str = ""  # mode of a fresh machine, "" = none
    firewall: str = ""  # manager that runs on a fresh machine
    notes: tuple[str, ...] = ()
    source: str = ""  # where the row's facts come from
    verified: str = ""  # ISO date, or "unverified"

    @property
    def package_arch(self) -> str:
        """The architecture in package names: amd64 for apt, x86_64 for rpm."""
        return self.rpm_arch or self.deb_arch

    @property
    def base(self) -> str:
        """The base system as one word: debian:12, ubuntu:24.04."""
        return f"{self.base_id}:{self.base_version}"


class Repository(NamedTuple):
    """A vendor's package repository for one platform. `fingerprints` are all the primary keys its key file may hold.

    `base` is the beginning of `uri` and `key_url` that a mirror stands in for. `legacy_sources` are file names in sources.list.d (for rpm:
    beside `source_path`), some with a `*`. For rpm `uri` is the baseurl without any variable, `suite` "" and `section` the name in the .repo file.
    """

    name: str
    title: str
    base: str
    uri: str
    suite: str  # "/" in a flat repository, which has no components
    components: tuple[str, ...]
    architectures: tuple[str, ...]
    key_url: str
    key_path: str
    fingerprints: tuple[str, ...]
    source_path: str
    index_url: str  # what proves that the repository serves this suite
    hosts: tuple[str, ...]
    packages: tuple[str, ...]
    epoch: str
    minimum: str  # older versions have known holes
    newest: str  # newest seen
    avoid: tuple[str, ...]  # broken versions
    legacy_sources: tuple[str, ...]
    legacy_keys: tuple[str, ...]
    legacy_packages: tuple[str, ...]
    obsolete_fingerprints: tuple[str, ...]
    family: str = "debian"
    section: str = ""
    gpgcheck: bool = True  # packages are checked
    repo_gpgcheck: bool = False  # the index is checked
    epochs: tuple[tuple[str, str], ...] = ()  # package, and what stands before the colon in its version
    includes: tuple[str, ...] = ()  # only these packages are taken from it; () = any
    installed_keys: tuple[str, ...] = ()  # key files that the distribution has put on the machine already; then `key_url` is ""
    legacy_sections: tuple[str, ...] = ()


class Kernel(NamedTuple):
    """A kind of kernel by its release: the packages that building a module for it takes, and the modules that Docker and the driver need besides."""

    flavor: str
    headers: tuple[str, ...]
    meta: str  # keeps headers coming with new kernels
    versions: Mapping[str, str] = MappingProxyType({})  # package -> glob, where names do not carry the release
    extra: tuple[str, ...] = ()
    docker: tuple[str, ...] = ()
    compiler: str = ""  # package of the compiler that modules must be built with
    cc: str = ""  # that compiler's program, where it is not `cc`


class Generation(NamedTuple):
    """A GPU generation. `order` counts from the oldest; `flavors` are the kernel modules that can drive it, the default first."""

    name: str
    title: str
    order: int
    capability: str
    first_branch: str
    last_branch: str  # "" = still supported
    flavors: tuple[str, ...]
    cuda: str  # last CUDA toolkit major, "" = ongoing

    @property
    def default_flavor(self) -> str:
        return self.flavors[0] if self.flavors else ""

    @classmethod
    def of(cls, order: int, row: Row) -> Generation:
        names = ("name", "title", "capability", "first_branch", "last_branch", "cuda")
        return cls(order=order, flavors=tuple(row["flavors"]), **{name: row[name] for name in names})


class GpuModel(NamedTuple):
    """A GPU by its PCI ids. `min_driver` "" = any branch that drives its generation.

    `vgpu`: a slice of a GPU, which needs the GRID driver. `nvlink5`: its switches are not on the PCI bus and need nvlsm too.
    `grace`: part of an arm64 superchip with coherent memory.
    """

    device_id: str
    name: str
    generation: str
    vgpu: bool = False
    open_only: bool = False
    min_driver: str = ""
    nvlink5: bool = False
    grace: bool = False
    tegra: bool = False  # of a Jetson or IGX board, whose driver comes with JetPack


@dataclass(frozen=True)
class Instance:
    """What a cloud's instance type says of its accelerators. `driver`: datacenter, grid, or "" where they are not NVIDIA's; `count` 0 = by size."""

    cloud: str
    gpu: str
    vendor: str
    driver: str
    count: int
    nvswitch: bool
    arch: str
    note: str


class Image(NamedTuple):
    """An official image that has parts built in (`has`: driver, docker, toolkit)."""

    id: str
    name: str
    clouds: tuple[str, ...]
    has: tuple[str, ...]
    note: str


class Branch(NamedTuple):
    """A driver branch. `kind` is lts, production, new-feature or legacy; `eol` an ISO date or ""; `oldest`, `newest` the generations it drives."""

    number: str
    kind: str
    eol: str
    newest_release: str
    flavors: tuple[str, ...]
    oldest: str
    newest: str

    @classmethod
    def of(cls, row: Row) -> Branch:
        oldest, newest = row["generations"]
        return cls(row["number"], row["kind"], row["eol"], row["newest"], tuple(row["flavors"]), oldest, newest)


class Installer(NamedTuple):
    """NVIDIA's .run file of one driver version: where it is, which part of that a mirror stands in for, a small file beside it to ask for, its
    checksum, its options, and the compiler where it is not `cc`."""

    version: str
    base: str
    url: str
    check_url: str
    sha256: str
    options: tuple[str, ...]
    cc: str = ""


class DriverPackages(NamedTuple):
    """What installs a driver without a desktop. `repository` None = only the distribution's archive; its `components` must be enabled.

    A module that is not `prebuilt` is built on the machine, for which `headers` are needed (`headers_meta` keeps them coming with new kernels).
    Prebuilt modules have `metapackage`, which follows new kernels, and `fallback`, the same driver by DKMS for a kernel that has none.
    `versions` maps package names to globs. `preferences` is an apt preferences stanza that keeps every part of the driver on the branch; `pinning`
    is the vendor's package that does the same, but only for later transactions. `module` is the name to load.

    For rpm: `stream` ("nvidia-driver:580-open") is to be enabled after a reset of its module; `locks` are patterns to lock afterwards; `needs` names
    further repositories (epel); `release` is the distribution's own package that brings the repository; `follows` names the prebuilt module whose
    version, up to its first `_`, all other packages must have; `extra` are kernel modules it needs; `compiler` what it must be built with.
    Where a module is made for one kernel its version ends in `kernel_suffix`. Without `headers` and not prebuilt: no package has this kernel's headers.

    With `installer` the driver comes in no package: `packages` is empty, and `extra` is what the installer builds the module with. Where it is not
    `rebuilt`, nothing builds the module anew for a later kernel.
    """

    packages: tuple[str, ...]
    headers: tuple[str, ...]
    headers_meta: str
    repository: str | None
    components: tuple[str, ...]
    pinning: str
    preferences: str
    versions: Mapping[str, str]
    prebuilt: bool
    metapackage: str
    module: str
    source: str
    branch: str
    flavor: str
    fallback: DriverPackages | None
    stream: str = ""
    locks: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    release: str = ""
    follows: str = ""
    extra: tuple[str, ...] = ()
    compiler: str = ""
    kernel_suffix: str = ""
    installer: Installer | None = None
    rebuilt: bool = True


class FabricPackages(NamedTuple):
    """The fabric manager's packages, the globs that keep them at the driver's version, and its service."""

    packages: tuple[str, ...]
    versions: Mapping[str, str]
    service: str


def filled(template: str, values: Mapping[str, str]) -> str:
    """`template` with every {name} replaced. KeyError for a name that is not among the values."""
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)


def version_key(version: str) -> tuple[int, ...]:
    """A dotted version as numbers, to be compared; what follows the numbers is dropped."""
    match = re.match(r"[0-9]{1,18}(?:\.[0-9]{1,18})*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
