"""Assembled captures of systems with rpm packages, one for every row of the catalog and some for what only happens there.

They are test doubles: put together from known texts, never taken from a machine. `tests.captures` writes them with its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from provision.model import Section
from tests.captures import Sections, add_present, add_programs, docker_info, fresh, ok, pci, set_units

FOLDERS = {"yum": "/etc/yum.repos.d", "dnf": "/etc/yum.repos.d", "dnf5": "/etc/yum.repos.d", "tdnf": "/etc/yum.repos.d", "zypper": "/etc/zypp/repos.d"}
CRB = "[baseos]\nname=BaseOS\nmirrorlist=https://mirrors.example/{0}?repo=BaseOS\nenabled=1\ngpgcheck=1\n\n[{1}]\nname={1}\nmirrorlist=https://mirrors.example/{0}?repo={1}\nenabled=0\ngpgcheck=1\n"
# As amazon-linux-extras writes it; {0} is 1 on AWS's own images.
EXTRAS = (
    "[amzn2extra-docker]\nenabled = {0}\nname = Amazon Extras repo for docker\nmirrorlist = https://mirrors.example/2/extras/docker/latest/$basearch/mirror.list\n"
    "gpgcheck = 1\ngpgkey = file:///etc/pki/rpm-gpg/RPM-GPG-KEY-amazon-linux-2\npriority = 10\nskip_if_unavailable = 1\n"
)
PLAIN = "[{0}]\nname={0}\nbaseurl=https://mirrors.example/{0}/$releasever/$basearch/\nenabled=1\ngpgcheck=1\n"


@dataclass(frozen=True)
class System:
    """What makes one system another than the next: its os-release, kernel, package manager, and one .repo file of its own."""

    pretty: str
    id: str
    version: str
    like: str
    kernel: str
    manager: str
    file: str
    text: str
    platform_id: str = ""
    selinux: str = "1"


def _el(pretty: str, identifier: str, version: str, like: str, kernel: str, file: str, builder: str) -> System:
    text = CRB.format(identifier, builder)
    return System(pretty, identifier, version, like, f"{kernel}.x86_64", "dnf", file, text, f"platform:el{version.partition('.')[0]}")


RH = "codeready-builder-for-rhel-{}-x86_64-rpms"
CLONE = "rhel centos fedora"
EL8, EL9, EL10 = "4.18.0-553.84.1.el8_10", "5.14.0-570.58.1.el9_6", "6.12.0-55.41.1.el10_0"
SYSTEMS = {
    "rhel8": _el("Red Hat Enterprise Linux 8.10 (Ootpa)", "rhel", "8.10", "fedora", EL8, "redhat.repo", RH.format(8)),
    "rhel9": _el("Red Hat Enterprise Linux 9.6 (Plow)", "rhel", "9.6", "fedora", EL9, "redhat.repo", RH.format(9)),
    "rhel10": _el("Red Hat Enterprise Linux 10.0 (Coughlan)", "rhel", "10.0", "centos fedora", EL10, "redhat.repo", RH.format(10)),
    "rocky8": _el("Rocky Linux 8.10 (Green Obsidian)", "rocky", "8.10", CLONE, EL8, "Rocky-PowerTools.repo", "powertools"),
    "rocky9": _el("Rocky Linux 9.6 (Blue Onyx)", "rocky", "9.6", CLONE, EL9, "rocky.repo", "crb"),
    "rocky10": _el("Rocky Linux 10.0 (Red Quartz)", "rocky", "10.0", CLONE, EL10, "rocky.repo", "crb"),
    "alma8": _el("AlmaLinux 8.10 (Cerulean Leopard)", "almalinux", "8.10", CLONE, EL8, "almalinux-powertools.repo", "powertools"),
    "alma9": _el("AlmaLinux 9.6 (Sage Margay)", "almalinux", "9.6", CLONE, EL9, "almalinux-crb.repo", "crb"),
    "alma10": _el("AlmaLinux 10.0 (Purple Lion)", "almalinux", "10.0", CLONE, EL10, "almalinux-crb.repo", "crb"),
    "oracle8": _el("Oracle Linux Server 8.10", "ol", "8.10", "fedora", "5.15.0-312.187.5.3.el8uek", "oracle-linux-ol8.repo", "ol8_codeready_builder"),
    "oracle9": _el("Oracle Linux Server 9.6", "ol", "9.6", "fedora", "6.12.0-104.43.4.2.el9uek", "oracle-linux-ol9.repo", "ol9_codeready_builder"),
    "oracle10": _el("Oracle Linux Server 10.0", "ol", "10.0", "fedora", "6.12.0-104.43.4.2.el10uek", "oracle-linux-ol10.repo", "ol10_codeready_builder"),
    "stream8": _el("CentOS Stream 8", "centos", "8", "rhel fedora", "4.18.0-552.6.1.el8", "CentOS-Stream-PowerTools.repo", "powertools"),
    "stream9": _el("CentOS Stream 9", "centos", "9", "rhel fedora", "5.14.0-632.el9", "centos.repo", "crb"),
    "stream10": _el("CentOS Stream 10 (Coughlan)", "centos", "10", "rhel fedora", "6.12.0-142.el10", "centos.repo", "crb"),
    "fedora42": System("Fedora Linux 42 (Cloud Edition)", "fedora", "42", "", "6.17.4-100.fc42.x86_64", "dnf5", "fedora.repo", PLAIN.format("fedora"), "platform:f42"),
    "fedora43": System("Fedora Linux 43 (Cloud Edition)", "fedora", "43", "", "6.17.4-200.fc43.x86_64", "dnf5", "fedora.repo", PLAIN.format("fedora"), "platform:f43"),
    "fedora44": System("Fedora Linux 44 (Cloud Edition)", "fedora", "44", "", "7.0.2-300.fc44.x86_64", "dnf5", "fedora.repo", PLAIN.format("fedora"), "platform:f44"),
    "amzn2023": System("Amazon Linux 2023.9.20251105", "amzn", "2023", "fedora", "6.12.46-66.121.amzn2023.x86_64", "dnf", "amazonlinux.repo",
                       PLAIN.format("amazonlinux"), "platform:al2023", "0"),
    "amzn2": System("Amazon Linux 2", "amzn", "2", "centos rhel fedora", "5.10.245-241.978.amzn2.x86_64", "yum", "amzn2-extras.repo", EXTRAS.format(1), "", ""),
    "amzn2-414": System("Amazon Linux 2", "amzn", "2", "centos rhel fedora", "4.14.355-280.695.amzn2.x86_64", "yum", "amzn2-extras.repo", EXTRAS.format(0), "", ""),
    "azurelinux3": System("Microsoft Azure Linux 3.0", "azurelinux", "3.0", "", "6.6.104.2-4.azl3", "tdnf", "azurelinux-official-base.repo",
                          PLAIN.format("azurelinux-official-base"), "", "0"),
    "sles15": System("SUSE Linux Enterprise Server 15 SP7", "sles", "15.7", "suse", "6.4.0-150700.53.19-default", "zypper", "SLE-Module-Containers15-SP7.repo",
                     PLAIN.format("SLE-Module-Containers15-SP7-Pool"), "", ""),
    "sles16": System("SUSE Linux Enterprise Server 16.0", "sles", "16.0", "suse", "6.12.0-160000.5-default", "zypper", "SLES-16.0.repo", PLAIN.format("SLES-16.0")),
    "leap156": System("openSUSE Leap 15.6", "opensuse-leap", "15.6", "suse opensuse", "6.4.0-150600.23.73-default", "zypper", "repo-oss.repo", PLAIN.format("repo-oss"), "", ""),
    "leap16": System("openSUSE Leap 16.0", "opensuse-leap", "16.0", "suse opensuse", "6.12.0-160000.5-default", "zypper", "repo-oss.repo", PLAIN.format("repo-oss")),
}  # fmt: skip


def machine(name: str, *gpus: str, hostname: str = "fresh", nouveau: bool = True) -> Sections:
    """A server of that system just after its first boot, read as root, with these GPUs (device and subsystem id) on its bus."""
    system = SYSTEMS[name]
    sections = fresh("debian12", hostname)
    for section in [s for s in sections if s.startswith(("file:", "cloud_", "dpkg"))]:
        del sections[section]
    version = system.kernel[: -len(".x86_64")] if system.kernel.endswith(".x86_64") else system.kernel
    kernel = version[: -len("-default")] if version.endswith("-default") else version
    series = ".".join(kernel.split(".")[:2]) if name == "amzn2023" else ""
    names = ["kernel-default"] if system.manager == "zypper" else ["kernel"] if name in ("azurelinux3", "amzn2", "amzn2-414") else [f"kernel{series}", f"kernel{series}-core"]
    names = ["kernel-uek", "kernel-uek-core"] if "uek" in kernel else names
    packages = [f"{n} x86_64 (none):{kernel}" for n in names]
    packages += [f"{system.manager} noarch (none):4.20.0-1", "ca-certificates noarch (none):2024.2.69-91", "rpm x86_64 (none):4.19.1-1", "kmod x86_64 (none):28-10"]
    release = f'NAME="{system.pretty.rpartition(" ")[0]}"\nID="{system.id}"\nVERSION_ID="{system.version}"\nPRETTY_NAME="{system.pretty}"\n'
    release += f'ID_LIKE="{system.like}"\n' if system.like else ""
    release += f'PLATFORM_ID="{system.platform_id}"\n' if system.platform_id else ""
    programs = {"timeout": "/usr/bin/timeout", "rpm": "/usr/bin/rpm", "curl": "/usr/bin/curl", "systemctl": "/usr/bin/systemctl", "modinfo": "/usr/sbin/modinfo",
                "dracut": "/usr/bin/dracut", "sudo": "/usr/bin/sudo", system.manager: f"/usr/bin/{system.manager}"}
    if system.manager == "dnf5":
        programs["dnf"] = "/usr/bin/dnf"
    boot = hashlib.md5(f"{name} {hostname}".encode(), usedforsecurity=False).hexdigest()
    sections.update({
        "os_release": ok(release),
        "os_release_vendor": ok(release),
        "kernel": ok(system.kernel),
        "hostname": ok(hostname),
        "boot_id": ok(f"{boot[:8]}-{boot[8:12]}-4{boot[13:16]}-a{boot[17:20]}-{boot[20:]}"),
        "programs": ok("".join(f"{key} {path}\n" for key, path in programs.items())),
        "present": ok("/run/systemd/system\n/sys/firmware\n/sys/firmware/efi\n/sys/firmware/efi/efivars\n/sys/bus/pci/devices\n/sys/devices\n/sys/module\n"
                      "/usr/lib/sysimage/rpm\n" + ("/sys/fs/selinux\n" if system.selinux else "")),
        "secure_boot": ok("   6   0   0   0   0"),
        "dpkg": Section(2, ""),
        "dpkg_updates": Section(2, ""),
        "rpm": ok("\n".join(packages) + "\n"),
        f"file:{FOLDERS[system.manager]}/{system.file}": ok(system.text),
        "releasever": Section(2, ""),
        "selinux": ok(system.selinux) if system.selinux else Section(2, ""),
        "passwd": ok("root:0\n"),
        "mounts": ok("/dev/vda4 / xfs rw,relatime 0 0\n"),
        "lock_pids": ok(),
        "modinfo": Section(1, "modinfo: ERROR: Module nvidia not found.\n"),
        "pci": ok("".join(pci(f"0000:{0x17 + at:02x}:00.0", *g.split(":"), driver="nouveau" if nouveau else "") for at, g in enumerate(gpus))),
    })
    if gpus and nouveau:
        add_present(sections, "/sys/module/nouveau")
    set_units(sections, firewalld="loaded active running enabled")
    return sections


def add_rpms(sections: Sections, rows: str) -> None:
    """More packages, as `name epoch:version-release` lines."""
    sections["rpm"] = ok(sections["rpm"].text + "".join(f"{row.split()[0]} x86_64 {row.split()[1]}\n" for row in rows.splitlines()))


def add_cloud(sections: Sections, vendor: str, kind: str, region: str, **dmi: str) -> None:
    """The firmware's texts, and what the metadata service says."""
    sections["dmi"] = ok(f"sys_vendor={vendor}\n" + "".join(f"{key}={value}\n" for key, value in dmi.items()))
    sections["metadata"] = ok(f"type={kind}\nregion={region}\nzone={region}a\n")


