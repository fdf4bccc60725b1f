"""Assembled captures: what the probe would print on machines this project has no access to, put together from known texts.

They are test doubles and every folder of tests/hosts made from them says so. `python -m tests.captures` writes their probe.txt; then
`MLHOST_REGEN=1 pytest tests/test_facts.py` writes facts.json, and a person reads the difference.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from provision.capture import join
from provision.model import Section

HOSTS = Path(__file__).parent / "hosts"
Sections = dict[str, Section]

# (pretty name, id, version, codename, more lines)
SYSTEMS = {
    "debian12": ("Debian GNU/Linux 12 (bookworm)", "debian", "12", "bookworm", ""),
    "debian13": ("Debian GNU/Linux 13 (trixie)", "debian", "13", "trixie", ""),
    "ubuntu2404": ("Ubuntu 24.04.3 LTS", "ubuntu", "24.04", "noble", "ID_LIKE=debian\nUBUNTU_CODENAME=noble\n"),
    "debian11": ("Debian GNU/Linux 11 (bullseye)", "debian", "11", "bullseye", ""),
    "ubuntu1604": ("Ubuntu 16.04.7 LTS", "ubuntu", "16.04", "xenial", "ID_LIKE=debian\nUBUNTU_CODENAME=xenial\n"),
    "ubuntu1804": ("Ubuntu 18.04.6 LTS", "ubuntu", "18.04", "bionic", "ID_LIKE=debian\nUBUNTU_CODENAME=bionic\n"),
    "ubuntu2004": ("Ubuntu 20.04.6 LTS", "ubuntu", "20.04", "focal", "ID_LIKE=debian\nUBUNTU_CODENAME=focal\n"),
    "ubuntu2204": ("Ubuntu 22.04.5 LTS", "ubuntu", "22.04", "jammy", "ID_LIKE=debian\nUBUNTU_CODENAME=jammy\n"),
    "ubuntu2604": ("Ubuntu 26.04 LTS", "ubuntu", "26.04", "resolute", "ID_LIKE=debian\nUBUNTU_CODENAME=resolute\n"),
    "raspbian11": ("Raspbian GNU/Linux 11 (bullseye)", "raspbian", "11", "bullseye", "ID_LIKE=debian\n"),
    "raspbian12": ("Raspbian GNU/Linux 12 (bookworm)", "raspbian", "12", "bookworm", "ID_LIKE=debian\n"),
    "raspbian13": ("Raspbian GNU/Linux 13 (trixie)", "raspbian", "13", "trixie", "ID_LIKE=debian\n"),
}
KERNELS = {"debian12": "6.1.0-40-cloud-amd64", "debian13": "6.12.48+deb13-cloud-amd64", "ubuntu2404": "6.8.0-85-generic",
           "debian11": "5.10.0-36-amd64", "ubuntu1604": "4.4.0-210-generic", "ubuntu1804": "4.15.0-213-generic", "ubuntu2004": "5.4.0-216-generic", "ubuntu2204": "5.15.0-157-generic",
           "ubuntu2604": "7.0.0-14-generic", "raspbian11": "6.1.21-v7+", "raspbian12": "6.12.47+rpt-rpi-v7", "raspbian13": "6.12.47+rpt-rpi-v7"}

BASE_PACKAGES = {
    "debian12": "apt amd64 2.6.1\nca-certificates all 20230311\ncloud-init all 22.4.2-1\ndpkg amd64 1.21.22\niptables amd64 1.8.9-2\nkmod amd64 30+20221128-1\n"
    "linux-image-6.1.0-40-cloud-amd64 amd64 6.1.153-1\nlinux-image-cloud-amd64 amd64 6.1.153-1\npython3 amd64 3.11.2-1+b1\nunattended-upgrades all 2.9.1+nmu3\n",
    "debian13": "apt amd64 3.0.3\nca-certificates all 20250419\ncloud-init all 25.1.4-1\ndpkg amd64 1.22.21\nkmod amd64 34.2-2\n"
    "linux-image-6.12.48+deb13-cloud-amd64 amd64 6.12.48-1\nlinux-image-cloud-amd64 amd64 6.12.48-1\npython3 amd64 3.13.5-1\nsqv amd64 1.3.0-3\nunattended-upgrades all 2.12\n",
    "ubuntu2404": "apt amd64 2.8.3\nca-certificates all 20240203\ncloud-init all 25.2-0ubuntu1~24.04.1\ncurl amd64 8.5.0-2ubuntu10.6\ndpkg amd64 1.22.6ubuntu6.5\n"
    "gpg amd64 2.4.4-2ubuntu17.3\niptables amd64 1.8.10-3ubuntu2\nkmod amd64 31+20240202-2ubuntu7.1\nlinux-image-6.8.0-85-generic amd64 6.8.0-85.85\n"
    "needrestart all 3.6-7ubuntu4.5\npython3 amd64 3.12.3-0ubuntu2\nsnapd amd64 2.71+ubuntu24.04\nunattended-upgrades all 2.9.1+nmu4ubuntu1\n",
}

for _system, _apt, _image in (("debian11", "2.2.4", "amd64"), ("ubuntu1604", "1.2.35", "generic"), ("ubuntu1804", "1.6.17", "generic"), ("ubuntu2004", "2.0.11", "generic"),
                              ("ubuntu2204", "2.4.14", "generic"), ("ubuntu2604", "3.1.12", "generic")):
    BASE_PACKAGES[_system] = (f"apt amd64 {_apt}\nca-certificates all 20240203\ndpkg amd64 1.20\nkmod amd64 29-1\nlinux-image-{KERNELS[_system]} amd64 1.0\n"
                              f"linux-image-{_image} amd64 1.0\nunattended-upgrades all 2.8\n")
for _system in ("raspbian11", "raspbian12", "raspbian13"):
    BASE_PACKAGES[_system] = "apt armhf 2.6.1+rpi1\nca-certificates all 20240203\ndpkg armhf 1.21.22\n"

UNITS = ("docker.service", "docker.socket", "containerd.service", "nvidia-persistenced.service", "nvidia-cdi-refresh.service", "nvidia-cdi-refresh.path",
         "nvidia-fabricmanager.service", "apt-daily.service", "apt-daily-upgrade.service", "snap.docker.dockerd.service", "mlhost-continue.service")

CLOUD_STATUS = {"v1": {"datasource": "DataSourceNoCloud", "stage": None, **{
    stage: {"errors": [], "recoverable_errors": {}, "start": 1.0, "finished": 2.0} for stage in ("init-local", "init", "modules-config", "modules-final")}}}

MISSING = ("nvidia_loaded", "hypervisor_uuid", "secure_boot", "journal", "cmdline", "nvidia_proc", "daemon_json", "toolkit_config", "file:/etc/apt/sources.list",
           "newer")


def ok(text: str = "") -> Section:
    return Section(0, text)


def installed(rows: str) -> str:
    """`name arch version` lines as the probe's six columns."""
    return "".join(f"{row} install ok installed\n" for row in rows.splitlines())


