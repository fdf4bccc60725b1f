"""From nothing to proved, on hosts made of namespaces: real sshd, sudo, systemd, apt and Docker Engine; the vendors' packages are doubles.

Docker's doubles hold the distribution's real engine; the driver's and the toolkit's are named as doubles in their own files. `nvidia-smi` prints
captured output, but it does so inside a real container that Docker gave the device to by a CDI request.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.fixtures import available
from tests.lab.gpus import A10G, TWO_A10G, show_on_pci
from tests.lab.mirror import read_mirror
from tests.lab.nshost import Network, NsHost
from tests.lab.server import FileServer
from tests.lab.vendor import Vendors, publish
from tests.program import environment, mlhost, words

# The lab's hosts are containers to anybody who asks; the space they have is the machine's.
# The engine in the doubles is Debian 13's, which has to be told to use CDI; the pin says so, as a user of an older mirror would.
LAB = ("preflight.allow_container=true", "preflight.root_free_gb=1", "preflight.docker_free_gb=1", "docker.version=26.1")


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with available(Network) as net, available(lambda: net.proxy(read_mirror().hosts_with_tls())) as proxy:
        net.apt = proxy  # type: ignore[attr-defined]
        yield net


@pytest.fixture(scope="module")
def served(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vendors, FileServer]]:
    folder = tmp_path_factory.mktemp("vendors")
    with available(lambda: publish(folder, suites=("trixie",), real_engine=True, gpus=TWO_A10G)) as vendors:
        with FileServer(vendors.root, network.address) as server:
            yield vendors, server


def mirrors(served: tuple[Vendors, FileServer], *names: str) -> list[str]:
    vendors, server = served
    return [word for word in vendors.settings(server.url, names or ("docker", "toolkit", "cuda")) if word != "--set"]


def fresh(network: Network) -> NsHost:
    host = network.host(systemd=True)
    host.wait()
    host.use_proxy(network.apt)  # type: ignore[attr-defined]
    return host


@pytest.fixture(scope="module")
def host(network: Network) -> NsHost:
    return fresh(network)


@pytest.fixture(scope="module")
def gpu_host(network: Network, served: tuple[Vendors, FileServer]) -> NsHost:
    host = fresh(network)
    host.run("sh -s", user="root", stdin=show_on_pci(TWO_A10G))
    install_driver_by_hand(host, served)
    return host


class TestADockerHostFromDockersOwnRepository:
    """One host through its life, in order."""

    def test_plan_says_what_is_missing_and_changes_nothing(self, host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        before = host.run("find /etc /usr /var/lib/dpkg -newer /proc/1 -type f 2>/dev/null | sort; ls /var/lib", user="root").out
        ran = mlhost("plan", host, "--format", "json", settings=[*LAB, *mirrors(served)])
        assert ran.code == 3, str(ran)
        plan = json.loads(ran.out)
        assert plan["decisions"]["docker"]["action"] == "install"
        assert plan["decisions"]["docker"]["source"] == "docker-ce"
        assert plan["decisions"]["docker"]["repository"]["key_fingerprint"] == served[0].fingerprint("docker")
        assert plan["decisions"]["driver"]["action"] == "skip"
        assert (
            host.run("find /etc /usr /var/lib/dpkg -newer /proc/1 -type f 2>/dev/null | sort; ls /var/lib", user="root").out
            == before
        )

    def test_setup_installs_it_proves_it_and_tells_of_it(self, host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        ran = mlhost("setup", host, settings=[*LAB, *mirrors(served), "docker.users=[admin]"])
        assert ran.code == 0, str(ran)
        assert "set up and proved" in ran.out
        assert "docker/repository" in ran.out
        assert "root on this host" in ran.out
        assert host.run("dpkg-query -W -f '${db:Status-Status}' docker-ce").out == "installed"
        assert "Signed-By: /etc/apt/keyrings/" in host.run("cat /etc/apt/sources.list.d/docker.sources").out
        assert host.run("docker version --format '{{.Server.Version}}'", user="root").out.strip()
        assert "admin" in host.run("getent group docker").out
        assert host.run("systemctl is-enabled docker").out.strip() == "enabled"

    def test_a_second_run_changes_nothing_and_restarts_nothing(self, host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        def state() -> str:
            return host.run(
                "systemctl show -p ActiveEnterTimestampMonotonic,MainPID docker; ls /var/lib/mlhost/runs; stat -c %Z /var/lib/dpkg/status",
                user="root",
            ).out

        before = state()
        ran = mlhost("setup", host, settings=[*LAB, *mirrors(served), "docker.users=[admin]"])
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out
        assert state() == before

    def test_verify_proves_it_without_changing_it(self, host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        ran = mlhost("verify", host, settings=[*LAB, *mirrors(served)])
        assert ran.code == 0, str(ran)

    def test_verify_ends_with_7_and_names_what_is_broken(self, host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        host.run("systemctl stop docker.socket docker", user="root")
        ran = mlhost("verify", host, settings=[*LAB, *mirrors(served)])
        assert ran.code == 7, str(ran)
        assert "docker/service" in ran.out + ran.err

    def test_setup_puts_right_what_is_broken_and_nothing_else(self, host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        ran = mlhost("setup", host, settings=[*LAB, *mirrors(served)])
        assert ran.code == 0, str(ran)
        assert "docker/service" in ran.out
        assert "docker/packages  install" not in ran.out
        assert host.run("systemctl is-active docker").out.strip() == "active"

    def test_it_survives_a_reboot(self, host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        host.reboot()
        host.wait()
        host.run("timeout 60 sh -c 'until systemctl is-active -q docker; do sleep 0.2; done'", user="root")
        ran = mlhost("setup", host, settings=[*LAB, *mirrors(served)])
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out

    def test_status_tells_of_the_last_run_and_of_the_proof(self, host: NsHost) -> None:
        ran = mlhost("status", host)
        assert ran.code == 0, str(ran)
        assert "done" in ran.out
        assert "proved" in ran.out

    def test_daemon_json_is_merged_and_docker_restarted_once(self, host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        host.run("cat > /etc/docker/daemon.json", user="root", stdin='{"debug": false,\n "labels": ["kept=yes"]}\n')
        host.run("systemctl restart docker", user="root")
        ran = mlhost("setup", host, settings=[*LAB, *mirrors(served), "docker.log.max_size=50m"])
        assert ran.code == 0, str(ran)
        merged = json.loads(host.run("cat /etc/docker/daemon.json").out)
        assert merged["labels"] == ["kept=yes"]
        assert merged["log-opts"] == {"max-size": "50m", "max-file": "3"}
        assert host.run("docker info --format '{{.Labels}}'", user="root").out.strip() == "[kept=yes]"
        assert ran.out.count("restart docker.service") == 1

    def test_a_malformed_daemon_json_is_refused_untouched(self, host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        host.run("cp /etc/docker/daemon.json /root/good.json; printf '{ // mine\\n}' > /etc/docker/daemon.json", user="root")
        ran = mlhost("setup", host, settings=[*LAB, *mirrors(served), "docker.log.max_size=50m"])
        assert ran.code == 1, str(ran)
        assert "daemon.json" in ran.out + ran.err
        assert "line 1" in ran.out + ran.err
        assert host.run("cat /etc/docker/daemon.json").out == "{ // mine\n}"
        host.run("cp /root/good.json /etc/docker/daemon.json; systemctl restart docker", user="root")


class TestAGpuHostWithDoubles:
    """The GPU path to the edge of what is possible without a GPU."""

    def test_setup_brings_driver_toolkit_and_cdi_and_nvidia_smi_runs_in_a_container(
        self, gpu_host: NsHost, served: tuple[Vendors, FileServer]
    ) -> None:
        ran = mlhost("setup", gpu_host, settings=[*LAB, *mirrors(served)])
        assert ran.code == 0, str(ran)
        assert "2 × NVIDIA A10G" in ran.out
        inside = gpu_host.run(
            "docker run --rm --network=none --device nvidia.com/gpu=all $(docker images -q --filter label=mlhost.smoke | head -1) nvidia-smi -L",
            user="root",
        ).out
        assert [gpu.uuid in inside for gpu in TWO_A10G] == [True, True]
        assert A10G.name in inside

    def test_a_second_run_changes_nothing(self, gpu_host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        ran = mlhost("setup", gpu_host, settings=[*LAB, *mirrors(served)])
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out

    def test_dockers_runtime_is_registered_as_the_vendors_tool_would(self, gpu_host: NsHost) -> None:
        written = json.loads(gpu_host.run("cat /etc/docker/daemon.json").out)
        assert written["runtimes"] == {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}

    def test_a_gpu_that_docker_does_not_see_breaks_the_proof(self, gpu_host: NsHost, served: tuple[Vendors, FileServer]) -> None:
        gpu_host.run("mv /var/run/cdi/nvidia.yaml /root/", user="root")
        ran = mlhost("verify", gpu_host, settings=[*LAB, *mirrors(served)])
        assert ran.code == 7, str(ran)
        assert "toolkit/cdi" in ran.out + ran.err


def install_driver_by_hand(host: NsHost, served: tuple[Vendors, FileServer]) -> None:
    """A driver that "works" already: nvidia-smi's double, and the file that a loaded module shows.

    A module cannot be loaded in a namespace of this machine's kernel; the virtual machines' tests install and load one.
    """
    vendors, server = served
    base = vendors.url("cuda", server.url) + "/debian13/x86_64"
    shown = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.178.04  Release Build (test double)"
    host.run(
        f"echo 'deb [trusted=yes] {base} /' > /etc/apt/sources.list.d/by-hand.list && apt-get -q update && "
        "apt-get -qy --no-install-recommends install nvidia-driver-cuda=580.178.04-1 nvidia-persistenced=580.178.04-1 && "
        f"rm /etc/apt/sources.list.d/by-hand.list && mkdir -p /srv/driver/nvidia && echo '{shown}' > /srv/driver/nvidia/version && "
        "mount --bind /srv/driver /proc/driver",
        user="root",
    )


class TestWhatCannotWork:
    """Refusals and failures, each with its reason, its remedy and its exit code."""

    def test_a_repository_signed_by_another_key_is_refused_before_anything_is_trusted(
        self, network: Network, served: tuple[Vendors, FileServer]
    ) -> None:
        host = fresh(network)
        settings = [*LAB, *mirrors(served, "docker"), f"mirrors.docker.fingerprint={'AB' * 20}"]
        ran = mlhost("setup", host, settings=settings)
        assert ran.code == 1, str(ran)
        assert "Nothing was trusted" in ran.out + ran.err
        assert (
            host.run("ls /etc/apt/sources.list.d /etc/apt/keyrings 2>/dev/null | grep -c docker", check=False).out.strip() == "0"
        )

    def test_an_unreachable_repository_gives_way_to_the_distributions_engine_and_says_so(self, network: Network) -> None:
        host = network.hosts[-1]
        ran = mlhost("plan", host, settings=LAB[:3])
        assert ran.code == 3, str(ran)
        assert "from distro, because Docker's repository cannot be used from here" in " ".join(ran.out.split())


class TestALostController:
    """The run belongs to the host, not to whoever started it."""

    def test_a_killed_controller_stops_nothing_and_the_same_command_follows_the_run(
        self, network: Network, served: tuple[Vendors, FileServer]
    ) -> None:
        host = network.hosts[-1]
        settings = [*LAB, *mirrors(served)]
        started = subprocess.Popen(
            words("setup", host, settings=settings),
            cwd=Path(__file__).parent.parent,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(300):
            if host.run(
                "cat /var/lib/mlhost/runs/*/events 2>/dev/null | grep -c start", user="root", check=False
            ).out.strip() not in ("", "0"):
                break
            time.sleep(0.1)
        started.kill()
        started.wait()
        ran = mlhost("setup", host, settings=settings)
        assert ran.code == 0, str(ran)
        runs = host.run("ls /var/lib/mlhost/runs", user="root").out.split()
        results = [host.run(f"cat /var/lib/mlhost/runs/{run}/result", user="root").out.strip() for run in runs]
        assert results[0] == "0", "the first run went on to its end"
        assert host.run("systemctl is-active docker").out.strip() == "active"
