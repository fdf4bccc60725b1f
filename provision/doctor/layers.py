"""How each layer of a host is, in a few words: what is shown where nothing known explains the trouble. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from provision.doctor.failures import LAYERS
from provision.doctor.seen import Seen
from provision.model import Unit

OK, BROKEN, ABSENT, UNKNOWN = "ok", "broken", "absent", "unknown"


@dataclass(frozen=True)
class LayerState:
    """One layer: ok, broken, absent (not set up) or unknown, and what that is read from."""

    layer: str
    state: str
    detail: str


def states(seen: Seen, broken: Mapping[str, str]) -> tuple[LayerState, ...]:
    """Every layer that this host can have, in order. `broken`: what was found, by layer."""
    found = {
        "system": _system(seen), "disk": _disk(seen), "packages": _packages(seen), "pci": _pci(seen), "kernel-module": _module(seen),
        "device-nodes": _nodes(seen), "nvidia-smi": _smi(seen), "persistenced": _unit(seen, "nvidia-persistenced.service"),
        "fabric": _fabric(seen), "docker": _docker(seen), "runtime": _runtime(seen), "cdi": _cdi(seen),
    }
    rows = []
    for layer in LAYERS:
        state = found.get(layer)
        if layer in broken:
            rows.append(LayerState(layer, BROKEN, broken[layer]))
        elif state is not None:
            rows.append(LayerState(layer, *state))
    return tuple(rows)


def _system(seen: Seen) -> tuple[str, str]:
    facts = seen.facts
    name = facts.os.pretty_name or facts.os.id
    return OK, f"{name}, {facts.arch}, kernel {facts.kernel or 'unknown'}" + (", Secure Boot on" if facts.secure_boot else "")


def _disk(seen: Seen) -> tuple[str, str]:
    disks = seen.facts.disks.values()
    if not disks:
        return UNKNOWN, "the free space could not be read"
    return OK, ", ".join(f"{disk.path} {disk.free_kb / 1048576:.1f} GiB free" for disk in disks)


def _packages(seen: Seen) -> tuple[str, str]:
    if seen.facts.packages is None:
        return UNKNOWN, "the package database could not be read"
    return OK, "no lock is held, no package is half installed"


def _pci(seen: Seen) -> tuple[str, str]:
    if seen.facts.nvidia_pci is None:
        return UNKNOWN, "the PCI bus could not be read"
    if not seen.facts.gpus:
        return ABSENT, "no NVIDIA GPU on the bus"
    return OK, ", ".join(f"{d.address} 10de:{d.device}" + (f" ({d.driver})" if d.driver else "") for d in seen.facts.gpus)


def _module(seen: Seen) -> tuple[str, str]:
    nvidia = seen.facts.nvidia
    if nvidia is None:
        return UNKNOWN, "could not be read"
    if nvidia.loaded:
        return OK, f"nvidia {nvidia.loaded} is loaded" + (" (open)" if nvidia.loaded_open else "")
    if nvidia.on_disk:
        return UNKNOWN, f"nvidia {nvidia.on_disk} is on disk and not loaded"
    return ABSENT, "no NVIDIA module for this kernel"


def _nodes(seen: Seen) -> tuple[str, str]:
    nodes = seen.facts.nvidia.device_nodes if seen.facts.nvidia else ()
    if nodes:
        return OK, f"{len(nodes)} device nodes"
    return ABSENT, "no /dev/nvidia*"


def _smi(seen: Seen) -> tuple[str, str]:
    nvidia = seen.facts.nvidia
    if nvidia is None or nvidia.smi_rc is None:
        return ABSENT, "nvidia-smi was not run"
    if nvidia.smi_rc:
        return BROKEN, f"nvidia-smi ended with {nvidia.smi_rc}"
    return OK, f"nvidia-smi sees {len(nvidia.gpus)} of {len(seen.facts.gpus)} GPUs, driver {nvidia.driver_version}"


def _unit(seen: Seen, name: str) -> tuple[str, str] | None:
    unit = seen.facts.units.get(name)
    if unit is None or unit.load in ("", "not-found"):
        return None
    return (BROKEN if unit.active == "failed" else OK), _shown(unit)


def _shown(unit: Unit) -> str:
    return f"{unit.name} is {unit.active}" + (f", {unit.enabled}" if unit.enabled else "")


def _fabric(seen: Seen) -> tuple[str, str] | None:
    return _unit(seen, "nvidia-fabricmanager.service")


def _docker(seen: Seen) -> tuple[str, str]:
    docker = seen.facts.docker
    if docker is None:
        return UNKNOWN, "could not be read"
    if docker.server:
        return OK, f"engine {docker.server} answers, {docker.running_containers} running containers"
    if docker.server is None:
        return UNKNOWN, docker.error or "the daemon could not be asked"
    if docker.dockerd or docker.snap:
        return BROKEN, "installed, and does not answer"
    return ABSENT, "not installed"


def _runtime(seen: Seen) -> tuple[str, str]:
    toolkit, docker = seen.facts.toolkit, seen.facts.docker
    if not (toolkit.version or toolkit.ctk or toolkit.runtime):
        return ABSENT, "no NVIDIA Container Toolkit"
    known = ", ".join(docker.runtimes) if docker else ""
    return OK, f"toolkit {toolkit.version or 'of unknown version'}" + (f", Docker's runtimes: {known}" if known else "")


def _cdi(seen: Seen) -> tuple[str, str]:
    specs = seen.facts.toolkit.cdi_specs
    if not specs:
        return ABSENT, "no CDI specification"
    return OK, ", ".join(f"{path}" + (f" for driver {made}" if made else "") for path, made in specs.items())
