"""Predicates over the GPU, its driver and what stands beside it. Each says what it found, False, or None for unknown."""

from __future__ import annotations

import re
from typing import Union

from provision.doctor.seen import Seen
from provision.facts.text import rows
from provision.model import Nvidia, PciDevice, Unit
from provision.rows import version_key

Answer = Union[str, bool, None]

DRIVER_PACKAGES = re.compile(
    r"(nvidia-(driver|open|kernel|dkms|headless|utils|compute-utils|smi)|cuda-drivers|linux-modules-nvidia|akmod-nvidia|kmod-nvidia|xorg-x11-drv-nvidia)"
)
OTHER_DRIVERS = ("nouveau", "nova_core", "vfio-pci", "pciback", "xen-pciback")


def _nvidia(seen: Seen) -> Nvidia:
    return seen.facts.nvidia or Nvidia()


def _driver_there(seen: Seen) -> str:
    """What shows that somebody installed NVIDIA's driver, "" if nothing does."""
    nvidia = _nvidia(seen)
    if nvidia.loaded:
        return f"nvidia {nvidia.loaded} is loaded"
    if nvidia.installed_by_runfile:
        return "/usr/bin/nvidia-uninstall is there (a .run installation)"
    names = [f"{p.name} {p.version}" for p in (seen.facts.packages or {}).values() if p.installed and DRIVER_PACKAGES.match(p.name)]
    return f"package {names[0]} is installed" if names else ""


def _oldest(seen: Seen) -> list[tuple[PciDevice, str]]:
    """The GPUs with their generations, oldest first; those of unknown generation left out."""
    known = [(d, seen.catalog.gpu(d.device, d.subsystem or None).generation) for d in seen.facts.gpus]
    return sorted((pair for pair in known if pair[1] != "unknown"), key=lambda pair: seen.catalog.generation(pair[1]).order)


# ---------------------------------------------------------------- the bus


def gpu_there(seen: Seen) -> Answer:
    if seen.facts.nvidia_pci is None:
        return None
    gpus = seen.facts.gpus
    return bool(gpus) and f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''} on the PCI bus, the first at {gpus[0].address} (10de:{gpus[0].device})"


def no_gpu(seen: Seen) -> Answer:
    if seen.facts.nvidia_pci is None or seen.facts.wsl:
        return None
    return not seen.facts.gpus and "there is no NVIDIA GPU on the PCI bus"


def gpu_bound_to_nouveau(seen: Seen) -> Answer:
    bound = [d for d in seen.facts.gpus if d.driver in ("nouveau", "nova_core")]
    if bound:
        return f"{bound[0].address} is bound to {bound[0].driver}"
    return _nvidia(seen).nouveau_loaded and not _nvidia(seen).loaded and bool(seen.facts.gpus) and "the module nouveau is loaded"


def gpu_bound_to_vfio(seen: Seen) -> Answer:
    bound = [d for d in seen.facts.gpus if d.driver in ("vfio-pci", "pciback", "xen-pciback")]
    return bool(bound) and f"{bound[0].address} is bound to {bound[0].driver}"


def gpu_off_the_bus(seen: Seen) -> Answer:
    """The configuration space reads as ones where a device does not answer any more (PCI specification)."""
    told = seen.said("pci")
    if told is None:
        return None
    for row in rows(told):
        address, _, config = row.partition(" config=")
        if config and set(config.split()) == {"ff"}:
            return f"{address.split()[0]} answers with ff only"
    return False


def virtual_gpu(seen: Seen) -> Answer:
    """A slice of a GPU, by its configuration space or its ids."""
    sliced = [d for d in seen.facts.gpus if d.vgpu or seen.catalog.gpu(d.device, d.subsystem or None).vgpu]
    return bool(sliced) and f"{sliced[0].address} is a virtual GPU"


# ---------------------------------------------------------------- the kernel module


def driver_installed(seen: Seen) -> Answer:
    return _driver_there(seen) or False


def driver_not_installed(seen: Seen) -> Answer:
    if seen.facts.packages is None:
        return None
    nvidia = _nvidia(seen)
    return not (_driver_there(seen) or nvidia.on_disk or nvidia.driver_version) and "no package, module or library of NVIDIA's driver is there"


def module_not_loaded(seen: Seen) -> Answer:
    if not seen.facts.live or seen.facts.nvidia is None:
        return None
    return not _nvidia(seen).loaded and "/sys/module/nvidia does not exist"


def module_on_disk(seen: Seen) -> Answer:
    nvidia = _nvidia(seen)
    return bool(nvidia.on_disk) and f"module nvidia {nvidia.on_disk} is on disk for kernel {seen.facts.kernel}"