def add_packages(sections: Sections, rows: str) -> None:
    """More packages, as `name arch version [want flag status]` lines."""
    more = "".join(f"{row}\n" if len(row.split()) == 6 else f"{row} install ok installed\n" for row in rows.splitlines())
    sections["dpkg"] = ok(sections["dpkg"].text + more)


def set_units(sections: Sections, **states: str) -> None:
    """Units' states as `load active sub enabled`; `_` in a name stands for `-`, and `.service` is added where there is no other suffix."""
    known = dict.fromkeys(UNITS, "not-found inactive dead ")
    for block in sections["units"].text.split("\n\n"):
        values = dict(row.split("=", 1) for row in block.splitlines() if "=" in row)
        if values:
            known[values["Id"]] = " ".join(values[key] for key in ("LoadState", "ActiveState", "SubState", "UnitFileState"))
    for key, state in states.items():
        name = key.replace("_", "-")
        known[name if "." in name else f"{name}.service"] = state
    blocks = []
    for name, state in known.items():
        load, active, sub, enabled = (*state.split(" "), "")[:4]
        blocks.append(f"Id={name}\nLoadState={load}\nActiveState={active}\nSubState={sub}\nUnitFileState={enabled}\n")
    sections["units"] = ok("\n".join(blocks))


def fresh(system: str, hostname: str = "fresh") -> Sections:
    """A cloud VM just after its first boot, read as root: nothing of ours on it."""
    pretty, identifier, version, codename, more = SYSTEMS[system]
    ubuntu = system.startswith("ubuntu")
    keyring = f"/usr/share/keyrings/{identifier}-archive-keyring.gpg"
    packages = f"{KERNELS[system]} {hostname}"
    boot = hashlib.md5(packages.encode(), usedforsecurity=False).hexdigest()
    sections: Sections = {
        "probe": ok("schema=1\nmode=live"),
        "uid": ok("0"),
        "arch": ok("x86_64"),
        "time": ok("1795400000"),
        "asked_at": ok("1795400000"),
        "programs": ok("timeout /usr/bin/timeout\napt-get /usr/bin/apt-get\nsudo /usr/bin/sudo\npython3 /usr/bin/python3\nmodinfo /usr/sbin/modinfo\n"
                       "cloud-init /usr/bin/cloud-init\nsystemctl /usr/bin/systemctl\n" + ("curl /usr/bin/curl\n" if ubuntu else "")),
        "present": ok("/run/systemd/system\n/sys/firmware\n/sys/bus/pci/devices\n/sys/devices\n/sys/module\n/run/cloud-init/enabled\n"
                      "/var/lib/cloud/instance/boot-finished\n/var/lib/dpkg/status\n"),
        "pci": ok(),
        "kernel": ok(KERNELS[system]),
        "boot_id": ok(f"{boot[:8]}-{boot[8:12]}-4{boot[13:16]}-a{boot[17:20]}-{boot[20:]}"),
        "hostname": ok(hostname),
        "container": ok(),
        "dmi": ok("sys_vendor=QEMU\nproduct_name=Standard PC (i440FX + PIIX, 1996)\nproduct_version=pc-i440fx-10.0\nbios_vendor=SeaBIOS\nchassis_vendor=QEMU\n"),
        "libraries": ok(),
        "rootless": ok(),
        "device_nodes": ok(),
        "blocks": ok("vda sectors=41943040 rotational=0 ro=0 parts=vda1,vda14,vda15, holders= model=\n"),
        "os_release": ok(f'PRETTY_NAME="{pretty}"\nVERSION_ID="{version}"\nVERSION_CODENAME={codename}\nID={identifier}\n{more}'),
        "os_release_vendor": ok(f'PRETTY_NAME="{pretty}"\nVERSION_ID="{version}"\nVERSION_CODENAME={codename}\nID={identifier}\n{more}'),
        "cloud_status": ok(json.dumps(CLOUD_STATUS, indent=1) + "\n"),
        "cloud_result": ok('{\n "v1": {\n  "datasource": "DataSourceNoCloud",\n  "errors": []\n }\n}\n'),
        f"file:/etc/apt/sources.list.d/{identifier}.sources": ok(
            f"Types: deb\nURIs: http://mirror.example/{identifier}\nSuites: {codename} {codename}-updates\n"
            f"Components: {'main universe restricted multiverse' if ubuntu else 'main'}\nSigned-By: {keyring}\n"),
        "group": ok(),
        "passwd": ok(f"root:0\n{identifier}:1000\n"),
        "mounts": ok("/dev/vda1 / ext4 rw,relatime 0 0\n/dev/vda15 /boot/efi vfat rw,relatime 0 0\n"),
        "locks": ok("inode 131201 /var/lib/dpkg/lock-frontend\ninode 131202 /var/lib/dpkg/lock\ninode 131203 /var/lib/apt/lists/lock\n"
                    "inode 131204 /var/cache/apt/archives/lock\n"),
        "path:/etc/docker/daemon.json": Section(2, "/etc/docker/daemon.json"),
        "disk_paths": ok("/\n/var/lib/docker\n"),
        "df": ok("Filesystem     1024-blocks    Used Available Capacity Mounted on\n" + "/dev/vda1         20469404 1201100  18390280       7% /\n" * 2),
        "df_inodes": ok("Filesystem      Inodes IUsed   IFree IUse% Mounted on\n" + "/dev/vda1      1310720 32111 1278609    3% /\n" * 2),
        "dpkg": ok(installed(BASE_PACKAGES[system])),
        "dpkg_read": ok(),
        "dpkg_updates": ok(),
        "units": ok(),
        **{name: Section(2, "") for name in MISSING},
    }
    set_units(sections, apt_daily="loaded inactive dead static", apt_daily_upgrade="loaded inactive dead static")
    return sections


