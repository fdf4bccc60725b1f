"""A booted machine that nothing leads out of: set up from one file, by its signature. Everything in it is real, Debian's own Docker included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.fixtures import available
from tests.lab.image import debian_image
from tests.lab.need import tool
from tests.lab.server import FileServer
from tests.lab.vm import VM
from tests.program import CHECKOUT, environment, mlhost

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]
WANTED = ("-p", "docker-host", "--set", "docker.source=distro", "--set", "preflight.root_free_gb=1", "--set", "preflight.docker_free_gb=1")


def test_a_machine_without_a_route_to_anywhere_is_set_up_from_a_bundle(tmp_path: Path) -> None:
    keygen = available(lambda: tool("ssh-keygen", "openssh-client"))
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "maker")], check=True)
    capture, bundle = tmp_path / "capture", tmp_path / "hosts.bundle"
    with available(lambda: VM(debian_image("trixie"), warm=True, isolated=True)) as machine, FileServer(tmp_path) as server:
        # this machine listens, and is not to be reached from in there
        reach = f"timeout 5 bash -c ': < /dev/tcp/10.0.2.2/{server.port}'"
        assert machine.run(reach, check=False).code != 0
        seen = mlhost("facts", machine, "--format", "raw", "--packages", "--out", str(capture))
        assert seen.code == 0, str(seen)
        command = [sys.executable, "-m", "provision", "bundle", *WANTED, "--capture", str(capture), "--sign", str(tmp_path / "maker"), "-o", str(bundle)]
        made = subprocess.run(command, cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        proof = ("--bundle", str(bundle), "--verify-key", str(tmp_path / "maker.pub"))
        ran = mlhost("setup", machine, *WANTED, *proof)
        assert ran.code == 0, str(ran)
        assert "set up and proved" in ran.out
        assert machine.run("docker run --rm --network=none $(docker images -q --filter label=mlhost.smoke | head -n 1) sh -c 'echo it runs'", user="root").out == "it runs\n"
        assert machine.run("ls /etc/apt/sources.list.d /var/lib/mlhost", user="root").out.find("bundle") < 0
        again = mlhost("setup", machine, *WANTED, *proof)
        assert again.code == 0, str(again)
        assert "nothing to change" in again.out
        assert server.requests == []
