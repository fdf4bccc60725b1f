"""Disk images of fresh, cloud-like Debian machines, built from packages and kept by the hash of their recipe."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import tree
from tests.lab.cache import built_once, recipe_hash
from tests.lab.keys import lab_keys
from tests.lab.need import tool

SUITES = {"trixie": "13", "bookworm": "12"}
PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "linux-image-cloud-amd64", "initramfs-tools", "zstd", "kmod", "e2fsprogs"),
    *("openssh-server", "sudo", "python3", "git", "ca-certificates", "iproute2", "procps", "less"),
)
DISK = "12G"  # sparse; the file takes what the tree takes
# Only what finds the root disk: the initrd of MODULES=most costs seconds at every emulated boot.
INITRD_MODULES = "virtio_pci\nvirtio_blk\next4\ncrc32c\ncrc32c_generic\n"
FILES: dict[str, str] = {
    "etc/fstab": "/dev/vda / ext4 defaults,discard 0 1\n",
    "etc/systemd/network/10-lab.network": "[Match]\nName=e*\n\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\n"
    "\n[DHCPv4]\nUseHostname=no\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    "etc/systemd/system.conf.d/lab.conf": "[Manager]\nDefaultTimeoutStopSec=20s\n",
}


@dataclass(frozen=True)
class Image:
    """What a VM boots: a raw disk (never written to; VMs use overlays), its kernel and its initrd."""

    suite: str
    disk: Path
    kernel: Path
    initrd: Path


def debian_image(suite: str, extra: Sequence[str] = ()) -> Image:
    """Return the image of a Debian suite (`trixie`, `bookworm`), built on first use (about a minute).

    `extra` names further packages to have in it from the start. Raises LabUnavailable, LabError.
    """
    packages: list[str] = [*PACKAGES, *extra]
    public = [key.with_suffix(".pub").read_text() for key in (lab_keys().client, lab_keys().host)]
    recipe = [suite, packages, DISK, INITRD_MODULES, FILES, tree.SUDOERS, tree.MASKED, tree.SSHD, tree.NO_PENALTIES, public, 2]
    folder = built_once("images", f"{suite}-{recipe_hash(recipe)}", lambda work: _build(work, suite, packages))
    return Image(suite, folder / "disk.raw", folder / "vmlinuz", folder / "initrd")


def _build(folder: Path, suite: str, packages: Sequence[str]) -> None:
    mke2fs = tool("mke2fs", "e2fsprogs")
    root = folder / "tree"
    root.mkdir()
    setup = (
        'mkdir -p "$1/etc/initramfs-tools/conf.d" && echo MODULES=list > "$1/etc/initramfs-tools/conf.d/lab"'
        f' && printf "%s" "{INITRD_MODULES}" > "$1/etc/initramfs-tools/modules"'
    )
    options = [f"--essential-hook={setup}", "--dpkgopt=force-confold"]
    tree.debootstrap(root, suite, packages, options)
    (root / "etc/dpkg/dpkg.cfg.d/99mmdebstrap").unlink()
    tree.furnish(root, f"debian{SUITES.get(suite, '')}")
    tree.write(root, FILES)
    tree.mask(root)
    tree.chroot(root, "systemctl", "enable", "systemd-networkd.service", "ssh.service")
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        shutil.copy(sorted((root / "boot").glob(pattern))[-1], folder / name)
    (folder / "disk.raw").touch()
    subprocess.run(["truncate", "-s", DISK, str(folder / "disk.raw")], check=True)
    subprocess.run(
        [mke2fs, "-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", str(root), str(folder / "disk.raw")], check=True
    )
    shutil.rmtree(root)
