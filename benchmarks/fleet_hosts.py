"""Many light real hosts to measure against: a network namespace, an sshd and a file tree each, all set up by mlhost before the measuring.

Their Docker is a test double: an init script, and a daemon that answers what the probe asks (tests/lab/doubles_sysv.py). One host is set up by
`mlhost setup`, from a signed repository; the others are laid over what that made of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.host import LINE, mlhost_env
from benchmarks.measure import ROOT, Broken, progress
from tests.lab.aptrepo import SigningKey
from tests.lab.doubles_sysv import sysv_docker_debs
from tests.lab.keys import lab_keys
from tests.lab.mirror import read_mirror
from tests.lab.nshost import SUITE, Network, NsHost
from tests.lab.server import FileServer
from tests.lab.vendor import Vendors, add_docker

WANTED = ("-p", "docker-host", "--set", "docker.users=admin", "--set", "preflight.allow_container=true")


@dataclass(frozen=True)
class Fleet:
    """Hosts at these addresses (port 22, user root), a known_hosts file and a key for all of them, and the playbook that they are as wanted by."""

    hosts: Sequence[NsHost]
    servers: Sequence[int]  # their sshds
    folder: Path
    playbook: tuple[str, ...]

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def key(self) -> Path:
        return lab_keys().client

    def first(self, count: int) -> list[str]:
        """The addresses of the first so many."""
        return [host.address for host in self.hosts[:count]]

    def mlhost(self, command: str, count: int, *options: str) -> tuple[str, ...]:
        """The command line of mlhost for the first so many hosts."""
        inventory = self.folder / f"fleet-{count}.yaml"
        if not inventory.exists():
            names = "".join(f"  h{number}: {{address: {address}}}\n" for number, address in enumerate(self.first(count), 1))
            inventory.write_text(f"defaults: {{user: root}}\nhosts:\n{names}")
        way = ["-F", "none", "--identity", str(self.key), "--known-hosts", str(self.known_hosts)]
        return (sys.executable, "-m", "provision", command, "-i", str(inventory), *self.playbook, *way, *options)

    def session_seconds(self, count: int) -> float:
        """Processor time that the first so many hosts have spent on sessions that are over."""
        lines = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.servers[:count]]
        return sum(int(fields[13]) + int(fields[14]) for fields in lines) / os.sysconf("SC_CLK_TCK")  # cutime, cstime


def sshds(hosts: Sequence[NsHost]) -> list[int]:
    """The process ids, as this machine has them, of the hosts' sshds, each the process 1 of its host."""
    first = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            if (entry / "status").read_text().split("NSpid:")[1].split("\n")[0].split()[1:] == ["1"]:
                first[(entry / "ns/net").stat().st_ino] = int(entry.name)
    return [first[(Path("/run/netns") / host.namespace).stat().st_ino] for host in hosts]


@contextlib.contextmanager
def converged_fleet(folder: Path, count: int) -> Iterator[Fleet]:
    """So many hosts on which `mlhost setup` has nothing left to do. Raises LabUnavailable, Broken."""
    mirror = read_mirror()
    with (
        SigningKey("docker test double <docker@invalid>") as key,
        Network() as network,
        network.proxy(mirror.hosts_with_tls()) as proxy,
    ):
        vendors = Vendors(folder / "vendors", (SUITE,), {"docker": key})
        add_docker(vendors, SUITE, sysv_docker_debs(SUITE))
        with FileServer(vendors.root, network.address) as server:
            playbook = (*WANTED, *vendors.settings(server.url, ["docker"]))
            progress("setting the first host up")
            model = network.host()
            model.wait()
            model.use_proxy(proxy)
            # python3-apt is for Ansible, dpkg's status file for all.
            model.run("apt-get -q update && apt-get -q -y install --no-install-recommends python3-apt", user="root")
            (folder / "known_hosts").write_text(lab_keys().known_hosts(model.address, 22))
            alone = Fleet([model], sshds([model]), folder, playbook)
            _run(alone.mlhost("setup", 1, "--yes"))
            model.run(f"echo {LINE} >> /etc/environment; mkdir -p /etc/docker; rm -rf /etc/apt/apt.conf.d/00lab-proxy /var/lib/apt/lists/*", user="root")
            again = _run(alone.mlhost("plan", 1), (0, 3))
            if again.returncode:
                raise Broken(f"the first host is not as wanted after its setup:\n{again.stdout[-3000:]}")
            ground = folder / "ground"
            subprocess.run(["cp", "-a", str(model.folder / "upper"), str(ground)], check=True)
            for name in ("etc/hostname", "etc/hosts"):
                (ground / name).unlink(missing_ok=True)
            (folder / "fleet-1.yaml").unlink()
            progress(f"starting {count} hosts")
            hosts = [network.host(over=[ground]) for _ in range(count)]
            (folder / "known_hosts").write_text("".join(lab_keys().known_hosts(host.address, 22) for host in hosts))
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(_ready, hosts))
            yield Fleet(hosts, sshds(hosts), folder, playbook)
    shutil.rmtree(folder / "ground", ignore_errors=True)


def _ready(host: NsHost) -> None:
    host.wait(120)
    host.run("/etc/init.d/docker start", user="root")


def _run(command: Sequence[str], exit_codes: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **mlhost_env()}
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, check=False
    )
    if done.returncode not in exit_codes:
        raise Broken(f"exit code {done.returncode}: {' '.join(command)}\n{done.stdout[-3000:]}")
    return done
