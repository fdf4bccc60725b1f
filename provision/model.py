"""The values that walk through mlhost: capture -> Facts -> Plan -> Outcome -> Report. Frozen, without behaviour beyond reading themselves.

In Facts `None` means *unknown* (not readable, not asked), never *absent*; absence has a value of its own (empty tuple, "", False).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from provision.actions import Action
from provision.results import Check as Check  # noqa: PLC0414 - they are part of the model
from provision.results import LastRun as LastRun  # noqa: PLC0414
from provision.results import Outcome as Outcome  # noqa: PLC0414
from provision.results import Timing as Timing  # noqa: PLC0414
from provision.sources import AptSource as AptSource  # noqa: PLC0414
from provision.sources import RpmSource as RpmSource  # noqa: PLC0414

# ---------------------------------------------------------------- capture


@dataclass(frozen=True)
class Section:
    """One framed answer of the probe: the command's exit code and its raw text."""

    rc: int
    text: str


# ---------------------------------------------------------------- facts


@dataclass(frozen=True)
class OsRelease:
    """os-release as found; ids lower-cased. Empty strings where a key is missing."""

    id: str
    version_id: str = ""
    codename: str = ""
    id_like: tuple[str, ...] = ()
    ubuntu_codename: str = ""
    debian_codename: str = ""
    pretty_name: str = ""
    variant_id: str = ""
    platform_id: str = ""


@dataclass(frozen=True)
class PciDevice:
    """An NVIDIA function on the PCI bus. Ids are four lower-case hex digits, `pci_class` six."""

    address: str
    vendor: str
    device: str
    pci_class: str
    subsystem: str = ""
    driver: str = ""
    vgpu: bool = False
    virtual_function: bool = False

    @property
    def is_gpu(self) -> bool:
        return self.vendor == "10de" and self.pci_class[:4] in ("0300", "0302")

    @property
    def is_bridge(self) -> bool:
        return self.vendor == "10de" and self.pci_class[:4] == "0680"


@dataclass(frozen=True)
class SmiGpu:
    """A GPU as the driver reports it. `mig` None: it has no such mode, or the driver does not tell. `mig_devices` is UUID -> profile (`1g.10gb`)."""

    index: str
    uuid: str
    name: str
    bus_id: str
    mig: bool | None = None
    mig_devices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Nvidia:
    """The driver: loaded kernel module, module on disk for the running kernel, userspace. "" = absent."""

    loaded: str = ""
    loaded_open: bool | None = None
    on_disk: str = ""
    on_disk_license: str = ""
    on_disk_signer: str = ""
    smi_rc: int | None = None
    smi_text: str = ""
    driver_version: str = ""
    gpus: tuple[SmiGpu, ...] = ()
    device_nodes: tuple[str, ...] = ()
    nouveau_loaded: bool = False
    installed_by_runfile: bool = False


@dataclass(frozen=True)
class Docker:
    """The engine. `server` is None where it could not be asked (no root, not running is "")."""

    cli: str = ""
    dockerd: str = ""
    server: str | None = ""
    error: str = ""
    root_dir: str = ""
    storage_driver: str = ""
    runtimes: tuple[str, ...] = ()
    default_runtime: str = ""
    cdi_spec_dirs: tuple[str, ...] = ()
    cgroup_driver: str = ""
    security_options: tuple[str, ...] = ()
    running_containers: int = 0
    live_restore: bool = False
    swarm: bool = False
    started_before: tuple[str, ...] = ()
    snap: bool = False
    podman_docker: bool = False
    rootless_users: tuple[str, ...] = ()
    supports_validate: bool | None = None


@dataclass(frozen=True)
class Toolkit:
    """The NVIDIA Container Toolkit's programs and CDI specs. `cdi_specs` is path -> driver version it was made for ("" unknown)."""

    ctk: str = ""
    hook: str = ""
    runtime: str = ""
    cdi_hook: str = ""
    version: str = ""
    cdi_specs: Mapping[str, str] = field(default_factory=dict)
    no_cgroups: bool = False


