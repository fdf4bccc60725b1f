"""The host to measure against: a namespace host of the lab with systemd and a real sshd, which mlhost itself has set up with real Docker."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import ROOT, Broken, progress
from tests.lab.cache import cache_root
from tests.lab.delay import DelayProxy
from tests.lab.keys import lab_keys
from tests.lab.mirror import read_mirror
from tests.lab.nshost import Network, NsHost

# What the host is to be: Docker from the distribution, whose archive is the only one the lab has.
WANTED = (
    "-p",
    "docker-host",
    "--set",
    "docker.source=distro",
    "--set",
    "docker.users=admin",
    "--set",
    "preflight.allow_container=true",
)
LINE = "BENCH=1"


@dataclass(frozen=True)
class Line:
    """A way to the host: address and port, round trip in seconds, and a known_hosts file that has both."""

    address: str
    port: int
    round_trip: float
    known_hosts: Path
    key: Path

    @property
    def target(self) -> str:
        return f"root@{self.address}:{self.port}"

    def ssh(self, *command: str) -> tuple[str, ...]:
        """The command line of OpenSSH's client."""
        options = ["-F", "none", "-i", str(self.key), "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={self.known_hosts}"]
        options += ["-o", "GlobalKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-p", str(self.port)]
        return ("ssh", *options, f"root@{self.address}", *command)

    def mlhost(self, command: str, *options: str, playbook: tuple[str, ...] = WANTED) -> tuple[str, ...]:
        """The command line of mlhost."""
        way = ["-F", "none", "--identity", str(self.key), "--known-hosts", str(self.known_hosts)]
        return (sys.executable, "-m", "provision", command, self.target, *playbook, *way, *options)


def mlhost_env() -> Mapping[str, str]:
    """The environment for mlhost: no agent, no display settings, this checkout, and compiled modules kept as Python does by default."""
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache_root() / "compiled")}
    return {"MLHOST_BOOTSTRAPPED": "1", "SSH_AUTH_SOCK": "", "NO_COLOR": "1", "PYTHONPATH": str(ROOT), **compiled}


@contextlib.contextmanager
def converged_host(folder: Path) -> Iterator[NsHost]:
    """A host on which `mlhost setup` has nothing left to do. Raises LabUnavailable, Broken."""
    mirror = read_mirror()
    with Network() as network:
        host = network.host(systemd=True)
        progress("booting the host")
        host.wait()
        with network.proxy(mirror.hosts_with_tls()) as proxy:
            host.use_proxy(proxy)
            progress("setting it up (Docker from the distribution)")
            line = direct(host, folder)
            host.run("apt-get -q update && apt-get -q -y install --no-install-recommends python3-apt", user="root")
            done = _mlhost(line, "setup", "--yes")
            if done.returncode != 0:
                raise Broken(f"mlhost setup: exit code {done.returncode}\n{done.stdout[-3000:]}")
            host.run(f"echo {LINE} >> /etc/environment; grep -qx {LINE} /etc/environment", user="root")
            again = _mlhost(line, "plan")
            if again.returncode != 0:
                raise Broken(f"the host is not converged after setup: exit code {again.returncode}\n{again.stdout[-3000:]}")
        yield host


def _mlhost(line: Line, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line.mlhost(command, *options),
        env={**os.environ, **mlhost_env()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        check=False,
    )


def direct(host: NsHost, folder: Path) -> Line:
    """The host itself, without delay."""
    return _line(host.address, host.port, 0.0, folder)


@contextlib.contextmanager
def delayed(host: NsHost, round_trip: float, folder: Path) -> Iterator[Line]:
    """The host behind a line with this round trip, in seconds."""
    with DelayProxy((host.address, host.port), round_trip / 2) as proxy:
        yield _line("127.0.0.1", proxy.port, round_trip, folder)


def _line(address: str, port: int, round_trip: float, folder: Path) -> Line:
    known_hosts = folder / f"known_hosts-{port}"
    known_hosts.write_text(lab_keys().known_hosts(address, port))
    return Line(address, port, round_trip, known_hosts, lab_keys().client)
