"""Machines as facts, for tests of the planner. They are doubles: nothing here was read from a host.

The signing key is made of a packet that has the shape of a key and none of its mathematics; `CATALOG` is the packaged catalog with this key pinned in
place of the vendors', so that a source can be signed by "the pinned key" in a test.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace
from typing import Any

from provision import catalog as catalogs
from provision import openpgp
from provision.facts import apt
from provision.model import Disk, Docker, Facts, Nvidia, OsRelease, Package, PciDevice, SmiGpu, Toolkit, Unit

SYSTEMS = {
    "debian 11": OsRelease("debian", "11", "bullseye", pretty_name="Debian GNU/Linux 11 (bullseye)"),
    "debian 12": OsRelease("debian", "12", "bookworm", pretty_name="Debian GNU/Linux 12 (bookworm)"),
    "debian 13": OsRelease("debian", "13", "trixie", pretty_name="Debian GNU/Linux 13 (trixie)"),
    "ubuntu 22.04": OsRelease("ubuntu", "22.04", "jammy", ("debian",), "jammy", pretty_name="Ubuntu 22.04.5 LTS"),
    "ubuntu 24.04": OsRelease("ubuntu", "24.04", "noble", ("debian",), "noble", pretty_name="Ubuntu 24.04.3 LTS"),
    "ubuntu 26.04": OsRelease("ubuntu", "26.04", "resolute", ("debian",), "resolute", pretty_name="Ubuntu 26.04 LTS"),
    "mint 22": OsRelease("linuxmint", "22", "wilma", ("ubuntu", "debian"), "noble", pretty_name="Linux Mint 22"),
}
KERNELS = {
    "debian 11": "5.10.0-36-amd64",
    "debian 12": "6.1.0-40-cloud-amd64",
    "debian 13": "6.12.48+deb13-cloud-amd64",
    "ubuntu 22.04": "5.15.0-157-generic",
    "ubuntu 24.04": "6.8.0-1040-aws",
    "ubuntu 26.04": "7.0.0-14-generic",
    "mint 22": "6.8.0-85-generic",
}


def a_key(seed: int = 1) -> bytes:
    """A packet shaped like a version 4 public key (RFC 9580 section 5.5.2), armoured by its lead byte's absence: binary."""
    body = b"\x04" + seed.to_bytes(4, "big") + b"\x01\x00\x08\xff\x00\x02\x03"
    return bytes([0x99]) + len(body).to_bytes(2, "big") + body


KEY, OTHER_KEY = a_key(1), a_key(2)
PINNED = openpgp.fingerprints(KEY)[0]


def _read(name: str) -> dict[str, Any]:
    data = copy.deepcopy(catalogs._packaged(name))
    if name == "repositories":
        for row in data["repository"]:
            row["fingerprints"] = [PINNED]
        for row in data["key"]:
            row["fingerprint"] = PINNED
    return data


CATALOG = catalogs.load(_read)


def unit(name: str, active: str = "active", enabled: str = "enabled", load: str = "loaded") -> dict[str, Unit]:
    return {name: Unit(name, load, active, enabled)}


def machine(system: str = "debian 12", **changes: Any) -> Facts:
    """A fresh server of that system, read as root."""
    os = SYSTEMS[system]
    kernel = KERNELS[system]
    flavour = kernel.split("-", 2)[-1] if os.id != "debian" or "cloud" not in kernel else "cloud-amd64"
    flavour = "amd64" if kernel == KERNELS["debian 11"] else flavour
    base = "ubuntu" if os.id != "debian" else "debian"
    source = f"/etc/apt/sources.list.d/{base}.sources"
    components = "main universe restricted multiverse" if base == "ubuntu" else "main"
    suite = os.ubuntu_codename or os.codename
    text = (
        f"Types: deb\nURIs: http://mirror.example/{base}\nSuites: {suite} {suite}-updates\nComponents: {components}\n"
        f"Signed-By: /usr/share/keyrings/{base}-archive-keyring.gpg\n"
    )
    facts = Facts(
        host="box",
        arch="x86_64",
        os=os,
        kernel=kernel,
        uid=0,
        boot_id="8d2f4a2e-0000-4000-8000-000000000001",
        host_time=1795400000,
        asked_at=1795400000,
        usr_writable=True,
        systemd=True,
        secure_boot=False,
        nvidia_pci=(),
        packages=packages(f"linux-image-{kernel} 1.0\nlinux-image-{flavour} 1.0\napt 2.6.1\ndpkg 1.21.22"),
        apt_sources=apt.deb822(source, text),
        apt_source_texts={source: text},
        units={
            **unit("docker.service", "inactive", "", "not-found"),
            **unit("nvidia-persistenced.service", "inactive", "", "not-found"),
        },
        disks={path: Disk(path, "/", 40_000_000, 60_000_000, 3_000_000, "ext4") for path in ("/", "/var/lib/docker")},
        block_devices=(),
        users=("root", "ada"),
    )
    return replace(facts, **changes)


