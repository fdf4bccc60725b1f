"""An image made on this machine and booted: a real kernel, systemd, Docker Engine and DKMS; after its first boot there is nothing left to set up.

What is a double: the vendors' packages (Docker's hold the distribution's real engine, the driver's build a real kernel module named nvidia that
drives nothing), the GPU (a tree of files), and what nvidia-smi prints.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab.fixtures import available
from tests.lab.gpus import A10G, PCI_UNIT, pci_files
from tests.lab.image import Image, debian_image
from tests.lab.need import tool
from tests.lab.proxy import CachingProxy
from tests.lab.server import FileServer
from tests.lab.vendor import Vendors, publish
from tests.lab.vm import VM
from tests.program import CHECKOUT, Ran, environment, mlhost

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

# The engine in the doubles is Debian 13's, which has to be told to use CDI; the pin says so, as a user of an older mirror would.
SETTINGS = ("preflight.root_free_gb=1", "preflight.docker_free_gb=1", "docker.version=26.1", "docker.users=[admin]")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vendors, FileServer]]:
    folder = tmp_path_factory.mktemp("vendors")
    with (
        available(lambda: publish(folder, suites=("trixie",), real_engine=True, gpus=(A10G,), driver_dkms=True)) as vendors,
        FileServer(vendors.root) as server,
    ):
        yield vendors, server


@pytest.fixture(scope="module")
def settings(served: tuple[Vendors, FileServer]) -> list[str]:
    vendors, server = served
    return [*SETTINGS, *(word for word in vendors.settings(server.url) if word != "--set")]


def bake(root: Path, settings: list[str]) -> Ran:
    """`mlhost setup --root` on this machine."""
    words = [sys.executable, "-m", "provision", "setup", "--root", str(root), "--for-gpu", "a10g"]
    words += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(words, cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1200, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory, apt_proxy: CachingProxy, settings: list[str]) -> Iterator[tuple[Image, Ran, Ran]]:
    """A copy of the lab's fresh disk, mounted, made an image twice, and unmounted; with what the two runs said."""
    plain = available(lambda: debian_image("trixie", extra=("dkms", "linux-headers-cloud-amd64")))
    folder = tmp_path_factory.mktemp("baked")
    disk, root = folder / "disk.raw", folder / "root"
    root.mkdir()
    subprocess.run(["cp", "--sparse=always", str(plain.disk), str(disk)], check=True)
    loop = subprocess.run([tool("mount", "mount"), "-o", "loop", str(disk), str(root)], capture_output=True, text=True, check=False)
    if loop.returncode:
        pytest.skip(f"this machine cannot mount a disk image: {loop.stderr.strip()}")
    try:
        # what its later machines show of a GPU, and the way to the mirror from here
        for name, text in pci_files((A10G,)).items():
            path = root / "usr/local/lib/lab-pci" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (root / "etc/systemd/system/lab-pci.service").write_text(PCI_UNIT)
        (root / "etc/systemd/system/sysinit.target.wants").mkdir(exist_ok=True)
        (root / "etc/systemd/system/sysinit.target.wants/lab-pci.service").symlink_to("/etc/systemd/system/lab-pci.service")
        (root / "etc/apt/apt.conf.d/00lab-proxy").write_text(apt_proxy.apt_conf(apt_proxy.url))
        first, second = bake(root, settings), bake(root, settings)
    finally:
        subprocess.run(["umount", str(root)], check=True)
    yield replace(plain, disk=disk), first, second
    disk.unlink()


@pytest.fixture(scope="module")
def booted(baked: tuple[Image, Ran, Ran]) -> Iterator[VM]:
    """The image's first boot, waited for until its unit has taken itself out."""
    with available(lambda: VM(baked[0])) as machine:
        end = time.monotonic() + 900
        while "gone" not in machine.run("test -e /etc/systemd/system/mlhost-first-boot.service || echo gone").out and time.monotonic() < end:
            time.sleep(2)
        yield machine


class TestAnImageForMachinesWithAGpu:
    """One image through its life, in order: made, made again, booted, set up again from outside."""

    def test_it_is_made_with_all_that_needs_no_running_machine(self, baked: tuple[Image, Ran, Ran]) -> None:
        ran = baked[1]
        assert ran.code == 0, str(ran)
        assert "ready to be booted" in ran.out
        assert "image/module" in ran.err
        assert "Left for the first boot:" in ran.out
        assert "driver/module" in ran.out

    def test_making_it_again_changes_nothing(self, baked: tuple[Image, Ran, Ran]) -> None:
        ran = baked[2]
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out

    def test_its_first_boot_finishes_the_rest_by_itself_and_leaves_no_unit(self, booted: VM) -> None:
        events = booted.run("cat /var/lib/mlhost/runs/*-first-boot/events", user="root").out
        assert "\tfailed\t" not in events, booted.run("cat /var/lib/mlhost/runs/*-first-boot/log", user="root").out
        assert "\tchanged\tdriver/module" in events
        assert "\tchanged\tsmoke/container" in events
        assert not booted.run("ls /usr/local/lib/mlhost /etc/systemd/system/multi-user.target.wants | grep first-boot", check=False).out
        assert f"uuids={A10G.uuid}" in booted.run("cat /var/lib/mlhost/proof").out
        assert "mlhost: first boot: done" in booted.console_text()

    def test_setup_over_ssh_then_finds_nothing_to_change(self, booted: VM, settings: list[str]) -> None:
        ran = mlhost("setup", booted, settings=settings)
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out
        assert len(booted.run("ls /var/lib/mlhost/runs", user="root").out.split()) == 1

    def test_a_container_sees_the_gpu_and_the_machine_proves_itself(self, booted: VM, settings: list[str]) -> None:
        ran = mlhost("verify", booted, settings=settings)
        assert ran.code == 0, str(ran)
        seen = booted.run("docker run --rm --network=none --device nvidia.com/gpu=all $(docker images -q mlhost/smoke) nvidia-smi -L").out
        assert A10G.uuid in seen

    def test_what_was_put_into_the_image_can_be_taken_back_on_the_machine(self, booted: VM) -> None:
        ran = mlhost("rollback", booted, "--all", "--yes")
        assert ran.code == 0, str(ran)
        assert "installed" not in booted.run("dpkg-query -W -f '${db:Status-Status} ' docker-ce nvidia-container-toolkit", check=False).out.split()
        left = booted.run("ls -d /etc/docker/daemon.json /etc/apt/sources.list.d/docker.sources /usr/local/lib/mlhost 2>/dev/null", check=False).out
        assert left == ""
