"""dnf and zypper in bad weather: what a mirror, the line to it or a disk can do to a real dnf 4 and zypper in trees of their own.

Each fault ends in a reason whose layer and remedy are known, leaves the host as it was, and is forgotten once it is over: the same stage then converges.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from provision import actions, render
from provision.model import CHANGE, Item, Plan, PlatformRow
from provision.remedies import remedy
from tests.lab.aptrepo import SigningKey
from tests.lab.faults import Fault, FaultServer
from tests.lab.figures import count
from tests.lab.fixtures import available
from tests.lab.rpmrepo import DOCKER, Rpm, RpmMaker
from tests.lab.rpmtree import rpm_tree
from tests.test_render_rpm import Machine, Served, made, packages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REPOMD, INDEX, PACKAGE = r"/repomd\.xml$", r"/repodata/.*primary", r"/docker-ce-.*\.rpm$"
CHECKS = "gpgcheck=1\nrepo_gpgcheck=1"
# it tells who runs it, and waits while it is to
POST = "[ ! -e /wait ] || {{ echo $PPID >/post; sleep 600; }}; : >/done-{}"
RPMS = (
    Rpm("base", "1", provides="/bin/sh"),
    Rpm("slow", "1", files={"opt/slow": "one"}, post=POST.format(1)),
    Rpm("slow", "2", files={"opt/slow": "two"}, post=POST.format(2)),
    Rpm("docker-ce", "29.7.1", epoch=3, files={"opt/docker": "pinned"}),
)
# Short waits, or a hanging mirror would take minutes. What is waited for is the package manager's own.
SHORT = {
    "/etc/dnf/dnf.conf": "[main]\ntimeout=2\nretries=1\nminrate=1000\n",
    "/etc/zypp/zypp.conf": "[main]\ndownload.connect_timeout = 2\ndownload.transfer_timeout = 2\ndownload.max_silent_tries = 1\n",
}


@dataclass(frozen=True)
class Case:
    """A fault and the layer that the reason is put down to. `signer`: the index is signed by a stranger instead."""

    name: str
    fault: Fault
    layer: str
    stranger: bool = False


INDEX_CASES = (
    Case("404 for the index", Fault(REPOMD, "status", 404), "repository"),
    Case("500 for the index", Fault(REPOMD, "status", 500), "repository"),
    Case("a changed index", Fault(INDEX, "corrupt"), "repository"),
    Case("half an index", Fault(INDEX, "cut"), "network"),
    Case("a mirror that never answers", Fault(REPOMD, "hang"), "network"),
    Case("a trickling mirror", Fault(INDEX, "trickle"), "network"),
    Case("another key", Fault(r"/repomd\.xml\.asc$", "swap"), "repository", stranger=True),
    Case("a proxy that wants credentials", Fault(".", "proxy-auth"), "proxy"),
    Case("a captive portal", Fault(".", "portal"), "network"),
)
PACKAGE_CASES = (
    Case("404 for a package", Fault(PACKAGE, "status", 404), "repository"),
    Case("500 for a package", Fault(PACKAGE, "status", 500), "repository"),
    Case("a changed package", Fault(PACKAGE, "corrupt"), "repository"),
    Case("half a package", Fault(PACKAGE, "cut"), "network"),
    Case("half a package, then silence", Fault(PACKAGE, "stall"), "network"),
)


@dataclass(frozen=True)
class Weather:
    """A repository in bad weather; `strange` is its index's signature by a key that nobody trusts."""

    served: Served
    server: FaultServer
    strange: Path

    def spoil(self, case: Case) -> None:
        self.server.weather.brings(replace(case.fault, other=self.strange) if case.stranger else case.fault)


@pytest.fixture(scope="module")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weather]:
    base = available(lambda: rpm_tree("dnf4"))
    folder = tmp_path_factory.mktemp("rpms")
    (folder / "served").mkdir()
    with SigningKey("vendor test double <d@invalid>") as key, SigningKey("stranger <s@invalid>") as stranger:
        maker = available(lambda: RpmMaker(base, tmp_path_factory.mktemp("maker"), folder / "served", (key, stranger)))
        try:
            maker.publish(DOCKER, RPMS, key, signed=stranger)
            strange = folder / "strange.asc"
            shutil.copy(folder / "served" / DOCKER / "repodata/repomd.xml.asc", strange)
            maker.publish(DOCKER, RPMS, key)
        finally:
            maker.close()
        with FaultServer(folder / "served") as server:
            yield Weather(Served(server, key, stranger), server, strange)  # type: ignore[arg-type]


@pytest.fixture(params=["dnf4", "zypper"])
def machine(request: pytest.FixtureRequest, weather: Weather, tmp_path: Path) -> Iterator[Machine]:
    weather.server.weather.sunny()
    for host in made(request.param, weather.served, tmp_path):
        for path, text in SHORT.items():
            host.host.path(path).write_text(text)
        yield host


def told(machine: Machine, layer: str) -> None:
    # where the journal itself cannot be written the log has the words
    reason = next((event.detail for event in machine.events if event.kind == "failed"), machine.log)
    known = remedy(f"x failed: {reason}")
    assert known is not None, f"no remedy is known for: {reason}\n{machine.log}"
    assert known.layer == layer, f"{known.layer} for: {reason}\n{machine.log}"