def packages(rows: str) -> dict[str, Package]:
    """`name version [status]` lines."""
    found = (row.split() for row in rows.splitlines())
    return {row[0]: Package(row[0], row[1], *row[2:]) for row in found}


def with_packages(facts: Facts, rows: str) -> Facts:
    return replace(facts, packages={**(facts.packages or {}), **packages(rows)})


def with_source(facts: Facts, path: str, text: str) -> Facts:
    """One more apt source file."""
    parse = apt.deb822 if path.endswith(".sources") else apt.one_line
    kept = tuple(s for s in facts.apt_sources if s.path != path)
    return replace(facts, apt_sources=(*kept, *parse(path, text)), apt_source_texts={**facts.apt_source_texts, path: text})


def with_docker(facts: Facts, package: str = "docker-ce", version: str = "5:28.5.2-1~debian.12~bookworm", **docker: Any) -> Facts:
    """A Docker Engine from `package`, running and enabled."""
    upstream = version.partition(":")[2].partition("-")[0] or version.partition("-")[0]
    state: dict[str, Any] = {"cli": upstream, "dockerd": upstream, "server": upstream, "root_dir": "/var/lib/docker", **docker}
    facts = with_packages(facts, f"{package} {version}") if package else facts
    return replace(facts, docker=Docker(**state), units={**facts.units, **unit("docker.service")})


DOCKER_SOURCE = "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/{} {} stable\n"


def gpu(device: str = "2330", address: str = "0000:17:00.0", **changes: Any) -> PciDevice:
    return PciDevice(address, "10de", device, changes.pop("pci_class", "030200"), **changes)


SWITCH = gpu("22a3", "0000:85:00.0", pci_class="068000")


def with_gpus(facts: Facts, *devices: str | PciDevice, **changes: Any) -> Facts:
    """GPUs on the bus by device id, no driver."""
    found = [d if isinstance(d, PciDevice) else gpu(d, f"0000:{17 + at}:00.0") for at, d in enumerate(devices)]
    return replace(facts, nvidia_pci=tuple(found), **changes)


def working(facts: Facts, version: str = "580.126.20", is_open: bool = True, **changes: Any) -> Facts:
    """The driver works and shows every GPU that is this system's own."""
    own = [d for d in facts.gpus if not d.virtual_function and d.driver != "vfio-pci"]
    seen = tuple(SmiGpu(str(i), f"GPU-{i}", "NVIDIA", d.address) for i, d in enumerate(own))
    state: dict[str, Any] = {
        "loaded": version,
        "loaded_open": is_open,
        "on_disk": version,
        "smi_rc": 0,
        "driver_version": version,
        "gpus": seen,
    }
    return replace(facts, nvidia=Nvidia(**{**state, **changes}))


TOOLKIT = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")


def with_toolkit(facts: Facts, version: str = "1.20.0", spec: str = "") -> Facts:
    facts = with_packages(facts, "\n".join(f"{name} {version}-1" for name in TOOLKIT))
    programs = {
        "ctk": "/usr/bin/nvidia-ctk",
        "hook": "/usr/bin/nvidia-container-runtime-hook",
        "cdi_hook": "/usr/bin/nvidia-cdi-hook",
    }
    specs = {"/var/run/cdi/nvidia.yaml": spec} if spec else {}
    return replace(facts, toolkit=Toolkit(**programs, version=version, cdi_specs=specs))


def with_daemon_json(facts: Facts, text: str) -> Facts:
    return replace(facts, daemon_json=text, daemon_json_sha256=hashlib.sha256(text.encode()).hexdigest() if text else "")