def add_file(sections: Sections, path: str, text: str, mode: str = "644") -> None:
    """A path that the probe was asked about (or always asks about)."""
    sections[f"path:{path}"] = Section(0, path)
    for name, row in (("stat", f"{mode}|root:root|regular file|{path}\n"), ("sha256", f"{hashlib.sha256(text.encode()).hexdigest()}  {path}\n")):
        sections[name] = ok(sections.get(name, ok()).text + row)


def add_present(sections: Sections, *paths: str) -> None:
    sections["present"] = ok(sections["present"].text + "".join(f"{path}\n" for path in paths))


def add_programs(sections: Sections, **programs: str) -> None:
    rows = "".join(f"{name.replace('_', '-')} {path}\n" for name, path in programs.items())
    sections["programs"] = ok(sections["programs"].text + rows)


def pci(address: str, device: str, subsystem: str, pci_class: str = "0x030200", driver: str = "") -> str:
    return f"{address} vendor=0x10de device=0x{device} class={pci_class} subsystem_vendor=0x10de subsystem_device=0x{subsystem} driver={driver}\n"


def docker_info(**values: object) -> str:
    """The daemon's answer, of which only the keys that are read are given."""
    answer: dict[str, object] = {
        "Containers": 0, "ContainersRunning": 0, "Driver": "overlay2", "CgroupDriver": "systemd", "CgroupVersion": "2", "ServerVersion": "28.5.1",
        "Runtimes": {"io.containerd.runc.v2": {"path": "runc"}, "runc": {"path": "runc"}}, "DefaultRuntime": "runc", "Swarm": {"LocalNodeState": "inactive"},
        "LiveRestoreEnabled": False, "DockerRootDir": "/var/lib/docker", "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
        "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"], "Warnings": None,
    }
    return json.dumps({**answer, **values}, separators=(",", ":")) + "\n"