AZURE = {"product_name": "Virtual Machine", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}


def rhel9_h100() -> Sections:
    sections = machine("rhel9", "2330:16c1", "2330:16c1", hostname="h100")
    sections["pci"] = ok(sections["pci"].text + pci("0000:85:00.0", "22a3", "1796", "0x068000"))
    return sections


def rocky9_podman() -> Sections:
    """podman is in the way, and the vendors' own .repo files are there as their guides have them written."""
    sections = machine("rocky9", "27b8:16ca", hostname="podman")
    add_rpms(sections, "podman 6:5.4.0-10.el9_6\nrunc 4:1.2.5-2.el9_6\nbuildah 2:1.39.4-1.el9\ncrun (none):1.21-1.el9")
    stable = "name=Docker CE Stable - $basearch\nbaseurl=https://download.docker.com/linux/rhel/$releasever/$basearch/stable\n"
    test = "name=Docker CE Test - $basearch\nbaseurl=https://download.docker.com/linux/rhel/$releasever/$basearch/test\n"
    key = "gpgcheck=1\ngpgkey=https://download.docker.com/linux/rhel/gpg\n"
    sections["file:/etc/yum.repos.d/docker-ce.repo"] = ok(f"[docker-ce-stable]\n{stable}enabled=1\n{key}\n[docker-ce-test]\n{test}enabled=0\n{key}")
    cuda = "https://developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64"
    sections["file:/etc/yum.repos.d/cuda-rhel9.repo"] = ok(f"[cuda-rhel9-x86_64]\nname=cuda-rhel9-x86_64\nbaseurl={cuda}\nenabled=1\ngpgcheck=1\ngpgkey={cuda}/D42D0685.pub\n")
    return sections


