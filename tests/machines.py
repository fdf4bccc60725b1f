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
from provision.facts import apt, rpm
from provision.model import Disk, Docker, Facts, Nvidia, OsRelease, Package, PciDevice, SmiGpu, Toolkit, Unit

SYSTEMS = {
    "debian 11": OsRelease("debian", "11", "bullseye", pretty_name="Debian GNU/Linux 11 (bullseye)"),
    "debian 12": OsRelease("debian", "12", "bookworm", pretty_name="Debian GNU/Linux 12 (bookworm)"),
    "debian 13": OsRelease("debian", "13", "trixie", pretty_name="Debian GNU/Linux 13 (trixie)"),
    "ubuntu 16.04": OsRelease("ubuntu", "16.04", "xenial", ("debian",), "xenial", pretty_name="Ubuntu 16.04.7 LTS"),
    "ubuntu 22.04": OsRelease("ubuntu", "22.04", "jammy", ("debian",), "jammy", pretty_name="Ubuntu 22.04.5 LTS"),
    "ubuntu 24.04": OsRelease("ubuntu", "24.04", "noble", ("debian",), "noble", pretty_name="Ubuntu 24.04.3 LTS"),
    "ubuntu 26.04": OsRelease("ubuntu", "26.04", "resolute", ("debian",), "resolute", pretty_name="Ubuntu 26.04 LTS"),
    "mint 22": OsRelease("linuxmint", "22", "wilma", ("ubuntu", "debian"), "noble", pretty_name="Linux Mint 22"),
}
KERNELS = {
    "debian 11": "5.10.0-36-amd64",
    "debian 12": "6.1.0-40-cloud-amd64",
    "debian 13": "6.12.48+deb13-cloud-amd64",
    "ubuntu 16.04": "4.4.0-210-generic",
    "ubuntu 22.04": "5.15.0-157-generic",
    "ubuntu 24.04": "6.8.0-1040-aws",
    "ubuntu 26.04": "7.0.0-14-generic",
    "mint 22": "6.8.0-85-generic",
}


# Systems with rpm packages: os-release, kernel, and a .repo file of the distribution's own.
RPM_SYSTEMS = {
    "rhel 8": OsRelease("rhel", "8.10", "", ("fedora",), pretty_name="Red Hat Enterprise Linux 8.10 (Ootpa)", platform_id="platform:el8"),
    "rhel 9": OsRelease("rhel", "9.4", "", ("fedora",), pretty_name="Red Hat Enterprise Linux 9.4 (Plow)", platform_id="platform:el9"),
    "rocky 8": OsRelease("rocky", "8.10", "", ("rhel", "centos", "fedora"), pretty_name="Rocky Linux 8.10 (Green Obsidian)"),
    "rocky 9": OsRelease("rocky", "9.6", "", ("rhel", "centos", "fedora"), pretty_name="Rocky Linux 9.6 (Blue Onyx)"),
    "rocky 10": OsRelease("rocky", "10.0", "", ("rhel", "centos", "fedora"), pretty_name="Rocky Linux 10.0 (Red Quartz)"),
    "alma 9": OsRelease("almalinux", "9.6", "", ("rhel", "centos", "fedora"), pretty_name="AlmaLinux 9.6 (Sage Margay)"),
    "oracle 9": OsRelease("ol", "9.6", "", ("fedora",), pretty_name="Oracle Linux Server 9.6", platform_id="platform:el9"),
    "stream 9": OsRelease("centos", "9", "", ("rhel", "fedora"), pretty_name="CentOS Stream 9"),
    "fedora 42": OsRelease("fedora", "42", "", (), pretty_name="Fedora Linux 42 (Cloud Edition)", platform_id="platform:f42"),
    "fedora 43": OsRelease("fedora", "43", "", (), pretty_name="Fedora Linux 43 (Cloud Edition)", platform_id="platform:f43"),
    "fedora 44": OsRelease("fedora", "44", "", (), pretty_name="Fedora Linux 44 (Cloud Edition)", platform_id="platform:f44"),
    "amazon 2": OsRelease("amzn", "2", "", ("centos", "rhel", "fedora"), pretty_name="Amazon Linux 2"),
    "amazon 2023": OsRelease("amzn", "2023", "", ("fedora",), pretty_name="Amazon Linux 2023.9.20251105"),
    "azure linux 3": OsRelease("azurelinux", "3.0", "", (), pretty_name="Microsoft Azure Linux 3.0"),
    "sles 15": OsRelease("sles", "15.7", "", ("suse",), pretty_name="SUSE Linux Enterprise Server 15 SP7"),
    "sles 16": OsRelease("sles", "16.0", "", ("suse",), pretty_name="SUSE Linux Enterprise Server 16.0"),
    "leap 15.6": OsRelease("opensuse-leap", "15.6", "", ("suse", "opensuse"), pretty_name="openSUSE Leap 15.6"),
    "leap 16": OsRelease("opensuse-leap", "16.0", "", ("suse", "opensuse"), pretty_name="openSUSE Leap 16.0"),
}
RPM_KERNELS = {
    "rhel 8": "4.18.0-553.84.1.el8_10.x86_64",
    "rhel 9": "5.14.0-427.42.1.el9_4.x86_64",
    "rocky 8": "4.18.0-553.84.1.el8_10.x86_64",
    "rocky 9": "5.14.0-570.58.1.el9_6.x86_64",
    "rocky 10": "6.12.0-55.41.1.el10_0.x86_64",
    "alma 9": "5.14.0-570.58.1.el9_6.x86_64",
    "oracle 9": "6.12.0-104.43.4.2.el9uek.x86_64",
    "stream 9": "5.14.0-632.el9.x86_64",
    "fedora 42": "6.17.4-100.fc42.x86_64",
    "fedora 43": "6.19.9-200.fc43.x86_64",
    "fedora 44": "7.0.2-300.fc44.x86_64",
    "amazon 2": "5.10.245-241.978.amzn2.x86_64",
    "amazon 2023": "6.12.46-66.121.amzn2023.x86_64",
    "azure linux 3": "6.6.104.2-4.azl3",
    "sles 15": "6.4.0-150700.53.19-default",
    "sles 16": "6.12.0-160000.5-default",
    "leap 15.6": "6.4.0-150600.23.73-default",
    "leap 16": "6.12.0-160000.5-default",
}
BUILDERS = {
    "rhel 8": ("redhat.repo", "codeready-builder-for-rhel-8-x86_64-rpms"),
    "rhel 9": ("redhat.repo", "codeready-builder-for-rhel-9-x86_64-rpms"),
    "rocky 8": ("Rocky-PowerTools.repo", "powertools"),
    "rocky 9": ("rocky.repo", "crb"),
    "rocky 10": ("rocky.repo", "crb"),
    "alma 9": ("almalinux-crb.repo", "crb"),
    "oracle 9": ("oracle-linux-ol9.repo", "ol9_codeready_builder"),
    "stream 9": ("centos.repo", "crb"),
    "amazon 2": ("amzn2-extras.repo", "amzn2extra-docker"),
}
EVERY_SYSTEM = (*SYSTEMS, *RPM_SYSTEMS)


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