@dataclass(frozen=True)
class Package:
    """A package the package manager knows. `status` is dpkg's third word: installed, config-files, half-configured, …"""

    name: str
    version: str
    status: str = "installed"
    held: bool = False
    arch: str = ""

    @property
    def installed(self) -> bool:
        return self.status == "installed"


@dataclass(frozen=True)
class Unit:
    """A systemd unit. `load` is loaded, not-found, masked …; `active` active, inactive, failed …; `enabled` enabled, disabled, static, …"""

    name: str
    load: str
    active: str
    enabled: str
    sub: str = ""


@dataclass(frozen=True)
class Lock:
    """A package manager's lock that somebody holds."""

    path: str
    pid: int
    command: str


@dataclass(frozen=True)
class Disk:
    """Free space for a path: KiB and inodes (None where the file system has none)."""

    path: str
    mount: str
    free_kb: int
    total_kb: int
    free_inodes: int | None = None
    filesystem: str = ""


@dataclass(frozen=True)
class PathFact:
    """A path the plan cares about: `kind` file, dir, link, other or absent; sha256 of a readable regular file."""

    path: str
    kind: str
    mode: str = ""
    owner: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class BlockDevice:
    """A whole disk: size in bytes, model, and what is on it ("" = blank). `mounts` are its own and its partitions' mount points."""

    name: str
    size: int
    model: str = ""
    content: str = ""
    partitions: int = 0
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A run found in the host's journal. `state`: running, done, failed, lost, reboot. `version` is mlhost's, `playbook` the desired state's
    name and `values` a digest of its values; `right` are the ids of the items that were right when it began, `doing` of those that it was to put right."""

    id: str
    state: str
    owner: str = ""
    since: str = ""
    pid: int = 0
    rc: int | None = None
    digest: str = ""
    version: str = ""
    playbook: str = ""
    values: str = ""
    right: tuple[str, ...] = ()
    doing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reach:
    """What became of asking for one URL from the host: ok, dns, connect, tls, proxy, missing (HTTP 404), http (other code), error, no-client."""

    url: str
    state: str
    detail: str = ""
    content: bytes = b""

    @property
    def ok(self) -> bool:
        return self.state == "ok"


@dataclass(frozen=True)
class Facts:
    """All that is known of one host. Pure data; nothing here was asked twice."""

    host: str
    arch: str
    os: OsRelease
    live: bool = True
    kernel: str | None = None
    kernels: Mapping[str, bool] | None = None  # the installed ones, and whether each has an nvidia module
    uid: int | None = None
    boot_id: str | None = None
    host_time: int | None = None
    asked_at: int | None = None
    container: str = ""
    wsl: bool = False
    ostree: bool = False
    usr_writable: bool | None = None
    systemd: bool | None = None
    dmi: Mapping[str, str] = field(default_factory=dict)
    hypervisor_uuid: str = ""
    secure_boot: bool | None = None
    tegra: bool = False
    nvidia_pci: tuple[PciDevice, ...] | None = None
    nvidia: Nvidia | None = field(default_factory=Nvidia)
    docker: Docker | None = field(default_factory=Docker)
    toolkit: Toolkit = field(default_factory=Toolkit)
    packages: Mapping[str, Package] | None = None
    dpkg_interrupted: bool = False
    apt_sources: tuple[AptSource, ...] = ()
    apt_source_texts: Mapping[str, str] = field(default_factory=dict)
    keyrings: Mapping[str, bytes] = field(default_factory=dict)
    apt_proxy: str = ""
    managers: tuple[str, ...] = ()
    rpm_sources: tuple[RpmSource, ...] = ()
    rpm_source_texts: Mapping[str, str] = field(default_factory=dict)
    rpm_keys: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    releasever: str = ""
    initramfs: str = ""
    selinux: str | None = ""
    firewalls: tuple[str, ...] = ()
    instance: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, Unit] = field(default_factory=dict)
    locks: tuple[Lock, ...] = ()
    cloud_init: str = ""
    disks: Mapping[str, Disk] = field(default_factory=dict)
    block_devices: tuple[BlockDevice, ...] | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    users: tuple[str, ...] | None = None
    paths: Mapping[str, PathFact] = field(default_factory=dict)
    daemon_json: str | None = ""
    daemon_json_sha256: str = ""
    proof: Mapping[str, str] = field(default_factory=dict)
    run: Run | None = None
    last_run: Run | None = None
    reach: Mapping[str, Reach] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    def installed(self, name: str) -> str:
        """The installed version of a package, "" if it is not installed (or the system has no package database)."""
        package = (self.packages or {}).get(name)
        return package.version if package and package.installed else ""

    @property
    def gpus(self) -> tuple[PciDevice, ...]:
        return tuple(d for d in self.nvidia_pci or () if d.is_gpu)


# ---------------------------------------------------------------- plan

OK, CHANGE, LATER, REFUSED = "ok", "change", "later", "refused"

State = Mapping[str, object]


@dataclass(frozen=True)
class Item:
    """One thing that must be so. `expected` and `actual` are flat mappings; `action` None where nothing can or need be done now.

    Items are carried out in the order of `phase` (see `provision.steps`), within a phase in the order they were made.
    """

    id: str
    step: str
    kind: str
    state: str
    why: str
    expected: State = field(default_factory=dict)
    actual: State = field(default_factory=dict)
    action: Action | None = None
    restarts: tuple[str, ...] = ()
    phase: int = 60


@dataclass(frozen=True)
class Decision:
    """What a step decided: `action` (install, keep, skip, refuse, …), why, and its own details, all JSON values."""

    action: str
    why: str
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """What forbids carrying the plan out, with the remedy."""

    id: str
    message: str
    fix: str
    unsupported: bool = False


@dataclass(frozen=True)
class Notice:
    """What the user should know though it forbids nothing."""

    id: str
    message: str


@dataclass(frozen=True)
class GpuRow:
    """A GPU as the plan names it."""

    address: str
    pci_id: str
    name: str
    architecture: str


@dataclass(frozen=True)
class PlatformRow:
    """The platform as the plan prints it."""

    id: str
    version: str
    codename: str
    family: str
    arch: str
    cloud: str | None
    name: str = ""


@dataclass(frozen=True)
class Plan:
    """Everything decided for one host. `digest` names the plan: the same facts and playbook give the same one."""

    host: str
    platform: PlatformRow
    gpus: tuple[GpuRow, ...]
    decisions: Mapping[str, Decision]
    items: tuple[Item, ...]
    problems: tuple[Problem, ...] = ()
    notices: tuple[Notice, ...] = ()
    reboot: str = "no"  # no, possible, needed
    restarts: tuple[str, ...] = ()
    download_mb: int | None = None
    urls: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.state == CHANGE)

    @property
    def converged(self) -> bool:
        """Nothing to do, nothing forbidden, nothing left for later."""
        return not self.problems and all(item.state == OK for item in self.items)


# ---------------------------------------------------------------- report


@dataclass(frozen=True)
class HostReport:
    """All there is to tell of one host after a command: the input of `provision.report`.

    `versions` is what was seen there last (`provision.versions`); `drift` names items that were right after mlhost's last run and are not now.
    """

    target: str
    status: str  # converged, changed, pending, failed, unreachable, unsupported, refused, reboot, unverified
    exit_code: int
    before: Plan | None = None
    after: Plan | None = None
    outcomes: tuple[Outcome, ...] = ()
    checks: tuple[Check, ...] = ()
    timings: tuple[Timing, ...] = ()
    message: str = ""
    fix: str = ""
    run_ids: tuple[str, ...] = ()
    log: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    last_run: LastRun | None = None
    drift: tuple[str, ...] = ()