def no_module_for_this_kernel(seen: Seen) -> Answer:
    if "nvidia.on_disk" in seen.facts.unknown or seen.facts.nvidia is None or seen.facts.kernel is None:
        return None
    return not (_nvidia(seen).on_disk or _nvidia(seen).loaded) and f"there is no module nvidia for kernel {seen.facts.kernel}"


def module_for_another_kernel(seen: Seen) -> Answer:
    if seen.kernels is None:
        return None
    others = [k.release for k in seen.kernels if k.nvidia and k.release != seen.facts.kernel]
    return bool(others) and f"it is there for kernel {others[-1]}"


def headers_missing(seen: Seen) -> Answer:
    if seen.kernels is None or seen.running_kernel is None:
        return None
    return not seen.running_kernel.build and f"/lib/modules/{seen.facts.kernel}/build leads nowhere"


def headers_there(seen: Seen) -> Answer:
    if seen.running_kernel is None:
        return None
    return seen.running_kernel.build and f"/lib/modules/{seen.facts.kernel}/build is there"


def dkms_build_failed(seen: Seen) -> Answer:
    log = seen.said("deep_make_log")
    if log is None:
        return None
    bad = [row for row in rows(log) if re.search(r"\berror\b|Killed", row, re.IGNORECASE)]
    return bool(bad) and " ".join(bad[-1].split())[:200]


def dkms_not_installed_state(seen: Seen) -> Answer:
    told = seen.said("deep_dkms")
    if told is None:
        return None
    mine = [row for row in rows(told) if re.match(r"nvidia[/,]", row)]
    bad = [row for row in mine if re.search(r":\s*(added|built)\s*$", row) or re.match(r"nvidia/[\d.]+: added", row)]
    return bool(bad) and not any(re.search(rf"{re.escape(seen.facts.kernel or '-')}.*: installed", row) for row in mine) and f"dkms status: {bad[0]}"


def two_dkms_versions(seen: Seen) -> Answer:
    told = seen.said("deep_dkms")
    if told is None:
        return None
    versions = dict.fromkeys(found.group(1) for found in (re.match(r"nvidia[/,]\s*([\d.]+)", row) for row in rows(told)) if found)
    return len(versions) > 1 and f"dkms status names nvidia {' and '.join(versions)}"


def next_kernel_without_module(seen: Seen) -> Answer:
    """The newest kernel on disk, which the next boot takes, lacks what the running one has."""
    if not seen.kernels:
        return None
    running = seen.running_kernel
    bootable = [k for k in seen.kernels if k.image and k.modules]
    if not bootable or running is None:
        return None
    newest = bootable[-1]
    return running.nvidia and not newest.nvidia and f"kernel {newest.release} is installed without it, {running.release} runs with it"


def versions_differ(seen: Seen) -> Answer:
    nvidia = _nvidia(seen)
    if not nvidia.loaded or not nvidia.driver_version:
        return None
    return nvidia.loaded != nvidia.driver_version and f"module {nvidia.loaded} is loaded, and the libraries are {nvidia.driver_version}"


def module_on_disk_is_newer(seen: Seen) -> Answer:
    """A reload of the module is enough: disk and libraries agree."""
    nvidia = _nvidia(seen)
    if not nvidia.on_disk:
        return None
    return nvidia.on_disk == nvidia.driver_version != nvidia.loaded and f"module {nvidia.on_disk} is on disk"


def module_on_disk_is_the_loaded(seen: Seen) -> Answer:
    nvidia = _nvidia(seen)
    if not nvidia.on_disk:
        return None
    return nvidia.on_disk == nvidia.loaded and f"module {nvidia.on_disk} is on disk too"


def several_library_versions(seen: Seen) -> Answer:
    told = seen.said("libraries")
    if told is None:
        return None
    found = dict.fromkeys(m.group(1) for m in re.finditer(r"libnvidia-ml\.so\.(\d+\.\d+(?:\.\d+)?)", told))
    return len(found) > 1 and f"libnvidia-ml.so is there as {' and '.join(found)}"


def one_library_version(seen: Seen) -> Answer:
    several = several_library_versions(seen)
    return None if several is None else not several


def versions_agree(seen: Seen) -> Answer:
    differ = versions_differ(seen)
    return None if differ is None else differ is False and f"module and libraries are both {_nvidia(seen).loaded}"


def _open_module(seen: Seen) -> Answer:
    nvidia = _nvidia(seen)
    if nvidia.loaded_open is not None:
        return nvidia.loaded_open
    return nvidia.on_disk_license == "Dual MIT/GPL" if nvidia.on_disk_license else None