CATALOG = catalogs.load(_read, enable_all=True)


def unit(name: str, active: str = "active", enabled: str = "enabled", load: str = "loaded") -> dict[str, Unit]:
    return {name: Unit(name, load, active, enabled)}


def machine(system: str = "debian 12", **changes: Any) -> Facts:
    """A fresh server of that system, read as root."""
    if system in RPM_SYSTEMS:
        return replace(_rpm_machine(system), **changes)
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


def _rpm_machine(system: str) -> Facts:
    os, kernel = RPM_SYSTEMS[system], RPM_KERNELS[system]
    suse = "suse" in os.id_like
    folder = "/etc/zypp/repos.d" if suse else "/etc/yum.repos.d"
    file, builder = BUILDERS.get(system, ("base.repo", ""))
    text = "[base]\nname=Base\nbaseurl=http://mirror.example/$releasever/$basearch/os\nenabled=1\ngpgcheck=1\n"
    if builder:
        text += f"\n[{builder}]\nname=Builder\nbaseurl=http://mirror.example/$releasever/$basearch/crb\nenabled=0\ngpgcheck=1\n"
    release = kernel.rpartition(".")[0] if kernel.endswith(".x86_64") else kernel.removesuffix("-default") if hasattr(str, "removesuffix") else kernel
    name = "kernel-default" if suse else "kernel"
    rows = f"{name} {release}\n" + ("" if suse or system in ("azure linux 3", "amazon 2") else f"kernel-core {release}\nkernel-core-{kernel} {release}\n")
    return Facts(
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
        packages=packages(f"{rows}rpm 4.19.1-1"),
        managers=({"azure linux 3": "tdnf", "amazon 2": "yum"}.get(system, "zypper" if suse else "dnf"),),
        rpm_sources=rpm.repo_file(f"{folder}/{file}", text),
        rpm_source_texts={f"{folder}/{file}": text},
        selinux="" if suse else "enforcing",
        units={
            **unit("docker.service", "inactive", "", "not-found"),
            **unit("nvidia-persistenced.service", "inactive", "", "not-found"),
        },
        disks={path: Disk(path, "/", 40_000_000, 60_000_000, 3_000_000, "xfs") for path in ("/", "/var/lib/docker")},
        block_devices=(),
        users=("root", "ada"),
    )


def is_rpm(facts: Facts) -> bool:
    return bool(facts.managers) and facts.managers != ("apt-get",)


def packages(rows: str) -> dict[str, Package]:
    """`name version [status]` lines."""
    found = (row.split() for row in rows.splitlines())
    return {row[0]: Package(row[0], row[1], *row[2:]) for row in found}


def with_packages(facts: Facts, rows: str) -> Facts:
    return replace(facts, packages={**(facts.packages or {}), **packages(rows)})


def with_source(facts: Facts, path: str, text: str) -> Facts:
    """One more source file: apt's, or a .repo file."""
    if path.endswith(".repo"):
        others = tuple(s for s in facts.rpm_sources if s.path != path)
        texts = {**facts.rpm_source_texts, path: text}
        return replace(facts, rpm_sources=(*others, *rpm.repo_file(path, text)), rpm_source_texts=texts)
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
