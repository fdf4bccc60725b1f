"""A machine that sets itself up at its first boot: Debian 13 with cloud-init, a NoCloud seed, and other package work that is in the way.

Its power is cut once it has begun, and nobody logs in before it has reported. What is a double: the work that holds dpkg's lock until it sees that mlhost waits for it. unattended-upgrades and
apt's daily work are the real ones, started when mlhost starts.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest

from provision import pyz
from provision.errors import Failed
from tests.lab.fixtures import available
from tests.lab.image import debian_image
from tests.lab.listener import Heard, Listener
from tests.lab.proxy import CachingProxy
from tests.lab.server import FileServer
from tests.lab.vm import VM
from tests.program import CHECKOUT, environment, mlhost

pytestmark = [pytest.mark.vm, pytest.mark.timeout(4200)]

SETTINGS = ("docker.source=distro", "preflight.root_free_gb=1", "preflight.docker_free_gb=1")
TOKEN = "s3cr3t-of-the-report"

# It takes the lock as dpkg does, has apt's daily work started, and gives the lock back when mlhost's journal says that it waits for it. Bounded,
# should mlhost not wait at all.
HOLDER = """\
import fcntl, glob, subprocess, time
lock = open("/var/lib/dpkg/lock-frontend", "w")
while True:
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except OSError:
        time.sleep(0.2)
open("/run/holder-holds", "w").close()
subprocess.call(["systemctl", "start", "--no-block", "apt-daily.service", "apt-daily-upgrade.service"])
end = time.monotonic() + 900
while time.monotonic() < end:
    events = "".join(open(name).read() for name in glob.glob("/var/lib/mlhost/runs/*/events"))
    if "\\twait\\t" in events and "lock-frontend" in events:
        break
    time.sleep(0.5)
"""

HOLDER_UNIT = """\
[Unit]
Before=mlhost-pull.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=systemd-run --unit=lab-holder-work python3 /root/holder.py
ExecStart=sh -c 'until [ -e /run/holder-holds ]; do sleep 0.2; done'
[Install]
WantedBy=multi-user.target
"""

# The user's own user-data. The lab's machine keeps its SSH keys, and its packages come through the lab's cache.
OWN = """\
#cloud-config
ssh_deletekeys: false
disable_root: false
apt:
  preserve_sources_list: true
write_files:
  - path: /etc/apt/apt.conf.d/00lab-proxy
    content: |
{proxy}
  - path: /root/holder.py
    content: |
{holder}
  - path: /etc/systemd/system/lab-holder.service
    content: |
{unit}
runcmd:
  - [systemctl, daemon-reload]
  - [systemctl, enable, --now, lab-holder.service]
