"""GPUs: which are wanted, whether they are there, and by which way this engine gives them to a container. Pure.

Ways: CDI devices (docs.docker.com/build/building/cdi, github.com/cncf-tags/container-device-interface), `--gpus` (docs.docker.com/engine/containers/gpu),
the nvidia runtime (docs.nvidia.com/datacenter/cloud-native/container-toolkit). CUDA_VISIBLE_DEVICES: docs.nvidia.com/cuda/cuda-c-programming-guide,
environment variables: indexes, or UUIDs of which the beginning suffices; what comes after one that is none is not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from provision.dockrun.machine import Engine, Gpu, Machine
from provision.errors import Failed, UsageError

ALL, NONE, AUTO = "all", "none", ""


@dataclass(frozen=True)
class Given:
    """How GPUs come into the container: groups of docker's words, each with its reason. `count`: how many, 0 for none; `notes` are for the user."""

    words: tuple[tuple[tuple[str, ...], str], ...] = ()
    count: int = 0
    uuids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """Something that can be asked for: a GPU or a part of one."""

    index: str
    uuid: str
    name: str


def devices(gpus: Sequence[Gpu]) -> tuple[Device, ...]:
    """All GPUs and their parts; a part's index is `GPU:PART`."""
    found = []
    for gpu in gpus:
        found.append(Device(gpu.index, gpu.uuid, gpu.name))
        found += [Device(f"{gpu.index}:{index}", uuid, f"{gpu.name} MIG {profile}") for index, profile, uuid in gpu.mig]
    return tuple(found)


def give(wanted: str, machine: Machine) -> Given:
    """How the wanted GPUs are asked for: "" (all there are, or none), `all`, `none`, a number of them as for Docker, `device=0,1`, `0,1`, UUIDs.

    Raises UsageError for GPUs that are not there, Failed where GPUs are there but cannot be given.
    """
    text = wanted.strip().strip("\"'").strip()
    if text in (NONE, "0"):
        return Given(notes=())
    if machine.system == "Darwin":
        if text not in (AUTO, ALL):
            raise UsageError(f"--gpus {wanted}: a Mac's GPU cannot be given to a container.", "Leave --gpus out to run on the CPU, or use --host.")
        return Given(notes=("Docker on a Mac has no GPU to give; this runs on the CPU.",) if text == ALL else ())
    if not machine.gpus:
        return _without(text, wanted, machine)
    chosen = _chosen(text, wanted, machine.gpus)
    if machine.engine is None:
        words: tuple[tuple[str, ...], str] = (("--gpus", "all" if not chosen else _quoted(chosen)), "the usual way, as Docker could not be asked for a better one")
        return Given((words,), len(chosen) or len(machine.gpus), tuple(d.uuid for d in chosen))
    return Given(_words(machine, machine.engine, chosen), len(chosen) or len(machine.gpus), tuple(d.uuid for d in chosen))


def visible(value: str, machine: Machine, given: Given) -> str:
    """What to tell of a CUDA_VISIBLE_DEVICES that is passed on ("" for nothing). Raises UsageError where it names what will not be there."""
    entries = [entry.strip() for entry in value.split(",")]
    if entries[0] in ("", "-1", "NoDevFiles"):
        return "CUDA_VISIBLE_DEVICES hides all GPUs from CUDA." if given.count else ""
    if not given.count:
        return f"CUDA_VISIBLE_DEVICES={value} is passed on, but the container has no GPU."
    all_devices = devices(machine.gpus)
    for entry in entries:
        if entry.isdigit():
            if int(entry) >= given.count:
                anew = " Inside, they are numbered anew from 0." if given.uuids else ""
                names = "0" if given.count == 1 else f"0 to {given.count - 1}"
                raise UsageError(f"CUDA_VISIBLE_DEVICES={value}: there is no GPU {entry}; the container has {given.count} ({names}).{anew}",
                                 "Name those that are there; `nvidia-smi -L` lists them.")
        elif entry.startswith(("GPU-", "MIG-")) and not entry.startswith("MIG-GPU-"):
            matching = [device for device in all_devices if device.uuid.startswith(entry)]
            if len(matching) != 1:
                what = "names several GPUs" if matching else "is not on this machine"
                raise UsageError(f"CUDA_VISIBLE_DEVICES={value}: {entry} {what}.", "Write the whole UUID; `nvidia-smi -L` lists them.")
            parent = next(g.uuid for g in machine.gpus if matching[0].uuid == g.uuid or any(matching[0].uuid == m[2] for m in g.mig))
            if given.uuids and matching[0].uuid not in given.uuids and parent not in given.uuids:
                raise UsageError(f"CUDA_VISIBLE_DEVICES={value}: {entry} is not among the GPUs that --gpus gives to the container.", "Name it there too.")
        elif not entry.startswith("MIG-GPU-"):  # how drivers before 470 name parts
            raise UsageError(f"CUDA_VISIBLE_DEVICES={value}: {entry!r} is neither an index nor a UUID; CUDA would see nothing from there on.",
                             "Write indexes or UUIDs joined by commas.")
    return ""


