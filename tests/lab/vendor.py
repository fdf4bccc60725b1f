"""Signed apt repositories in the vendors' layouts, as a folder that any web server can serve.

Layouts: download.docker.com/linux/debian, nvidia.github.io/libnvidia-container and
developer.download.nvidia.com/compute/cuda/repos. What is in them are test doubles; the signatures, the indexes and the
apt that reads them are real.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Optional

from tests.lab.aptrepo import SigningKey, index_packages, write_release
from tests.lab.debs import Deb, build_deb
from tests.lab.doubles_docker import docker_debs
from tests.lab.doubles_driver import driver_debs
from tests.lab.doubles_toolkit import toolkit_debs
from tests.lab.engine import engine_packages
from tests.lab.gpus import A10G, Gpu

# The folder of each vendor below the served one; a playbook's `mirrors:` names take its place of honour.
PLACES: Mapping[str, str] = {
    "docker": "download.docker.com",
    "toolkit": "nvidia.github.io/libnvidia-container",
    "cuda": "developer.download.nvidia.com/compute/cuda/repos",
}
CUDA_KEYS = {"debian12": "3bf863cc.pub", "debian13": "8793F200.pub"}
CUDA_SYSTEMS = {"bookworm": "debian12", "trixie": "debian13"}


@dataclass(frozen=True)
class Vendors:
    """Published repositories. `root` is the folder to serve; the keys live until `close`."""

    root: Path
    suites: Sequence[str]
    keys: Mapping[str, SigningKey]

    def fingerprint(self, vendor: str) -> str:
        """Fingerprint of the key that signs `docker`, `toolkit` or `cuda`."""
        return self.keys[vendor].fingerprint

    def url(self, vendor: str, base: str) -> str:
        """What stands for the vendor's own address when `root` is served at `base`."""
        return f"{base}/{PLACES[vendor]}"

    def mirrors(self, base: str, vendors: Iterable[str] = PLACES) -> dict[str, dict[str, str]]:
        """A playbook's `mirrors:` section for a server at `base`."""
        return {name: {"url": self.url(name, base), "fingerprint": self.fingerprint(name)} for name in vendors}

    def settings(self, base: str, vendors: Iterable[str] = PLACES) -> list[str]:
        """The same as `--set` arguments: `--set mirrors.docker.url=... --set ...`."""
        words: list[str] = []
        for name, mirror in self.mirrors(base, vendors).items():
            for key, value in mirror.items():
                words += ["--set", f"mirrors.{name}.{key}={value}"]
        return words

    def close(self) -> None:
        for key in self.keys.values():
            key.close()

    def __enter__(self) -> Vendors:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


def publish(
    root: Path,
    *,
    suites: Sequence[str] = ("trixie", "bookworm"),
    real_engine: bool = False,
    gpus: Sequence[Gpu] = (A10G,),
    driver_dkms: bool = False,
) -> Vendors:
    """Build and sign everything below `root` (about five seconds).

    real_engine: Docker's doubles hold the distribution's real engine (see engine); else they are empty shells.
    driver_dkms: the driver's doubles build a real, tiny kernel module by DKMS (see doubles_driver).
    Raises LabUnavailable (gpg, dpkg-deb, apt-ftparchive missing), LabError.
    """
    keys = {name: SigningKey(f"{name} test double <{name}@invalid>") for name in PLACES}
    vendors = Vendors(root, tuple(suites), keys)
    for suite in suites:
        shells = docker_debs(suite)
        engine = engine_packages(suite) if real_engine else []
        named = {path.name.split("_")[0] for path in engine}
        add_docker(vendors, suite, [deb for deb in shells if deb.name not in named], engine)
    add_toolkit(vendors, toolkit_debs())
    drivers = driver_debs(gpus, driver_dkms)
    for suite in suites:
        add_cuda(vendors, suite, drivers)
    return vendors


def add_docker(vendors: Vendors, suite: str, debs: Iterable[Deb], ready: Iterable[Path] = ()) -> None:
    """Add packages, also `ready` .deb files, to one suite of Docker's repository and sign it anew."""
    base = vendors.root / PLACES["docker"] / "linux/debian"
    pool = f"dists/{suite}/pool/stable/amd64"
    _build(debs, base / pool)
    for path in ready:
        shutil.copy(path, base / pool)
    index_packages(base, pool, base / f"dists/{suite}/stable/binary-amd64")
    fields = {"Origin": "Docker", "Label": "Docker CE", "Suite": suite, "Codename": suite}
    write_release(
        base / "dists" / suite, vendors.keys["docker"], {**fields, "Components": "stable", "Architectures": "amd64"}
    )
    (base / "gpg").write_bytes(vendors.keys["docker"].public())


def add_toolkit(vendors: Vendors, debs: Iterable[Deb]) -> None:
    """Add packages to the container toolkit's flat repository and sign it anew."""
    place = vendors.root / PLACES["toolkit"]
    base = place / "stable/deb/amd64"
    _build(debs, base)
    index_packages(base, ".", base)
    fields = {"Origin": "https://nvidia.github.io/libnvidia-container/stable/deb", "Label": "NVIDIA CORPORATION"}
    write_release(base, vendors.keys["toolkit"], {**fields, "Architectures": "amd64"})
    (place / "gpgkey").write_bytes(vendors.keys["toolkit"].public())


def add_cuda(vendors: Vendors, suite: str, debs: Iterable[Deb]) -> None:
    """Add packages to the CUDA repository of a suite's system and sign it anew."""
    system = CUDA_SYSTEMS[suite]
    base = vendors.root / PLACES["cuda"] / system / "x86_64"
    _build(debs, base)
    index_packages(base, ".", base)
    write_release(base, vendors.keys["cuda"], {"Origin": "NVIDIA", "Label": "NVIDIA CUDA", "Architectures": "amd64"})
    (base / CUDA_KEYS[system]).write_bytes(vendors.keys["cuda"].public())


def _build(debs: Iterable[Deb], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        build_deb(deb, folder)
