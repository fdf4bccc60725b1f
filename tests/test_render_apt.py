"""Rendered stages against the real apt and dpkg of this machine, in a root folder of their own, with a signed repository on loopback."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from provision import actions, keys, openpgp, render
from provision.journal import Event, outcomes, parse_event
from provision.model import CHANGE, Item, Plan, PlatformRow
from provision.traces import Traces
from tests import back
from tests.lab.aptrepo import SigningKey, index_packages, write_release
from tests.lab.debs import Deb, build_deb
from tests.lab.need import LabUnavailable, require_root, tool
from tests.lab.server import FileServer

pytestmark = pytest.mark.slow

DEBS = (
    Deb("docker-ce", "5:29.6.0-1", files={"opt/docker": "old"}),
    Deb("docker-ce", "5:29.7.1-1", files={"opt/docker": "pinned"}),
    Deb("docker-ce", "5:30.0.0-1", conflicts="docker.io", recommends="extras", files={"opt/docker": "new"}),
    Deb("docker.io", "26.1-1", files={"opt/distro": "x"}),
    Deb("extras", "1-1"),
    Deb("toolkit", "1.18.0-1", depends="docker-ce"),
    Deb("settled", "1-1", files={"etc/settled.conf": "as shipped\n"}, conffiles="/etc/settled.conf\n"),
    Deb("tuned", "1-1", files={"etc/tuned.conf": "as shipped\n"}, conffiles="/etc/tuned.conf\n"),
)
SOURCE = "/etc/apt/sources.list.d/docker.sources"
KEY_PATH = "/etc/apt/keyrings/docker.asc"


@dataclass
class Machine:
    """A root folder with an empty dpkg database, the real apt pointed at it, and the repository it may use."""

    root: Path
    server: FileServer
    key: SigningKey
    stranger: SigningKey
    events: list[Event]
    log: str = ""

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "APT_CONFIG": str(self.root / "apt.conf"),
            "DPKG_ROOT": str(self.root),
            "MLHOST_ROOT": str(self.root),
            "MLHOST_EVENTS": str(self.root / "events"),
            "MLHOST_PAUSE": "0.1",
        }

    def run(self, *wanted: actions.Action, lock_wait: int = 100, run_id: str = "run-1") -> int:
        items = tuple(
            Item(f"step/{n}", "step", actions.kind(action), CHANGE, "x", action=action) for n, action in enumerate(wanted, 1)
        )
        plan = Plan("h", PlatformRow("debian", "12", "bookworm", "debian", "x86_64", None), (), {}, items)
        return self.execute(render.stage(plan, run_id=run_id, lock_wait=lock_wait))

    def execute(self, text: str) -> int:
        (self.root / "events").write_text("")
        done = subprocess.run(["sh", "-s"], input=text.encode(), env=self.env, capture_output=True, timeout=120, check=False)
        self.log = (done.stdout + done.stderr).decode(errors="replace")
        self.events = [event for line in (self.root / "events").read_text().splitlines() if (event := parse_event(line))]
        return done.returncode

    def states(self) -> list[str]:
        return [outcome.state for outcome in outcomes(self.events)]

    def detail(self) -> str:
        return next(event.detail for event in self.events if event.kind == "failed")

    def repository(self, key: SigningKey | None = None, suite: str = "trixie", where: str = "") -> actions.AptRepository:
        text = (
            f"Types: deb\nURIs: {where or self.server.url}\nSuites: {suite}\nComponents: stable\n"
            f"Architectures: amd64\nSigned-By: {self.root}{KEY_PATH}\n"
        )
        public = (key or self.key).public()
        return actions.AptRepository("docker", SOURCE, text, actions.Key("docker", "", ("F",), KEY_PATH, public))

    def version(self, name: str) -> str:
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", name], env=self.env, capture_output=True, text=True, check=False
        )
        return done.stdout


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FileServer, SigningKey, SigningKey]]:
    try:
        require_root("installing packages into a folder")
        for name in ("apt-get", "dpkg", "dpkg-deb", "apt-ftparchive"):
            tool(name, "apt-utils")
        key, stranger = SigningKey("docker test double <d@invalid>"), SigningKey("stranger <s@invalid>")
    except LabUnavailable as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("repository")
    (folder / "pool").mkdir()
    for deb in DEBS:
        build_deb(deb, folder / "pool")
    for suite in ("trixie", "other"):
        index_packages(folder, "pool", folder / "dists" / suite / "stable/binary-amd64")
        fields = {"Suite": suite, "Codename": suite, "Components": "stable", "Architectures": "amd64"}
        write_release(folder / "dists" / suite, key, fields)
    with FileServer(folder) as server, key, stranger:
        yield server, key, stranger


@pytest.fixture
def machine(served: tuple[FileServer, SigningKey, SigningKey], tmp_path: Path) -> Machine:
    root = tmp_path / "root"
    for name in (
        "etc/apt/sources.list.d",
        "etc/apt/apt.conf.d",
        "etc/apt/preferences.d",
        "var/lib/dpkg/info",
        "var/lib/dpkg/updates",
    ):
        (root / name).mkdir(parents=True)
    for name in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/log/apt", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text("")
    (root / "apt.conf").write_text(
        f'Dir "{root}";\nDir::State::status "{root}/var/lib/dpkg/status";\nDir::Bin::methods "/usr/lib/apt/methods";\n'
        'Dir::Bin::dpkg "/usr/bin/dpkg";\nAPT::Sandbox::User "root";\nAPT::Architecture "amd64";\nAPT::Architectures "amd64";\n'
        'Acquire::http::Proxy "DIRECT";\nAcquire::Languages "none";\nAcquire::Retries::Delay "false";\n'
    )
    server, key, stranger = served
    return Machine(root, server, key, stranger, [])


def packages(*names: str, remove: tuple[str, ...] = (), recommends: bool = False) -> actions.Packages:
    wanted = tuple(actions.Package(*name.split("=")) for name in names)
    return actions.Packages(wanted, remove, recommends)


def test_a_source_is_trusted_refreshed_and_used_and_a_second_run_changes_nothing(machine: Machine) -> None:
    wanted = (machine.repository(), packages("docker-ce=5:29.7.*"), packages("toolkit"), actions.Hold(("docker-ce",)))
    assert machine.run(*wanted) == 0, machine.log
    assert machine.states() == ["changed"] * 4
    assert machine.version("docker-ce") == "5:29.7.1-1"
    assert (machine.root / "opt/docker").read_text() == "pinned"
    requests = len(machine.server.requests)
    assert machine.run(*wanted) == 0, machine.log
    assert machine.states() == ["ok"] * 4
    assert len(machine.server.requests) == requests
    receipts = (machine.root / "var/lib/mlhost/receipts").read_text()
    assert re.search(r"^run-1\tpackage\tdocker-ce\t5:29\.7\.1-1\t$", receipts, re.MULTILINE)


def test_a_key_in_binary_form_is_one_that_apt_takes_too(machine: Machine) -> None:
    """Which is the only form before apt 1.4; the apt here is newer, and takes both."""
    path = KEY_PATH.replace(".asc", ".gpg")
    armoured = machine.repository()
    key = actions.Key("docker", "", ("F",), path, keys.as_named(path, machine.key.public()))
    wanted = replace(armoured, text=armoured.text.replace(KEY_PATH, path), key=key)
    assert machine.run(wanted, packages("docker-ce")) == 0, machine.log
    assert (machine.root / path[1:]).read_bytes() == openpgp.dearmor(machine.key.public())
    assert machine.run(wanted) == 0
    assert machine.states() == ["ok"]


def test_recommended_packages_come_only_when_asked_for(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce")) == 0, machine.log
    assert machine.version("extras") == ""
    assert machine.run(packages("docker-ce=5:30.*", "toolkit", recommends=True)) == 0, machine.log


def test_a_key_of_somebody_else_is_a_failure_although_apt_has_older_lists(machine: Machine) -> None:
    assert machine.run(machine.repository()) == 0, machine.log
    before = {path: (machine.root / path.lstrip("/")).read_bytes() for path in (SOURCE, KEY_PATH)}
    assert machine.run(machine.repository(key=machine.stranger)) == 1
    assert "cannot be fetched" in machine.detail()
    assert "NO_PUBKEY" in machine.detail() or "not signed" in machine.detail() or "GPG error" in machine.detail() or "Missing key" in machine.detail()
    assert {path: (machine.root / path.lstrip("/")).read_bytes() for path in (SOURCE, KEY_PATH)} == before


@pytest.mark.parametrize("reason", ["no such suite", "nobody there"])
def test_a_source_that_is_not_there_is_taken_back(machine: Machine, reason: str) -> None:
    wanted = machine.repository(suite="absent") if reason == "no such suite" else machine.repository(where="http://127.0.0.1:1")
    assert machine.run(wanted) == 1
    assert "cannot be fetched" in machine.detail()
    assert ("does not have a Release file" in machine.detail()) or ("127.0.0.1" in machine.detail()), machine.detail()
    assert not (machine.root / SOURCE.lstrip("/")).exists()
    assert not (machine.root / KEY_PATH.lstrip("/")).exists()


def test_refreshing_one_source_leaves_the_others_lists_alone(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} other stable\n")
    assert machine.run(packages("docker.io")) == 0, machine.log
    assert machine.run(machine.repository()) == 0, machine.log
    lists = [path.name for path in (machine.root / "var/lib/apt/lists").iterdir()]
    assert any(name.endswith("other_stable_binary-amd64_Packages") for name in lists)
    assert any(name.endswith("trixie_stable_binary-amd64_Packages") for name in lists)


def test_a_fresh_image_without_lists_gets_them_first(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} trixie stable\n")
    assert machine.run(packages("docker.io")) == 0, machine.log
    assert machine.version("docker.io") == "26.1-1"


def test_a_conflict_is_removed_only_if_the_plan_names_it(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} trixie stable\n")
    assert machine.run(packages("docker.io")) == 0, machine.log
    assert machine.run(packages("docker-ce=5:30.*")) == 1
    assert machine.detail() == "refused: apt would also remove docker.io"
    assert machine.version("docker.io") == "26.1-1"
    assert machine.run(packages("docker-ce=5:30.*", remove=("docker.io", "podman-docker"))) == 0, machine.log
    assert (machine.root / "opt/docker").exists()
    assert not (machine.root / "opt/distro").exists()


def test_packages_are_removed_without_anything_to_install(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} trixie stable\n")
    assert machine.run(packages("docker.io")) == 0, machine.log
    assert machine.run(packages(remove=("docker.io",))) == 0, machine.log
    assert machine.states() == ["changed"]
    assert not (machine.root / "opt/distro").exists()


def test_a_version_that_nobody_offers_is_named(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce=5:99.*")) == 1
    assert machine.detail() == "apt cannot install this: E: Version '5:99.*' for 'docker-ce' was not found"


def test_a_held_package_is_not_changed_behind_its_owners_back(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce=5:29.6.*"), actions.Hold(("docker-ce",))) == 0, machine.log
    subprocess.run(["rm", "-f", str(machine.root / "var/lib/mlhost/receipts")], check=True)
    assert machine.run(packages("docker-ce=5:30.*")) == 1
    assert machine.version("docker-ce") == "5:29.6.0-1"
    assert "held" in machine.detail().lower()


def test_what_mlhost_holds_itself_it_may_change_and_holds_again(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce=5:29.6.*"), actions.Hold(("docker-ce",))) == 0, machine.log
    assert machine.run(packages("docker-ce=5:30.*")) == 0, machine.log
    assert machine.version("docker-ce") == "5:30.0.0-1"
    held = subprocess.run(["apt-mark", "showhold"], env=machine.env, capture_output=True, text=True, check=True).stdout
    assert held.split() == ["docker-ce"]


@pytest.mark.parametrize("lock", ["var/lib/apt/lists/lock", "var/lib/dpkg/lock-frontend", "var/cache/apt/archives/lock"])
def test_each_of_apts_locks_is_waited_for(machine: Machine, lock: str) -> None:
    path = machine.root / lock
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.lockf(handle, fcntl.LOCK_EX)
        timer = threading.Timer(2, lambda: fcntl.lockf(handle, fcntl.LOCK_UN))
        timer.start()
        code = machine.run(machine.repository(), packages("docker-ce"))
        timer.join()
    assert code == 0, machine.log
    comm = Path("/proc/self/comm").read_text().strip()
    waits = [event.detail for event in machine.events if event.kind == "wait"]
    assert waits == [f"{comm} ({os.getpid()}) holds /{lock}"]


def test_a_dpkg_that_was_killed_is_repaired(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce")) == 0, machine.log
    status = machine.root / "var/lib/dpkg/status"
    status.write_text(status.read_text().replace("install ok installed", "install ok half-configured"))
    assert machine.run(packages("toolkit")) == 0, machine.log
    assert "dpkg was interrupted before; running dpkg --configure -a" in [event.detail for event in machine.events]
    assert "half-configured" not in status.read_text()


def look(machine: Machine) -> Traces:
    env = {k: v for k, v in machine.env.items() if k != "MLHOST_EVENTS"}
    return back.traces(
        lambda text: subprocess.run(["sh", "-s"], input=text.encode(), env=env, capture_output=True, timeout=120, check=True).stdout
    )


def take_back(machine: Machine, *runs: str, run_id: str = "back-1") -> Plan:
    planned = back.way_back(look(machine), *runs)
    assert machine.execute(back.script(planned, run_id)) == 0, machine.log
    return planned


def status_of(machine: Machine) -> dict[str, str]:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status} ${Version}\\n"], env=machine.env, capture_output=True, text=True, check=False
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def files(machine: Machine) -> dict[str, bytes]:
    """Every file but mlhost's own, apt's caches and logs, and what dpkg keeps of itself."""
    volatile = ("var/lib/mlhost", "var/cache", "var/log", "var/lib/dpkg", "var/lib/apt", "events", "script")
    found = (path for path in machine.root.rglob("*") if path.is_file())
    return {str(p.relative_to(machine.root)): p.read_bytes() for p in found if not str(p.relative_to(machine.root)).startswith(volatile)}


def test_a_rollback_takes_an_upgrade_back_to_the_version_that_was_there(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} other stable\n")
    assert machine.run(packages("docker.io", "docker-ce=5:29.6.*"), run_id="run-1") == 0, machine.log
    before, files_before = status_of(machine), files(machine)
    wanted = (machine.repository(), packages("docker-ce=5:30.*", "toolkit", remove=("docker.io",)), actions.Hold(("docker-ce",)))
    assert machine.run(*wanted, run_id="run-2") == 0, machine.log
    assert "run-2\tpackage\tdocker-ce\t5:30.0.0-1\t5:29.6.0-1\n" in (machine.root / "var/lib/mlhost/receipts").read_text()
    take_back(machine, "run-2")
    assert status_of(machine) == before
    assert files(machine) == files_before
    assert not list((machine.root / "var/lib/apt/lists").glob("*trixie*"))
    assert look(machine).last == ""
    take_back(machine, run_id="back-2")
    assert status_of(machine) == {}


def test_an_upgrade_whose_old_version_no_source_has_stays_and_the_plan_says_so(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} other stable\n")
    assert machine.run(packages("docker-ce=5:29.6.*"), run_id="run-1") == 0, machine.log
    assert machine.run(packages("docker-ce=5:30.*"), run_id="run-2") == 0, machine.log
    receipts = machine.root / "var/lib/mlhost/receipts"
    receipts.write_text(receipts.read_text().replace("5:29.6.0-1", "5:29.5.0-1"))
    planned = take_back(machine, "run-2")
    assert [n.message for n in planned.notices] == ["docker-ce was 5:29.5.0-1, which no source has any more; it stays at 5:30.0.0-1."]
    assert machine.version("docker-ce") == "5:30.0.0-1"


def test_a_package_that_somebody_has_upgraded_since_stays(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} other stable\n")
    assert machine.run(packages("docker-ce=5:29.6.*"), run_id="run-1") == 0, machine.log
    assert machine.run(packages("docker-ce=5:29.7.*"), run_id="run-2") == 0, machine.log
    subprocess.run(["apt-get", "-qy", "install", "docker-ce=5:30.0.0-1"], env=machine.env, capture_output=True, check=True)
    planned = take_back(machine, "run-2")
    assert [n.message for n in planned.notices] == ["docker-ce was 5:29.6.0-1 and is 5:30.0.0-1 now, which mlhost did not install; it stays."]


def test_what_a_package_that_somebody_has_installed_since_needs_is_not_pulled_away(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} other stable\n")
    assert machine.run(packages("docker-ce=5:30.*")) == 0, machine.log
    subprocess.run(["apt-get", "-qy", "install", "toolkit"], env=machine.env, capture_output=True, check=True)
    found = back.in_the_way(back.way_back(look(machine)), lambda text: subprocess.run(
        ["sh", "-s"], input=text.encode(), env=machine.env, capture_output=True, timeout=120, check=True
    ).stdout)
    assert found == ["toolkit"]
    assert machine.execute(back.script(back.way_back(look(machine)))) == 1
    assert machine.detail() == "refused: apt would also remove toolkit"
    assert machine.version("docker-ce") == "5:30.0.0-1"
    assert (machine.root / "var/lib/mlhost/receipts").read_text().count("package") == 1


def test_a_transaction_that_was_cut_off_before_its_receipts_were_written_is_taken_back_all_the_same(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} other stable\n")
    assert machine.run(packages("docker.io"), run_id="run-1") == 0, machine.log
    before = status_of(machine)
    items = (Item("step/1", "step", "packages", CHANGE, "x", action=packages("docker-ce=5:30.*", remove=("docker.io",))),)
    text = render.stage(Plan("h", PlatformRow("debian", "12", "bookworm", "debian", "x86_64", None), (), {}, items), run_id="run-2")
    assert machine.execute(text.replace("apt_install_rc=$?\n    packages_settle", "apt_install_rc=$?\n    kill -9 $$")) == -9
    assert "run-2" not in (machine.root / "var/lib/mlhost/receipts").read_text()
    assert look(machine).last == "run-2"
    take_back(machine, "run-2")
    assert status_of(machine) == before
    assert look(machine).undone == ("run-2",)


def test_settings_go_with_their_package_unless_somebody_has_changed_them(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} trixie stable\n")
    assert machine.run(packages("settled", "tuned")) == 0, machine.log
    (machine.root / "etc/tuned.conf").write_text("by hand\n")
    planned = take_back(machine)
    assert status_of(machine) == {"tuned": "config-files 1-1"}
    assert not (machine.root / "etc/settled.conf").exists()
    assert (machine.root / "etc/tuned.conf").read_text() == "by hand\n"
    assert [n.message for n in planned.notices] == ["tuned is removed, but its settings stay: somebody has changed them."]


def test_settings_that_were_there_before_the_package_came_again_stay(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} trixie stable\n")
    subprocess.run(["apt-get", "-q", "update"], env=machine.env, capture_output=True, check=True)
    for verb in ("install", "remove"):
        subprocess.run(["apt-get", "-qy", verb, "settled"], env=machine.env, capture_output=True, check=True)
    before = status_of(machine)
    assert before == {"settled": "config-files 1-1"}
    assert machine.run(packages("settled")) == 0, machine.log
    take_back(machine)
    assert status_of(machine) == before
    assert (machine.root / "etc/settled.conf").exists()


def test_a_source_that_contradicts_another_is_taken_back(machine: Machine) -> None:
    (machine.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {machine.server.url} trixie stable\n")
    assert machine.run(machine.repository()) == 1
    assert "Conflicting values set for option" in machine.detail()
    assert not (machine.root / SOURCE.lstrip("/")).exists()
