"""Booted virtual machines: a real kernel, systemd, apt, sudo and sshd; set up over SSH and from inside, with real reboots.

What is a double: the vendors' packages. Docker's hold the distribution's real engine; the driver's build a real kernel module named nvidia by
DKMS that drives nothing; the GPU is a tree of files; nvidia-smi prints captured output, inside a real container.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.fixtures import available
from tests.lab.gpus import A10G, show_on_pci
from tests.lab.image import debian_image
from tests.lab.proxy import CachingProxy
from tests.lab.registry import Registry
from tests.lab.server import FileServer
from tests.lab.vendor import Vendors, publish
from tests.lab.vm import VM
from tests.program import CHECKOUT, mlhost

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

# The engine in the doubles is Debian 13's, which has to be told to use CDI; the pin says so, as a user of an older mirror would.
SPACE = ("preflight.root_free_gb=1", "preflight.docker_free_gb=1")
ENGINE = "docker.version=26.1"

REBOOT_STEP = '''\
"""A step of a user's own that needs a reboot once: a file that only a boot makes true."""

from provision.actions import File, Reboot
from provision.model import CHANGE, OK, Item

watch = ("/etc/needs-a-boot",)


def step(facts, spec, platform):
    there = facts.paths["/etc/needs-a-boot"].kind == "file"
    if there:
        yield Item("lab/file", "lab", "file", OK, "it is there", phase=30)
        return
    yield Item("lab/file", "lab", "file", CHANGE, "the lab wants it", {"path": "yes"}, {}, File("/etc/needs-a-boot", "yes\\n"), phase=30)
    yield Item("lab/reboot", "lab", "reboot", CHANGE, "the lab wants a reboot", {"boot": "new"}, {}, Reboot("the lab wants one"), phase=35)
