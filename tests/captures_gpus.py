"""Assembled captures of machines whose GPU is not simply there to be driven: divided, handed on, virtual, on a board; and official GPU images.

They are test doubles: put together from known texts, never taken from a machine. `tests.captures` writes them with its own.
"""

from __future__ import annotations

from collections.abc import Callable

from provision.model import Section
from tests.captures import (
    Sections,
    add_docker,
    add_file,
    add_packages,
    add_present,
    add_programs,
    docker_info,
    fresh,
    ok,
    pci,
    set_units,
    ubuntu2404_aws_l4,
)
from tests.captures_rpm import AZURE, add_cloud

# `nvidia-smi -L` as docs.opennebula.io, PCI passthrough and MIG.
H100 = """GPU 0: NVIDIA H100 NVL (UUID: GPU-81495ec7-da36-8ea5-9f7d-5804aa3fef20)
  MIG 2g.24gb     Device  0: (UUID: MIG-7839bf6f-ba33-59f0-89eb-01c8d8c4134d)
  MIG 2g.24gb     Device  1: (UUID: MIG-433a63e2-53a4-58c0-9b8d-a4dba3eb8f36)
  MIG 2g.24gb     Device  2: (UUID: MIG-34fa791a-69d2-560b-969f-f2aa1d900c44)
  MIG 1g.12gb     Device  3: (UUID: MIG-dbf12406-b888-52e8-80ee-025b6412f6e4)
"""
GPU, OTHER = "GPU-81495ec7-da36-8ea5-9f7d-5804aa3fef20", "GPU-5c8b8b28-51b2-4a55-a05c-81ac535f3f49"
GCP = {"product_name": "Google Compute Engine"}
CONFIGURED = '{\n    "runtimes": {\n        "nvidia": {\n            "args": [],\n            "path": "nvidia-container-runtime"\n        }\n    }\n}\n'
TOOLKIT = ("libnvidia-container-tools", "libnvidia-container1", "nvidia-container-toolkit", "nvidia-container-toolkit-base")


def ubuntu2404_h100_mig() -> Sections:
    """A working host: one H100 divided into four, one with MIG on and nothing made of it yet."""
    sections = ubuntu2404_aws_l4()
    sections["hostname"] = ok("mig")
    sections["dmi"] = ok("sys_vendor=Supermicro\nproduct_name=SYS-421GE-TNRT\nchassis_vendor=Supermicro\n")
    sections["kernel"] = ok("6.8.0-85-generic")
    sections["pci"] = ok(pci("0000:17:00.0", "2321", "1839", driver="nvidia") + pci("0000:65:00.0", "2321", "1839", driver="nvidia"))
    sections["nvidia_smi"] = ok(
        f"0, {GPU}, NVIDIA H100 NVL, 00000000:17:00.0, 580.95.05, Enabled\n1, {OTHER}, NVIDIA H100 NVL, 00000000:65:00.0, 580.95.05, Enabled\n"
    )
    sections["nvidia_mig"] = ok(f"{H100}GPU 1: NVIDIA H100 NVL (UUID: {OTHER})\n")
    sections["blocks"] = ok("nvme0n1 sectors=209715200 rotational=0 ro=0 parts=nvme0n1p1, holders= model=SAMSUNG MZQL2960HCJR\n")
    return sections


def ubuntu2404_h100_mig_empty() -> Sections:
    """The same after a reboot: MIG is still on, and its devices are gone."""
    sections = ubuntu2404_h100_mig()
    sections["nvidia_mig"] = ok("".join(row for row in sections["nvidia_mig"].text.splitlines(keepends=True) if not row.startswith(" ")))
    return sections


def debian12_vfio() -> Sections:
    sections = fresh("debian12", "hypervisor")
    sections["pci"] = ok(pci("0000:17:00.0", "2235", "145a", driver="vfio-pci"))
    sections["modinfo"] = Section(1, "modinfo: ERROR: Module nvidia not found.\n")
    return sections