DOCKER_SOURCE = """Types: deb
URIs: https://download.docker.com/linux/{id}
Suites: {codename}
Components: stable
Architectures: amd64
Signed-By: /etc/apt/keyrings/docker.asc
"""
TOOLKIT_SOURCE = """Types: deb
URIs: https://nvidia.github.io/libnvidia-container/stable/deb/amd64
Suites: /
Signed-By: /etc/apt/keyrings/nvidia-container-toolkit.asc
"""


def add_docker(sections: Sections, system: str, *, running: bool = True) -> None:
    """Docker's own packages from its own repository. The key is a stand-in without a signature."""
    _, identifier, version, codename, _ = SYSTEMS[system]
    suffix = f"1~{identifier}.{version}~{codename}"
    add_packages(sections, f"containerd.io amd64 1.7.28-1~{identifier}.{version}~{codename}\ndocker-buildx-plugin amd64 0.29.1-{suffix}\n"
                 f"docker-ce amd64 5:28.5.1-{suffix}\ndocker-ce-cli amd64 5:28.5.1-{suffix}\ndocker-compose-plugin amd64 2.40.0-{suffix}\n")
    add_programs(sections, docker="/usr/bin/docker", dockerd="/usr/bin/dockerd")
    sections["file:/etc/apt/sources.list.d/docker.sources"] = ok(DOCKER_SOURCE.format(id=identifier, codename=codename))
    sections["key64:/etc/apt/keyrings/docker.asc"] = ok(base64.encodebytes(b"not a real key: docker\n").decode())
    sections["group"] = ok("docker:x:988:\n")
    active = "loaded active running enabled" if running else "loaded failed failed enabled"
    set_units(sections, docker=active, containerd="loaded active running enabled", **{"docker.socket": "loaded active running enabled"})
    add_present(sections, "/run/docker.sock", *(["/run/docker.pid"] if running else []))
    if running:
        sections["docker_info"] = ok(docker_info())
        sections["newer"] = ok()
    else:
        sections["docker_info"] = Section(111, "dockerd does not run")