def open_module_on_old_gpu(seen: Seen) -> Answer:
    gpus, is_open = _oldest(seen), _open_module(seen)
    if not gpus or is_open is None:
        return None
    kind = seen.catalog.generation(gpus[0][1])
    return bool(is_open) and "open" not in kind.flavors and f"the open module meets {gpus[0][0].address}, a {kind.title} GPU, which it cannot drive"


def proprietary_module_on_new_gpu(seen: Seen) -> Answer:
    gpus, is_open = _oldest(seen), _open_module(seen)
    if not gpus or is_open is None:
        return None
    kind = seen.catalog.generation(gpus[-1][1])
    return is_open is False and kind.flavors == ("open",) and f"the proprietary module meets {gpus[-1][0].address}, a {kind.title} GPU, which needs the open one"


def branch_too_new(seen: Seen) -> Answer:
    gpus, version = _oldest(seen), _nvidia(seen).loaded or _nvidia(seen).on_disk
    if not gpus or not version:
        return None
    kind = seen.catalog.generation(gpus[0][1])
    new = bool(kind.last_branch) and version_key(version.split(".")[0]) > version_key(kind.last_branch)
    return new and f"driver {version} meets {gpus[0][0].address}, a {kind.title} GPU; {kind.last_branch} is the last branch for it"


def branch_too_old(seen: Seen) -> Answer:
    version = _nvidia(seen).loaded or _nvidia(seen).on_disk
    if not version:
        return None
    for device in seen.facts.gpus:
        model = seen.catalog.gpu(device.device, device.subsystem or None)
        first = seen.catalog.generation(model.generation).first_branch if model.generation != "unknown" else ""
        need = max((model.min_driver, first), key=version_key)
        if need and version_key(version) < version_key(need):
            return f"driver {version} meets {device.address} ({model.name}), which needs {need}"
    return False


# ---------------------------------------------------------------- nodes, nvidia-smi


def uvm_missing(seen: Seen) -> Answer:
    nvidia = _nvidia(seen)
    if not nvidia.loaded:
        return None
    return "/dev/nvidia-uvm" not in nvidia.device_nodes and "/dev/nvidia-uvm does not exist"


def nodes_closed(seen: Seen) -> Answer:
    if seen.nodes is None:
        return None
    closed = [(p, m) for p, m in seen.nodes.items() if re.match(r"/dev/nvidia(ctl|-uvm|\d+)$", p) and m[0][-1:] not in ("6", "7")]
    return bool(closed) and f"{closed[0][0]} has mode {closed[0][1][0]} and belongs to {closed[0][1][1]}"


def smi_fails(seen: Seen) -> Answer:
    nvidia = _nvidia(seen)
    if nvidia.smi_rc is None:
        return None
    last = list(rows(nvidia.smi_text))[-1:] or ["nothing"]
    return nvidia.smi_rc not in (0, 127) and f"nvidia-smi ended with {nvidia.smi_rc} and said: {' '.join(last[0].split())[:200]}"


def smi_hangs(seen: Seen) -> Answer:
    rc = _nvidia(seen).smi_rc
    return None if rc is None else rc == 124 and "nvidia-smi did not end within 60 seconds"


def smi_missing(seen: Seen) -> Answer:
    if seen.said("programs") is None:
        return None
    return bool(_nvidia(seen).loaded) and "nvidia-smi " not in (seen.said("programs") or "") and "the module is loaded, and there is no program nvidia-smi"


def gpu_unseen(seen: Seen) -> Answer:
    """Fewer GPUs than on the bus: one is broken or excluded. Those given away on purpose do not count."""
    nvidia = _nvidia(seen)
    if nvidia.smi_rc != 0 or not seen.facts.live:
        return None
    mine = [d for d in seen.facts.gpus if d.driver not in OTHER_DRIVERS and not d.virtual_function]
    return len(nvidia.gpus) < len(mine) and f"nvidia-smi sees {len(nvidia.gpus)} of {len(mine)} GPUs on the bus"


def gpu_unwell(seen: Seen) -> Answer:
    """nvidia-smi fails, hangs, misses a GPU, or shows fields that could not be read."""
    for check in (smi_fails, gpu_unseen, gpu_off_the_bus):
        answer = check(seen)
        if answer:
            return answer
    told = seen.said("deep_smi") or ""
    bad = re.search(r"^.*(?:\bERR!|Unknown Error|GPU requires reset|GPU is lost).*$", told, re.MULTILINE)
    if bad:
        return f"nvidia-smi -q: {' '.join(bad.group(0).split())}"
    return None if _nvidia(seen).smi_rc is None else False


