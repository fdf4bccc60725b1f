"""Facts for a person: what the machine is and what is on it, unknown told from absent."""

from __future__ import annotations

from collections.abc import Sequence

from provision.model import Docker, Facts, GpuRow, Nvidia, PlatformRow, Toolkit
from provision.report.layout import PLAIN, Look, count, labelled, listing
from provision.report.sanitize import line
from provision.report.text import gpus_line, platform_line

UNKNOWN = "unknown (could not be read)"
_GIB_KB = 1024 * 1024


def facts_text(facts: Facts, platform: PlatformRow | str, gpus: Sequence[GpuRow], look: Look = PLAIN, *, verbose: bool = False) -> str:
    """One line per topic. `platform` is the catalog's row or its name for the system, `gpus` the catalog's names for the PCI devices.

    `verbose` adds package sources, packages and reachability.
    """
    rows: list[tuple[str, str]] = [("System", platform_line(platform) if isinstance(platform, PlatformRow) else f"{platform}, {facts.arch}")]
    rows += [("Kernel", facts.kernel or UNKNOWN), ("Machine", _machine(facts))]
    rows += [("GPUs", UNKNOWN if facts.nvidia_pci is None else gpus_line(gpus, look))]
    rows += [("Driver", _driver(facts.nvidia)), ("Docker", _docker(facts.docker)), ("Toolkit", _toolkit(facts.toolkit))]
    rows += [("Disk", _disks(facts))]
    rows += [("Busy", _busy(facts))] if _busy(facts) else []
    rows += [("Last run", f"{facts.last_run.id} {facts.last_run.state}")] if facts.last_run else []
    if verbose:
        rows += [("Source", f"{s.path}: {' '.join(s.uris)} {' '.join(s.suites)}" + ("" if s.enabled else " (off)")) for s in facts.apt_sources]
        rows += [("Package", f"{p.name} {p.version}" + ("" if p.installed else f" ({p.status})")) for p in (facts.packages or {}).values()]
        rows += [("Reach", f"{r.url}: {r.state} {r.detail}".strip()) for r in facts.reach.values()]
    rows += [("Unknown", listing(facts.unknown))] if facts.unknown else []
    out = [look.paint(line(facts.host), "bold")]
    for label, text in rows:
        out += labelled(label, text, look)
    return "\n".join(out)


def _machine(facts: Facts) -> str:
    parts = [facts.dmi.get("sys_vendor", ""), facts.dmi.get("product_name", "")]
    words = " ".join(part for part in parts if part) or ("" if facts.live else "a system tree, not running")
    flags = [f"in a container ({facts.container})"] if facts.container else []
    flags += ["WSL"] if facts.wsl else []
    flags += ["image-based (ostree)"] if facts.ostree else []
    flags += ["no systemd"] if facts.systemd is False else []
    flags += ["Secure Boot " + {True: "on", False: "off", None: "unknown"}[facts.secure_boot]]
    flags += ["asked without root"] if facts.uid else []
    return ", ".join([part for part in (words, *flags) if part])


def _driver(nvidia: Nvidia | None) -> str:
    if nvidia is None:
        return UNKNOWN
    parts = []
    if nvidia.loaded:
        parts.append(f"{nvidia.loaded} loaded" + {True: " (open modules)", False: " (proprietary modules)", None: ""}[nvidia.loaded_open])
    if nvidia.on_disk and nvidia.on_disk != nvidia.loaded:
        parts.append(f"module {nvidia.on_disk} on disk")
    if nvidia.smi_rc == 0:
        parts.append(f"nvidia-smi sees {count(len(nvidia.gpus), 'GPU')}")
        profiles = [profile for gpu in nvidia.gpus for profile in gpu.mig_devices.values()]
        if any(gpu.mig for gpu in nvidia.gpus):
            parts.append(f"MIG on: {listing(profiles) or 'no device'}")
    elif nvidia.smi_rc is not None:
        last = nvidia.smi_text[-4096:].strip().splitlines()
        parts.append(f"nvidia-smi failed ({nvidia.smi_rc}{': ' + line(last[-1], 160) if last else ''})")
    if nvidia.nouveau_loaded:
        parts.append("nouveau is loaded")
    if nvidia.installed_by_runfile:
        parts.append("installed by a .run file")
    return ", ".join(parts) or "not installed"


def _docker(docker: Docker | None) -> str:
    if docker is None:
        return UNKNOWN
    parts = []
    if docker.server:
        parts.append(f"engine {docker.server} running")
        parts.append(count(docker.running_containers, "running container") if docker.running_containers else "no running container")
        parts.append(f"data in {docker.root_dir}" if docker.root_dir else "")
        parts.append(f"runtimes {listing(docker.runtimes)}" if docker.runtimes else "")
    elif docker.dockerd or docker.cli:
        parts.append(f"engine {docker.dockerd} installed" if docker.dockerd else f"client {docker.cli} installed")
        parts.append("could not be asked" if docker.server is None else "not running")
        parts.append(line(docker.error, 160))
    parts.append("a snap" if docker.snap else "")
    parts.append("podman in Docker's place" if docker.podman_docker else "")
    parts.append(f"rootless for {listing(docker.rootless_users)}" if docker.rootless_users else "")
    return ", ".join(part for part in parts if part) or "not installed"


def _toolkit(toolkit: Toolkit) -> str:
    if not (toolkit.version or toolkit.ctk or toolkit.runtime):
        return "not installed"
    specs = [f"CDI {path}" + (f" for driver {made}" if made else "") for path, made in toolkit.cdi_specs.items()]
    return ", ".join([toolkit.version or "installed", *specs])


def _disks(facts: Facts) -> str:
    parts = [f"{disk.path} {disk.free_kb / _GIB_KB:.1f} of {disk.total_kb / _GIB_KB:.1f} GiB free" for disk in facts.disks.values()]
    return ", ".join(parts) or UNKNOWN


def _busy(facts: Facts) -> str:
    parts = [f"{lock.path} held by {lock.command} (process {lock.pid})" for lock in facts.locks]
    parts += [f"run {facts.run.id} is {facts.run.state}"] if facts.run else []
    parts += ["dpkg was cut off"] if facts.dpkg_interrupted else []
    parts += ["cloud-init is still running"] if facts.cloud_init == "running" else []
    return ", ".join(parts)