'''


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vendors, FileServer]]:
    folder = tmp_path_factory.mktemp("vendors")
    with (
        available(lambda: publish(folder, suites=("trixie",), real_engine=True, gpus=(A10G,), driver_dkms=True)) as vendors,
        FileServer(vendors.root) as server,
    ):
        yield vendors, server


@pytest.fixture(scope="module")
def trixie(apt_proxy: CachingProxy) -> Iterator[VM]:
    """A fresh Debian 13. Compiler, DKMS and kernel headers are in its image, as fetching them into an emulated machine takes minutes."""
    machine = available(lambda: VM(debian_image("trixie", extra=("dkms", "linux-headers-cloud-amd64")), warm=True))
    with machine:
        machine.use_proxy(apt_proxy)
        yield machine


def settings(served: tuple[Vendors, FileServer]) -> list[str]:
    vendors, server = served
    return [*SPACE, ENGINE, *(word for word in vendors.settings(server.guest_url) if word != "--set")]


@pytest.fixture(scope="module")
def playbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("playbook")
    (folder / "boot.py").write_text(REBOOT_STEP)
    (folder / "site.yaml").write_text("extends: gpu-host\nsteps: [./boot.py]\n")
    return folder / "site.yaml"


class TestDebian13OverSsh:
    """One machine through its life, in order: fresh, set up with a reboot in between, proved, a GPU put in."""

    def test_setup_goes_on_after_a_reboot_and_proves_a_docker_host(
        self, trixie: VM, served: tuple[Vendors, FileServer], playbook: Path
    ) -> None:
        boot = trixie.boot_id()
        ran = mlhost("setup", trixie, "-p", str(playbook), "--reboot", settings=settings(served))
        assert ran.code == 0, str(ran)
        assert "set up and proved" in ran.out
        assert "the boot id has changed" in ran.out
        assert trixie.boot_id() != boot
        assert "test double" not in trixie.run("docker version --format '{{.Server.Version}}'", user="root").out

    def test_a_second_run_changes_nothing(self, trixie: VM, served: tuple[Vendors, FileServer], playbook: Path) -> None:
        before = trixie.run(
            "systemctl show -p MainPID,ActiveEnterTimestampMonotonic docker; ls /var/lib/mlhost/runs", user="root"
        ).out
        ran = mlhost("setup", trixie, "-p", str(playbook), settings=settings(served))
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out
        assert (
            trixie.run("systemctl show -p MainPID,ActiveEnterTimestampMonotonic docker; ls /var/lib/mlhost/runs", user="root").out
            == before
        )

    def test_independent_eyes_agree(self, trixie: VM) -> None:
        """testinfra shares no code with mlhost."""
        import testinfra

        ssh = trixie.ssh
        options = " ".join(word for word in ssh.options() if word not in ("-F", "none"))
        host = testinfra.get_host(f"ssh://root@127.0.0.1:{ssh.port}", ssh_extra_args=f"-F none {options}")
        assert host.service("docker").is_running
        assert host.service("docker").is_enabled
        assert host.package("docker-ce").is_installed
        assert host.file("/etc/apt/keyrings/docker.asc").mode == 0o644
        assert host.file("/var/lib/mlhost/runs").mode & 0o077 == 0
        assert (
            host.run(
                "docker run --rm --network=none $(docker images -q --filter label=mlhost.smoke | head -1) sh -c 'echo it runs'"
            ).stdout
            == "it runs\n"
        )

    def test_a_user_whose_sudo_wants_a_password_gives_it_in_a_file(
        self, trixie: VM, served: tuple[Vendors, FileServer], playbook: Path, tmp_path: Path
    ) -> None:
        secret = tmp_path / "password"
        secret.write_text("correct horse\n")
        secret.chmod(0o600)
        ran = mlhost(
            "setup", trixie, "-p", str(playbook), "--sudo-password-file", str(secret), user="secure", settings=settings(served)
        )
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out
        refused = mlhost("setup", trixie, "-p", str(playbook), user="secure", settings=settings(served))
        assert refused.code == 1, str(refused)
        assert "--sudo-password-file" in refused.out + refused.err

    def test_the_proof_can_be_an_image_from_a_registry(
        self, trixie: VM, served: tuple[Vendors, FileServer], registry: Registry
    ) -> None:
        image = f"{registry.guest_address}/lab/plain:1"
        more = [*settings(served), f"docker.insecure_registries=[{registry.guest_address}]"]
        configured = mlhost("setup", trixie, settings=more)
        assert configured.code == 0, str(configured)
        trixie.run(
            f"docker tag $(docker images -q --filter label=mlhost.smoke | head -1) {image} && docker push -q {image} && docker rmi {image}",
            user="root",
        )
        ran = mlhost("setup", trixie, settings=[*more, f"smoke.image={image}"])
        assert ran.code == 0, str(ran)
        assert "lab/plain" in trixie.run("cat /var/lib/mlhost/proof", user="root").out

    def test_a_gpu_gets_driver_module_toolkit_and_is_seen_in_a_container(
        self, trixie: VM, served: tuple[Vendors, FileServer]
    ) -> None:
        trixie.run("sh -s", user="root", stdin=show_on_pci((A10G,)))
        ran = mlhost("setup", trixie, "--reboot", settings=settings(served))
        assert ran.code == 0, str(ran)
        assert trixie.run("cat /sys/module/nvidia/version").out.startswith("580.")
        proof = trixie.run("cat /var/lib/mlhost/proof", user="root").out
        assert f"uuids={A10G.uuid}" in proof
        assert "toolkit=1." in proof
        assert (
            json.loads(trixie.run("cat /etc/docker/daemon.json").out)["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
        )

    def test_after_a_reboot_the_gpu_is_still_there_and_nothing_is_to_be_done(
        self, trixie: VM, served: tuple[Vendors, FileServer]
    ) -> None:
        trixie.reboot()
        trixie.wait()
        ran = mlhost("setup", trixie, settings=settings(served))
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out or "proved" in ran.out
        assert mlhost("verify", trixie, settings=settings(served)).code == 0


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """A package index of mlhost's own requirements for the machine's Python, fetched by this machine."""
    folder = tmp_path_factory.mktemp("index")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "-d",
        str(folder),
        "--python-version",
        "3.11",
        "--only-binary",
        ":all:",
    ]
    block = re.search(r"^dependencies = \[(.*?)^\]", (CHECKOUT / "pyproject.toml").read_text(), re.M | re.S)
    assert block
    wanted = [name for name in re.findall(r'"([^"]+)"', block[1]) if ";" not in name]
    done = subprocess.run([*command, "hatchling", "editables", *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mlhost's requirements cannot be fetched here: {done.stderr[-300:]}")
    with FileServer(folder) as server:
        yield server


class TestDebian12FromInside:
    """A fresh machine with git, python3 and a copy of the checkout: no pip, no venv module, PEP 668 in force."""

    def test_the_readme_s_first_command_makes_a_proved_host_with_a_reboot_in_between(
        self, bookworm: VM, index: FileServer, playbook: Path
    ) -> None:
        parts = [CHECKOUT / name for name in ("pyproject.toml", "README.md", "provision", "playbooks")]
        bookworm.put(parts, "/srv/mlhost", user="root")
        bookworm.put([playbook.parent], "/srv", user="root")
        assert bookworm.run("python3 -m pip --version", check=False).code != 0
        site = f"/srv/{playbook.parent.name}/site.yaml"
        sets = " ".join(f"--set {word}" for word in SPACE)
        pip = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={index.guest_url}/ PIP_TRUSTED_HOST=10.0.2.2"
        boot = bookworm.boot_id()
        first = bookworm.run(
            f"cd /srv/mlhost && {pip} python3 -m provision setup -p {site} {sets} --set docker.source=distro --reboot",
            user="root",
            check=False,
            timeout=1200,
        )
        assert first.code == 0, str(first)
        assert "goes on by itself" in first.out
        assert wait_for_other_boot(bookworm, boot)
        followed = bookworm.run("cd /srv/mlhost && python3 -m provision status --follow", user="root", check=False, timeout=900)
        assert followed.code == 0, str(followed)
        assert wait_until(lambda: "proof" in bookworm.run("ls /var/lib/mlhost", user="root").out, 300)
        again = bookworm.run(
            f"cd /srv/mlhost && python3 -m provision setup -p {site} {sets} --set docker.source=distro",
            user="root",
            check=False,
            timeout=600,
        )
        assert again.code == 0, str(again)
        assert "nothing to change" in again.out
        assert bookworm.run("ls /etc/systemd/system/mlhost-continue.service", user="root", check=False).code != 0


def wait_for_other_boot(machine: VM, boot: str) -> bool:
    """Wait for a login in another boot than `boot`."""

    def other() -> bool:
        answer = machine.run("cat /proc/sys/kernel/random/boot_id", check=False, timeout=60)
        return answer.code == 0 and answer.out.strip() != boot

    return wait_until(other, 300)


def wait_until(holds: object, seconds: float) -> bool:
    """Ask again and again until `holds()`; whether it did in time."""
    assert callable(holds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(2)
    return False
