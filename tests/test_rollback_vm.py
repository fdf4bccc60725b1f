"""A whole machine there and back: files, packages and units before mlhost and after `mlhost uninstall`, with a real kernel, systemd, apt and DKMS.

What is a double: the vendors' packages. Docker's hold the distribution's real engine; the driver's build a real kernel module named nvidia by
DKMS that drives nothing; the GPU is a tree of files.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.fixtures import available
from tests.lab.gpus import A10G, show_on_pci
from tests.lab.image import debian_image
from tests.lab.proxy import CachingProxy
from tests.lab.server import FileServer
from tests.lab.vendor import publish
from tests.lab.vm import VM
from tests.program import mlhost
from tests.snapshot import assert_same, snapshot

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def machine(apt_proxy: CachingProxy) -> Iterator[VM]:
    """A fresh Debian 13. Compiler, DKMS and kernel headers are in its image, as fetching them into an emulated machine takes minutes."""
    machine = available(lambda: VM(debian_image("trixie", extra=("dkms", "linux-headers-cloud-amd64")), warm=True))
    with machine:
        machine.use_proxy(apt_proxy)
        yield machine


def test_after_an_uninstall_a_gpu_machine_is_what_it_was_before_mlhost(
    machine: VM, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("vendors")
    with (
        available(lambda: publish(folder, suites=("trixie",), real_engine=True, gpus=(A10G,), driver_dkms=True)) as vendors,
        FileServer(vendors.root) as server,
    ):
        # what a setup would refresh by itself, and what the machine's owner has done before
        machine.run("apt-get -q update; echo mine > /etc/motd; mkdir -p /etc/docker; echo '{\"debug\": false}' > /etc/docker/daemon.json", user="root")
        machine.run("sh -s", user="root", stdin=show_on_pci((A10G,)))
        settings = ["preflight.root_free_gb=1", "preflight.docker_free_gb=1", "docker.version=26.1", "docker.users=[admin]"]
        settings += [word for word in vendors.settings(server.guest_url) if word != "--set"]
        before = snapshot(machine)
        ran = mlhost("setup", machine, "--reboot", settings=settings)
        assert ran.code == 0, str(ran)
        assert machine.run("cat /sys/module/nvidia/version").out.startswith("580.")
        machine.run("docker volume create mine", user="root")
        assert len(before.difference(snapshot(machine))) > 50, "the setup has left its marks"
        ran = mlhost("uninstall", machine, "--yes")
        assert ran.code == 0, str(ran)
        assert_same(before, snapshot(machine))
        assert machine.run("ls /var/lib/docker/volumes", user="root").out.split()[-1] == "mine"
        assert machine.run("ls -A /var/lib/mlhost", user="root", check=False).out == ""
        # it boots as it did, without the module
        machine.reboot()
        machine.wait()
        assert machine.run("ls /sys/module/nvidia", check=False).code != 0
        assert_same(before, snapshot(machine))
        again = mlhost("uninstall", machine)
        assert again.code == 0, str(again)
        assert "nothing" in again.out
