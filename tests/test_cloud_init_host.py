"""Machines without cloud-init that set themselves up: hosts made of namespaces, with real systemd, apt and Docker Engine, reboots of process 1."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from tests.fresh import LAB, Fresh
from tests.lab.nshost import NsHost
from tests.program import CHECKOUT, environment, mlhost

pytestmark = [pytest.mark.host, pytest.mark.timeout(1200)]

SETTINGS = (*LAB, "docker.source=distro")
REPORT = "/var/lib/mlhost/pull/report.json"


@pytest.fixture(scope="module")
def host(fresh: Fresh) -> NsHost:
    return fresh.host()


@pytest.fixture(scope="module")
def script(host: NsHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `--format systemd` makes of a capture of this very host."""
    folder = tmp_path_factory.mktemp("stated")
    seen = mlhost("facts", host, "--format", "raw", user="root")
    (folder / "capture").write_text(seen.out)
    words = ["--format", "systemd", "--capture", str(folder / "capture"), "-p", "docker-host", *(word for one in SETTINGS for word in ("--set", one))]
    command = [sys.executable, "-m", "provision", "cloud-init", *words, "-o", str(folder / "mlhost.sh")]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "mlhost.sh"


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.5)
    return False


class TestAScriptForAStatedSystem:
    """One host through its life, in order. There is no Python in what does the work."""

    def test_it_waits_for_the_next_boot_where_it_is_interrupted(self, host: NsHost, script: Path) -> None:
        host.put([script], "/root", user="root")
        assert "can run it" in host.run("sh /root/mlhost.sh test", user="root").out
        # As at a boot without a way out: nothing can be fetched, and the first try fails.
        host.run("mv /etc/apt/apt.conf.d/00lab-proxy /root/; sh /root/mlhost.sh", user="root")
        tried = "journalctl -u mlhost-pull --no-pager | grep -c 'next one in'"
        assert wait_until(lambda: host.run(tried, user="root", check=False).out.strip() not in ("", "0"), 400)
        host.run("mv /root/00lab-proxy /etc/apt/apt.conf.d/", user="root")

    def test_after_the_boot_it_goes_on_to_the_end(self, host: NsHost) -> None:
        host.reboot()
        host.wait()
        assert wait_until(lambda: '"result":"done"' in host.run(f"cat {REPORT}", user="root", check=False).out, 600)
        report = json.loads(host.run(f"cat {REPORT}", user="root").out)
        assert report["exit_code"] == 0
        assert host.run("systemctl is-active docker", user="root").out.strip() == "active"

    def test_nothing_is_left_to_start_and_it_does_nothing_again(self, host: NsHost) -> None:
        assert wait_until(lambda: host.run("ls /etc/systemd/system/*/mlhost*", user="root", check=False).out == "", 60)
        again = host.run("sh /root/mlhost.sh now", user="root")
        assert "has set itself up already" in again.out

    def test_setup_over_ssh_agrees(self, host: NsHost) -> None:
        ran = mlhost("setup", host, "-p", "docker-host", settings=SETTINGS)
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out