def debian13_h100() -> Sections:
    sections = fresh("debian13", "h100")
    sections["dmi"] = ok("sys_vendor=Supermicro\nproduct_name=SYS-821GE-TNHR\nbios_vendor=American Megatrends International, LLC.\nchassis_vendor=Supermicro\n")
    sections["pci"] = ok(pci("0000:18:00.0", "2330", "16c1", driver="nouveau") + pci("0000:2a:00.0", "2330", "16c1", driver="nouveau")
                         + pci("0000:05:00.0", "22a3", "1796", "0x068000"))
    add_present(sections, "/sys/firmware/efi", "/sys/firmware/efi/efivars", "/sys/module/nouveau")
    sections["secure_boot"] = ok("   6   0   0   0   0")
    sections["modinfo"] = Section(1, "modinfo: ERROR: Module nvidia-current not found.\n")
    sections["kernel"] = ok("6.12.48+deb13-amd64")
    add_packages(sections, "linux-image-6.12.48+deb13-amd64 amd64 6.12.48-1\nlinux-image-amd64 amd64 6.12.48-1\n")
    return sections


def debian13_h100_secure_boot() -> Sections:
    sections = debian13_h100()
    sections["hostname"] = ok("h100-sb")
    sections["secure_boot"] = ok("   6   0   0   0   1")
    return sections


def ubuntu2404_aws_l4() -> Sections:
    system = "ubuntu2404"
    sections = fresh(system, "ip-10-0-0-7")
    sections["kernel"] = ok("6.14.0-1015-aws")
    sections["dmi"] = ok("sys_vendor=Amazon EC2\nproduct_name=g6.xlarge\nbios_vendor=Amazon EC2\nbios_version=1.0\nchassis_asset_tag=Amazon EC2\n")
    sections["pci"] = ok(pci("0000:31:00.0", "27b8", "16ca", driver="nvidia"))
    add_docker(sections, system)
    add_packages(sections, "libnvidia-compute-580-server amd64 580.95.05-0ubuntu0.24.04.2\nlinux-image-6.14.0-1015-aws amd64 6.14.0-1015.15~24.04.1\n"
                 "linux-modules-nvidia-580-server-open-6.14.0-1015-aws amd64 6.14.0-1015.15~24.04.1\nnvidia-headless-no-dkms-580-server-open amd64 580.95.05-0ubuntu0.24.04.2\n"
                 "nvidia-utils-580-server amd64 580.95.05-0ubuntu0.24.04.2\nnvidia-container-toolkit amd64 1.18.0-1 hold ok installed\n"
                 "nvidia-container-toolkit-base amd64 1.18.0-1\nlibnvidia-container1 amd64 1.18.0-1\nlibnvidia-container-tools amd64 1.18.0-1\n")
    sections["nvidia_loaded"] = ok("580.95.05")
    sections["nvidia_proc"] = ok("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs-builder@U22-I3-AM02-24-3)  "
                                 "Tue Sep 23 09:55:41 UTC 2025\nGCC version:  gcc version 13.3.0 (Ubuntu 13.3.0-6ubuntu2~24.04)\n")
    sections["libraries"] = ok("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05\n")
    sections["device_nodes"] = ok("/dev/nvidia-uvm\n/dev/nvidia0\n/dev/nvidiactl\n")
    sections["modinfo"] = ok("filename:       /lib/modules/6.14.0-1015-aws/kernel/nvidia-580srv-open/nvidia.ko\nversion:        580.95.05\nsupported:      external\n"
                             "license:        Dual MIT/GPL\nsigner:         Canonical Ltd. Kernel Module Signing\n")
    sections["nvidia_smi"] = ok("0, GPU-2d3c1f6e-52b1-7c50-9a44-0b0f5f1d8e11, NVIDIA L4, 00000000:31:00.0, 580.95.05, [N/A]\n")
    sections["toolkit_version"] = ok("NVIDIA Container Toolkit CLI version 1.18.0\ncommit: f8daa5e26de9fd7eb79259040b6dd5a52060048c\n")
    sections["toolkit_config"] = ok("#accept-nvidia-visible-devices-as-volume-mounts = false\n\n[nvidia-container-cli]\n#no-cgroups = false\n")
    sections["cdi:/run/cdi/nvidia.yaml"] = ok("libcuda.so.580.95.05\n")
    add_programs(sections, nvidia_smi="/usr/bin/nvidia-smi", nvidia_ctk="/usr/bin/nvidia-ctk", nvidia_container_runtime="/usr/bin/nvidia-container-runtime",
                 nvidia_container_runtime_hook="/usr/bin/nvidia-container-runtime-hook", nvidia_cdi_hook="/usr/bin/nvidia-cdi-hook")
    add_present(sections, "/sys/module/nvidia", "/proc/driver/nvidia", "/sys/firmware/efi", "/sys/firmware/efi/efivars")
    sections["secure_boot"] = ok("   6   0   0   0   0")
    sections["file:/etc/apt/sources.list.d/nvidia-container-toolkit.sources"] = ok(TOOLKIT_SOURCE)
    sections["key64:/etc/apt/keyrings/nvidia-container-toolkit.asc"] = ok(base64.encodebytes(b"not a real key: toolkit\n").decode())
    text = '{\n    "runtimes": {\n        "nvidia": {\n            "args": [],\n            "path": "nvidia-container-runtime"\n        }\n    }\n}\n'
    sections["daemon_json"] = ok(text)
    del sections["path:/etc/docker/daemon.json"]
    add_file(sections, "/etc/docker/daemon.json", text)
    sections["docker_info"] = ok(docker_info(Runtimes={"io.containerd.runc.v2": {}, "nvidia": {"path": "nvidia-container-runtime"}, "runc": {}}))
    set_units(sections, nvidia_persistenced="loaded active running enabled", nvidia_cdi_refresh="loaded inactive dead enabled",
              **{"nvidia-cdi-refresh.path": "loaded active waiting enabled"})
    sections["blocks"] = ok("nvme0n1 sectors=209715200 rotational=0 ro=0 parts=nvme0n1p1,nvme0n1p14,nvme0n1p15, holders= model=Amazon Elastic Block Store\n"
                            "nvme1n1 sectors=488281250 rotational=0 ro=0 parts= holders= blkid=2 type= model=Amazon EC2 NVMe Instance Storage\n")
    sections["mounts"] = ok("/dev/nvme0n1p1 / ext4 rw,relatime,discard 0 0\n")
    return sections


