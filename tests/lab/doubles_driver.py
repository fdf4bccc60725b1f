"""Test doubles of NVIDIA's driver packages, in the names and versions of its CUDA repository for Debian."""

from __future__ import annotations

from collections.abc import Sequence

from tests.lab.debs import DOUBLE, Deb
from tests.lab.gpus import Gpu, nvidia_smi

DRIVERS = ("580.126.20", "580.178.04", "595.91.07", "615.71.09")
LAST_PROPRIETARY = 610
PIN = "Package: *nvidia* *cuda-drivers* libcuda*\nPin: version {branch}*\nPin-Priority: 1000\n"

DKMS_CONF = """PACKAGE_NAME="nvidia"
PACKAGE_VERSION="{version}"
BUILT_MODULE_NAME[0]="nvidia"
DEST_MODULE_LOCATION[0]="/updates/dkms"
BUILT_MODULE_NAME[1]="nvidia-uvm"
DEST_MODULE_LOCATION[1]="/updates/dkms"
AUTOINSTALL="yes"
"""
MODULE = """// {double}
// A real kernel module, so that building, signing, loading and boot order are real; it drives nothing.
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

static struct proc_dir_entry *folder;

static int show(struct seq_file *file, void *data)
{{
	seq_puts(file, "NVRM version: NVIDIA UNIX {flavor}Kernel Module for x86_64  {version}  Release Build  (test double)\\n");
	return 0;
}}

static int __init start(void)
{{
	folder = proc_mkdir("driver/nvidia", NULL);
	if (!folder)
		return -ENOMEM;
	proc_create_single("version", 0444, folder, show);
	pr_info("nvidia: test double {version} loaded\\n");
	return 0;
}}

static void __exit stop(void)
{{
	proc_remove(folder);
}}

module_init(start);
module_exit(stop);
MODULE_LICENSE("{license}");
MODULE_VERSION("{version}");
MODULE_DESCRIPTION("test double of the NVIDIA driver");
"""
UVM = """// {double}
#include <linux/module.h>

static int __init start(void)
{{
	return 0;
}}

static void __exit stop(void)
{{
}}

module_init(start);
module_exit(stop);
MODULE_LICENSE("{license}");
MODULE_VERSION("{version}");
MODULE_DESCRIPTION("test double of the NVIDIA driver's memory module");
"""
DKMS_POSTINST = """if [ "$1" = configure ]; then
    dkms remove -m nvidia -v {version} --all >/dev/null 2>&1 || :
    dkms add -m nvidia -v {version}
    for kernel in /lib/modules/*/build; do
        [ -d "$kernel" ] || continue
        kernel=${{kernel%/build}}
        dkms install -m nvidia -v {version} -k "${{kernel##*/}}" --force
    done
fi"""
DKMS_PRERM = "dkms remove -m nvidia -v {version} --all >/dev/null 2>&1 || :"
PERSISTENCED = """# {double}
[Unit]
Description=test double of nvidia-persistenced
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
[Install]
WantedBy=multi-user.target
"""

# What tells the two kinds of kernel module apart: the package of the other kind, the text in /proc, the licence.
OPEN = {"other": "nvidia-kernel-dkms", "flavor": "Open ", "license": "Dual MIT/GPL"}
PROPRIETARY = {"other": "nvidia-kernel-open-dkms", "flavor": "", "license": "NVIDIA"}


def driver_debs(gpus: Sequence[Gpu], dkms: bool) -> list[Deb]:
    """Return the driver packages of all versions in DRIVERS; nvidia-smi's double shows `gpus`.

    With `dkms` the kernel packages depend on the real dkms and build a tiny real module called nvidia on the host,
    and nvidia-smi fails until it is loaded; without it they hold no module and nvidia-smi always answers.
    """
    debs: list[Deb] = []
    branches = sorted({driver.split(".")[0] for driver in DRIVERS})
    for driver in DRIVERS:
        debs += _driver(driver, gpus, dkms)
    for branch in branches:
        newest = [driver for driver in DRIVERS if driver.startswith(branch)][-1]
        files = {f"etc/apt/preferences.d/nvidia-driver-pinning-{branch}": PIN.format(branch=branch)}
        debs.append(Deb(f"nvidia-driver-pinning-{branch}", f"{newest}-1", architecture="all", files=files))
        debs.append(Deb(f"nvidia-open-{branch}", f"{newest}-1", depends=f"nvidia-open (= {newest}-1)"))
        if int(branch) <= LAST_PROPRIETARY:
            debs.append(Deb(f"cuda-drivers-{branch}", f"{newest}-1", depends=f"cuda-drivers (= {newest}-1)"))
    return debs


def _driver(driver: str, gpus: Sequence[Gpu], dkms: bool) -> list[Deb]:
    version = f"{driver}-1"
    smi = nvidia_smi(driver, gpus, needs_module=dkms)
    unit = {"usr/lib/systemd/system/nvidia-persistenced.service": PERSISTENCED.format(double=DOUBLE)}
    debs = [
        Deb("nvidia-driver-cuda", version, conflicts="nvidia-smi", files={"usr/bin/nvidia-smi": smi}),
        Deb("nvidia-persistenced", version, files=unit),
        Deb("nvidia-fabricmanager", version),
        _kernel("nvidia-kernel-open-dkms", driver, dkms, OPEN),
        Deb("nvidia-open", version, depends=f"nvidia-driver-cuda (= {version}), nvidia-kernel-open-dkms (= {version})"),
    ]
    if int(driver.split(".", maxsplit=1)[0]) <= LAST_PROPRIETARY:
        depends = f"nvidia-driver-cuda (= {version}), nvidia-kernel-dkms (= {version})"
        debs.append(_kernel("nvidia-kernel-dkms", driver, dkms, PROPRIETARY))
        debs.append(Deb("cuda-drivers", version, depends=depends))
    return debs


def _kernel(name: str, driver: str, dkms: bool, kind: dict[str, str]) -> Deb:
    other = kind["other"]
    if not dkms:
        return Deb(name, f"{driver}-1", conflicts=other)
    texts = {"double": DOUBLE, "version": driver, **kind}
    source = f"usr/src/nvidia-{driver}"
    files: dict[str, str] = {
        f"{source}/dkms.conf": DKMS_CONF.format(**texts),
        f"{source}/Makefile": "obj-m := nvidia.o nvidia-uvm.o\n",
        f"{source}/nvidia.c": MODULE.format(**texts),
        f"{source}/nvidia-uvm.c": UVM.format(**texts),
    }
    return Deb(
        name,
        f"{driver}-1",
        depends="dkms",
        conflicts=other,
        files=files,
        postinst=DKMS_POSTINST.format(**texts),
        prerm=DKMS_PRERM.format(**texts),
    )
