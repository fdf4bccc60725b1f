"""What is there: the caller, Docker, the GPUs and the image, read from the answer of scripts/run/look.sh. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provision.model import Section

# `nvidia-smi -L`: docs.nvidia.com/datacenter/tesla/mig-user-guide.
_GPU = re.compile(r"GPU (\d+): (.*?) \(UUID: (GPU-[^)]+)\)")
_MIG = re.compile(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[^)]+)\)")
_NVRM = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+\.\d+(?:\.\d+)?)")
_CDI_NAME = re.compile(r"""^\s*-?\s*"?name"?\s*:\s*["']?([A-Za-z0-9_.:-]+)""", re.MULTILINE)


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi lists it, with its MIG devices (index, profile, UUID)."""

    index: str
    name: str
    uuid: str
    mig: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Image:
    """An image that is there: what its config says."""

    id: str
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    arch: str = ""


@dataclass(frozen=True)
class Engine:
    """A Docker that answers. `memory` in bytes, 0 where unknown; `cdi` are the names of NVIDIA's CDI devices; `init`: it has a docker-init."""

    version: str
    rootless: bool = False
    remapped: bool = False
    selinux: bool = False
    runtimes: tuple[str, ...] = ()
    cdi: tuple[str, ...] = ()
    memory: int = 0
    init: bool = True
    arch: str = ""

    def at_least(self, *wanted: int) -> bool:
        """Whether the version is this or newer."""
        return tuple(int(n) for n in re.findall(r"\d+", self.version)[:3]) >= wanted


@dataclass(frozen=True)
class Machine:
    """Where the container is to run. `engine` None: Docker did not answer, and `trouble` is what it said; `image` None: it is not there.

    `driver` is the loaded driver's version, `smi_trouble` what nvidia-smi said instead of listing GPUs, `pci` how many NVIDIA GPUs the bus has
    (None: unknown), `hook` whether the toolkit's hook is installed. `cache` is where the caller's caches for containers are.
    """

    system: str = "Linux"
    arch: str = ""
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    user: str = "root"
    home: str = "/root"
    cache: str = "/root/.cache/mlhost/run"
    engine: Engine | None = None
    trouble: str = ""
    image: Image | None = None
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    smi_trouble: str = ""
    pci: int | None = None
    hook: bool = False


def parse(sections: Mapping[str, Section]) -> Machine:
    """The machine that a look describes; what could not be read is left at its default."""
    who = dict(row.split("=", 1) for row in _text(sections, "who").splitlines() if "=" in row)
    numbers = tuple(int(word) for word in who.get("groups", "").split() if word.isdigit())
    home = who.get("home", "") or "/"
    smi = sections.get("smi")
    gpus = _gpus(smi.text) if smi and smi.rc == 0 else ()
    nvrm = _NVRM.search(_text(sections, "driver"))
    pci = _text(sections, "pci").strip()
    engine, trouble = _engine(sections)
    return Machine(
        system=who.get("system", "Linux"),
        arch=who.get("arch", ""),
        uid=_int(who.get("uid", "")),
        gid=_int(who.get("gid", "")),
        groups=numbers,
        user=who.get("user", "") or "user",
        home=home,
        cache=who.get("cache", "") or f"{home.rstrip('/')}/.cache/mlhost/run",
        engine=engine,
        trouble=trouble,
        image=_image(sections),
        gpus=gpus,
        driver=nvrm[1] if nvrm else "",
        smi_trouble="" if smi is None or gpus or smi.rc == 127 else " ".join(smi.text.split())[:300] or f"it ended with {smi.rc}",
        pci=int(pci) if pci.isdigit() else None,
        hook=_text(sections, "hook").strip() == "yes",
    )


def _text(sections: Mapping[str, Section], name: str) -> str:
    section = sections.get(name)
    return section.text if section and section.rc == 0 else ""


def _int(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _json(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _strings(value: object) -> tuple[str, ...]:
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, (list, dict)) else ()


def _engine(sections: Mapping[str, Section]) -> tuple[Engine | None, str]:
    section = sections.get("info")
    if section is None or section.rc == 127:
        return None, "the docker command is not installed"
    info = _json(section.text)
    version = info.get("ServerVersion")
    if section.rc != 0 or not isinstance(version, str) or not version:
        said = _strings(info.get("ServerErrors")) or tuple(row for row in section.text.splitlines() if row.strip() and not row.startswith("{"))
        return None, " ".join(" ".join(said).split())[:400] or f"`docker info` ended with {section.rc}"
    options = _strings(info.get("SecurityOptions"))
    init = info.get("InitCommit")
    known = init.get("ID") if isinstance(init, dict) else None
    memory = info.get("MemTotal")
    return Engine(
        version=version,
        rootless=any("name=rootless" in option for option in options),
        remapped=any("name=userns" in option for option in options),
        selinux=any("name=selinux" in option for option in options),
        runtimes=_strings(info.get("Runtimes")),
        cdi=_cdi(sections, info),
        memory=memory if isinstance(memory, int) and memory > 0 else 0,
        init=known not in ("N/A", None),  # "": there is one whose version Docker cannot read
        arch=str(info.get("Architecture") or ""),
    ), ""


def _cdi(sections: Mapping[str, Section], info: Mapping[str, Any]) -> tuple[str, ...]:
    """The names after `nvidia.com/gpu=`, none where the engine does not look for CDI devices at all."""
    listed = info.get("DiscoveredDevices")
    names = [str(d.get("ID", "")) for d in listed if isinstance(d, dict) and d.get("Source") == "cdi"] if isinstance(listed, list) else []
    found = [name.partition("=")[2] for name in names if name.startswith("nvidia.com/gpu=")]
    if not found and _strings(info.get("CDISpecDirs")) and "nvidia.com/gpu" in _text(sections, "cdi"):
        found = _CDI_NAME.findall(_text(sections, "cdi"))
    return tuple(dict.fromkeys(found))


def _image(sections: Mapping[str, Section]) -> Image | None:
    value = _json(_text(sections, "image"))
    config = value.get("Config")
    config = config if isinstance(config, dict) else {}
    identity = value.get("Id")
    if not isinstance(identity, str) or not identity:
        return None
    env = dict(entry.split("=", 1) for entry in _strings(config.get("Env")) if "=" in entry)
    labels = config.get("Labels")
    return Image(identity, env, {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}, str(value.get("Architecture") or ""))


def _gpus(text: str) -> tuple[Gpu, ...]:
    found: list[Gpu] = []
    for row in text.splitlines():
        gpu, mig = _GPU.match(row), _MIG.match(row)
        if gpu:
            found.append(Gpu(gpu[1], gpu[2], gpu[3]))
        elif mig and found:
            last = found[-1]
            found[-1] = Gpu(last.index, last.name, last.uuid, (*last.mig, (mig[2], mig[1], mig[3])))
    return tuple(found)