def debian12_docker_down() -> Sections:
    sections = fresh("debian12", "down")
    add_docker(sections, "debian12", running=False)
    sections["daemon_json"] = ok('{"log-driver": "json-file",}\n')
    del sections["path:/etc/docker/daemon.json"]
    add_file(sections, "/etc/docker/daemon.json", '{"log-driver": "json-file",}\n')
    return sections


def debian12_half_configured() -> Sections:
    sections = fresh("debian12", "broken")
    add_packages(sections, "man-db amd64 2.11.2-2 install ok half-configured\ndkms all 3.0.10-8+deb12u1 install reinstreq half-installed\n"
                 "docker.io amd64 20.10.24+dfsg1-1+b3 deinstall ok config-files\n")
    sections["dpkg_updates"] = ok("0000\n0001\n")
    return sections


def ubuntu2404_locks_held() -> Sections:
    sections = fresh("ubuntu2404", "busy")
    sections["locks"] = ok(sections["locks"].text + "lock 131201 1412 unattended-upgr\nfds 1412\nfd 1412 -> /var/lib/dpkg/lock-frontend\n"
                           "lock 131202 1412 unattended-upgr\nfds 1412\nfd 1412 -> /var/lib/dpkg/lock\nlock 131203 77 systemd-journal\nfds 77\n")
    status = json.loads(json.dumps(CLOUD_STATUS))
    status["v1"]["stage"] = "modules-final"
    status["v1"]["modules-final"]["finished"] = None
    sections["cloud_status"] = ok(json.dumps(status, indent=1) + "\n")
    sections["cloud_result"] = Section(2, "")
    set_units(sections, apt_daily_upgrade="loaded activating start static")
    return sections


def debian12_user() -> Sections:
    """The same fresh machine asked by an ordinary user."""
    sections = fresh("debian12", "user")
    sections["uid"] = ok("1000")
    sections["container"] = Section(13, "")
    sections["journal"] = Section(13, "")
    sections["daemon_json"] = Section(13, "")
    sections["path:/etc/docker/daemon.json"] = Section(13, "/etc/docker/daemon.json")
    add_present(sections, "/var/lib/mlhost")
    sections["docker_info"] = Section(13, "permission denied: /run/docker.sock")
    add_programs(sections, docker="/usr/bin/docker", dockerd="/usr/sbin/dockerd")
    add_packages(sections, "docker.io amd64 20.10.24+dfsg1-1+b3\n")
    return sections


