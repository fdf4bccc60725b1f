"""QEMU for the lab: this machine's own where it is new enough, else one unpacked from packages in the cache folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from tests.lab import tree
from tests.lab.cache import built_once, cache_root, recipe_hash
from tests.lab.image import Image

OLDEST = 10  # 7.2 was seen to crash guests under emulation
TREE_SUITE = "trixie"
TREE_PACKAGES = ("qemu-system-x86", "qemu-utils")
TCG = "tcg,thread=multi,tb-size=1024"
READY = "login:"


@dataclass(frozen=True)
class Qemu:
    """How to run QEMU's programs: `where` is None for the machine's own, else the tree they are unpacked in."""

    version: str
    where: Optional[Path]

    def command(self, name: str) -> List[str]:
        """The words that start one of its programs (`qemu-system-x86_64`, `qemu-img`)."""
        if self.where is None:
            return [name]
        libraries = f"{self.where}/usr/lib/x86_64-linux-gnu"
        words = [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, f"{self.where}/usr/bin/{name}"]
        if name.startswith("qemu-system"):
            words += ["-L", f"{self.where}/usr/share/qemu", "-L", f"{self.where}/usr/share/seabios"]
        return words

    def environment(self) -> Dict[str, str]:
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
        env=qemu.environment(),
    )
    found = re.search(r"version (\d+\.\d+(\.\d+)?)", done.stdout)
    return found.group(1) if found else "0"
