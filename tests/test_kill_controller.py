"""The controller killed and its connection lost, at many moments of a whole set-up: the run goes on, is found again, and ends as if nothing had been.

Real: the program as a process of its own, OpenSSH's server, the journal, apt and dpkg in a tree host. Doubles: the vendors' packages.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.figures import count
from tests.lab.fixtures import skipping
from tests.lab.gpuland import gpu_land
from tests.lab.keys import lab_keys
from tests.lab.treehost import TreeHost
from tests.lab.walk import WANTED, Walk, state_of
from tests.program import CHECKOUT, Ran, environment
from tests.sshd import Relay, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Line(Relay):
    """A relay whose open connections can fall silent while new ones work, and whose next connections can end after so many bytes."""

    def __init__(self, to_port: int) -> None:
        self.bytes_left: list[int] = []
        super().__init__(to_port)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        running = self._running
        upwards = source.getsockname()[1] == self.port
        left = self.bytes_left.pop(0) if upwards and self.bytes_left else None
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(4096)
                running.wait()
                if left is not None:
                    data, left = data[:left], left - len(data)
                if not data:
                    break
                sink.sendall(data)
                if left is not None and left <= 0:
                    break
            sink.shutdown(socket.SHUT_RDWR if left is not None else socket.SHUT_WR)
            if left is not None:
                source.shutdown(socket.SHUT_RDWR)

    def silence(self) -> None:
        """What is open carries nothing any more, and nobody is told."""
        self._running.clear()
        self._running = threading.Event()
        self._running.set()


class Reached:
    """A tree host behind its sshd and a line, and the program that sets it up."""

    def __init__(self, walk: Walk, host: TreeHost, folder: Path) -> None:
        self.walk, self.host = walk, host
        port = free_port()
        host.sh("mkdir -p /run/sshd")
        host.sh(f"setsid /usr/sbin/sshd -D -o ListenAddress=127.0.0.1 -p {port} </dev/null >/dev/null 2>&1 &")
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        self.line = Line(port)
        (folder / "known").write_text(lab_keys().known_hosts("127.0.0.1", self.line.port))
        (folder / "config").write_text("Host *\nServerAliveInterval 2\nServerAliveCountMax 2\nIdentityAgent none\n")
        self.words = [sys.executable, "-m", "provision", "setup", f"root@127.0.0.1:{self.line.port}", "-F", str(folder / "config")]
        self.words += ["--identity", str(lab_keys().client), "--known-hosts", str(folder / "known")]
        for setting in (*walk.land.settings(), *WANTED):
            self.words += ["--set", setting]

    def begin(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.words, cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def setup(self) -> Ran:
        with self.begin() as process:
            out, err = process.communicate(timeout=300)
        return Ran(process.returncode, out, err)

    def runs(self) -> list[Path]:
        """Their folders; one that is being made has another name yet."""
        return sorted(run for run in (self.host.root / "var/lib/mlhost/runs").glob("*") if run.suffix != ".new")

    def wait_for_events(self, number: int, process: subprocess.Popen[str]) -> None:
        """Until the host's journal tells of so many things, or the program has ended."""
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            if sum(len((run / "events").read_text().splitlines()) for run in self.runs() if (run / "events").exists()) >= number:
                return
            time.sleep(0.01)

    def wrong(self) -> list[str]:
        return self.walk.reference.differences(state_of(self.host))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    with skipping(), gpu_land(tmp_path_factory.mktemp("land")) as land:
        yield Walk(land, tmp_path_factory.mktemp("keys"))


@pytest.fixture
def reached(walk: Walk, tmp_path: Path) -> Iterator[Reached]:
    with walk.land.host() as host:
        made = Reached(walk, host, tmp_path)
        with made.line:
            yield made


@pytest.mark.parametrize("events", [1, 3, 7, 12, 16])
def test_a_killed_controller_stops_nothing_and_the_same_command_finds_the_run(reached: Reached, events: int) -> None:
    with reached.begin() as process:
        reached.wait_for_events(events, process)
        process.kill()
        process.communicate()
    ran = reached.setup()
    assert ran.code == 0, str(ran)
    assert len(reached.runs()) == 1, "it is the same run"
    assert reached.wrong() == []
    count(f"controller-killed-{events}", "controller killed during the run", 1, 1)


@pytest.mark.parametrize("seconds", [0.3, 0.8])
def test_a_controller_that_is_killed_before_anything_began_leaves_a_host_that_can_be_set_up(reached: Reached, seconds: float) -> None:
    with reached.begin() as process:
        time.sleep(seconds)
        process.kill()
        process.communicate()
    ran = reached.setup()
    assert ran.code == 0, str(ran)
    assert reached.wrong() == []
    count(f"controller-killed-early-{seconds}", "controller killed before the run", 1, 1)


def test_a_connection_that_is_cut_again_and_again_loses_nothing(reached: Reached) -> None:
    cuts = (2, 5, 8, 13)
    with reached.begin() as process:
        for events in cuts:
            reached.wait_for_events(events, process)
            reached.line.cut()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, f"{out}\n{err}"
    assert "connecting again" in err
    assert len(reached.runs()) == 1
    assert reached.wrong() == []
    count("connection-cut", "connection cut during the run", len(cuts), len(cuts))


def test_a_line_that_falls_silent_is_noticed_and_the_run_found_again(reached: Reached) -> None:
    with reached.begin() as process:
        reached.wait_for_events(4, process)
        reached.line.silence()
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, f"{out}\n{err}"
    assert "nothing was heard" in err
    assert len(reached.runs()) == 1
    assert reached.wrong() == []
    count("connection-silent", "connection fallen silent during the run", 1, 1)


@pytest.mark.parametrize("sent", [3_000, 20_000, 60_000, 80_000, 100_000])
def test_a_connection_that_ends_in_the_middle_of_a_line_starts_nothing_by_halves(reached: Reached, sent: int) -> None:
    reached.line.bytes_left = [sent]
    first = reached.setup()
    assert first.code in (0, 4), str(first)
    second = reached.setup()
    assert second.code == 0, str(second)
    assert reached.wrong() == []
    count(f"connection-midline-{sent}", "connection ended in the middle of what is sent", 1, 1)