def _without(text: str, wanted: str, machine: Machine) -> Given:
    """There is no GPU that nvidia-smi shows."""
    if machine.smi_trouble:
        if text == AUTO and not machine.pci and not machine.driver:
            return Given()
        raise Failed(f"The GPUs cannot be used: nvidia-smi says: {machine.smi_trouble}", "`mlhost doctor` names what is broken; --gpus none runs without them.")
    if machine.pci:
        message = f"There {'is an NVIDIA GPU' if machine.pci == 1 else f'are {machine.pci} NVIDIA GPUs'} here, but no driver for {'it' if machine.pci == 1 else 'them'}"
        if text == AUTO:
            return Given(notes=(f"{message}: this runs on the CPU. `mlhost setup` installs one.",))
        raise Failed(f"{message}.", "Run `mlhost setup`; or --gpus none to run on the CPU.")
    if text == AUTO:
        return Given()
    raise UsageError(f"--gpus {wanted}: there is no NVIDIA GPU here.", "Leave --gpus out: without a GPU the command runs on the CPU.")


def _chosen(text: str, wanted: str, gpus: Sequence[Gpu]) -> tuple[Device, ...]:
    """The devices that were named, () for all."""
    if text in (AUTO, ALL):
        return ()
    listed, known = text, devices(gpus)
    there = "There is " + ", ".join(f"GPU {d.index} ({d.uuid})" for d in known)
    if listed.startswith("device="):
        listed = listed[len("device=") :].strip("\"'")
    elif listed.isdigit():
        if int(listed) > len(gpus):
            raise UsageError(f"--gpus {wanted} asks for {listed} GPUs, and there are {len(gpus)}.", f"{there}. For one of them by its number write device=NUMBER.")
        return known_gpus(gpus)[: int(listed)]
    found: list[Device] = []
    for entry in (part.strip() for part in listed.split(",")):
        matching = [d for d in known if d.index == entry or (entry.startswith(("GPU-", "MIG-")) and d.uuid.startswith(entry))]
        if len(matching) != 1:
            what = "is the beginning of several UUIDs" if matching else "is not there"
            raise UsageError(f"--gpus {wanted}: {entry or 'an empty name'} {what}.", f"{there}; or write `all`, `none` or a number of GPUs.")
        found.append(matching[0])
    return tuple(dict.fromkeys(found))


def known_gpus(gpus: Sequence[Gpu]) -> tuple[Device, ...]:
    """Whole GPUs only."""
    return tuple(Device(gpu.index, gpu.uuid, gpu.name) for gpu in gpus)


def _words(machine: Machine, engine: Engine, chosen: tuple[Device, ...]) -> tuple[tuple[tuple[str, ...], str], ...]:
    what = "all GPUs" if not chosen else " and ".join(f"GPU {d.index} ({d.name})" for d in chosen)
    if engine.at_least(25) and engine.cdi:
        names = ["all"] if not chosen else [next((n for n in (d.uuid, d.index) if n in engine.cdi), "") for d in chosen]
        if all(name in engine.cdi for name in names):
            return tuple((("--device", f"nvidia.com/gpu={name}"), f"{what}, as CDI devices: they stay through `systemctl daemon-reload`") for name in names)
    if engine.at_least(19, 3) and (machine.hook or "nvidia" not in engine.runtimes):
        if not machine.hook and not engine.cdi:
            raise Failed("There are GPUs here, but Docker cannot give them to a container: the NVIDIA Container Toolkit is missing.",
                         "Run `mlhost setup`; or --gpus none to run on the CPU.")
        return ((("--gpus", "all" if not chosen else _quoted(chosen)), f"{what}, by Docker's own option; Docker {engine.version} has no CDI devices for them"),)
    if "nvidia" in engine.runtimes:
        value = "all" if not chosen else ",".join(d.uuid for d in chosen)
        return ((("--runtime=nvidia", "--env", f"NVIDIA_VISIBLE_DEVICES={value}"), f"{what}, by the nvidia runtime, as there is neither CDI nor the hook for --gpus"),)
    raise Failed("There are GPUs here, but Docker has no way to give them to a container.", "Run `mlhost setup`; or --gpus none to run on the CPU.")


def _quoted(chosen: Sequence[Device]) -> str:
    """As Docker's option wants a list: its value is CSV, so that a comma in a field must stand in quotes."""
    value = "device=" + ",".join(d.uuid for d in chosen)
    return f'"{value}"' if "," in value else value