def debian13_vfio_beside() -> Sections:
    """One GPU is handed on to a virtual machine, the other is this system's own."""
    sections = fresh("debian13", "shared")
    sections["pci"] = ok(pci("0000:17:00.0", "2235", "145a", driver="vfio-pci") + pci("0000:65:00.0", "2235", "145a", driver="nouveau"))
    sections["modinfo"] = Section(1, "modinfo: ERROR: Module nvidia not found.\n")
    add_present(sections, "/sys/module/nouveau")
    return sections


def board(system: str, hostname: str) -> Sections:
    """An arm64 machine; its packages are those of the amd64 one under the other name."""
    sections = fresh(system, hostname)
    sections["arch"] = ok("aarch64")
    sections["dpkg"] = ok(sections["dpkg"].text.replace(" amd64 ", " arm64 "))
    return sections


def jetson_orin() -> Sections:
    """JetPack 6 on an AGX Orin: the GPU is inside the processor and on no PCI bus, where only the root ports are NVIDIA's."""
    sections = board("ubuntu2204", "orin")
    sections["kernel"] = ok("5.15.148-tegra")
    sections["dmi"] = ok("sys_vendor=NVIDIA\nproduct_name=NVIDIA Jetson AGX Orin Developer Kit\n")
    sections["pci"] = ok(pci("0005:00:00.0", "229a", "0000", "0x060400", driver="pcieport"))
    add_packages(sections, "nvidia-l4t-core arm64 36.4.4-20250616085344\nnvidia-l4t-cuda arm64 36.4.4-20250616085344\nnvidia-container-toolkit arm64 1.16.2-1\n")
    add_present(sections, "/etc/nv_tegra_release")
    return sections


def gb10() -> Sections:
    """A DGX Spark's board with plain Ubuntu on it, before any driver."""
    sections = board("ubuntu2404", "spark")
    sections["kernel"] = ok("6.14.0-1015-nvidia")
    add_packages(sections, "linux-image-6.14.0-1015-nvidia arm64 6.14.0-1015.15\nlinux-image-nvidia-hwe-24.04 arm64 6.14.0-1015.15\n")
    sections["dmi"] = ok("sys_vendor=NVIDIA\nproduct_name=NVIDIA_DGX_Spark\nchassis_vendor=NVIDIA\n")
    sections["pci"] = ok(pci("000f:00:00.0", "22d1", "0000", "0x060400", driver="pcieport") + pci("000f:01:00.0", "2e12", "21ec", "0x030000"))
    add_present(sections, "/sys/firmware/efi", "/sys/firmware/efi/efivars")
    sections["secure_boot"] = ok("   6   0   0   0   0")
    sections["modinfo"] = Section(1, "modinfo: ERROR: Module nvidia not found.\n")
    return sections


def vgpu_config() -> str:
    """A configuration space whose capability list holds the mark of an NVIDIA vGPU (see `provision.facts.nvidia.is_vgpu`), and nothing else."""
    space = bytearray(256)
    space[6], space[0x34] = 0x10, 0x68
    space[0x68:0x6D] = b"\x09\x00\x14VF"
    return " ".join(f"{byte:02x}" for byte in space)


def ubuntu2204_vgpu() -> Sections:
    """A guest of VMware or KVM with a slice of an A40: only the configuration space shows that it is one."""
    sections = fresh("ubuntu2204", "guest")
    sections["dmi"] = ok("sys_vendor=VMware, Inc.\nproduct_name=VMware20,1\n")
    sections["pci"] = ok(pci("0000:02:02.0", "2235", "14da", "0x030000").rstrip("\n") + f" config={vgpu_config()}\n")
    return sections


def debian12_m60_slice() -> Sections:
    """The subsystem's id tells that it is a slice."""
    sections = fresh("debian12", "grid")
    sections["pci"] = ok(pci("0000:00:05.0", "13f2", "114e", "0x030000"))
    return sections