def with_gpu(system: str, device: str, subsystem: str, secure_boot: bool = False) -> Callable[[], Sections]:
    def build() -> Sections:
        sections = fresh(system, "gpu")
        sections["pci"] = ok(pci("0000:17:00.0", device, subsystem, driver="nouveau"))
        sections["modinfo"] = Section(1, "modinfo: ERROR: Module nvidia not found.\n")
        sections["secure_boot"] = ok(f"   6   0   0   0   {int(secure_boot)}")
        add_present(sections, "/sys/firmware/efi", "/sys/firmware/efi/efivars", "/sys/module/nouveau")
        return sections

    return build


def ubuntu1604_k80() -> Sections:
    """The article's machine: both halves of a K80, and sources in the one form that everybody wrote then."""
    sections = with_gpu("ubuntu1604", "102d", "106c")()
    first = sections["pci"].text
    sections["pci"] = ok(first + first.replace("0000:17:00.0", "0000:18:00.0"))
    del sections["file:/etc/apt/sources.list.d/ubuntu.sources"]
    sections["file:/etc/apt/sources.list"] = ok(
        "".join(f"deb http://mirror.example/ubuntu {suite} main restricted universe multiverse\n" for suite in ("xenial", "xenial-updates", "xenial-security"))
    )
    return sections


def raspbian(system: str) -> Sections:
    sections = fresh(system, "pi")
    sections["arch"] = ok("armv7l")
    return sections


ASSEMBLED: dict[str, tuple[str, Callable[[], Sections]]] = {
    "debian12-cloud": ("a fresh Debian 12 cloud VM", lambda: fresh("debian12")),
    "debian13-cloud": ("a fresh Debian 13 cloud VM", lambda: fresh("debian13")),
    "ubuntu2404-cloud": ("a fresh Ubuntu 24.04 cloud VM", lambda: fresh("ubuntu2404")),
    "debian13-h100": ("Debian 13 on a server with two H100 and an NVSwitch, nouveau bound, no driver", debian13_h100),
    "debian13-h100-secure-boot": ("the same with Secure Boot on", debian13_h100_secure_boot),
    "ubuntu2404-aws-l4": ("Ubuntu 24.04 on a g6.xlarge with Docker, a working driver, the toolkit and a blank instance-store disk", ubuntu2404_aws_l4),
    "debian12-docker-down": ("Debian 12 with docker-ce installed, its daemon failed over a malformed daemon.json", debian12_docker_down),
    "debian12-half-configured": ("Debian 12 where dpkg was interrupted", debian12_half_configured),
    "ubuntu2404-locks-held": ("Ubuntu 24.04 in its first minute: cloud-init runs, unattended-upgrades holds dpkg's locks", ubuntu2404_locks_held),
    "debian11-t4": ("Debian 11 with a T4", with_gpu("debian11", "1eb8", "12a2")),
    "ubuntu1604-k80": ("Ubuntu 16.04 with a K80, the article's system and card", ubuntu1604_k80),
    "ubuntu1804-k80": ("Ubuntu 18.04 with a K80, the article's card", with_gpu("ubuntu1804", "102d", "106c")),
    "ubuntu2004-v100": ("Ubuntu 20.04 with a V100", with_gpu("ubuntu2004", "1db5", "1249")),
    "ubuntu2204-a100-secure-boot": ("Ubuntu 22.04 with an A100 and Secure Boot on", with_gpu("ubuntu2204", "20b5", "1533", secure_boot=True)),
    "ubuntu2604-l40s": ("Ubuntu 26.04 with an L40S", with_gpu("ubuntu2604", "26b9", "1851")),
    "raspbian11": ("Raspbian 11 on a board with a 32-bit processor", lambda: raspbian("raspbian11")),
    "raspbian12": ("Raspbian 12 on a board with a 32-bit processor", lambda: raspbian("raspbian12")),
    "raspbian13": ("Raspbian 13 on a board with a 32-bit processor", lambda: raspbian("raspbian13")),
    "debian12-user": ("Debian 12 with docker.io, asked by a user who may not see much", debian12_user),
}


def write() -> None:
    """Write probe.txt and README of every assembled host."""
    from tests import captures_gpus, captures_rpm

    for name, (what, build) in {**ASSEMBLED, **captures_rpm.ASSEMBLED, **captures_gpus.ASSEMBLED}.items():
        folder = HOSTS / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "probe.txt").write_bytes(join(build(), "a55e"))
        (folder / "README").write_text(f"Assembled, not captured (tests/captures.py): {what}.\n")


if __name__ == "__main__":
    write()
