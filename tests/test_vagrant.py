"""The Vagrantfile: read by Vagrant for every provider, and one machine made for real, judged, found right a second time, and destroyed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.fixtures import available
from tests.lab.image import debian_image
from tests.lab.nshost import Network
from tests.lab.proxy import CachingProxy
from tests.lab.vagrant import BOX, VagrantLand

pytestmark = pytest.mark.timeout(900)

PROVIDERS = ("libvirt", "virtualbox", "docker")
# Vagrant only asks for their versions when it reads a Vagrantfile: doubles, for machines that have neither.
DOUBLES = {"VBoxManage": "7.0.20r163906", "docker": "Docker version 26.1.5, build double"}


def machines(vagrantfile: Path) -> dict[str, tuple[str, str]]:
    """Name -> box and image, from the table in it."""
    return {name: (box, image) for name, box, image in re.findall(r'^  "(\w+)" => \["([^"]+)", "([^"]+)"\],$', vagrantfile.read_text(), re.MULTILINE)}


def test_there_is_a_machine_of_every_family_and_the_docs_know_it(checkout: Path) -> None:
    found = machines(checkout / "Vagrantfile")
    assert {re.sub(r"\d+", "", name) for name in found} == {"debian", "ubuntu", "rocky", "alma", "leap", "amazon"}
    docs = (checkout / "docs/vagrant.md").read_text()
    for name, (box, image) in found.items():
        assert f"`{name}`" in docs
        assert f"`{box}`" in docs
        assert f"`{image}`" in docs


def test_the_docker_image_s_script_is_plain_sh(checkout: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not on this machine")
    done = subprocess.run(["shellcheck", "-s", "sh", str(checkout / "tests/system/docker/prepare.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
class TestValidate:
    @pytest.fixture
    def folder(self, tmp_path: Path, checkout: Path) -> Path:
        """The Vagrantfile with what it names, where a test may change it."""
        if not shutil.which("vagrant"):
            pytest.skip("vagrant is not on this machine (tests/packages.txt)")
        for program, version in DOUBLES.items():
            path = tmp_path / "bin" / program
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\necho '{version}'\n")
            path.chmod(0o755)
        shutil.copy(checkout / "Vagrantfile", tmp_path)
        shutil.copytree(checkout / "tests/system/docker", tmp_path / "tests/system/docker")
        return tmp_path

    def validate(self, folder: Path, provider: str, **more: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), "VAGRANT_HOME": str(folder / "home")}
        env |= {"VAGRANT_DEFAULT_PROVIDER": provider, "VAGRANT_CHECKPOINT_DISABLE": "1", **more}
        return subprocess.run(["vagrant", "validate"], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    @pytest.mark.parametrize("provider", PROVIDERS)
    def test_vagrant_has_nothing_to_say_of_any_machine(self, folder: Path, provider: str) -> None:
        done = self.validate(folder, provider)
        assert (done.returncode, done.stdout.strip()) == (0, "Vagrantfile validated successfully."), done.stdout + done.stderr

    def test_gpus_can_be_handed_to_a_machine(self, folder: Path) -> None:
        done = self.validate(folder, "libvirt", MLHOST_PCI="0000:65:00.0 0000:65:00.1")
        assert done.returncode == 0, done.stdout + done.stderr

    def test_a_mistake_in_any_machine_of_a_provider_is_found(self, folder: Path) -> None:
        """Else the tests above would show nothing."""
        text = (folder / "Vagrantfile").read_text()
        last = list(machines(folder / "Vagrantfile"))[-1]
        wrong = text.replace("machine.vm.provider :libvirt do |p|\n", f'machine.vm.provider :libvirt do |p|\n        p.no_such = 1 if name == "{last}"\n')
        assert wrong != text
        (folder / "Vagrantfile").write_text(wrong)
        done = self.validate(folder, "libvirt")
        assert done.returncode != 0
        assert "no_such" in done.stdout + done.stderr


@pytest.mark.slow
class TestNamingAMachine:
    def judged(self, checkout: Path, dotfiles: Path, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "tests/system", *words]
        env = {**os.environ, "VAGRANT_DOTFILE_PATH": str(dotfiles)}
        return subprocess.run(command, cwd=checkout, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def test_one_that_is_not_up_says_what_to_do(self, checkout: Path, tmp_path: Path) -> None:
        done = self.judged(checkout, tmp_path, "--vagrant=debian13")
        assert done.returncode == 4
        assert "run `vagrant up debian13` first" in done.stdout + done.stderr

    def test_without_names_it_is_all_that_are_up(self, checkout: Path, tmp_path: Path) -> None:
        for name, there in (("debian13", True), ("rocky9", True), ("alma9", False)):
            folder = tmp_path / "machines" / name / "libvirt"
            folder.mkdir(parents=True)
            (folder / "mlhost-ssh-config").write_text(f"Host {name}\n  HostName 127.0.0.1\n")
            if there:
                (folder / "id").write_text("an id")
        done = self.judged(checkout, tmp_path, "--vagrant")
        assert done.returncode == 0, done.stdout + done.stderr
        assert set(re.findall(r"\[(ssh://\w+)", done.stdout)) == {"ssh://debian13", "ssh://rocky9"}


@pytest.mark.vm
@pytest.mark.timeout(3600)
def test_a_machine_is_made_set_up_found_right_judged_and_destroyed(network: Network, network_apt_proxy: CachingProxy, checkout: Path) -> None:
    """As docs/vagrant.md says. Real: Vagrant, vagrant-libvirt, libvirtd, QEMU, Debian 13 and its Docker. The box is the lab's disk image."""
    box = {"MLHOST_BOX_DEBIAN13": BOX, "MLHOST": f"{sys.executable} -m provision", "MLHOST_ARGS": "-p docker-host --set docker.source=distro"}
    with available(lambda: VagrantLand(checkout, debian_image("trixie"), network, network_apt_proxy)) as land:
        up = land.run("vagrant", "up", "debian13", environment=box)
        assert up.code == 0, up.text
        assert "set up and proved" in up.text

        again = land.run("vagrant", "provision", "debian13", environment=box)
        assert again.code == 0, again.text
        assert "nothing to change" in again.text

        specs = land.run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/system", "--vagrant=debian13", environment=box)
        assert specs.code == 0, specs.text
        assert re.search(r"\b[5-9] passed", specs.text), specs.text

        gone = land.run("vagrant", "destroy", "--force", "debian13", environment=box)
        assert gone.code == 0, gone.text
        # The box's own image stays in the pool, as Vagrant leaves it.
        assert [path.name for path in (land.folder / "var/lib/images").iterdir() if "debian13" in path.name] == []