def ubuntu2404_azure_nvads() -> Sections:
    sections = fresh("ubuntu2404", "nv36ads")
    add_cloud(sections, "Microsoft Corporation", "Standard_NV36ads_A10_v5", "westeurope", **AZURE)
    sections["pci"] = ok(pci("0002:00:00.0", "2236", "1482", "0x030200"))
    return sections


def with_driver(sections: Sections, device: str, subsystem: str, name: str, version: str) -> None:
    """A driver of the .run installer, at work with one GPU."""
    sections["pci"] = ok(pci("0001:00:00.0", device, subsystem, driver="nvidia"))
    sections["nvidia_loaded"] = ok(version)
    sections["nvidia_proc"] = ok(f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build  (dvs-builder@U22-I3-AM02-24-3)\n")
    sections["modinfo"] = ok(f"filename:       /lib/modules/x/updates/dkms/nvidia.ko\nversion:        {version}\nlicense:        Dual MIT/GPL\n")
    sections["nvidia_smi"] = ok(f"0, GPU-2d3c1f6e-52b1-7c50-9a44-0b0f5f1d8e11, {name}, 00000001:00:00.0, {version}, {'Disabled' if 'H100' in name else '[N/A]'}\n")
    sections["libraries"] = ok(f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{version}\n")
    sections["device_nodes"] = ok("/dev/nvidia-uvm\n/dev/nvidia0\n/dev/nvidiactl\n")
    add_present(sections, "/sys/module/nvidia", "/proc/driver/nvidia", "/usr/bin/nvidia-uninstall")
    add_programs(sections, nvidia_smi="/usr/bin/nvidia-smi")
    set_units(sections, nvidia_persistenced="loaded active running enabled")


def with_toolkit(sections: Sections, version: str, made_for: str, state: str = "") -> None:
    """The container toolkit, its CDI spec and its runtime in Docker's configuration."""
    add_packages(sections, "".join(f"{name} amd64 {version}-1{state}\n" for name in TOOLKIT))
    add_programs(sections, nvidia_ctk="/usr/bin/nvidia-ctk", nvidia_container_runtime="/usr/bin/nvidia-container-runtime",
                 nvidia_container_runtime_hook="/usr/bin/nvidia-container-runtime-hook", nvidia_cdi_hook="/usr/bin/nvidia-cdi-hook")
    sections["toolkit_version"] = ok(f"NVIDIA Container Toolkit CLI version {version}\n")
    sections["toolkit_config"] = ok("[nvidia-container-cli]\n#no-cgroups = false\n")
    sections["cdi:/run/cdi/nvidia.yaml"] = ok(f"libcuda.so.{made_for}\n")
    sections["daemon_json"] = ok(CONFIGURED)
    del sections["path:/etc/docker/daemon.json"]
    add_file(sections, "/etc/docker/daemon.json", CONFIGURED)
    set_units(sections, nvidia_cdi_refresh="loaded inactive dead enabled", **{"nvidia-cdi-refresh.path": "loaded active waiting enabled"})


def ubuntu2404_azure_hpc() -> Sections:
    """Azure's HPC image: the engine is moby-engine, the driver the .run installer's, and the toolkit is held."""
    sections = fresh("ubuntu2404", "hpc")
    add_cloud(sections, "Microsoft Corporation", "Standard_NC40ads_H100_v5", "westeurope", **AZURE)
    add_docker(sections, "ubuntu2404")
    for package in ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"):
        rows = sections["dpkg"].text.splitlines(keepends=True)
        sections["dpkg"] = ok("".join(row for row in rows if not row.startswith(f"{package} ")))
    del sections["file:/etc/apt/sources.list.d/docker.sources"], sections["key64:/etc/apt/keyrings/docker.asc"]
    add_packages(sections, "moby-engine amd64 28.3.3-ubuntu24.04u1\nmoby-cli amd64 28.3.3-ubuntu24.04u1\nmoby-containerd amd64 1.7.28-ubuntu24.04u1\nmoby-runc amd64 1.2.6-ubuntu24.04u1\n")
    sections["docker_info"] = ok(docker_info(ServerVersion="28.3.3", Runtimes={"nvidia": {"path": "nvidia-container-runtime"}, "runc": {}}))
    with_driver(sections, "2321", "1839", "NVIDIA H100 NVL", "580.105.08")
    with_toolkit(sections, "1.18.0", "580.105.08", " hold ok installed")
    add_path(sections, "/opt/azurehpc", "directory")
    add_path(sections, "/opt/azurehpc/component_versions.txt", "regular file")
    return sections


def debian12_gcp_dlvm() -> Sections:
    """Google's Deep Learning VM after its first boot, whose script has installed the driver."""
    sections = fresh("debian12", "dlvm")
    add_cloud(sections, "Google", "g2-standard-4", "europe-west4", **GCP)
    add_docker(sections, "debian12")
    with_driver(sections, "27b8", "16ee", "NVIDIA L4", "570.211.01")
    sections["docker_info"] = ok(docker_info(Runtimes={"nvidia": {"path": "nvidia-container-runtime"}, "runc": {}}))
    with_toolkit(sections, "1.18.0", "570.211.01")
    add_path(sections, "/opt/deeplearning", "directory")
    add_path(sections, "/opt/deeplearning/install-driver.sh", "regular file")
    return sections


def debian12_gcp_dlvm_first_boot() -> Sections:
    """The same before its driver is installed: the image is recognised, and what is missing is planned."""
    sections = fresh("debian12", "dlvm-first")
    add_cloud(sections, "Google", "g2-standard-4", "europe-west4", **GCP)
    add_docker(sections, "debian12")
    sections["pci"] = ok(pci("0000:00:03.0", "27b8", "16ee"))
    sections["modinfo"] = Section(1, "modinfo: ERROR: Module nvidia not found.\n")
    add_path(sections, "/opt/deeplearning", "directory")
    return sections


def add_path(sections: Sections, path: str, kind: str) -> None:
    """A path that the probe is asked about, as `stat` shows it."""
    sections[f"path:{path}"] = Section(0, path)
    sections["stat"] = ok(sections.get("stat", ok()).text + f"755|root:root|{kind}|{path}\n")


ASSEMBLED: dict[str, tuple[str, Callable[[], Sections]]] = {
    "ubuntu2404-h100-mig": ("a working host with two H100 in MIG mode, four MIG devices on one and none on the other", ubuntu2404_h100_mig),
    "ubuntu2404-h100-mig-empty": ("the same without any MIG device, as after a reboot", ubuntu2404_h100_mig_empty),
    "debian12-vfio": ("a hypervisor whose only GPU is bound to vfio-pci", debian12_vfio),
    "debian13-vfio-beside": ("two A40, of which one is bound to vfio-pci", debian13_vfio_beside),
    "jetson-orin": ("a Jetson AGX Orin with JetPack 6", jetson_orin),
    "ubuntu2404-gb10": ("Ubuntu 24.04 on a DGX Spark (GB10), without a driver", gb10),
    "ubuntu2204-vgpu": ("a VMware guest with a slice of an A40, known by its configuration space", ubuntu2204_vgpu),
    "debian12-m60-slice": ("a guest with a slice of a Tesla M60, known by its subsystem id", debian12_m60_slice),
    "ubuntu2404-azure-nvads": ("Ubuntu 24.04 on a Standard_NV36ads_A10_v5, whose A10 wants the GRID driver", ubuntu2404_azure_nvads),
    "ubuntu2404-azure-hpc": ("an Azure HPC image on a Standard_NC40ads_H100_v5", ubuntu2404_azure_hpc),
    "debian12-gcp-dlvm": ("a Google Deep Learning VM on a g2-standard-4", debian12_gcp_dlvm),
    "debian12-gcp-dlvm-first-boot": ("the same before its first boot's script has installed the driver", debian12_gcp_dlvm_first_boot),
}