def alma9_working() -> Sections:
    """Driver, Docker and toolkit are there from their vendors, and work."""
    sections = machine("alma9", "20f1:145f", hostname="a100", nouveau=False)
    kernel = EL9 + ".x86_64"
    add_rpms(sections, "docker-ce 3:29.1.3-1.el9\ndocker-ce-cli 1:29.1.3-1.el9\ncontainerd.io (none):2.2.0-2.el9\nnvidia-driver-cuda 3:580.105.08-1.el9\n"
             "nvidia-persistenced 3:580.105.08-1.el9\nkmod-nvidia-open-dkms 3:580.105.08-1.el9\nkernel-devel (none):5.14.0-570.58.1.el9_6\n"
             "kernel-devel-matched (none):5.14.0-570.58.1.el9_6\nnvidia-container-toolkit (none):1.18.0-1\nnvidia-container-toolkit-base (none):1.18.0-1\n"
             "libnvidia-container-tools (none):1.18.0-1\nlibnvidia-container1 (none):1.18.0-1")
    sections["module:/etc/dnf/modules.d/nvidia-driver.module"] = ok("[nvidia-driver]\nname=nvidia-driver\nstream=580-open\nprofiles=\nstate=enabled\n")
    sections["pci"] = ok(pci("0000:17:00.0", "20f1", "145f", driver="nvidia"))
    sections["nvidia_loaded"] = ok("580.105.08")
    sections["nvidia_proc"] = ok("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.105.08  Release Build  (dvs-builder@U22-I3-AF03-09-1)\n")
    sections["modinfo"] = ok(f"filename:       /lib/modules/{kernel}/extra/nvidia.ko.xz\nversion:        580.105.08\nlicense:        Dual MIT/GPL\n")
    sections["nvidia_smi"] = ok("0, GPU-2d3c1f6e-52b1-7c50-9a44-0b0f5f1d8e11, NVIDIA A100-PCIE-40GB, 00000000:17:00.0, 580.105.08\n")
    sections["toolkit_version"] = ok("NVIDIA Container Toolkit CLI version 1.18.0\n")
    sections["cdi:/run/cdi/nvidia.yaml"] = ok("libcuda.so.580.105.08\n")
    sections["docker_info"] = ok(docker_info(ServerVersion="29.1.3", Runtimes={"nvidia": {"path": "nvidia-container-runtime"}, "runc": {}}))
    sections["newer"] = ok()
    text = '{"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}\n'
    sections["daemon_json"] = ok(text)
    add_programs(sections, docker="/usr/bin/docker", dockerd="/usr/bin/dockerd", nvidia_smi="/usr/bin/nvidia-smi", nvidia_ctk="/usr/bin/nvidia-ctk",
                 nvidia_container_runtime="/usr/bin/nvidia-container-runtime",
                 nvidia_container_runtime_hook="/usr/bin/nvidia-container-runtime-hook", nvidia_cdi_hook="/usr/bin/nvidia-cdi-hook")
    add_present(sections, "/sys/module/nvidia", "/proc/driver/nvidia", "/run/docker.sock", "/run/docker.pid")
    set_units(sections, docker="loaded active running enabled", nvidia_persistenced="loaded active running enabled")
    return sections


