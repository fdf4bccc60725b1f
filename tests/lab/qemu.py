"""QEMU for the lab: this machine's own where it is new enough, else one unpacked from packages in the cache folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from tests.lab import tree
from tests.lab.cache import built_once, cache_root, recipe_hash
from tests.lab.image import Image

OLDEST = 10  # 7.2 was seen to crash guests under emulation
TREE_SUITE = "trixie"
TREE_PACKAGES = ("qemu-system-x86", "qemu-utils")
TCG = "tcg,thread=multi"
KVM_PROBE_SECONDS = 8.0


@dataclass(frozen=True)
class Qemu:
    """How to run QEMU's programs: `where` is None for the machine's own, else the tree they are unpacked in."""

    version: str
    where: Optional[Path]

    def command(self, name: str) -> list[str]:
        """The words that start one of its programs (`qemu-system-x86_64`, `qemu-img`)."""
        if self.where is None:
            return [name]
        libraries = f"{self.where}/usr/lib/x86_64-linux-gnu"
        words = [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, f"{self.where}/usr/bin/{name}"]
        if name.startswith("qemu-system"):
            words += ["-L", f"{self.where}/usr/share/qemu", "-L", f"{self.where}/usr/share/seabios"]
        return words

    def environment(self) -> dict[str, str]:
        env = dict(os.environ)
        if self.where is not None:
            env["QEMU_MODULE_DIR"] = f"{self.where}/usr/lib/x86_64-linux-gnu/qemu"
        return env


def find_qemu() -> Qemu:
    """Return a QEMU of at least version OLDEST, fetching one as packages if needed (15 s, needs root once)."""
    if shutil.which("qemu-system-x86_64") and shutil.which("qemu-img"):
        own = Qemu(_version(Qemu("", None)), None)
        if int(own.version.split(".")[0]) >= OLDEST:
            return own
    name = f"{TREE_SUITE}-{recipe_hash([TREE_SUITE, TREE_PACKAGES])}"
    where = built_once("qemu", name, lambda work: tree.debootstrap(work, TREE_SUITE, TREE_PACKAGES))
    return Qemu(_version(Qemu("", where)), where)


def _version(qemu: Qemu) -> str:
    done = subprocess.run(
        [*qemu.command("qemu-system-x86_64"), "--version"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=qemu.environment(),
    )
    found = re.search(r"version (\d+\.\d+(\.\d+)?)", done.stdout)
    return found.group(1) if found else "0"


def accelerator(qemu: Qemu, image: Image) -> str:
    """Return `kvm` where a guest kernel really starts under it in a few seconds, else emulation (TCG).

    /dev/kvm alone proves nothing: nested and paravirtual hosts offer it and then fail in the guest's first
    instructions, or interpret every one of them. The answer is kept until this machine boots again.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer = cache_root() / f"kvm-{recipe_hash([boot, qemu.version])}"
    if not answer.exists():
        answer.write_text("kvm" if _guest_starts_under_kvm(qemu, image) else TCG)
    return answer.read_text()


def _guest_starts_under_kvm(qemu: Qemu, image: Image) -> bool:
    console = cache_root() / "kvm-probe.console"
    console.write_text("")
    command = [*qemu.command("qemu-system-x86_64"), *["-accel", "kvm", "-cpu", "host", "-m", "512", "-nodefaults", "-no-reboot"]]
    command += ["-display", "none", "-serial", f"file:{console}", "-kernel", str(image.kernel)]
    command += ["-initrd", str(image.initrd), "-append", "console=ttyS0 panic=-1"]
    started = subprocess.Popen(
        command,
        env=qemu.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + KVM_PROBE_SECONDS
        while time.monotonic() < deadline and started.poll() is None:
            if "Run /init" in console.read_text(errors="replace"):
                return True
            time.sleep(0.1)
        return "Run /init" in console.read_text(errors="replace")
    finally:
        started.kill()
        started.wait()
