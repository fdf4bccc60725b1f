"""The small frozen kinds of change mlhost can make to a host. Data only: `provision.render` turns each into sh (check, change, the same check again).

Every kind knows its undo through `provision.render`; what was really changed is recorded by the script in the host's journal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Union


@dataclass(frozen=True)
class Key:
    """A signing key pinned by `fingerprints` (full, upper case hex). `text` is the key as fetched and compared; empty until the controller has it."""

    name: str
    url: str
    fingerprints: tuple[str, ...]
    path: str
    text: bytes = b""


@dataclass(frozen=True)
class AptRepository:
    """One apt source file at `path` with exactly `text`, its key, and no other file naming the same repository.

    `obsolete` are files that name only this repository and are moved aside; `edits` are (path, new text) for files that name others too.
    `check_url` is the index whose reachability was checked. Only this source is refreshed.
    """

    name: str
    path: str
    text: str
    key: Key | None
    obsolete: tuple[str, ...] = ()
    edits: tuple[tuple[str, str], ...] = ()
    check_url: str = ""


@dataclass(frozen=True)
class RpmRepository:
    """One repository file for dnf, yum, tdnf or zypper: at `path` (in /etc/yum.repos.d or /etc/zypp/repos.d) with exactly `text`, and its key.

    `name` is the repository's id, the one section of `text` that is fetched; `text` asks for signatures (`gpgcheck=1` or `repo_gpgcheck=1`) and
    names the key's own path, as `gpgkey=file://…`. The key's file is written and given to `rpm --import` after the controller has compared it.
    `key` None: the system trusts the key already, and `text` says where it lies. `obsolete`, `edits` and `check_url` are as for apt.
    """

    name: str
    path: str
    text: str
    key: Key | None
    obsolete: tuple[str, ...] = ()
    edits: tuple[tuple[str, str], ...] = ()
    check_url: str = ""


@dataclass(frozen=True)
class Package:
    """A package and the version asked for: "" any, an exact version, or a prefix ending in `*` (apt's own pattern).

    For rpm the version is `EPOCH:VERSION-RELEASE`; without the epoch (`29.7.2-1.el9`, `580.105.*`) any epoch fits, and an exact one may go without
    the release. Every manager gets it in its own way of speaking, zypper the newest version offered that fits. `@NAME` is the version of the
    installed package NAME up to its first `_`: what a kernel module's package made for one driver says of that driver.
    """

    name: str
    version: str = ""


@dataclass(frozen=True)
class Pin:
    """The one version that a package may come in, and the SHA-256 of its file."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Packages:
    """Packages to be installed, and packages to be removed (never purged), in one transaction that removes nothing that is not named.

    With `pins` nothing is fetched but these files, where one of these packages is; so far with apt alone.
    What follows is for rpm alone: `modules` are streams of dnf modules (`nvidia-driver:580-open`) that are reset and enabled first, and put back
    if the transaction fails; `allow_erasing` lets the manager look for solutions that remove packages, of which still only those in `remove` may
    go (without it they are looked for where `remove` names an installed one); `disable_repositories` are ids left out of this transaction.
    tdnf installs what a package recommends in any case; yum, which cannot do both in one transaction, removes first.
    """

    install: tuple[Package, ...]
    remove: tuple[str, ...] = ()
    recommends: bool = False
    modules: tuple[str, ...] = ()
    allow_erasing: bool = False
    disable_repositories: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()


@dataclass(frozen=True)
class BundleRepository:
    """From here on packages come from the signed repository in `folder` on the host, and from nowhere else.

    `files` are (path in the folder, SHA-256), all of which are compared first. The system's own package sources stay as they are.
    """

    folder: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BundleImages:
    """Container images loaded from files that `docker save` wrote: (absolute path, reference, SHA-256 of the file)."""

    images: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Hold:
    """Packages the package manager must not change by itself.

    By `apt-mark hold`, `dnf versionlock` (a plugin before dnf 5, which has to be installed), `yum versionlock` (likewise), `zypper addlock`, or a
    file of ours in /etc/tdnf/locks.d. With dnf and yum the lock is on the version that is installed then.
    """

    packages: tuple[str, ...]


@dataclass(frozen=True)
class File:
    """A file with exactly this content, mode (octal text) and owner; or, with `content=None`, no file."""

    path: str
    content: str | None
    mode: str = "0644"
    owner: str = "root:root"


@dataclass(frozen=True)
class JsonMerge:
    """Docker's daemon.json: `content` is the merged text, written only while the file's sha256 still is `base` ("" = no file yet).

    The old file is backed up, the new one validated before it takes the old one's place (`dockerd --validate` where the engine has it).
    """

    path: str
    base: str
    content: str
    mode: str = "0644"


@dataclass(frozen=True)
class Service:
    """A systemd unit. `enabled`/`running` None = leave. `act` is what the change does: start, restart, reload.

    `newer_than` are files: the service counts as stale while one of them is newer than `stamp` files (its start and its last reload).
    `optional`: a unit that does not exist is fine. `restore` is a JSON file to put back from its backup if the service does not come up with it.
    """

    name: str
    enabled: bool | None = True
    running: bool | None = True
    act: str = "start"
    newer_than: tuple[str, ...] = ()
    stamps: tuple[str, ...] = ()
    optional: bool = False
    restore: str = ""
    probe: str = ""


@dataclass(frozen=True)
class Enable:
    """A systemd unit that starts at boot, in a system that does not run (a tree that becomes an image)."""

    unit: str


@dataclass(frozen=True)
class Runfile:
    """NVIDIA's .run installer of driver `version`: fetched by the host from `url` into a folder of root's, compared with `sha256`, only then run.

    `options` are the installer's own, after those of every run (silent, nothing for a desktop). `cc` is the compiler that the kernel was built with,
    where it is not `cc`. Undone by nvidia-uninstall.
    """

    version: str
    url: str
    sha256: str
    options: tuple[str, ...] = ()
    cc: str = ""


@dataclass(frozen=True)
class KernelModule:
    """Kernel modules loaded now, and those named in `unload` gone first if nothing holds them. A failure means that a reboot is needed."""

    names: tuple[str, ...]
    unload: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupMember:
    """`user` is a member of `group`."""

    user: str
    group: str


@dataclass(frozen=True)
class Mount:
    """A disk formatted if (and only if) it is blank, and mounted at `path` at every boot before Docker starts."""

    device: str
    path: str
    filesystem: str = "ext4"


ON_BUS = -1


@dataclass(frozen=True)
class Smoke:
    """The proof: a container of `image` ("embedded" or a reference) runs; with `gpus` > 0 `nvidia-smi` in it sees exactly the host's GPUs.

    `gpus` ON_BUS leaves it to the script to count those on the PCI bus.
    """

    image: str
    gpus: int
    request: str = ""
    registry: str = ""


@dataclass(frozen=True)
class Reboot:
    """The stage ends here; the rest is decided after a reboot."""

    reason: str


@dataclass(frozen=True)
class Command:
    """A user's own step: `check` exits 0 when nothing is to be done, `change` makes it so, `undo` takes it back. POSIX sh texts.

    After `undo`, `check` must fail. Without `undo` a rollback says that what the step did stays; `:` says that there is nothing to be taken back.
    `needs` names the parts of provision/scripts/actions whose functions the texts call; a user's step has no business with them. `live` says that
    it needs the running machine, so that while an image is made it is left for the first boot.
    """

    check: str
    change: str
    undo: str = ""
    env: tuple[tuple[str, str], ...] = field(default=())
    needs: tuple[str, ...] = field(default=())
    live: bool = False


@dataclass(frozen=True)
class TakeBack:
    """One thing that earlier runs have changed, taken back. `what` is the kind of thing (`file`, `packages`, `member` …), `words` say which one.

    `title` is the sentence for people. Only `provision.backplan` makes these, from the host's receipts.
    """

    what: str
    words: tuple[str, ...]
    title: str


Action = Union[
    AptRepository,
    RpmRepository,
    Packages,
    BundleRepository,
    BundleImages,
    Hold,
    File,
    JsonMerge,
    Service,
    Enable,
    Runfile,
    KernelModule,
    GroupMember,
    Mount,
    Smoke,
    Reboot,
    Command,
    TakeBack,
]


def kind(action: Action) -> str:
    """The action's name in plans: `apt-repository`, `packages`, …"""
    name = type(action).__name__
    return "".join("-" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))
