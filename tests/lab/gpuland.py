"""Everything that a tree host needs to become a GPU container host within seconds: doubles in signed repositories, a GPU, a driver that "works"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.aptrepo import SigningKey
from tests.lab.doubles_driver import driver_debs
from tests.lab.doubles_sysv import sysv_docker_debs
from tests.lab.doubles_toolkit import toolkit_debs
from tests.lab.faults import FaultServer
from tests.lab.gpus import TWO_A10G, show_on_pci
from tests.lab.treehost import TreeHost
from tests.lab.vendor import PLACES, Vendors, add_cuda, add_docker, add_toolkit

SUITE = "trixie"
BOOT = """#!/bin/sh
set -e
mount --bind "$1/srv/driver" "$1/proc/driver"
mount --bind "$1/srv/pci" "$1/sys/bus/pci/devices"
"""
DRIVER = "580.178.04"
MODULE = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {DRIVER}  Release Build (test double)"
LAB = ("preflight.allow_container=true", "preflight.root_free_gb=1", "preflight.docker_free_gb=1")


@dataclass(frozen=True)
class GpuLand:
    """The repositories and what every host in them starts from."""

    vendors: Vendors
    server: FaultServer
    ground: TreeHost

    def host(self) -> TreeHost:
        """A new host: a GPU and its driver are there, Docker and the toolkit are not. `sh` is bash there, for the sake of its DEBUG trap."""
        return TreeHost([self.ground.upper], BOOT)

    def settings(self) -> list[str]:
        """What a playbook must say to fit."""
        return [*LAB, *(word for word in self.vendors.settings(self.server.url) if word != "--set")]


@contextmanager
def gpu_land(folder: Path) -> Iterator[GpuLand]:
    """Publish the repositories below `folder` and lay the ground (five seconds). Raises LabUnavailable, LabError."""
    keys = {name: SigningKey(f"{name} test double <{name}@invalid>") for name in PLACES}
    vendors = Vendors(folder, (SUITE,), keys)
    with TreeHost() as ground, vendors:
        add_docker(vendors, SUITE, sysv_docker_debs(SUITE))
        add_toolkit(vendors, toolkit_debs())
        add_cuda(vendors, SUITE, driver_debs(TWO_A10G, False))
        with FaultServer(folder) as server:
            cuda = vendors.url("cuda", server.url) + "/debian13/x86_64"
            devices = [line.replace("$d", "/srv/pci") for line in show_on_pci(TWO_A10G).splitlines() if line.startswith('mkdir -p "$d/')]
            ground.sh("\n".join(["set -e", *devices]))
            ground.sh(
                f"""set -e
                rm /etc/apt/sources.list.d/debian.sources
                echo 'deb [trusted=yes] {cuda} /' >/etc/apt/sources.list.d/by-hand.list
                apt-get -q update
                apt-get -qy --no-install-recommends install nvidia-driver-cuda={DRIVER}-1 nvidia-persistenced={DRIVER}-1
                rm /etc/apt/sources.list.d/by-hand.list
                rm -rf /var/lib/apt/lists/* /var/cache/apt/*
                mkdir -p /srv/driver/nvidia /etc/docker
                echo '{MODULE}' >/srv/driver/nvidia/version
                ln -s /usr/bin/bash /usr/local/bin/sh
                printf '{{"labels": ["mine"]}}\\n' >/etc/docker/daemon.json"""
            )
            ground.power_off()
            yield GpuLand(vendors, server, ground)