"""


def indented(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines())


@dataclass
class Born:
    """The machine after it has reported: what it said, and where it got mlhost from."""

    vm: VM
    heard: list[Heard]
    requests: list[str]
    config: Path

    @property
    def report(self) -> Any:
        return self.heard[0].json

    def root(self, command: str, check: bool = True) -> str:
        return self.vm.run(command, user="root", check=check).out


@pytest.fixture(scope="module")
def born(apt_proxy: CachingProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Born]:
    folder = tmp_path_factory.mktemp("seed")
    try:
        built = pyz.build(folder / "mlhost.pyz")
    except Failed as error:
        pytest.skip(f"mlhost.pyz cannot be built here: {error.message}")
    image = available(lambda: debian_image("trixie", extra=("cloud-init", "unattended-upgrades")))
    own = folder / "own.yaml"
    own.write_text(OWN.format(proxy=indented(apt_proxy.apt_conf()), holder=indented(HOLDER), unit=indented(HOLDER_UNIT)))
    with FileServer(folder) as server, Listener(refuse=1) as listener:
        words = ["-p", "docker-host", *(word for setting in SETTINGS for word in ("--set", setting)), "--report-url", f"{listener.guest_url}/up?sig={TOKEN}"]
        words += ["--report-console", "--source", f"{server.guest_url}/mlhost.pyz", "--sha256", built.sha256]
        write_user_data(folder / "user-data", "--format", "multipart", "--with", str(own), *words)
        write_user_data(folder / "alone", *words)
        (folder / "meta-data").write_text("instance-id: i-lab\nlocal-hostname: selfmade\n")
        (folder / "vendor-data").write_text("")
        vm = available(lambda: VM(image, append=f"ds=nocloud;s={server.guest_url}/"))
        try:
            vm.start()
            assert wait_until(lambda: any("/mlhost.pyz" in line for line in list(server.requests)), 1200), f"it has not begun\n{vm.console_text()[-4000:]}"
            vm.cut_power()
            told = listener.wait(2400)
            assert told, f"it has not reported\n{vm.console_text()[-4000:]}"
            vm.wait()
            yield Born(vm, listener.heard, server.requests, folder / "alone")
        finally:
            vm.stop()


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.2)
    return False


def write_user_data(path: Path, *words: str) -> None:
    command = [sys.executable, "-m", "provision", "cloud-init", "--for", "nocloud", "-o", str(path), *words]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


class TestAFirstBoot:
    """One machine through its first boots, in order."""

    def test_it_has_set_itself_up_and_says_so(self, born: Born) -> None:
        report = born.report
        assert (report["result"], report["exit_code"], report["host"], report["instance"]) == ("done", 0, "selfmade", "i-lab")
        (host,) = report["setup"]["hosts"]
        assert host["status"] == "changed"
        assert {check["id"]: check["state"] for check in host["checks"]}["container"] == "ok"
        assert not host["after"]["problems"]
        assert "active" in born.root("systemctl is-active docker")

    def test_the_serial_console_tells_the_same_in_one_line(self, born: Born) -> None:
        told = [json.loads(found) for found in re.findall(r"mlhost: report (\{.*\})", born.vm.console_text())]
        assert len(told) == 1
        assert {key: born.report[key] for key in told[0]} == told[0]

    def test_it_waited_for_the_package_work_of_others(self, born: Born) -> None:
        waits = [line.split("\t")[3] for line in born.root("cat /var/lib/mlhost/runs/*/events").splitlines() if "\twait\t" in line]
        assert any("lock-frontend" in wait for wait in waits), waits
        for unit in ("apt-daily.service", "apt-daily-upgrade.service"):
            assert "Result=success" in born.root(f"systemctl show -p Result {unit}")
        assert "unattended-upgrades" in born.root("ls /var/log")

    def test_cloud_init_was_kept_waiting_for_nothing(self, born: Born) -> None:
        """It ended before the work began: not done, it would still be running, and the unit waits for its end."""
        assert born.root("cloud-init status", check=False).startswith("status: done")
        ended = born.root("journalctl --no-pager -o short-unix -u cloud-final.service | grep Finished | head -1").split()[0]
        began = born.root("journalctl --no-pager -o short-unix -u mlhost-pull.service | grep Started | head -1").split()[0]
        assert float(began) >= float(ended)

    def test_it_went_on_after_the_power_cut(self, born: Born) -> None:
        assert len(re.findall("mlhost: setting this machine up", born.vm.console_text())) == 2
        assert born.root("journalctl --list-boots --no-pager").count("\n") >= 2

    def test_cloud_inits_own_schema_finds_both_forms_valid(self, born: Born) -> None:
        born.vm.put([born.config], "/root", user="root")
        assert "Valid schema" in born.root("cloud-init schema --config-file /root/alone")
        assert "Valid schema" in born.root("cloud-init schema --system --annotate")

    def test_no_ordinary_user_can_read_what_was_secret(self, born: Born) -> None:
        assert TOKEN not in born.vm.console_text()
        assert TOKEN not in born.root("journalctl -b --no-pager -o cat")
        found = born.vm.run(f"grep -rls {TOKEN} /var/lib/mlhost /etc /run /var/log /var/lib/cloud 2>/dev/null", check=False).out
        assert found == ""

    def test_nothing_of_it_is_left_to_start(self, born: Born) -> None:
        assert born.root("ls /etc/systemd/system/mlhost* /etc/systemd/system/*/mlhost*", check=False) == ""
        assert sorted(born.root("ls /var/lib/mlhost/pull").split()) == ["done", "log", "report.json"]
        fetched = [line for line in born.requests if "mlhost.pyz" in line]
        assert set(fetched) == {"GET /mlhost.pyz 200"}

    def test_setup_over_ssh_finds_nothing_to_do_also_after_a_reboot(self, born: Born) -> None:
        born.vm.reboot()
        assert "running" in born.root("systemctl is-system-running --wait", check=False)
        ran = mlhost("setup", born.vm, "-p", "docker-host", settings=SETTINGS)
        assert ran.code == 0, str(ran)
        assert "nothing to change" in ran.out
        assert len(born.heard) == 1
