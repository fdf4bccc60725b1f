"""Broken hosts, assembled: a working GPU host's capture, and one thing in it made wrong. Test doubles, put together from what the probe prints.

`FAULTS` is name -> (what was done to the host, the failure that the doctor is to name, the change). The real ones are in test_doctor_host.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from provision.model import Section
from tests.captures import add_packages, add_present, docker_info, ok, pci, set_units, ubuntu2404_aws_l4

Sections = dict[str, Section]
Change = Callable[[Sections], None]

KERNEL = "6.8.0-1021-aws"


def working() -> Sections:
    """Ubuntu 24.04 with an L4, driver, Docker and toolkit at work, looked at deeply."""
    sections = ubuntu2404_aws_l4()
    kernel = sections["kernel"].text.strip()
    sections.update({
        "deep_dmesg": ok("[    4.2] nvidia: loading out-of-tree module taints kernel.\n[    4.3] NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64\n"),
        "deep_modules": ok("nvidia_uvm 1 0 - Live 0x0\nnvidia 1 1 nvidia_uvm, Live 0x0\noverlay 1 1 - Live 0x0\nxt_addrtype 1 2 - Live 0x0\n"),
        "deep_kernels": ok(f"{kernel} modules=1 nvidia=1 build=1 image=1\n"),
        "deep_dkms": ok(""),
        "deep_make_log": ok(""),
        "deep_settings": ok("net/ipv4/ip_forward=1\nnet/core/bpf_jit_harden=0\napparmor=Y\napparmor_parser=/usr/sbin/apparmor_parser\n"
                            "lockdown=[none] integrity confidentiality\niptables=/usr/sbin/iptables\nuser=ubuntu\nuser_groups=ubuntu docker\nmemory_kb=32000000\n"),
        "deep_resolve": ok("conf nameserver 127.0.0.53\nname mirror.example 0\nname download.docker.com 0\n"),
        "deep_nodes": ok("666 root:root /dev/nvidia0\n666 root:root /dev/nvidiactl\n666 root:root /dev/nvidia-uvm\n"),
        "deep_keyrings": ok("755 4096 /etc/apt/keyrings\n"),
        "deep_failed_units": ok(""),
        "deep_docker_unit": ok("ExecStart={ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock }\nResult=success\n"),
        "deep_libraries": ok("\tlibnvidia-ml.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnvidia-ml.so.1\n"),
        "deep_smi": ok("GPU 00000000:31:00.0\n    Persistence Mode                      : Enabled\n    Compute Mode                          : Default\n"),
        "deep_validate": Section(0, "configuration OK\n"),
    })
    sections["group"] = ok("docker:x:998:ubuntu\n")
    return sections


def text_of(sections: Sections, name: str, old: str, new: str) -> None:
    """Replace in a section, which must have it."""
    assert old in sections[name].text, (name, old)
    sections[name] = Section(sections[name].rc, sections[name].text.replace(old, new))


def info(sections: Sections, **values: object) -> None:
    """Another answer of the daemon's."""
    before = json.loads(sections["docker_info"].text)
    sections["docker_info"] = ok(docker_info(**{**before, **values}))


def no_program(sections: Sections, *names: str) -> None:
    rows = [row for row in sections["programs"].text.splitlines() if row.split(" ")[0] not in names]
    sections["programs"] = ok("\n".join(rows) + "\n")


def no_package(sections: Sections, *prefixes: str) -> None:
    rows = [row for row in sections["dpkg"].text.splitlines() if not row.startswith(prefixes)]
    sections["dpkg"] = ok("\n".join(rows) + "\n")


def configuration(sections: Sections, text: str) -> None:
    sections["daemon_json"] = ok(text)


def version_of(sections: Sections) -> str:
    return sections["nvidia_loaded"].text.strip()


# ---------------------------------------------------------------- the driver


def not_loaded(sections: Sections) -> None:
    for name in ("nvidia_loaded", "nvidia_proc"):
        sections[name] = Section(2, "")
    sections.pop("nvidia_smi", None)
    sections.pop("deep_smi", None)
    sections["device_nodes"] = ok("")
    text_of(sections, "pci", "driver=nvidia", "driver=")


def no_module(sections: Sections) -> None:
    not_loaded(sections)
    sections["modinfo"] = Section(1, "modinfo: ERROR: Module nvidia not found.\n")
    text_of(sections, "deep_kernels", "nvidia=1", "nvidia=0")


def headers_missing(sections: Sections) -> None:
    no_module(sections)
    text_of(sections, "deep_kernels", "build=1", "build=0")


def build_failed(sections: Sections) -> None:
    no_module(sections)
    sections["deep_make_log"] = ok("/var/lib/dkms/nvidia/550.54.14/build/make.log\nnv-acpi.c:84:19: error: initialization of incompatible pointer type\n")