def in_cloud(name: str, gpu: str, vendor: str, kind: str, region: str, **dmi: str) -> Callable[[], Sections]:
    def build() -> Sections:
        sections = machine(name, *([gpu] if gpu else []), hostname=kind.replace(".", "-").replace("_", "-").lower())
        add_cloud(sections, vendor, kind, region, **dmi)
        return sections

    return build


def dlami() -> Sections:
    """The driver is NVIDIA's .run installer's on these images."""
    sections = in_cloud("amzn2023", "27b8:16ca", "Amazon EC2", "g6.xlarge", "eu-west-1")()
    sections["path:/opt/dlami"] = Section(0, "/opt/dlami")
    sections["stat"] = ok("755|root:root|directory|/opt/dlami\n")
    sections["pci"] = ok(pci("0000:31:00.0", "27b8", "16ca", driver="nvidia"))
    sections["nvidia_loaded"] = ok("580.105.08")
    sections["nvidia_smi"] = ok("0, GPU-2d3c1f6e-52b1-7c50-9a44-0b0f5f1d8e11, NVIDIA L4, 00000000:31:00.0, 580.105.08\n")
    add_present(sections, "/sys/module/nvidia", "/usr/bin/nvidia-uninstall")
    add_rpms(sections, "docker (none):25.0.13-1.amzn2023.0.2\nnvidia-container-toolkit (none):1.18.0-1\nnvidia-container-toolkit-base (none):1.18.0-1\n"
             "libnvidia-container-tools (none):1.18.0-1\nlibnvidia-container1 (none):1.18.0-1")
    info = json.loads(docker_info(ServerVersion="25.0.13"))
    sections["docker_info"] = ok(json.dumps(info) + "\n")
    sections["newer"] = ok()
    add_programs(sections, docker="/usr/bin/docker", dockerd="/usr/bin/dockerd", nvidia_smi="/usr/bin/nvidia-smi", nvidia_ctk="/usr/bin/nvidia-ctk",
                 nvidia_container_runtime="/usr/bin/nvidia-container-runtime",
                 nvidia_container_runtime_hook="/usr/bin/nvidia-container-runtime-hook", nvidia_cdi_hook="/usr/bin/nvidia-cdi-hook")
    set_units(sections, docker="loaded active running enabled")
    return sections


