"""A fleet worked through by a Dask cluster: a real scheduler and real workers, each a process of its own, and hosts behind real sshds with real apt.

Doubles: the vendors' packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision import playbook
from provision.spread.job import Job, carry_out
from provision.transport import SshOptions
from tests.lab.fixtures import skipping
from tests.lab.gpuland import gpu_land
from tests.lab.keys import lab_keys
from tests.lab.walk import WANTED, Walk
from tests.program import CHECKOUT, Ran, environment
from tests.sshd import free_port
from tests.test_kill_controller import Reached


def mlhost(*words: str, timeout: float = 600) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "provision", *words], cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("engine", ["dask", "dask=", "dask=nowhere", "ray=tcp://a:1", "dask=http://a:1"])
def test_an_engine_that_is_none_is_told(engine: str) -> None:
    ran = mlhost("setup", "a.example", "--engine", engine)
    assert ran.code == 2
    assert "Write dask=tcp://SCHEDULER:8786" in " ".join(ran.err.split())


def test_no_target_and_no_passwords_go_to_a_cluster() -> None:
    assert "no target is named" in mlhost("setup", "--engine", "dask=tcp://127.0.0.1:1").err
    assert "sends no password" in mlhost("verify", "a.example", "--engine", "dask=tcp://127.0.0.1:1", "--sudo-password-file", "-").err


def test_a_job_of_another_version_is_not_carried_out() -> None:
    job = Job("gpu-1", "gpu-1.example", SshOptions(config_file="none"), playbook.load("docker-host"), version="0.0.1")
    report = carry_out(job, lambda _kind, _arguments: None)
    assert report.target == "gpu-1"
    assert report.exit_code == 1
    assert "0.0.1 gives it work" in report.message


def test_a_job_holds_no_secret_and_can_be_sent() -> None:
    import pickle

    job = Job("gpu-1", "gpu-1.example", SshOptions(), playbook.load("gpu-host"), sudo_password_file="/root/password")
    assert pickle.loads(pickle.dumps(job)) == job
    assert job.options.sudo_password is None


class Cluster:
    """A scheduler and its workers, as their own commands start them."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("distributed")
        self.folder, self.workers = folder, dict[str, "subprocess.Popen[bytes]"]()
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._start("scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")
        self._wait("scheduler.log", "Scheduler at")

    def _start(self, what: str, *words: str, log: str = "") -> subprocess.Popen[bytes]:
        dask = Path(sys.executable).parent / "dask"
        # how long a scheduler waits for a worker that says nothing; one that is killed is known by its closed line at once
        env = {**environment(), "PYTHONPATH": str(CHECKOUT), "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "60s"}
        with (self.folder / f"{log or what}.log").open("wb") as file:
            process = subprocess.Popen([str(dask), what, *words], cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self._processes.append(process)
        return process

    def _wait(self, log: str, word: str) -> str:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            text = (self.folder / log).read_text(errors="replace")
            found = re.search(word + r".*", text)
            if found:
                return found.group()
            time.sleep(0.1)
        raise AssertionError((self.folder / log).read_text(errors="replace"))

    def worker(self) -> None:
        log = f"worker{len(self.workers)}"
        process = self._start("worker", self.address, "--nthreads", "4", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1", "--local-directory", str(self.folder), log=log)
        self._wait(f"{log}.log", "Registered to")
        address = self._wait(f"{log}.log", "Start worker at").split()[-1]
        self.workers[address] = process

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_told(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    ran = mlhost("setup", "a.example", "--engine", f"dask=tcp://127.0.0.1:{free_port()}")
    assert ran.code == 4
    assert "No Dask scheduler answers at" in " ".join(ran.err.split())
    assert "Traceback" not in ran.err


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with skipping(), gpu_land(tmp_path_factory.mktemp("land")) as land:
        yield Walk(land, tmp_path_factory.mktemp("keys"))


@pytest.fixture
def hosts(walk: Walk, tmp_path: Path) -> Iterator[list[Reached]]:
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(3):
            folder = tmp_path / f"host{number}"
            folder.mkdir()
            host = Reached(walk, stack.enter_context(walk.land.host()), folder)
            stack.enter_context(host.line)
            made.append(host)
        yield made


def command(hosts: list[Reached], folder: Path, engine: str, *more: str) -> list[str]:
    (folder / "known").write_text("".join(lab_keys().known_hosts("127.0.0.1", host.line.port) for host in hosts))
    (folder / "config").write_text("Host *\nIdentityAgent none\n")
    listed = [f"  gpu-{number}:\n    address: 127.0.0.1\n    port: {host.line.port}\n    user: root\n" for number, host in enumerate(hosts)]
    (folder / "fleet.yaml").write_text("hosts:\n" + "".join(listed))
    words = ["setup", "-i", str(folder / "fleet.yaml"), "-F", str(folder / "config"), "--identity", str(lab_keys().client), "--known-hosts", str(folder / "known")]
    for setting in (*hosts[0].walk.land.settings(), *WANTED):
        words += ["--set", setting]
    return [*words, *(["--engine", engine] if engine else []), *more]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.geteuid() != 0, reason="hosts made of trees need root")
class TestACluster:
    def test_a_killed_worker_s_hosts_are_taken_over_and_their_runs_found_again(self, hosts: list[Reached], cluster: Cluster, tmp_path: Path) -> None:
        cluster.worker()
        cluster.worker()
        words = command(hosts, tmp_path, f"dask={cluster.address}", "--report", str(tmp_path / "kept.json"))
        with (tmp_path / "said").open("w") as said, subprocess.Popen(
            [sys.executable, "-m", "provision", *words], cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True
        ) as process:
            hosts[0].wait_for_events(4, process)
            at_work = re.search(r"gpu-0: .*at work on (tcp://\S+?) ?\.*$", (tmp_path / "said").read_text(), re.MULTILINE)
            if not at_work:
                process.kill()
            assert at_work, (tmp_path / "said").read_text() + str(process.communicate())
            cluster.workers[at_work[1]].kill()
            out, _ = process.communicate(timeout=900)
        assert process.returncode == 0, out + (tmp_path / "said").read_text()
        taken = re.findall(r"gpu-0: .*at work on (tcp://\S+?) ?\.*$", (tmp_path / "said").read_text(), re.MULTILINE)
        assert len(set(taken)) == 2, taken
        assert [len(host.runs()) for host in hosts] == [1, 1, 1], "what the killed worker had begun was found, not begun again"
        assert [host.wrong() for host in hosts] == [[], [], []]
        assert [host["target"] for host in json.loads((tmp_path / "kept.json").read_text())["hosts"]] == ["gpu-0", "gpu-1", "gpu-2"]
        # the same command without the cluster finds nothing to do: both are one program
        alone = mlhost(*command(hosts, tmp_path, ""))
        assert alone.code == 0, str(alone)
        assert alone.out.count("nothing to change") >= 3

    def test_one_host_that_cannot_be_reached_hides_no_other(self, hosts: list[Reached], cluster: Cluster, tmp_path: Path) -> None:
        cluster.worker()
        words = command(hosts, tmp_path, f"dask={cluster.address}", "--format", "json")
        fleet = tmp_path / "fleet.yaml"
        fleet.write_text(fleet.read_text().replace(f"port: {hosts[1].line.port}", f"port: {free_port()}"))
        ran = mlhost(*words)
        told = {host["target"]: host["exit_code"] for host in json.loads(ran.out)["hosts"]}
        assert told == {"gpu-0": 0, "gpu-1": 4, "gpu-2": 0}, ran.err
        assert ran.code == 4