@pytest.mark.parametrize("case", INDEX_CASES, ids=lambda case: case.name)
def test_a_new_source_in_bad_weather_leaves_nothing_behind_and_is_there_when_it_is_over(machine: Machine, weather: Weather, case: Case) -> None:
    wanted = machine.repository(checks=CHECKS)
    weather.spoil(case)
    machine.env = {"MLHOST_FETCH_WAIT": "3"} if case.fault.kind in ("hang", "trickle") else {}
    assert machine.run(wanted) == 1, machine.log
    assert weather.server.weather.has_struck()
    told(machine, case.layer)
    machine.env = {}
    assert not machine.there(wanted.path)
    assert machine.trusted() == ""
    weather.server.weather.sunny()
    assert machine.run(wanted, packages("docker-ce")) == 0, machine.log
    count(f"{machine.manager}-new-{case.name.replace(' ', '-')}", "a new rpm source in bad weather", 1, 1)


@pytest.mark.parametrize("case", PACKAGE_CASES, ids=lambda case: case.name)
def test_a_package_that_does_not_come_leaves_the_database_as_it_was(machine: Machine, weather: Weather, case: Case) -> None:
    assert machine.run(machine.repository(checks=CHECKS)) == 0, machine.log
    if machine.zypper and case.fault.kind in ("cut", "stall"):
        pytest.skip("zypper goes on for the rest of a package for minutes, whatever its settings say")
    before = machine.host.must("rpm", "-qa")
    weather.spoil(case)
    assert machine.run(packages("docker-ce")) == 1, machine.log
    assert weather.server.weather.has_struck()
    told(machine, case.layer)
    assert machine.host.must("rpm", "-qa") == before
    weather.server.weather.sunny()
    assert machine.run(packages("docker-ce")) == 0, machine.log
    count(f"{machine.manager}-rpm-{case.name.replace(' ', '-')}", "an rpm download in bad weather", 1, 1)


@pytest.mark.parametrize("at", ["opt", "var/cache", "var/lib/mlhost"])
def test_a_full_disk_is_named_wherever_it_is_and_the_next_run_goes_on(machine: Machine, weather: Weather, at: str) -> None:
    machine.host.must("sh", "-c", f"mkdir -p /{at}; mount -t tmpfs -o size=64k,mode=755 tmpfs /{at}; dd if=/dev/zero of=/{at}/ballast bs=4k 2>/dev/null || :")
    assert machine.run(machine.repository(checks=CHECKS), packages("docker-ce")) != 0, machine.log
    told(machine, "disk")
    assert machine.version("docker-ce") == ""
    machine.host.must("umount", f"/{at}")
    assert machine.run(machine.repository(checks=CHECKS), packages("docker-ce")) == 0, machine.log
    count(f"{machine.manager}-full-{at.replace('/', '-')}", "a full disk, rpm", 1, 1)


def test_a_transaction_killed_in_a_packages_own_script_is_done_again_by_the_next_stage(machine: Machine) -> None:
    """The package manager, and whoever started it, die while the new version's script runs: both versions are in the database then."""
    assert machine.run(machine.repository(checks=CHECKS), packages("slow=1-*")) == 0, machine.log
    machine.host.path("/wait").write_text("")
    wanted = packages("slow=2-*")
    process, killed = started(machine, wanted), False
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if machine.there("/post") and (text := machine.host.path("/post").read_text().strip()):
                # the transaction's own process is the script's parent
                os.kill(int(text), signal.SIGKILL)
                killed = True
                break
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert killed
    machine.host.path("/wait").unlink()
    assert len(machine.host.must("rpm", "-q", "slow").split()) == 2, "it was in the middle of it"
    assert not machine.there("/done-2")
    assert machine.run(wanted, run_id="run-2") == 0, machine.log
    assert machine.version("slow") == "0:2-1.el9"
    assert machine.there("/done-2"), "its script ran to its end"
    assert machine.host.path("/opt/slow").read_text() == "two"
    machine.host.must("rpm", "--verify", "slow")
    assert machine.run(wanted, run_id="run-3") == 0
    assert machine.states() == ["ok"]
    assert "run-1\tpackage\tslow\t0:2-1.el9\t0:1-1.el9\n" in machine.receipts()
    count(f"{machine.manager}-killed-in-script", "an rpm transaction killed inside a package's own script", 1, 1)


def started(machine: Machine, wanted: actions.Packages) -> subprocess.Popen[bytes]:
    """The stage of that action, at work in a process group of its own."""
    item = Item("step/1", "step", actions.kind(wanted), CHANGE, "x", action=wanted)
    family = "suse" if machine.zypper else "rhel"
    plan = Plan("h", PlatformRow("rocky", "9.6", "", family, "x86_64", None), (), {}, (item,))
    machine.host.path("/script").write_text(render.stage(plan, run_id="run-1"))
    return subprocess.Popen(
        ["sh", "-c", machine.host.command("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "sh", "/script")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )
