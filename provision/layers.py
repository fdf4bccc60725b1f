"""The layers of a GPU container host, from the machine up to Docker, each judged from one look at it. Pure.

A layer is judged by itself, not by what the plan would do about it: an engine that was installed by hand and works is fine here. The first broken
layer is the one to put right; those above it often only suffer from it. What needs a container to run is judged by `provision.prove`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from provision import daemonjson
from provision.model import OK, Check, Facts, Plan, Unit
from provision.steps import Context, fabric, gpus, plural
from provision.steps.daemon import ACTIVE
from provision.steps.daemon import there as daemon_keys
from provision.steps.engine import exactly
from provision.steps.smoke import STEP as SMOKE

SETUP = "Run `mlhost setup`; `mlhost plan` shows what it would do."
REBOOT = "Reboot the host: what is installed and what runs are not of one version."
# A host below this cannot pull an image or rotate a log; Docker itself sets no limit.
LOW_KB, LOW_SHARE, LOW_INODES = 1_000_000, 0.03, 1_000


def layers(ctx: Context, decided: Plan) -> tuple[Check, ...]:
    """One check per layer, in the order in which they carry each other. Layers without a GPU to judge are skipped and say why."""
    found = gpus.found(ctx)
    driver = decided.decisions.get("driver")
    idle = not found or ctx.spec.gpu == "ignore" or (driver is not None and driver.action in ("skip", "refuse") and not _driven(ctx.facts))
    why = "there is no NVIDIA GPU" if not found else driver.why if driver and idle else ""
    graphics = [_module, _nodes, _smi, _persistence, _fabric]
    return (
        _system(ctx, decided),
        _disk(ctx.facts),
        _bus(ctx, found),
        *(Check(_NAMES[judge], "skipped", why) if idle else judge(ctx, found) for judge in graphics),
        _docker(ctx.facts),
        Check("runtime", "skipped", why) if idle else _runtime(ctx.facts),
        Check("cdi", "skipped", why) if idle else _cdi(ctx.facts),
    )


def keeping(ctx: Context, decided: Plan) -> tuple[Check, ...]:
    """What keeps it so: the next kernel has a module, logs are rotated, /dev/shm is large enough, and nothing else is left to do."""
    return (_next_kernel(ctx), _logs(ctx), _shm(ctx), _settled(decided))


def _driven(facts: Facts) -> bool:
    return facts.nvidia is not None and bool(facts.nvidia.loaded)


def _system(ctx: Context, decided: Plan) -> Check:
    facts = ctx.facts
    parts = [decided.platform.name or f"{decided.platform.id} {decided.platform.version}", facts.arch, f"Linux {facts.kernel or '?'}"]
    parts += [f"{decided.platform.cloud} {facts.instance.get('type', '')}".strip()] if decided.platform.cloud else []
    parts += ["systemd"] if facts.systemd else ["no systemd"] if facts.systemd is False else []
    return Check("system", "ok", ", ".join(parts))


def _disk(facts: Facts) -> Check:
    told = []
    for path, disk in facts.disks.items():
        told.append(f"{path} has {disk.free_kb / 1_000_000:.1f} GB free")
        short = disk.free_kb < LOW_KB or disk.free_kb < disk.total_kb * LOW_SHARE
        if short or (disk.free_inodes is not None and disk.free_inodes < LOW_INODES):
            what = told[-1] if short else f"{path} has {plural(disk.free_inodes or 0, 'inode')} free"
            fix = "Free some: `docker system df` shows what Docker holds, `journalctl --disk-usage` the journal; or enlarge the disk."
            return Check("disk", "failed", f"{what} on {disk.mount}", fix)
    return Check("disk", "ok", "; ".join(dict.fromkeys(told))) if told else Check("disk", "skipped", "free space could not be asked")


def _bus(ctx: Context, found: tuple[gpus.Gpu, ...]) -> Check:
    if ctx.facts.nvidia_pci is None:
        return Check("pci", "skipped", "the PCI bus could not be read")
    if found:
        return Check("pci", "ok", f"{gpus.names(found)} at {', '.join(g.device.address for g in found)}")
    if ctx.spec.gpu == "required":
        fix = "Is this the right instance type? A GPU that was there before and is gone has fallen off the bus: stop and start the machine."
        return Check("pci", "failed", "the playbook requires a GPU and there is none on the PCI bus", fix)
    return Check("pci", "skipped", "there is no NVIDIA GPU on the PCI bus")


def _module(ctx: Context, found: tuple[gpus.Gpu, ...]) -> Check:
    nvidia, name = ctx.facts.nvidia, "kernel-module"
    if nvidia is None:
        return Check(name, "skipped", "the driver could not be looked at")
    if not nvidia.loaded:
        if nvidia.nouveau_loaded:
            return Check(name, "failed", "nouveau is loaded in the place of NVIDIA's module", SETUP)
        if nvidia.on_disk:
            fix = "`sudo modprobe nvidia` says why, and `sudo dmesg | grep -i nvrm`; after an update of the kernel or driver, reboot."
            return Check(name, "failed", f"the nvidia module {nvidia.on_disk} is on disk and not loaded", fix)
        return Check(name, "failed", f"there is no nvidia module for the running kernel {ctx.facts.kernel or ''}".rstrip(), SETUP)
    flavour = {True: "open", False: "proprietary", None: "flavour unknown"}[nvidia.loaded_open]
    if nvidia.loaded_open is False:
        strict = [g.model.name for g in found if g.model.open_only or ctx.catalog.generation(g.model.generation).flavors == ("open",)]
        if strict:
            fix = "Use the open kernel modules: `mlhost setup --set driver.flavor=open --set driver.replace=true`."
            return Check(name, "failed", f"the proprietary module is loaded, and {strict[0]} works with the open one only", fix)
    if nvidia.on_disk and nvidia.on_disk != nvidia.loaded:
        return Check(name, "failed", f"module {nvidia.loaded} is loaded, {nvidia.on_disk} is on disk", REBOOT)
    if nvidia.driver_version and nvidia.driver_version != nvidia.loaded:
        return Check(name, "failed", f"module {nvidia.loaded} is loaded, and the libraries are of {nvidia.driver_version}", REBOOT)
    return Check(name, "ok", f"driver {nvidia.loaded} ({flavour}) is loaded; module, disk and libraries agree")


def _nodes(ctx: Context, found: tuple[gpus.Gpu, ...]) -> Check:
    nvidia = ctx.facts.nvidia
    there = set(nvidia.device_nodes) if nvidia else set()
    cards = sorted(node for node in there if re.fullmatch(r"/dev/nvidia\d+", node))
    missing = [node for node in ("/dev/nvidiactl", "/dev/nvidia-uvm") if node not in there]
    if len(cards) < len(found):
        missing.append(f"{plural(len(found) - len(cards), 'node')} of {plural(len(found), 'GPU')}")
    if missing:
        fix = "`sudo nvidia-modprobe -u -c 0` makes them now; the persistence daemon or a udev rule makes them at boot. `mlhost setup` sees to it."
        return Check("device-nodes", "failed", f"missing: {', '.join(missing)}", fix)
    return Check("device-nodes", "ok", f"/dev/nvidiactl, /dev/nvidia-uvm and {plural(len(cards), 'GPU node')}")


def _smi(ctx: Context, found: tuple[gpus.Gpu, ...]) -> Check:
    nvidia, name = ctx.facts.nvidia, "nvidia-smi"
    if nvidia is None or nvidia.smi_rc is None:
        return Check(name, "failed", "nvidia-smi is not there or was not asked, as no driver is loaded", SETUP)
    if nvidia.smi_rc:
        said = next((row.strip() for row in nvidia.smi_text.splitlines() if row.strip()), "nothing")
        return Check(name, "failed", f"it ends with {nvidia.smi_rc}: {said}", "`mlhost doctor` knows what such words mean.")
    if len(nvidia.gpus) != len(found):
        fix = "`sudo dmesg | grep -iE 'nvrm|xid'` tells why one is missing; Xid 79 is a GPU that fell off the bus."
        return Check(name, "failed", f"{plural(len(found), 'GPU')} on the PCI bus, and the driver sees {len(nvidia.gpus)}", fix)
    return Check(name, "ok", f"it sees {plural(len(nvidia.gpus), 'GPU')}: {', '.join(g.uuid for g in nvidia.gpus)}")


def _persistence(ctx: Context, _found: tuple[gpus.Gpu, ...]) -> Check:
    unit, name = ctx.facts.units.get("nvidia-persistenced.service"), "persistenced"
    if not _loaded(unit):
        return Check(name, "skipped", "there is no persistence daemon on this host")
    if unit and unit.active in ACTIVE:
        return Check(name, "ok", "the persistence daemon runs")
    return Check(name, "failed", f"the persistence daemon is {_state(unit)}", "`sudo systemctl status nvidia-persistenced` tells why.")


def _fabric(ctx: Context, found: tuple[gpus.Gpu, ...]) -> Check:
    name = "fabric"
    if not fabric.needed(ctx, found):
        return Check(name, "skipped", "there is no NVSwitch")
    unit = ctx.facts.units.get("nvidia-fabricmanager.service")
    if unit is None or unit.active not in ACTIVE:
        what = f"the fabric manager is {_state(unit)}: CUDA would say that the system is not yet initialized (error 802)"
        return Check(name, "failed", what, SETUP)
    driver = ctx.facts.nvidia.loaded if ctx.facts.nvidia else ""
    packaged = {n: p.version for n, p in (ctx.facts.packages or {}).items() if "fabricmanager" in n and p.installed and "dev" not in n}
    unlike = [f"{n} {v}" for n, v in packaged.items() if driver and not exactly(v, driver)]
    if unlike:
        return Check(name, "failed", f"{unlike[0]} stands beside driver {driver}; they must be of one version", SETUP)
    return Check(name, "ok", f"the fabric manager runs{' at the driver version' if packaged and driver else ''}")


def _docker(facts: Facts) -> Check:
    docker = facts.docker
    if docker is None or docker.server is None:
        return Check("docker", "skipped", "Docker could not be asked; run with root rights")
    if not docker.server:
        unit = facts.units.get("docker.service")
        said = docker.error.splitlines()[0] if docker.error else "no answer"
        fix = "`sudo journalctl -u docker -n 30` tells why; `mlhost setup` starts or installs it."
        return Check("docker", "failed", f"the service is {_state(unit)}: {said}", fix)
    parts = [f"Docker Engine {docker.server}", docker.storage_driver, f"cgroups by {docker.cgroup_driver}" if docker.cgroup_driver else ""]
    return Check("docker", "ok", ", ".join(part for part in parts if part))


def _runtime(facts: Facts) -> Check:
    docker, kit = facts.docker, facts.toolkit
    if not kit.version and not kit.runtime:
        return Check("runtime", "failed", "the NVIDIA Container Toolkit is not installed", SETUP)
    if docker is None or not docker.server:
        return Check("runtime", "skipped", "Docker does not answer")
    if "nvidia" not in docker.runtimes:
        registered = isinstance(daemon_keys(facts).get("runtimes"), dict) and "nvidia" in daemon_keys(facts)["runtimes"]
        what = "is in daemon.json, and Docker has not read it" if registered else "is not registered with Docker"
        return Check("runtime", "failed", f"toolkit {kit.version} is there; the runtime nvidia {what}", SETUP)
    default = "; it is the default runtime" if docker.default_runtime == "nvidia" else ""
    return Check("runtime", "ok", f"toolkit {kit.version}; Docker knows the runtime nvidia{default}")


def _cdi(facts: Facts) -> Check:
    docker, nvidia = facts.docker, facts.nvidia
    if docker is None or not docker.cdi_spec_dirs:
        return Check("cdi", "skipped", "this engine does not use CDI")
    specs = {p: v for p, v in facts.toolkit.cdi_specs.items() if v or "nvidia" in p.rsplit("/", 1)[-1]}
    if not specs:
        return Check("cdi", "failed", "no CDI spec describes the GPUs", "`sudo systemctl restart nvidia-cdi-refresh` or `mlhost setup` makes it.")
    driver = nvidia.loaded if nvidia else ""
    stale = [f"{path} is of driver {made}" for path, made in specs.items() if made and driver and made != driver]
    if stale:
        return Check("cdi", "failed", f"{stale[0]}, and {driver} is loaded", "`sudo systemctl restart nvidia-cdi-refresh` or `mlhost setup` makes it anew.")
    if len(specs) > 1:
        fix = "Delete the one in /etc/cdi; that in /var/run/cdi is made anew at every boot."
        return Check("cdi", "failed", f"{' and '.join(sorted(specs))} both describe the GPUs, which makes them unresolvable", fix)
    return Check("cdi", "ok", f"{next(iter(specs))} describes the GPUs{f' for driver {driver}' if driver else ''}")


def _next_kernel(ctx: Context) -> Check:
    name, kernels = "next-kernel", ctx.facts.kernels
    if not _driven(ctx.facts):
        return Check(name, "skipped", "no driver is loaded")
    if not kernels:
        return Check(name, "skipped", "which kernels are installed could not be seen")
    newest = max(kernels, key=_ordered)
    if kernels[newest]:
        return Check(name, "ok", f"the newest kernel, {newest}, has an nvidia module" + (" and is running" if newest == ctx.facts.kernel else ""))
    fix = f"Build it: install the headers of {newest} (`sudo dkms autoinstall -k {newest}`), or run `mlhost setup`, before the next boot."
    return Check(name, "failed", f"the newest kernel, {newest}, has no nvidia module: the GPU would be gone after the next boot", fix)


def _ordered(release: str) -> tuple[tuple[int, int, str], ...]:
    """Kernel releases in the order of their versions: runs of digits as numbers."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|[^\d.]+", release))


def _logs(ctx: Context) -> Check:
    try:
        keys = daemonjson.parse(ctx.facts.daemon_json or "")
    except daemonjson.Malformed as error:
        return Check("logs", "failed", f"{daemonjson.PATH} is not what Docker accepts: {error}", "Correct it; mlhost does not touch a file it cannot read.")
    options = keys.get("log-opts")
    size = options.get("max-size") if isinstance(options, dict) else None
    driver = keys.get("log-driver", "json-file")
    if size or driver not in ("json-file",):
        return Check("logs", "ok", f"containers log by {driver}" + (f", rotated at {size}" if size else ""))
    if ctx.spec.docker.log.max_size:
        return Check("logs", "failed", "container logs are not rotated and fill the disk in time", SETUP)
    return Check("logs", "skipped", "the playbook asks for no log rotation (`docker.log.max_size`)")


def _shm(ctx: Context) -> Check:
    size = daemon_keys(ctx.facts).get("default-shm-size")
    if size:
        return Check("shm", "ok", f"containers get {size} of /dev/shm")
    if ctx.spec.docker.shm_size:
        return Check("shm", "failed", "containers get 64 MiB of /dev/shm, too little for PyTorch's data loaders", SETUP)
    return Check("shm", "skipped", "the playbook asks for no size of /dev/shm (`docker.shm_size`); Docker gives 64 MiB")


def _settled(decided: Plan) -> Check:
    # The proof itself is what is being made now.
    pending = [i for i in decided.items if i.state != OK and i.step != SMOKE]
    if not pending:
        return Check("plan", "ok", f"all {len(decided.items)} things are as the playbook wants")
    what = f"{plural(len(pending), 'thing is', 'things are')} not as the playbook wants: {_listed(i.id for i in pending)}"
    return Check("plan", "failed", what, SETUP)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _loaded(unit: Unit | None) -> bool:
    return unit is not None and unit.load == "loaded"


def _state(unit: Unit | None) -> str:
    return "not installed" if unit is None or unit.load == "not-found" else "masked" if unit.load == "masked" else unit.active


_NAMES = {_module: "kernel-module", _nodes: "device-nodes", _smi: "nvidia-smi", _persistence: "persistenced", _fabric: "fabric"}
