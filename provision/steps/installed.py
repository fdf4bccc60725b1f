"""What of an NVIDIA driver the package database knows: whose packages, and of which branch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from provision.model import Facts
from provision.steps.engine import there

# Names by which the three sources tell themselves apart. Ubuntu's servers' drivers say so; NVIDIA's repository has unversioned names (Debian, and
# Ubuntu from 590 on) that the distributions do not use, and versions that end in ubuntu1; what is left on Debian is Debian's own.
_UBUNTU = re.compile(r"nvidia-.*-server(-open)?|linux-(modules|objects|signatures)-nvidia-.*|libnvidia-.*-server")
_CUDA = re.compile(
    r"nvidia-driver-cuda|nvidia-kernel-open-dkms|nvidia-dkms-open|nvidia-dkms|nvidia-open(-\d+)?|cuda-drivers(-\d+)?|nvidia-driver-pinning-.*"
)
_DEBIAN = re.compile(r"nvidia-open-kernel-dkms|nvidia-kernel-dkms|nvidia-smi|nvidia-tesla-.*|nvidia-driver|libcuda1")
# On systems with rpm packages RPM Fusion has names of its own, and Amazon's and Microsoft's say so otherwise.
_CUDA_RPM = re.compile(r"nvidia-(driver|open-driver|compute-utils|open)|kmod-nvidia")
RPM = ("el", "fedora", "amzn", "azurelinux", "sles", "suse")
_PROGRAMS = re.compile(
    r"(nvidia-(driver|headless|dkms|kernel|open-kernel|open-driver|utils|compute-utils|compute-G|smi|tesla)|libnvidia-(compute|ml)|libcuda1"
    r"|linux-modules-nvidia-|[ak]?kmod-nvidia|xorg-x11-drv-nvidia|cuda-open$)"
)

_MODULES = re.compile(
    r"nvidia-(open-)?kernel(-open)?-dkms|nvidia-dkms(-.*)?|nvidia-tesla-\d+-kernel-dkms|linux-modules-nvidia-.*"
    r"|[ak]?kmod-nvidia.*|xorg-x11-drv-nvidia|xorg-x11-drv-nvidia-cuda|nvidia-(open-)?driver-G\d+.*-kmp-.*"
)


def modules_besides(facts: Facts, wanted: Iterable[str], branch: str, is_open: bool) -> tuple[str, ...]:
    """Packages of kernel modules that are there and cannot stand beside the `wanted` ones: those of another branch or flavour."""
    names, found = set(wanted), []
    for name in facts.packages or {}:
        if not _MODULES.fullmatch(name) or name in names or not there(facts, name):
            continue
        number = re.search(r"-(\d{3})(?:-|$)", name)
        same = number is not None and number.group(1) == branch and ("-open" in name) == is_open
        if not same:
            found.append(name)
    return tuple(sorted(found))


def driver_packages(facts: Facts) -> Mapping[str, str]:
    """The driver's packages that are there, with their versions."""
    return {n: there(facts, n) for n in facts.packages or {} if _PROGRAMS.match(n) and there(facts, n)}


def source(facts: Facts, base_id: str) -> str | None:
    """Where the driver that is there came from: distro, cuda, runfile; None if nothing tells."""
    packages = driver_packages(facts)
    if base_id == "azurelinux" and (packages or there(facts, "cuda")):
        return "distro"
    if not packages:
        return "runfile" if facts.nvidia and facts.nvidia.installed_by_runfile else None
    if base_id in RPM:
        if there(facts, "nvidia-release"):
            return "distro"
        strange = any(name.startswith(("akmod-", "xorg-x11-")) for name in packages)
        return "cuda" if not strange and any(_CUDA_RPM.match(name) for name in packages) else None
    if any(_UBUNTU.fullmatch(name) for name in packages):
        return "distro"
    if any(_CUDA.fullmatch(name) for name in packages) or any(re.search(r"-\d+ubuntu1$", v) for v in packages.values()):
        return "cuda"
    return "distro" if base_id == "ubuntu" or any(_DEBIAN.fullmatch(name) for name in packages) else None


def branch(facts: Facts) -> str:
    """The one branch that the driver's packages belong to; "" if there are none, or of several."""
    branches = set()
    for name, version in driver_packages(facts).items():
        named = re.search(r"-(\d{3})(?:-|$)", name) if name.startswith("linux-modules") else None
        found = named.group(1) if named else re.match(r"(?:\d+:)?(\d{3})\.", version)
        if found:
            branches.add(found if isinstance(found, str) else found.group(1))
    return branches.pop() if len(branches) == 1 else ""
