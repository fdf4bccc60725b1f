"""GPUs on the bus, the driver, the container toolkit."""

from __future__ import annotations

import re

from provision.facts.text import Sections, get, line, rows
from provision.model import Nvidia, Package, PciDevice, SmiGpu, Toolkit

_HEX4 = re.compile(r"(?:0x)?([0-9a-fA-F]{1,4})\Z")
_HEX6 = re.compile(r"(?:0x)?([0-9a-fA-F]{1,6})\Z")
# NVIDIA's open-gpu-kernel-modules, kernel-open/nvidia/nv-procfs.c: one line for both flavours.
_NVRM = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+\.\d+(?:\.\d+)?)")
# `nvidia-smi -L`, with one blank or several between the words: docs.nvidia.com/datacenter/tesla/mig-user-guide.
_LISTED = re.compile(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)")
_MIG = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")
_VERSION = re.compile(r"\d+(\.\d+)+")
_LIBRARY = re.compile(r"\.so\.(\d+\.\d+(?:\.\d+)?)")


def pci(sections: Sections) -> tuple[PciDevice, ...] | None:
    """NVIDIA's functions on the PCI bus, None where the bus could not be read."""
    section = get(sections, "pci")
    if section.rc != 0:
        return None
    found = []
    for row in rows(section.text):
        address, _, rest = row.strip().partition(" ")
        before, _, config = rest.partition(" config=")
        values = dict(word.split("=", 1) for word in before.split() if "=" in word)
        vendor, device = _hex(_HEX4, values.get("vendor", ""), 4), _hex(_HEX4, values.get("device", ""), 4)
        if vendor != "10de" or not device:
            continue
        subsystem = [_hex(_HEX4, values.get(key, ""), 4) for key in ("subsystem_vendor", "subsystem_device")]
        found.append(PciDevice(
            address=address, vendor=vendor, device=device, pci_class=_hex(_HEX6, values.get("class", ""), 6),
            subsystem=":".join(subsystem) if all(subsystem) else "", driver=values.get("driver", ""),
            vgpu=is_vgpu(config), virtual_function=values.get("vf") == "1",
        ))
    return tuple(found)


def _hex(pattern: re.Pattern[str], text: str, digits: int) -> str:
    found = pattern.match(text)
    return found.group(1).lower().zfill(digits) if found else ""


def is_vgpu(config_text: str) -> bool:
    """Whether a device's configuration space (hex bytes) marks an NVIDIA vGPU: a vendor-specific capability that begins with `VF`.

    The list of capabilities starts at byte 0x34 where bit 4 of the status is set (PCI local bus specification 3.0, section 6.7); the mark is
    that of google's and NVIDIA's device plugins (k8s `vgpu-util`).
    """
    try:
        data = bytes.fromhex(config_text)
    except ValueError:
        return False
    if len(data) < 256 or not data[6] & 0x10:
        return False
    at, seen = data[0x34] & 0xFC, set()
    while 0x40 <= at <= 250 and at not in seen:
        seen.add(at)
        if data[at] == 0x09 and data[at + 3 : at + 5] == b"VF":
            return True
        at = data[at + 1] & 0xFC
    return False


def driver(sections: Sections, present: frozenset[str]) -> Nvidia:
    """The driver: loaded, on disk, and what nvidia-smi says."""
    proc = get(sections, "nvidia_proc")
    nvrm = _NVRM.search(proc.text) if proc.rc == 0 else None
    loaded = line(sections, "nvidia_loaded") or (nvrm.group(1) if nvrm else "")
    modinfo = get(sections, "modinfo")
    module = _modinfo(modinfo.text) if modinfo.rc == 0 else {}
    smi = get(sections, "nvidia_smi")
    asked = "nvidia_smi" in sections
    mig = get(sections, "nvidia_mig")
    gpus, version = _smi(smi.text, _mig(mig.text) if mig.rc == 0 else {}) if asked and smi.rc == 0 else ((), "")
    libraries = [found.group(1) for found in map(_LIBRARY.search, rows(get(sections, "libraries").text)) if found]
    return Nvidia(
        loaded=loaded,
        loaded_open="Open Kernel Module" in proc.text if nvrm else None,
        on_disk=module.get("version", ""),
        on_disk_license=module.get("license", ""),
        on_disk_signer=module.get("signer", ""),
        smi_rc=smi.rc if asked else None,
        smi_text=smi.text if asked else "",
        driver_version=version or (libraries[0] if libraries else ""),
        gpus=gpus,
        device_nodes=tuple(rows(get(sections, "device_nodes").text)),
        nouveau_loaded="/sys/module/nouveau" in present,
        installed_by_runfile="/usr/bin/nvidia-uninstall" in present,
    )


def _modinfo(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for row in rows(text):
        key, colon, value = row.partition(":")
        if colon:
            values.setdefault(key.strip(), value.strip())
    return values


def _smi(text: str, mig: dict[str, dict[str, str]]) -> tuple[tuple[SmiGpu, ...], str]:
    found, version = [], ""
    for row in rows(text):
        parts = [part.strip() for part in row.split(",")]
        # Drivers before 450 do not tell of MIG, and then the version is the last.
        mode = "" if _VERSION.fullmatch(parts[-1]) else parts.pop().lower()
        # A name may hold a comma; the others cannot.
        if len(parts) < 5 or not parts[1].startswith("GPU-"):
            continue
        on = {"enabled": True, "disabled": False}.get(mode)
        found.append(SmiGpu(parts[0], parts[1], ", ".join(parts[2:-2]), parts[-2].lower(), on, mig.get(parts[1], {})))
        version = version or parts[-1]
    return tuple(found), version


def _mig(text: str) -> dict[str, dict[str, str]]:
    """GPU -> its MIG devices with their profiles, from `nvidia-smi -L`."""
    found: dict[str, dict[str, str]] = {}
    gpu = ""
    for row in text.splitlines():
        listed, part = _LISTED.match(row), _MIG.match(row)
        if listed:
            gpu = listed[1]
        elif part:
            found.setdefault(gpu, {})[part[2]] = part[1]
    return found


def toolkit(sections: Sections, programs: dict[str, str], packages: dict[str, Package] | None) -> Toolkit:
    """The container toolkit's programs, version and CDI specs."""
    told = re.search(r"version (\d+\.\d+\.\d+[^\s,]*)", get(sections, "toolkit_version").text)
    owners = [(packages or {}).get(name) for name in ("nvidia-container-toolkit", "nvidia-container-toolkit-base")]
    packaged = next((package.version for package in owners if package and package.installed), "")
    specs: dict[str, str] = {}
    for name, section in sections.items():
        kind, _, path = name.partition(":")
        if kind == "cdi" and path.endswith((".yaml", ".json")):
            made_for = _LIBRARY.search(section.text) if section.rc == 0 else None
            specs[path] = made_for.group(1) if made_for else ""
    settings = get(sections, "toolkit_config").text
    return Toolkit(
        ctk=programs.get("nvidia-ctk", ""),
        hook=programs.get("nvidia-container-runtime-hook", ""),
        runtime=programs.get("nvidia-container-runtime", ""),
        cdi_hook=programs.get("nvidia-cdi-hook", ""),
        version=told.group(1) if told else re.split(r"[-~]", packaged)[0],
        cdi_specs=specs,
        no_cgroups=bool(re.search(r"^[ \t]*no-cgroups[ \t]*=[ \t]*true\b", settings, re.MULTILINE)),
    )