def _plain(name: str, *gpus: str) -> tuple[str, Callable[[], Sections]]:
    what = SYSTEMS[name].pretty + (f" with PCI device {', '.join(gpus)}" if gpus else " without a GPU")
    return what, lambda: machine(name, *gpus)


ASSEMBLED: dict[str, tuple[str, Callable[[], Sections]]] = {
    "rhel8-k80": _plain("rhel8", "102d:106c"),
    "rhel9-h100": ("RHEL 9 with two H100 and an NVSwitch", rhel9_h100),
    "rhel10": _plain("rhel10"),
    "rocky8-t4": _plain("rocky8", "1eb8:12a2"),
    "rocky9-podman": ("Rocky Linux 9 with an L4, podman, and the vendors' own .repo files", rocky9_podman),
    "rocky10-h100": _plain("rocky10", "2330:16c1"),
    "alma8": _plain("alma8"),
    "alma9-working": ("AlmaLinux 9 with driver, Docker and toolkit at work", alma9_working),
    "alma10": _plain("alma10"),
    "oracle8-v100": _plain("oracle8", "1db5:1249"),
    "oracle9-oci-a10": ("Oracle Linux 9 with UEK 8 on an OCI shape with an A10", in_cloud("oracle9", "2236:1482", "QEMU", "VM.GPU.A10.1", "eu-frankfurt-1", chassis_asset_tag="OracleCloud.com")),
    "oracle10": _plain("oracle10"),
    "stream8": _plain("stream8"),
    "stream9-l40s": _plain("stream9", "26b9:1851"),
    "stream10": _plain("stream10"),
    "fedora42-l4": _plain("fedora42", "27b8:16ca"),
    "fedora43": _plain("fedora43"),
    "fedora43-l4": _plain("fedora43", "27b8:16ca"),
    "fedora44-l4": _plain("fedora44", "27b8:16ca"),
    "amzn2023-aws-l4": ("Amazon Linux 2023 on a g6.xlarge", in_cloud("amzn2023", "27b8:16ca", "Amazon EC2", "g6.xlarge", "eu-west-1")),
    "amzn2023-aws-g4ad": ("Amazon Linux 2023 on a g4ad.xlarge, whose GPU is AMD's", in_cloud("amzn2023", "", "Amazon EC2", "g4ad.xlarge", "eu-west-1")),
    "amzn2023-aws-g6f": ("Amazon Linux 2023 on a g6f.large, which has a slice of an L4", in_cloud("amzn2023", "27b8:1733", "Amazon EC2", "g6f.large", "eu-west-1")),
    "amzn2023-dlami": ("an AWS Deep Learning AMI on a g6.xlarge", dlami),
    "amzn2-aws-t4": ("Amazon Linux 2 (kernel 5.10) on a g4dn.xlarge", in_cloud("amzn2", "1eb8:12a2", "Amazon EC2", "g4dn.xlarge", "eu-west-1")),
    "amzn2-aws-k80": ("Amazon Linux 2 (kernel 4.14, its extras for docker off) on a p2.xlarge", in_cloud("amzn2-414", "102d:106c", "Amazon EC2", "p2.xlarge", "eu-west-1")),
    "azurelinux3-azure-t4": ("Azure Linux 3 on a Standard_NC4as_T4_v3", in_cloud("azurelinux3", "1eb8:12a2", "Microsoft Corporation", "Standard_NC4as_T4_v3", "westeurope", **AZURE)),
    "sles15-h100": _plain("sles15", "2330:16c1"),
    "sles16-h100": _plain("sles16", "2330:16c1"),
    "leap156-v100": _plain("leap156", "1db5:1249"),
    "leap16-v100": _plain("leap16", "1db5:1249"),
}
