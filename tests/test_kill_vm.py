"""A real machine whose power goes, by QEMU's reset line, in the middle of its set-up: while dpkg unpacks, while Docker starts, and while DKMS
builds a kernel module. The set-up after it repairs what is half done and converges.

What is a double: the vendors' packages and the GPU, as in test_vm.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.lab.figures import count
from tests.lab.fixtures import available
from tests.lab.gpus import A10G, show_on_pci
from tests.lab.image import debian_image
from tests.lab.proxy import CachingProxy
from tests.lab.server import FileServer
from tests.lab.vendor import publish
from tests.lab.vm import VM
from tests.program import CHECKOUT, environment, mlhost, words

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]

SETTINGS = ("preflight.root_free_gb=1", "preflight.docker_free_gb=1", "docker.version=26.1")
MARK = "LAB-POINT"
# dpkg tells this program every change of a package's state; at the wanted one dpkg stands still and the console says so.
LOGGER = f"""#!/bin/sh
while read -r line; do
    case $line in *"$(cat /root/lab-point)"*) pkill -STOP -x dpkg; echo {MARK} >/dev/ttyS0; sleep 600 ;; esac
done
"""
# What dpkg reports, and how long it then goes on before the power does: seconds for what a maintainer script does. An emulated machine takes some minutes for
# each, so that all of them are walked only where they are asked for; DKMS in its middle is what no lighter host has.
ALL_POINTS = (
    ("status: docker-ce: half-installed", 0.0),
    ("status: docker-ce: half-configured", 1.5),
    ("status: nvidia-kernel-open-dkms: half-configured", 6.0),
)
POINTS = ALL_POINTS if os.environ.get("MLHOST_KILL_POINTS") == "all" else ALL_POINTS[-1:]


@pytest.fixture(scope="module")
def machine(apt_proxy: CachingProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VM, list[str]]]:
    folder = tmp_path_factory.mktemp("vendors")
    with (
        available(lambda: publish(folder, suites=("trixie",), real_engine=True, gpus=(A10G,), driver_dkms=True)) as vendors,
        FileServer(vendors.root) as server,
        available(lambda: VM(debian_image("trixie", extra=("dkms", "linux-headers-cloud-amd64")), warm=True)) as vm,
    ):
        vm.use_proxy(apt_proxy)
        vm.run("sh -s", user="root", stdin=show_on_pci((A10G,)))
        vm.run("cat >/usr/local/sbin/lab-logger && chmod 755 /usr/local/sbin/lab-logger", user="root", stdin=LOGGER)
        vm.run("echo status-logger=/usr/local/sbin/lab-logger >/etc/dpkg/dpkg.cfg.d/lab; sync", user="root")
        yield vm, [*SETTINGS, *(word for word in vendors.settings(server.guest_url) if word != "--set")]


def test_the_power_goes_in_the_middle_of_package_work(machine: tuple[VM, list[str]]) -> None:
    vm, settings = machine
    for point, seconds in POINTS:
        vm.run("cat >/root/lab-point; sync", user="root", stdin=point)
        seen = vm.console_text().count(MARK)
        with subprocess.Popen(
            words("setup", vm, "--reboot", settings=settings),
            cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as controller:
            end = time.monotonic() + 900
            while vm.console_text().count(MARK) == seen:
                assert time.monotonic() < end, f"{point} was not reached"
                if controller.poll() is not None:
                    pytest.fail(f"{point} was not reached:\n{controller.stdout.read() if controller.stdout else ''}")
                time.sleep(0.05)
            if seconds:
                vm.run("pkill -CONT -x dpkg", user="root")
                time.sleep(seconds)
            vm.cut_power()
            controller.kill()
        time.sleep(5)  # sshd of the machine that is gone must not answer
        vm.wait()
    vm.run("rm /etc/dpkg/dpkg.cfg.d/lab", user="root")
    ran = mlhost("setup", vm, "--reboot", settings=settings)
    assert ran.code == 0, str(ran)
    assert vm.run("dpkg --audit", user="root").out == ""
    again = mlhost("setup", vm, settings=settings)
    assert again.code == 0, str(again)
    assert "nothing to change" in again.out
    assert vm.run("find / -xdev -name '.mlhost*' -o -xdev -name '*.dpkg-new'", user="root").out == ""
    receipts = vm.run("cat /var/lib/mlhost/receipts", user="root").out
    assert all(f"\tpackage\t{name}\t" in receipts for name in ("docker-ce", "containerd.io", "nvidia-kernel-open-dkms"))
    count("vm-power", "a virtual machine's power gone in the middle of package work", len(POINTS), len(POINTS))