def other_kernel(sections: Sections) -> None:
    no_module(sections)
    text_of(sections, "deep_kernels", sections["deep_kernels"].text, "6.5.0-1001-aws modules=1 nvidia=1 build=1 image=1\n" + sections["deep_kernels"].text)


def next_kernel(sections: Sections) -> None:
    sections["deep_kernels"] = ok(sections["deep_kernels"].text + "6.99.0-1001-aws modules=1 nvidia=0 build=0 image=1\n")


def nouveau(sections: Sections) -> None:
    not_loaded(sections)
    text_of(sections, "pci", "driver=", "driver=nouveau")
    add_present(sections, "/sys/module/nouveau")


def secure_boot(sections: Sections) -> None:
    not_loaded(sections)
    sections["modinfo"] = ok("filename:       /lib/modules/x/updates/dkms/nvidia.ko\nversion:        580.95.05\nlicense:        Dual MIT/GPL\n")
    sections["secure_boot"] = ok("   6   0   0   0   1")
    add_present(sections, "/sys/firmware/efi", "/sys/firmware/efi/efivars")


def upgraded(sections: Sections) -> None:
    old, new = version_of(sections), "999.10.01"
    sections["libraries"] = ok(f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{new}\n")
    sections["modinfo"] = ok(f"filename: /lib/modules/x/updates/dkms/nvidia.ko\nversion:        {new}\nlicense:        Dual MIT/GPL\n")
    sections["nvidia_smi"] = Section(18, f"Failed to initialize NVML: Driver/library version mismatch\nNVML library version: {new[:6]}\n")
    assert old != new


def two_drivers(sections: Sections) -> None:
    upgraded(sections)
    sections["libraries"] = ok(f"/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.999.10.01\n/usr/lib64/libnvidia-ml.so.{version_of(sections)}\n")


def libraries_only(sections: Sections) -> None:
    upgraded(sections)
    sections["modinfo"] = ok(f"filename: /lib/modules/x/updates/dkms/nvidia.ko\nversion:        {version_of(sections)}\nlicense:        Dual MIT/GPL\n")


def volta_with_open(sections: Sections) -> None:
    sections["pci"] = ok(pci("0000:17:00.0", "1db5", "1249", driver="nvidia"))
    sections["nvidia_smi"] = Section(6, "No devices were found\n")


def blackwell_with_proprietary(sections: Sections) -> None:
    sections["pci"] = ok(pci("0000:17:00.0", "2901", "1999", driver="nvidia"))
    sections["nvidia_proc"] = ok(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version_of(sections)}  Fri May 31 09:35:42 UTC 2024\n")
    sections["nvidia_smi"] = Section(6, "No devices were found\n")


def fell_off(sections: Sections) -> None:
    sections["nvidia_smi"] = Section(15, "Unable to determine the device handle for GPU 0000:31:00.0: GPU is lost.  Reboot the system to recover this GPU\n")
    sections["deep_dmesg"] = ok("[ 4711.1] NVRM: Xid (PCI:0000:31:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n")


def gsp_hangs(sections: Sections) -> None:
    sections["nvidia_smi"] = Section(124, "")
    sections["deep_dmesg"] = ok("[ 99.1] NVRM: Xid (PCI:0000:31:00): 119, pid=1, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 76\n")


def one_gpu_of_two(sections: Sections) -> None:
    sections["pci"] = ok(sections["pci"].text + sections["pci"].text.replace("0000:31:00.0", "0000:32:00.0"))


def persistenced(sections: Sections) -> None:
    set_units(sections, nvidia_persistenced="loaded failed failed enabled")


def fabric(sections: Sections) -> None:
    sections["pci"] = ok(pci("0000:17:00.0", "2330", "16c1", driver="nvidia") + pci("0000:07:00.0", "22a3", "1796", "0x068000", driver="nvidia-nvswitch"))


# ---------------------------------------------------------------- Docker and the toolkit


def docker_down(sections: Sections, active: str = "inactive dead") -> None:
    sections["docker_info"] = Section(111, "dockerd does not run")
    set_units(sections, docker=f"loaded {active} enabled", **{"docker.socket": "loaded inactive dead enabled"})


def docker_fails(sections: Sections) -> None:
    docker_down(sections, "failed failed")


def bad_json(sections: Sections) -> None:
    docker_fails(sections)
    configuration(sections, '{"log-driver": "json-file",}\n')


def unknown_key(sections: Sections) -> None:
    docker_fails(sections)
    configuration(sections, '{"no-such-key": true}\n')
    sections["deep_validate"] = Section(1, "unable to configure the Docker daemon with file /etc/docker/daemon.json: the following directives don't match any configuration option: no-such-key\n")


def hosts_twice(sections: Sections) -> None:
    docker_fails(sections)
    configuration(sections, '{"hosts": ["tcp://0.0.0.0:2375"]}\n')


def masked(sections: Sections) -> None:
    docker_down(sections)
    set_units(sections, docker="masked inactive dead masked")


def no_containerd(sections: Sections) -> None:
    docker_fails(sections)
    set_units(sections, docker="loaded failed failed enabled", containerd="loaded failed failed enabled")


def no_parser(sections: Sections) -> None:
    text_of(sections, "deep_settings", "apparmor_parser=/usr/sbin/apparmor_parser\n", "")


def no_forwarding(sections: Sections) -> None:
    text_of(sections, "deep_settings", "ip_forward=1", "ip_forward=0")


def no_toolkit(sections: Sections) -> None:
    """As a fresh host has it: Docker and the driver, and nothing of the toolkit's."""
    no_program(sections, "nvidia-ctk", "nvidia-container-runtime", "nvidia-container-runtime-hook", "nvidia-cdi-hook")
    no_package(sections, "nvidia-container-toolkit", "libnvidia-container")
    for name in [name for name in sections if name.startswith("cdi:")] + ["toolkit_version"]:
        sections.pop(name, None)
    configuration(sections, "{}\n")
    info(sections, Runtimes={"runc": {}})
    set_units(sections, **{"nvidia_cdi_refresh": "not-found inactive dead ", "nvidia-cdi-refresh.path": "not-found inactive dead "})


def hook_gone(sections: Sections) -> None:
    no_program(sections, "nvidia-container-runtime-hook")


def runtime_gone(sections: Sections) -> None:
    no_program(sections, "nvidia-container-runtime")


def unregistered(sections: Sections) -> None:
    info(sections, Runtimes={"runc": {}})
    configuration(sections, "{}\n")


def not_restarted(sections: Sections) -> None:
    info(sections, Runtimes={"runc": {}})
    sections["newer"] = ok("/etc/docker/daemon.json\n")


def older_docker(sections: Sections) -> None:
    sections["newer"] = ok("/usr/bin/nvidia-cdi-hook\n/usr/bin/nvidia-container-runtime-hook\n")


def snap(sections: Sections) -> None:
    no_program(sections, "dockerd")
    add_present(sections, "/var/snap/docker", "/snap/bin/docker")
    info(sections, Runtimes={"runc": {}})
    configuration(sections, "{}\n")


def rootless(sections: Sections) -> None:
    sections["rootless"] = ok("/run/user/1000/docker.sock\n")


def podman(sections: Sections) -> None:
    no_program(sections, "dockerd")
    sections["docker_info"] = Section(22, "/usr/bin/docker is a script of podman's")
    add_packages(sections, "podman-docker amd64 4.9.3+ds1-1\npodman amd64 4.9.3+ds1-1")


def no_cgroups(sections: Sections) -> None:
    sections["toolkit_config"] = ok("[nvidia-container-cli]\nno-cgroups = true\n")


def stale_cdi(sections: Sections) -> None:
    for name in [name for name in sections if name.startswith("cdi:")]:
        sections[name] = ok("libcuda.so.550.54.14\n")


def no_cdi(sections: Sections) -> None:
    for name in [name for name in sections if name.startswith("cdi:")]:
        del sections[name]
    set_units(sections, nvidia_cdi_refresh="loaded inactive dead enabled")


# ---------------------------------------------------------------- the machine and its packages


def full(sections: Sections) -> None:
    sections["df"] = ok("Filesystem     1024-blocks    Used Available Capacity Mounted on\n" + "/dev/vda1         20469404 20469404      1024     100% /\n" * 2)


def no_inodes(sections: Sections) -> None:
    sections["df_inodes"] = ok("Filesystem      Inodes IUsed   IFree IUse% Mounted on\n" + "/dev/vda1      1310720 1310720       0  100% /\n" * 2)


def read_only(sections: Sections) -> None:
    text_of(sections, "mounts", "/ ext4 rw", "/ ext4 ro")


def clock(sections: Sections) -> None:
    sections["time"], sections["asked_at"] = ok("1700000000"), ok("1795400000")


def modules_gone(sections: Sections) -> None:
    sections["deep_kernels"] = ok("6.99.0-1001-aws modules=1 nvidia=1 build=1 image=1\n")


def no_names(sections: Sections) -> None:
    sections["deep_resolve"] = ok("conf nameserver 10.0.0.1\nname mirror.example 2\nname download.docker.com 2\n")


def lock(sections: Sections) -> None:
    sections["locks"] = ok(sections["locks"].text + "lock 131201 4242 apt-get\nfds 4242\nfd 4242 /var/lib/dpkg/lock-frontend\n")


def interrupted(sections: Sections) -> None:
    sections["dpkg_updates"] = ok("0001\n")


def half(sections: Sections) -> None:
    add_packages(sections, "nvidia-dkms-999 amd64 999.1-1 install ok half-configured")


def key_gone(sections: Sections) -> None:
    sections["file:/etc/apt/sources.list.d/docker.sources"] = ok(
        "Types: deb\nURIs: https://download.docker.com/linux/ubuntu\nSuites: noble\nComponents: stable\nSigned-By: /etc/apt/keyrings/nowhere.asc\n")


def two_keys(sections: Sections) -> None:
    for name, key in (("one", "/etc/apt/trusted.gpg.d/a.asc"), ("two", "/etc/apt/trusted.gpg.d/b.asc")):
        sections[f"file:/etc/apt/sources.list.d/{name}.list"] = ok(f"deb [signed-by={key}] https://nvidia.github.io/libnvidia-container/stable/deb/amd64 /\n")


def partly_pinned(sections: Sections) -> None:
    no_package(sections, "libnvidia-container1")
    add_packages(sections, "libnvidia-container1 amd64 1.17.8-1")


FAULTS: dict[str, tuple[str, Change]] = {
    "its headers were left out of an upgrade": ("module-missing-headers", headers_missing),
    "the module could not be built": ("module-build-failed", build_failed),
    "an older kernel has the module": ("module-for-another-kernel", other_kernel),
    "no module, for no reason that shows": ("module-missing", no_module),
    "the next kernel has none": ("next-kernel-lacks-module", next_kernel),
    "nouveau took the GPU": ("gpu-held-by-nouveau", nouveau),
    "Secure Boot rejects the module": ("module-rejected-by-secure-boot", secure_boot),
    "the driver was upgraded under the module": ("driver-upgraded-not-reloaded", upgraded),
    "two drivers' libraries": ("two-drivers-installed", two_drivers),
    "only the libraries were upgraded": ("libraries-upgraded-only", libraries_only),
    "a V100 with open modules": ("open-module-on-old-gpu", volta_with_open),
    "a B200 with proprietary modules": ("proprietary-module-on-new-gpu", blackwell_with_proprietary),
    "a GPU fell off the bus": ("gpu-fell-off-the-bus", fell_off),
    "the GPU's firmware hangs": ("gsp-hangs", gsp_hangs),
    "one GPU of two": ("gpu-missing-from-smi", one_gpu_of_two),
    "nvidia-persistenced failed": ("persistenced-failed", persistenced),
    "no fabric manager beside a switch": ("fabric-manager-down", fabric),
    "Docker stopped": ("docker-stopped", docker_down),
    "Docker failed": ("docker-failed", docker_fails),
    "daemon.json with a comma too many": ("daemon-json-malformed", bad_json),
    "daemon.json with a key that is none": ("daemon-json-unknown-key", unknown_key),
    "daemon.json with hosts": ("daemon-json-hosts-twice", hosts_twice),
    "Docker masked": ("docker-masked", masked),
    "containerd failed": ("containerd-down", no_containerd),
    "AppArmor without its parser": ("apparmor-parser-missing", no_parser),
    "IP forwarding off": ("forwarding-off", no_forwarding),
    "the toolkit's hook gone": ("gpus-hook-missing", hook_gone),
    "the runtime's program gone": ("runtime-program-missing", runtime_gone),
    "the runtime not registered": ("runtime-not-registered", unregistered),
    "the runtime registered, Docker not restarted": ("runtime-not-loaded", not_restarted),
    "the toolkit newer than the daemon": ("gpus-docker-older-than-toolkit", older_docker),
    "no-cgroups for root": ("no-cgroups-on-rootful", no_cgroups),
    "a CDI specification of another driver": ("cdi-stale", stale_cdi),
    "no CDI specification": ("cdi-missing", no_cdi),
    "a full disk": ("root-disk-full", full),
    "no inodes": ("inodes-used-up", no_inodes),
    "a read-only root": ("root-read-only", read_only),
    "a wrong clock": ("clock-wrong", clock),
    "the running kernel's modules removed": ("running-kernel-modules-gone", modules_gone),
    "no names": ("dns-broken", no_names),
    "a lock held": ("lock-held", lock),
    "dpkg cut off": ("dpkg-interrupted", interrupted),
    "a package half configured": ("package-half-installed", half),
    "a source without its key": ("signing-key-missing", key_gone),
    "one repository with two keys": ("conflicting-signed-by", two_keys),
    "the toolkit in two versions": ("toolkit-partly-pinned", partly_pinned),
}