def _smi_field(seen: Seen, name: str) -> str | None:
    told = seen.said("deep_smi")
    if told is None:
        return None
    found = re.search(rf"^\s*{re.escape(name)}\s*:\s*(.+)$", told, re.MULTILINE)
    return " ".join(found.group(1).split()) if found else ""


def persistence_off(seen: Seen) -> Answer:
    value = _smi_field(seen, "Persistence Mode")
    return None if value is None else value == "Disabled" and "nvidia-smi -q: Persistence Mode: Disabled"


def compute_mode_restricts(seen: Seen) -> Answer:
    value = _smi_field(seen, "Compute Mode")
    return None if value is None else value in ("Prohibited", "Exclusive_Process", "Exclusive Process") and f"nvidia-smi -q: Compute Mode: {value}"


def mig_without_instances(seen: Seen) -> Answer:
    told = seen.said("deep_smi")
    if told is None:
        return None
    on = re.search(r"MIG Mode\s*\n\s*Current\s*:\s*Enabled", told)
    return bool(on) and "GPU instance ID" not in told and "GPU Instance ID" not in told and "MIG mode is on and there is no instance"


def hmm_addressing(seen: Seen) -> Answer:
    value = _smi_field(seen, "Addressing Mode")
    return None if value is None else value == "HMM" and "nvidia-smi -q: Addressing Mode: HMM"


# ---------------------------------------------------------------- services beside the driver


def _unit(seen: Seen, name: str) -> Unit | None:
    unit = seen.facts.units.get(name)
    return unit if unit and unit.load not in ("", "not-found") else None


def persistenced_failed(seen: Seen) -> Answer:
    unit = _unit(seen, "nvidia-persistenced.service")
    return unit is not None and unit.active == "failed" and "nvidia-persistenced.service is failed"


def switches(seen: Seen) -> Answer:
    """Whether CUDA waits for a fabric manager here."""
    on_bus = [d for d in seen.facts.nvidia_pci or () if d.is_bridge and seen.catalog.is_nvswitch(d.device)]
    if on_bus:
        return f"{len(on_bus)} NVSwitch on the PCI bus"
    behind = [d for d in seen.facts.gpus if seen.catalog.gpu(d.device, d.subsystem or None).nvlink5]
    return len(behind) > 1 and f"{len(behind)} GPUs are joined by NVLink 5 switches"


def fabric_manager_down(seen: Seen) -> Answer:
    if not seen.facts.units or not _nvidia(seen).loaded:
        return None
    unit = _unit(seen, "nvidia-fabricmanager.service")
    return (unit is None or unit.active != "active") and f"nvidia-fabricmanager.service is {unit.active if unit else 'not there'}"


def fabric_manager_of_another_version(seen: Seen) -> Answer:
    loaded = _nvidia(seen).loaded
    if not loaded or seen.facts.packages is None:
        return None
    for package in seen.facts.packages.values():
        if package.installed and re.match(r"(nvidia-fabric-?manager|cuda-drivers-fabricmanager)(-\d+)?$", package.name) and re.match(r"(\d+:)?\d+\.\d+\.\d", package.version):
            version = re.split(r"[-~+]", package.version.split(":")[-1])[0]
            if version != loaded:
                return f"{package.name} is {version}, and module {loaded} is loaded"
    return False


def nvlsm_missing(seen: Seen) -> Answer:
    behind = [d for d in seen.facts.gpus if seen.catalog.gpu(d.device, d.subsystem or None).nvlink5]
    return len(behind) > 1 and not seen.facts.installed("nvlsm") and seen.facts.packages is not None and "nvlsm is not installed"


CHECKS = {function.__name__.replace("_", "-"): function for function in (
    gpu_there, no_gpu, gpu_bound_to_nouveau, gpu_bound_to_vfio, gpu_off_the_bus, virtual_gpu, driver_installed,
    driver_not_installed, module_not_loaded, module_on_disk, no_module_for_this_kernel, module_for_another_kernel, headers_missing, headers_there, dkms_build_failed, dkms_not_installed_state, two_dkms_versions, next_kernel_without_module, versions_differ,
    module_on_disk_is_newer, module_on_disk_is_the_loaded, several_library_versions, one_library_version, versions_agree, open_module_on_old_gpu,
    proprietary_module_on_new_gpu, branch_too_new, branch_too_old, uvm_missing, nodes_closed, smi_fails, smi_hangs, smi_missing,
    gpu_unseen, gpu_unwell, persistence_off, compute_mode_restricts, mig_without_instances, hmm_addressing, persistenced_failed, switches, fabric_manager_down, fabric_manager_of_another_version, nvlsm_missing,
)}
