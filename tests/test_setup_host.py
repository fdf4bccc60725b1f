"""From nothing to proved, on hosts made of namespaces: real sshd, sudo, systemd, apt and Docker Engine; the vendors' packages are doubles.

Docker's doubles hold the distribution's real engine; the driver's and the toolkit's are named as doubles in their own files. `nvidia-smi` prints
captured output, but it does so inside a real container that Docker gave the device to by a CDI request.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from provision import __version__
from tests.fresh import LAB, Fresh
from tests.lab.gpus import A10G, TWO_A10G, show_on_pci
from tests.lab.nshost import NsHost
from tests.program import environment, mlhost, specs, words

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def host(fresh: Fresh) -> NsHost:
    return fresh.host()


@pytest.fixture(scope="module")
def gpu_host(fresh: Fresh) -> NsHost:
    host = fresh.host()
    host.run("sh -s", user="root", stdin=show_on_pci(TWO_A10G))
    install_driver_by_hand(host, fresh)
    return host


class TestADockerHostFromDockersOwnRepository:
    """One host through its life, in order."""

    def test_plan_says_what_is_missing_and_changes_nothing(self, host: NsHost, fresh: Fresh) -> None:
        before = host.run("find /etc /usr /var/lib/dpkg -newer /proc/1 -type f 2>/dev/null | sort; ls /var/lib", user="root").out
        ran = mlhost("plan", host, "--format", "json", settings=fresh.settings())
        assert ran.code == 3, str(ran)
        plan = json.loads(ran.out)
        assert plan["decisions"]["docker"]["action"] == "install"
        assert plan["decisions"]["docker"]["source"] == "docker-ce"
        assert plan["decisions"]["docker"]["repository"]["key_fingerprint"] == fresh.vendors.fingerprint("docker")
        assert plan["decisions"]["driver"]["action"] == "skip"
        assert (
            host.run("find /etc /usr /var/lib/dpkg -newer /proc/1 -type f 2>/dev/null | sort; ls /var/lib", user="root").out
            == before
        )

    def test_setup_installs_it_proves_it_and_tells_of_it(self, host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("setup", host, settings=[*fresh.settings(), "docker.users=[admin]"])
        assert ran.code == 0, str(ran)
        assert "set up and proved" in ran.out
        assert "docker/repository" in ran.out
        assert "root on this host" in ran.out
        assert host.run("dpkg-query -W -f '${db:Status-Status}' docker-ce").out == "installed"
        assert "Signed-By: /etc/apt/keyrings/" in host.run("cat /etc/apt/sources.list.d/docker.sources").out
        assert host.run("docker version --format '{{.Server.Version}}'", user="root").out.strip()
        assert "admin" in host.run("getent group docker").out
        assert host.run("systemctl is-enabled docker").out.strip() == "enabled"

    def test_a_second_run_changes_nothing_and_restarts_nothing(self, host: NsHost, fresh: Fresh) -> None:
        def state() -> str:
            return host.run(
                "systemctl show -p ActiveEnterTimestampMonotonic,MainPID docker; ls /var/lib/mlhost/runs; stat -c %Z /var/lib/dpkg/status",
                user="root",
            ).out

        before = state()
        ran = mlhost("setup", host, settings=[*fresh.settings(), "docker.users=[admin]"])
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out
        assert state() == before

    def test_verify_proves_it_without_changing_it(self, host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("verify", host, settings=fresh.settings())
        assert ran.code == 0, str(ran)

    def test_verify_ends_with_7_and_names_what_is_broken(self, host: NsHost, fresh: Fresh) -> None:
        host.run("systemctl stop docker.socket docker", user="root")
        ran = mlhost("verify", host, settings=fresh.settings())
        assert ran.code == 7, str(ran)
        assert "docker/service" in ran.out + ran.err

    def test_setup_puts_right_what_is_broken_and_nothing_else(self, host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("setup", host, settings=fresh.settings())
        assert ran.code == 0, str(ran)
        assert "docker/service" in ran.out
        assert "docker/packages  install" not in ran.out
        assert host.run("systemctl is-active docker").out.strip() == "active"

    def test_it_survives_a_reboot(self, host: NsHost, fresh: Fresh) -> None:
        host.reboot()
        host.wait()
        host.run("timeout 60 sh -c 'until systemctl is-active -q docker; do sleep 0.2; done'", user="root")
        ran = mlhost("setup", host, settings=fresh.settings())
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out

    def test_status_tells_of_the_last_run_and_of_the_proof(self, host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("status", host, settings=fresh.settings())
        assert ran.code == 0, str(ran)
        assert "done" in ran.out
        assert "proved" in ran.out

    def test_status_names_what_has_drifted_since_the_last_run(self, host: NsHost, fresh: Fresh) -> None:
        host.run("systemctl disable docker.service", user="root")
        ran = mlhost("status", host, "--format", "json", settings=fresh.settings())
        assert ran.code == 3, str(ran)
        told = json.loads(ran.out)["hosts"][0]
        assert told["drift"] == ["docker/service"]
        assert (told["last_run"]["state"], told["last_run"]["version"]) == ("done", __version__)
        # that is how it is with these values; of others nothing is known to have drifted
        ran = mlhost("status", host, "--format", "json", settings=[*fresh.settings(), "docker.log.max_size=50m"])
        assert json.loads(ran.out)["hosts"][0]["drift"] == []
        host.run("systemctl enable docker.service", user="root")
        assert mlhost("status", host, settings=fresh.settings()).code == 0

    def test_daemon_json_is_merged_and_docker_restarted_once(self, host: NsHost, fresh: Fresh) -> None:
        host.run("cat > /etc/docker/daemon.json", user="root", stdin='{"debug": false,\n "labels": ["kept=yes"]}\n')
        host.run("systemctl restart docker", user="root")
        ran = mlhost("setup", host, settings=[*fresh.settings(), "docker.log.max_size=50m"])
        assert ran.code == 0, str(ran)
        merged = json.loads(host.run("cat /etc/docker/daemon.json").out)
        assert merged["labels"] == ["kept=yes"]
        assert merged["log-opts"] == {"max-size": "50m", "max-file": "3"}
        assert host.run("docker info --format '{{.Labels}}'", user="root").out.strip() == "[kept=yes]"
        assert ran.out.count("restart docker.service") == 1

    def test_a_malformed_daemon_json_is_refused_untouched(self, host: NsHost, fresh: Fresh) -> None:
        host.run("cp /etc/docker/daemon.json /root/good.json; printf '{ // mine\\n}' > /etc/docker/daemon.json", user="root")
        ran = mlhost("setup", host, settings=[*fresh.settings(), "docker.log.max_size=50m"])
        assert ran.code == 1, str(ran)
        assert "daemon.json" in ran.out + ran.err
        assert "line 1" in ran.out + ran.err
        assert host.run("cat /etc/docker/daemon.json").out == "{ // mine\n}"
        host.run("cp /root/good.json /etc/docker/daemon.json; systemctl restart docker", user="root")

    def test_another_engine_takes_its_place_only_with_consent(self, host: NsHost, fresh: Fresh) -> None:
        settings = [*fresh.settings(), "docker.source=distro"]
        refused = mlhost("setup", host, settings=settings)
        assert refused.code == 1, str(refused)
        assert "docker-ce" in refused.out
        assert "--yes" in refused.out
        assert host.run("dpkg-query -W -f '${db:Status-Status}' docker-ce").out == "installed"
        ran = mlhost("setup", host, "--yes", settings=settings)
        assert ran.code == 0, str(ran)
        assert host.run("dpkg-query -W -f '${db:Status-Status}' docker.io").out == "installed"
        assert host.run("dpkg-query -W -f '${db:Status-Status}' docker-ce", check=False).out != "installed"

    def test_verify_proves_that_it_outlives_a_reboot(self, host: NsHost, fresh: Fresh) -> None:
        before = host.run("cat /proc/sys/kernel/random/boot_id").out
        ran = mlhost("verify", host, "--reboot", settings=fresh.settings())
        assert ran.code == 0, str(ran)
        assert "nothing that was right before is broken" in " ".join(ran.out.split())
        assert host.run("cat /proc/sys/kernel/random/boot_id").out != before


class TestAGpuHostWithDoubles:
    """The GPU path to the edge of what is possible without a GPU."""

    def test_setup_brings_driver_toolkit_and_cdi_and_nvidia_smi_runs_in_a_container(self, gpu_host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("setup", gpu_host, settings=fresh.settings())
        assert ran.code == 0, str(ran)
        assert "2 × NVIDIA A10G" in ran.out
        inside = gpu_host.run(
            "docker run --rm --network=none --device nvidia.com/gpu=all $(docker images -q --filter label=mlhost.smoke | head -1) nvidia-smi -L",
            user="root",
        ).out
        assert [gpu.uuid in inside for gpu in TWO_A10G] == [True, True]
        assert A10G.name in inside

    def test_a_second_run_changes_nothing(self, gpu_host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("setup", gpu_host, settings=fresh.settings())
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out

    def test_dockers_runtime_is_registered_as_the_vendors_tool_would(self, gpu_host: NsHost) -> None:
        written = json.loads(gpu_host.run("cat /etc/docker/daemon.json").out)
        assert written["runtimes"] == {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}

    def test_the_device_nodes_are_there_with_links_that_systemd_finds(self, gpu_host: NsHost) -> None:
        shown = gpu_host.run("ls /dev/nvidia*; readlink -f /dev/char/1:11; cat /etc/udev/rules.d/71-mlhost-nvidia.rules", user="root").out
        assert shown.split()[:4] == ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl"]
        assert shown.split()[4].startswith("/dev/nvidia"), "the doubles' nodes are all of one number"
        assert "create-dev-char-symlinks --create-all" in shown

    def test_verify_judges_every_layer_and_every_way_to_the_gpus(self, gpu_host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("verify", gpu_host, "--reload", "--format", "json", settings=fresh.settings())
        checks = {check["id"]: check for check in json.loads(ran.out)["hosts"][0]["checks"]}
        assert ran.code == 0, str(ran)
        fine = ("system", "disk", "pci", "device-nodes", "nvidia-smi", "docker", "runtime", "cdi", "container", "container-gpus", "container-runtime")
        assert {name: checks[name]["state"] for name in fine} == dict.fromkeys(fine, "ok")
        assert checks["reload-cdi"]["state"] == "ok", checks["reload-cdi"]

    def test_a_container_without_the_device_in_its_cgroup_is_told_from_one_that_has_it(self, gpu_host: NsHost) -> None:
        """The double of nvidia-smi fails where the kernel forbids the node, so that the check above could fail."""
        image = "$(docker images -q --filter label=mlhost.smoke | head -1)"
        bare = f"docker run --rm --network=none -v /usr/bin/nvidia-smi:/usr/bin/nvidia-smi -v /dev/nvidiactl:/dev/nvidiactl {image} nvidia-smi -L"
        denied = gpu_host.run(bare, user="root", check=False)
        assert denied.code == 255
        assert "Failed to initialize NVML: Unknown Error" in denied.out

    def test_the_shipped_specs_agree(self, gpu_host: NsHost, tmp_path: Path) -> None:
        ran = specs(gpu_host, tmp_path, MLHOST_SPEC_GPUS="2", MLHOST_SPEC_RELOAD="1")
        assert ran.code == 0, str(ran)
        assert int(ran.out.split(" passed")[0].split()[-1]) >= 18, ran.out

    def test_a_monitor_gets_its_line_and_its_exit_code(self, gpu_host: NsHost, fresh: Fresh) -> None:
        ran = mlhost("verify", gpu_host, "--format", "nagios", settings=fresh.settings())
        assert (ran.code, ran.out.splitlines()[0]) == (0, "MLHOST OK - 1 host proved | broken=0;;0 hosts=1"), str(ran)

    def test_a_gpu_that_docker_does_not_see_breaks_the_proof(self, gpu_host: NsHost, fresh: Fresh) -> None:
        gpu_host.run("mv /var/run/cdi/nvidia.yaml /root/", user="root")
        ran = mlhost("verify", gpu_host, settings=fresh.settings())
        assert ran.code == 7, str(ran)
        assert "no CDI spec describes the GPUs" in " ".join((ran.out + ran.err).split())

    def test_the_shipped_specs_see_it_too(self, gpu_host: NsHost, tmp_path: Path) -> None:
        ran = specs(gpu_host, tmp_path, MLHOST_SPEC_GPUS="2")
        assert ran.code == 1, str(ran)
        assert "test_a_container_sees_exactly_the_hosts_gpus[" in ran.out


def install_driver_by_hand(host: NsHost, fresh: Fresh) -> None:
    """A driver that "works" already: nvidia-smi's double, and the file that a loaded module shows.

    A module cannot be loaded in a namespace of this machine's kernel; the virtual machines' tests install and load one.
    """
    base = fresh.vendors.url("cuda", fresh.server.url) + "/debian13/x86_64"
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

    def test_a_repository_signed_by_another_key_is_refused_before_anything_is_trusted(self, fresh: Fresh) -> None:
        host = fresh.host()
        settings = [*fresh.settings("docker"), f"mirrors.docker.fingerprint={'AB' * 20}"]
        ran = mlhost("setup", host, settings=settings)
        assert ran.code == 1, str(ran)
        assert "Nothing was trusted" in ran.out + ran.err
        assert (
            host.run("ls /etc/apt/sources.list.d /etc/apt/keyrings 2>/dev/null | grep -c docker", check=False).out.strip() == "0"
        )

    def test_an_unreachable_repository_gives_way_to_the_distributions_engine_and_says_so(self, fresh: Fresh) -> None:
        host = fresh.network.hosts[-1]
        ran = mlhost("plan", host, settings=LAB)
        assert ran.code == 3, str(ran)
        assert "from distro, because Docker's repository cannot be used from here" in " ".join(ran.out.split())


class TestALostController:
    """The run belongs to the host, not to whoever started it."""

    def test_a_killed_controller_stops_nothing_and_the_same_command_follows_the_run(self, fresh: Fresh) -> None:
        host = fresh.network.hosts[-1]
        settings = fresh.settings()
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
