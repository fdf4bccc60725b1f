"""Rendered stages against the real dnf and zypper of Debian's packages, in a tree of their own, with signed repositories on loopback.

Only the package managers are real there (and rpm, gpg, createrepo_c): the system around them and the packages are doubles.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from provision import actions, render
from provision.journal import Event, outcomes, parse_event
from provision.keys import armoured
from provision.model import CHANGE, Item, Plan, PlatformRow
from provision.traces import Traces
from tests import back
from tests.lab.aptrepo import SigningKey
from tests.lab.doubles_rpm import TDNF, YUM
from tests.lab.fixtures import available, skipping
from tests.lab.rpmrepo import CUDA, DOCKER, TOOLKIT, Rpm, RpmMaker, module
from tests.lab.rpmtree import RpmHost, built_tdnf, rpm_tree
from tests.lab.server import FileServer

pytestmark = pytest.mark.slow

DOCKERS = (
    Rpm("docker-ce", "29.6.0", epoch=3, files={"opt/docker": "old"}),
    Rpm("docker-ce", "29.7.1", epoch=3, files={"opt/docker": "pinned"}),
    Rpm("docker-ce", "30.0.0", epoch=3, conflicts="docker", recommends="extras", files={"opt/docker": "new"}),
    Rpm("containerd.io", "2.1.5", obsoletes="runc"),
    Rpm("docker", "26.1", files={"opt/distro": "x"}),
    Rpm("runc", "1.1"),
    Rpm("podman", "5.0", requires="runc"),
    Rpm("extras", "1"),
    Rpm("unsigned", "1", signed=False),
    Rpm("base", "1"),
    Rpm("kmp", "580.95.05_k6.4.0_150700.21"),
    Rpm("utils", "580.95.05"),
    Rpm("utils", "580.105.08"),
)
TOOLKITS = (Rpm("nvidia-container-toolkit", "1.20.0", "1", requires="docker-ce", signed=False),)
OPEN_580 = (Rpm("nvidia-driver", "580.105.08", epoch=3, modularity="nvidia-driver:580-open:1:c0ffee"),)
OPEN_590 = (Rpm("nvidia-driver", "590.44.01", epoch=3, modularity="nvidia-driver:590-open:1:c0ffee"),)
SHELLS = {"dash": ("sh",), "bash": ("bash",), "busybox": ("busybox", "sh")}


@dataclass(frozen=True)
class Served:
    """The repositories, in the vendors' own layouts, and the keys that sign them."""

    server: FileServer
    key: SigningKey
    stranger: SigningKey


@dataclass
class Machine:
    """A tree with one of the package managers, and the repositories it may use."""

    host: RpmHost
    manager: str
    served: Served
    events: list[Event] = field(default_factory=list)
    log: str = ""
    env: dict[str, str] = field(default_factory=dict)

    @property
    def zypper(self) -> bool:
        return self.manager == "zypper"

    @property
    def tdnf(self) -> bool:
        return self.manager == "tdnf"

    @property
    def folder(self) -> str:
        return "/etc/zypp/repos.d" if self.zypper else "/etc/yum.repos.d"

    def run(self, *wanted: actions.Action, lock_wait: int = 100, run_id: str = "run-1", shell: str = "dash") -> int:
        items = tuple(
            Item(f"step/{n}", "step", actions.kind(action), CHANGE, "x", action=action) for n, action in enumerate(wanted, 1)
        )
        family = "suse" if self.zypper else "rhel"
        plan = Plan("h", PlatformRow("rocky", "9.6", "", family, "x86_64", None), (), {}, items)
        return self.execute(render.stage(plan, run_id=run_id, lock_wait=lock_wait), shell)

    def execute(self, text: str, shell: str = "dash") -> int:
        self.host.path("/events").write_text("")
        env = {"MLHOST_EVENTS": "/events", "MLHOST_PAUSE": "0.1", **self.env}
        self.host.path("/script").write_text(text)
        done = self.host.run(*SHELLS[shell], "/script", env=env)
        self.log = done.stdout
        self.events = [event for line in self.host.path("/events").read_text().splitlines() if (event := parse_event(line))]
        return done.returncode

    def states(self) -> list[str]:
        return [outcome.state for outcome in outcomes(self.events)]

    def detail(self) -> str:
        return next(event.detail for event in self.events if event.kind == "failed")

    def repository(
        self, name: str = "docker-ce-stable", place: str = DOCKER, key: SigningKey | None = None, checks: str = "gpgcheck=1", where: str = ""
    ) -> actions.RpmRepository:
        signer = key or self.served.key
        key_path = f"/etc/pki/rpm-gpg/RPM-GPG-KEY-{name}"
        text = (
            f"[{name}]\nname=double of {name}\nbaseurl={where or self.served.server.url}/{place.replace('x86_64', '$basearch')}\n"
            f"enabled=1\n{checks}\ngpgkey=file://{key_path}\n"
        )
        if self.zypper and "gpgcheck=1" in checks.splitlines():
            # else zypper is content with a signed index
            text += "pkg_gpgcheck=1\n"
        pinned = actions.Key(name, "", (signer.fingerprint,), key_path, armoured(signer.public()))
        return actions.RpmRepository(name, f"{self.folder}/{name}.repo", text, pinned)

    def version(self, name: str) -> str:
        done = self.host.run("rpm", "-q", "--qf", "%{EPOCHNUM}:%{VERSION}-%{RELEASE}", name)
        return done.stdout if done.returncode == 0 else ""

    def trusted(self) -> str:
        return self.host.run("rpmkeys", "--list").stdout

    def there(self, path: str) -> bool:
        return self.host.path(path).exists()

    def receipts(self) -> str:
        return self.host.path("/var/lib/mlhost/receipts").read_text()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = available(lambda: rpm_tree("dnf4"))
    folder = tmp_path_factory.mktemp("rpms")
    with SigningKey("vendor test double <d@invalid>") as key, SigningKey("stranger <s@invalid>") as stranger:
        maker = available(lambda: RpmMaker(base, tmp_path_factory.mktemp("maker"), folder, (key, stranger)))
        try:
            maker.publish(DOCKER, DOCKERS, key)
            maker.publish(TOOLKIT, TOOLKITS, key)
            streams = module("nvidia-driver", "580-open", OPEN_580) + module("nvidia-driver", "590-open", OPEN_590)
            maker.publish(CUDA, (*OPEN_580, *OPEN_590), key, streams)
        finally:
            maker.close()
        with FileServer(folder) as server:
            yield Served(server, key, stranger)


def made(manager: str, served: Served, work: Path) -> Iterator[Machine]:
    """A machine with that manager; `yum-double` and `tdnf-double` are doubles in front of dnf."""
    with skipping():
        if manager == "tdnf":
            tdnf = built_tdnf()
        host = RpmHost(rpm_tree("dnf5" if manager == "dnf5" else "dnf4"), work)
    if manager == "tdnf":
        for part in ("usr", "etc"):
            shutil.copytree(tdnf / part, host.path(f"/{part}"), symlinks=True, dirs_exist_ok=True)
        host.path("/usr/lib/os-release").write_text('NAME="Microsoft Azure Linux"\nID=azurelinux\nVERSION_ID="3.0"\n')
    if manager == "zypper":
        os_release = host.path("/usr/lib/os-release")
        os_release.write_text('NAME="SLES"\nID="sles"\nID_LIKE="suse"\nVERSION_ID="15.7"\n')
    if manager.endswith("-double"):
        manager = manager[: -len("-double")]
        host.must("rm", "/usr/bin/dnf")
        program = host.path(f"/usr/bin/{manager}")
        program.write_text({"yum": YUM, "tdnf": TDNF}[manager])
        program.chmod(0o755)
        identifier = {"yum": 'ID="amzn"\nVERSION_ID="2"', "tdnf": 'ID=azurelinux\nVERSION_ID="3.0"'}[manager]
        host.path("/usr/lib/os-release").write_text(f"{identifier}\n")
    with host:
        # zypper does not bear an empty database
        host.must("rpm", "--install", "--nosignature", f"{served.server.url}/{DOCKER}/base-1-1.el9.x86_64.rpm")
        yield Machine(host, manager, served)


@pytest.fixture(params=["dnf4", "dnf5", "zypper", "tdnf"])
def machine(request: pytest.FixtureRequest, served: Served, tmp_path: Path) -> Iterator[Machine]:
    yield from made(request.param, served, tmp_path)


@pytest.fixture(params=["dnf4", "dnf5"])
def dnf(request: pytest.FixtureRequest, served: Served, tmp_path: Path) -> Iterator[Machine]:
    yield from made(request.param, served, tmp_path)


def packages(*names: str, remove: tuple[str, ...] = (), **more: object) -> actions.Packages:
    wanted = tuple(actions.Package(*name.split("=")) for name in names)
    return actions.Packages(wanted, remove, **more)  # type: ignore[arg-type]


def test_with_only_the_manager_real_a_repository_is_trusted_and_used_and_a_second_run_changes_nothing(machine: Machine) -> None:
    toolkit = machine.repository("nvidia-container-toolkit", TOOLKIT, checks="gpgcheck=0\nrepo_gpgcheck=1")
    other = "nvidia-container-toolkit"
    if machine.tdnf:
        # it would not look at that index's signature, so that a package without one of its own is never installed
        toolkit, other = machine.repository("cuda-rhel9-x86_64", CUDA), "nvidia-driver"
    wanted = (machine.repository(), toolkit, packages("docker-ce=3:29.7.*"), packages(other), actions.Hold(("docker-ce", other)))
    assert machine.run(*wanted) == 0, machine.log
    assert machine.states() == ["changed"] * 5
    assert machine.version("docker-ce") == "3:29.7.1-1.el9"
    assert machine.host.path("/opt/docker").read_text() == "pinned"
    requests = len(machine.served.server.requests)
    assert machine.run(*wanted, run_id="run-2") == 0, machine.log
    assert machine.states() == ["ok"] * 5
    assert len(machine.served.server.requests) == requests
    assert re.search(r"^run-1\tpackage\tdocker-ce\t3:29\.7\.1-1\.el9\t$", machine.receipts(), re.MULTILINE)


@pytest.mark.parametrize("shell", SHELLS)
def test_with_only_dnf_real_every_shell_does_the_same(served: Served, tmp_path: Path, shell: str) -> None:
    for machine in made("dnf4", served, tmp_path):
        wanted = (machine.repository(), packages("docker-ce=29.7.1", modules=()), packages("extras"), actions.Hold(("docker-ce",)))
        assert machine.run(*wanted, shell=shell) == 0, machine.log
        assert machine.states() == ["changed"] * 4
        assert machine.run(*wanted, shell=shell) == 0, machine.log
        assert machine.states() == ["ok"] * 4
        take_back(machine, shell=shell)
        assert machine.version("docker-ce") == ""


def test_with_only_the_manager_real_a_key_of_somebody_else_is_refused_and_nothing_of_it_stays(machine: Machine) -> None:
    if machine.tdnf:
        pytest.skip("tdnf leaves an index's signature to a plugin that few systems have; the packages' own is what counts there")
    checks = "gpgcheck=1\nrepo_gpgcheck=1"
    assert machine.run(machine.repository(key=machine.served.stranger, checks=checks)) == 1
    assert "cannot be fetched" in machine.detail()
    assert re.search("[Ss]ignature|GPG|OpenPGP|signed|key", machine.detail()), machine.detail()
    assert not machine.there(f"{machine.folder}/docker-ce-stable.repo")
    assert not machine.there("/etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce-stable")
    assert "stranger" not in machine.trusted()
    assert machine.run(machine.repository(checks=checks)) == 0, machine.log


def test_with_only_the_manager_real_a_key_of_somebody_else_lets_no_package_in(machine: Machine) -> None:
    """Where the index is not signed, the packages are."""
    if machine.zypper:
        pytest.skip("zypper looks at the index's signature wherever there is one, as the test before shows")
    assert machine.run(machine.repository(key=machine.served.stranger), packages("docker-ce")) == 1
    assert machine.states()[0] == "changed"
    assert machine.version("docker-ce") == ""
    assert re.search("not installed|signature|GPG|OpenPGP|keys?", machine.detail()), machine.detail()


def test_with_only_the_manager_real_an_unsigned_package_is_refused(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("unsigned")) == 1
    assert machine.version("unsigned") == ""
    assert re.search("not signed|[Ss]ignature verification|is not correctly signed|no signature", machine.detail()), machine.detail()


@pytest.mark.parametrize("reason", ["no such place", "nobody there"])
def test_with_only_the_manager_real_a_repository_that_is_not_there_is_taken_back(machine: Machine, reason: str) -> None:
    wanted = machine.repository(place="linux/rhel/7") if reason == "no such place" else machine.repository(where="http://127.0.0.1:1")
    assert machine.run(wanted) == 1
    assert "cannot be fetched" in machine.detail()
    told = {"no such place": "404|can't be determined|not found", "nobody there": "127.0.0.1|Could not connect"}
    assert re.search(told[reason], machine.detail()), machine.detail()
    assert not machine.there(wanted.path)
    assert machine.trusted() == ""


def test_with_only_the_manager_real_refreshing_one_repository_leaves_the_others_alone(machine: Machine) -> None:
    assert machine.run(machine.repository()) == 0, machine.log
    before = len(machine.served.server.requests)
    assert machine.run(machine.repository("cuda-rhel9-x86_64", CUDA, checks="gpgcheck=1\nrepo_gpgcheck=1")) == 0, machine.log
    asked = machine.served.server.requests[before:]
    assert any(CUDA in request for request in asked)
    assert not any(DOCKER in request for request in asked)


def test_with_only_the_manager_real_a_repository_that_was_there_comes_back_when_the_new_one_fails(machine: Machine) -> None:
    assert machine.run(machine.repository()) == 0, machine.log
    path = machine.host.path(f"{machine.folder}/docker-ce-stable.repo")
    before = path.read_text()
    assert machine.run(machine.repository(place="linux/rhel/7"), run_id="run-2") == 1
    assert path.read_text() == before
    assert machine.served.key.fingerprint[-8:].lower() in machine.trusted()


def test_with_only_the_manager_real_an_exact_version_stays_within_its_pattern(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce=29.6.0-1.el9")) == 0, machine.log
    assert machine.version("docker-ce") == "3:29.6.0-1.el9"
    assert machine.run(packages("docker-ce=3:29.7.1")) == 0, machine.log
    assert machine.version("docker-ce") == "3:29.7.1-1.el9"
    assert "run-1\tpackage\tdocker-ce\t3:29.7.1-1.el9\t3:29.6.0-1.el9\n" in machine.receipts()
    # what is there and fits is not made newer
    assert machine.run(packages("docker-ce", "extras")) == 0, machine.log
    assert machine.version("docker-ce") == "3:29.7.1-1.el9"


def test_with_only_the_manager_real_a_package_gets_the_version_that_another_is_made_for(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("utils=@kmp")) == 1
    assert "kmp is not installed, whose version utils must have" in machine.detail()
    assert machine.run(packages("kmp")) == 0, machine.log
    assert machine.run(packages("utils=@kmp")) == 0, machine.log
    assert machine.version("utils") == "0:580.95.05-1.el9"
    assert machine.run(packages("utils=@kmp")) == 0
    assert machine.states() == ["ok"]


def test_with_only_the_manager_real_a_version_that_nobody_offers_is_named(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce=3:99.*")) == 1
    assert "cannot install this" in machine.detail()
    assert "docker-ce" in machine.detail()
    assert "99" in machine.detail()


def test_with_only_the_manager_real_recommended_packages_come_only_when_asked_for(machine: Machine) -> None:
    if machine.tdnf:
        pytest.skip("tdnf always installs what a package recommends, and has no option to leave it out")
    assert machine.run(machine.repository(), packages("docker-ce=3:30.*")) == 0, machine.log
    assert machine.version("extras") == ""


def test_with_only_the_manager_real_recommended_packages_come_when_asked_for(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce=3:30.*", recommends=True)) == 0, machine.log
    assert machine.version("extras") == "0:1-1.el9"


def test_with_only_the_manager_real_a_conflict_is_removed_only_if_the_plan_names_it(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker")) == 0, machine.log
    assert machine.run(packages("docker-ce=3:30.*")) == 1
    assert "docker" in machine.detail()
    assert machine.version("docker") != ""
    assert machine.run(packages("docker-ce=3:30.*", remove=("docker", "podman-docker")), run_id="run-2") == 0, machine.log
    assert machine.version("docker-ce") == "3:30.0.0-1.el9"
    assert machine.version("docker") == ""
    assert re.search(r"^run-2\tremoved\tdocker\t\S*26\.1-1\.el9$", machine.receipts(), re.MULTILINE), machine.receipts()


def test_with_only_the_manager_real_what_a_removal_drags_along_needs_to_be_named_too(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("podman")) == 0, machine.log
    assert machine.run(packages("containerd.io", remove=("runc",))) == 1
    assert re.fullmatch(r"refused: (dnf5?|zypper|tdnf) would also remove podman|.*requires.*runc.*", machine.detail()), machine.detail()
    assert machine.version("podman") != ""
    assert machine.version("containerd.io") == ""
    assert machine.run(packages(remove=("runc",))) == 1
    assert re.search("would also remove podman|podman", machine.detail())
    assert machine.version("runc") != ""
    assert machine.run(packages("containerd.io", remove=("runc", "podman"))) == 0, machine.log
    assert (machine.version("runc"), machine.version("podman")) == ("", "")


def test_with_only_the_manager_real_an_obsolete_package_goes_only_if_it_is_named(machine: Machine) -> None:
    machine.host.must("rpm", "--install", "--nosignature", f"{machine.served.server.url}/{DOCKER}/runc-1.1-1.el9.x86_64.rpm")
    assert machine.run(machine.repository(), packages("containerd.io")) == 1
    assert machine.detail().endswith("would also remove runc"), machine.detail()
    assert machine.run(packages("containerd.io", remove=("runc",))) == 0, machine.log


def test_with_only_the_manager_real_packages_are_removed_without_anything_to_install(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker", "extras")) == 0, machine.log
    assert machine.run(packages(remove=("docker",))) == 0, machine.log
    assert machine.states() == ["changed"]
    assert not machine.there("/opt/distro")


def test_with_only_the_manager_real_a_held_package_is_not_changed_behind_its_owners_back(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce=3:29.6.*"), actions.Hold(("docker-ce",))) == 0, machine.log
    machine.host.path("/var/lib/mlhost/receipts").unlink()
    assert machine.run(packages("docker-ce=3:30.*")) == 1
    assert machine.version("docker-ce") == "3:29.6.0-1.el9"
    assert re.search("filtered out|versionlock|remove lock|locks.d/mlhost.conf holds docker-ce", machine.detail()), machine.detail()


def test_with_only_the_manager_real_what_mlhost_holds_itself_it_may_change_and_holds_again(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce=3:29.6.*"), actions.Hold(("docker-ce",))) == 0, machine.log
    assert machine.run(packages("docker-ce=3:29.7.*")) == 0, machine.log
    assert machine.version("docker-ce") == "3:29.7.1-1.el9"
    assert machine.run(actions.Hold(("docker-ce",))) == 0, machine.log
    assert machine.states() == ["ok"]
    update = ("zypper", "--non-interactive", "update") if machine.zypper else (machine.manager.replace("dnf4", "dnf"), "-y", "update")
    machine.host.must(*update)
    assert machine.version("docker-ce") == "3:29.7.1-1.el9"


def test_with_only_dnf_real_a_hold_of_mlhosts_own_does_not_keep_out_what_is_asked_for_by_its_full_name(dnf: Machine) -> None:
    assert dnf.run(dnf.repository(), packages("docker-ce=3:29.6.*"), actions.Hold(("docker-ce",))) == 0, dnf.log
    assert dnf.run(packages("docker-ce-29.7.1-1.el9.x86_64"), run_id="run-2") == 0, dnf.log
    assert dnf.version("docker-ce") == "3:29.7.1-1.el9"
    assert dnf.run(actions.Hold(("docker-ce",))) == 0, dnf.log
    assert dnf.states() == ["ok"], "it is held again"


@pytest.mark.parametrize(("manager", "shell"), [("yum", "dash"), ("tdnf", "bash"), ("tdnf", "busybox")])
def test_with_doubles_of_yum_and_tdnf_the_whole_way_is_gone_by_options_that_they_know(
    served: Served, tmp_path: Path, manager: str, shell: str
) -> None:
    for double in made(f"{manager}-double", served, tmp_path):
        whole_way(double, shell)


def whole_way(double: Machine, shell: str) -> None:
    assert double.run(double.repository(), packages("docker"), packages("podman"), shell=shell) == 0, double.log
    assert double.run(packages("docker-ce=3:99.*"), shell=shell) == 1
    assert re.search("docker-ce.*99", double.detail()), double.detail()
    assert double.run(packages("docker-ce=3:29.7.*"), actions.Hold(("docker-ce",)), shell=shell) == 0, double.log
    assert double.version("docker-ce") == "3:29.7.1-1.el9"
    assert double.run(double.repository(), packages("docker-ce=3:29.7.*"), actions.Hold(("docker-ce",)), shell=shell) == 0, double.log
    assert double.states() == ["ok"] * 3
    assert double.run(packages("docker-ce=3:30.*"), shell=shell) == 1
    assert double.version("docker-ce") == "3:29.7.1-1.el9", "a conflict is not removed without being named"
    assert double.run(packages("containerd.io", remove=("runc",)), shell=shell) == 1
    assert double.detail() == f"refused: {double.manager} would also remove podman"
    assert double.run(packages("docker-ce=3:30.*", remove=("docker",)), shell=shell) == 0, double.log
    assert (double.version("docker-ce"), double.version("docker")) == ("3:30.0.0-1.el9", ""), "its own hold is let go and set again"
    double.host.path("/var/lib/mlhost/receipts").rename(double.host.path("/receipts"))
    assert double.run(packages("docker-ce=3:29.6.*"), shell=shell) == 1
    assert double.version("docker-ce") == "3:30.0.0-1.el9", "somebody else's hold stays"
    double.host.path("/receipts").rename(double.host.path("/var/lib/mlhost/receipts"))
    assert double.run(packages("x", modules=("nvidia-driver:580-open",)), shell=shell) == 1
    assert double.detail() == f"{double.manager} knows no module streams, and nvidia-driver:580-open is wanted"
    take_back(double, shell=shell)
    assert double.version("docker-ce") == ""


def test_with_only_dnf_real_a_module_stream_is_enabled_and_left_for_another(dnf: Machine) -> None:
    cuda = dnf.repository("cuda-rhel9-x86_64", CUDA, checks="gpgcheck=1\nrepo_gpgcheck=1")
    assert dnf.run(cuda, packages("nvidia-driver")) == 1
    assert re.search("modular filtering|excluded", dnf.detail()), dnf.detail()
    assert dnf.run(packages("nvidia-driver=3:580.*", modules=("nvidia-driver:580-open",))) == 0, dnf.log
    assert dnf.version("nvidia-driver") == "3:580.105.08-1.el9"
    assert dnf.run(packages("nvidia-driver=3:580.*", modules=("nvidia-driver:580-open",))) == 0, dnf.log
    assert dnf.states() == ["ok"]
    assert dnf.run(packages("nvidia-driver=3:590.*", modules=("nvidia-driver:590-open",)), run_id="run-2") == 0, dnf.log
    assert dnf.version("nvidia-driver") == "3:590.44.01-1.el9"


def test_with_only_dnf_real_a_module_stream_is_put_back_if_the_packages_do_not_come(dnf: Machine) -> None:
    cuda = dnf.repository("cuda-rhel9-x86_64", CUDA, checks="gpgcheck=1\nrepo_gpgcheck=1")
    assert dnf.run(cuda, packages("nvidia-driver", modules=("nvidia-driver:580-open",))) == 0, dnf.log
    assert dnf.run(packages("nvidia-driver=3:599.*", modules=("nvidia-driver:590-open",))) == 1
    assert dnf.run(packages("nvidia-driver", modules=("nvidia-driver:580-open",))) == 0, dnf.log
    assert dnf.states() == ["ok"]


def test_with_only_dnf_real_an_unknown_module_stream_is_named(dnf: Machine) -> None:
    cuda = dnf.repository("cuda-rhel9-x86_64", CUDA, checks="gpgcheck=1\nrepo_gpgcheck=1")
    assert dnf.run(cuda, packages("nvidia-driver", modules=("nvidia-driver:1-open",))) == 1
    assert dnf.detail().startswith("the module stream nvidia-driver:1-open cannot be enabled"), dnf.detail()


def test_with_only_zypper_real_module_streams_are_refused(served: Served, tmp_path: Path) -> None:
    for machine in made("zypper", served, tmp_path):
        assert machine.run(packages("x", modules=("nvidia-driver:580-open",))) == 1
        assert machine.detail() == "zypper knows no module streams, and nvidia-driver:580-open is wanted"


def test_with_only_dnf_real_a_repository_can_be_left_out_of_one_transaction(dnf: Machine) -> None:
    assert dnf.run(dnf.repository(), packages("docker-ce", disable_repositories=("docker-ce-stable",))) == 1
    assert dnf.version("docker-ce") == ""
    assert dnf.run(packages("docker-ce")) == 0, dnf.log


HOLDER = """import fcntl, os, sys, time
path, kind = sys.argv[1:]
os.makedirs(os.path.dirname(path), exist_ok=True)
handle = open(path, "w")
if kind == "pid":
    handle.write(str(os.getpid())); handle.flush()
else:
    fcntl.lockf(handle, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""
LOCKS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "dnf4": (("/var/lib/rpm/.rpm.lock", "lock"), ("/var/cache/dnf/metadata_lock.pid", "pid"), ("/var/lib/dnf/rpmdb_lock.pid", "pid")),
    "zypper": (("/var/lib/rpm/.rpm.lock", "lock"), ("/run/zypp.pid", "pid")),
}


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.mark.parametrize(("manager", "lock", "kind"), [(m, *lock) for m, locks in LOCKS.items() for lock in locks])
def test_with_only_the_manager_real_each_lock_is_waited_for_and_its_holder_named(
    served: Served, tmp_path: Path, manager: str, lock: str, kind: str
) -> None:
    for machine in made(manager, served, tmp_path):
        if not machine.there("/usr/bin/python3"):
            pytest.skip("there is no Python in the tree to hold a lock with")
        holder = machine.host.popen(["python3", "-c", HOLDER, lock, kind])
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        timer = threading.Timer(2, ended, (holder,))
        timer.start()
        code = machine.run(machine.repository(), packages("docker-ce"))
        timer.join()
        assert code == 0, machine.log
        waits = [event.detail for event in machine.events if event.kind == "wait"]
        assert len(waits) == 1
        assert re.fullmatch(rf"python3[.0-9]* \({holder.pid}\) holds {lock}", waits[0]), waits


def test_with_only_dnf_real_a_lock_that_is_never_let_go_ends_in_a_refusal_and_nobody_is_killed(served: Served, tmp_path: Path) -> None:
    for machine in made("dnf4", served, tmp_path):
        holder = machine.host.popen(["python3", "-c", HOLDER, "/var/lib/rpm/.rpm.lock", "lock"])
        assert holder.stdout is not None
        holder.stdout.readline()
        assert machine.run(machine.repository(), lock_wait=3) == 1
        assert re.match(r"waited 3 s for other package work: python3", machine.detail()), machine.detail()
        assert holder.poll() is None
        ended(holder)


def look(machine: Machine) -> Traces:
    def run(text: str) -> bytes:
        machine.host.path("/look").write_text(text)
        return machine.host.run("sh", "/look").stdout.encode()

    return back.traces(run)


def take_back(machine: Machine, *runs: str, run_id: str = "back-1", shell: str = "dash") -> Plan:
    planned = back.way_back(look(machine), *runs, family="suse" if machine.zypper else "rhel")
    assert machine.execute(back.script(planned, run_id), shell) == 0, machine.log
    return planned


def test_with_only_the_manager_real_a_rollback_removes_what_was_added_with_its_key_and_hold(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker"), run_id="run-1") == 0, machine.log
    wanted = (
        machine.repository("cuda-rhel9-x86_64", CUDA, checks="gpgcheck=1\nrepo_gpgcheck=1"),
        packages("docker-ce=3:30.*", "extras", remove=("docker",)),
        actions.Hold(("docker-ce",)),
    )
    assert machine.run(*wanted, run_id="run-2") == 0, machine.log
    take_back(machine, "run-2")
    assert machine.version("docker") == "0:26.1-1.el9"
    assert (machine.version("docker-ce"), machine.version("extras")) == ("", "")
    assert not machine.there(f"{machine.folder}/cuda-rhel9-x86_64.repo")
    assert machine.there(f"{machine.folder}/docker-ce-stable.repo")
    take_back(machine, run_id="back-2")
    assert machine.trusted() == ""
    assert not machine.there(f"{machine.folder}/docker-ce-stable.repo")
    assert not machine.there("/etc/pki/rpm-gpg/RPM-GPG-KEY-docker-ce-stable")
    assert look(machine).runs == ()


def test_with_only_the_manager_real_an_upgrade_goes_back_to_the_version_that_was_there(machine: Machine) -> None:
    assert machine.run(machine.repository(), packages("docker-ce=3:29.6.*"), run_id="run-1") == 0, machine.log
    assert machine.run(packages("docker-ce=3:30.*"), actions.Hold(("docker-ce",)), run_id="run-2") == 0, machine.log
    assert machine.version("docker-ce").startswith("3:30.")
    take_back(machine, "run-2")
    assert machine.version("docker-ce") == "3:29.6.0-1.el9"


def test_where_selinux_is_on_written_files_get_their_own_label(served: Served, tmp_path: Path) -> None:
    """`restorecon` and SELinux's switch are doubles here: this machine's kernel has none."""
    for machine in made("dnf4", served, tmp_path):
        machine.host.path("/usr/sbin/restorecon").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >>/relabelled\n')
        machine.host.path("/usr/sbin/restorecon").chmod(0o755)
        wanted = actions.File("/etc/docker/x.conf", "x\n")
        assert machine.run(wanted) == 0, machine.log
        assert not machine.there("/relabelled")
        machine.host.path("/sys/fs/selinux").mkdir(parents=True)
        machine.host.path("/sys/fs/selinux/enforce").write_text("1")
        assert machine.run(actions.File("/etc/docker/y.conf", "y\n")) == 0, machine.log
        assert machine.host.path("/relabelled").read_text().split() == ["/etc/docker", "/etc/docker/y.conf"]


def action(text: str, **more: object) -> actions.RpmRepository:
    return actions.RpmRepository("x", "/etc/yum.repos.d/x.repo", text, None, **more)  # type: ignore[arg-type]


def rendered(wanted: actions.Action) -> str:
    item = Item("step/1", "step", actions.kind(wanted), CHANGE, "x", action=wanted)
    return render.stage(Plan("h", PlatformRow("rocky", "9", "", "rhel", "x86_64", None), (), {}, (item,)), run_id="r")


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (action("[x]\nbaseurl=http://x\ngpgcheck=0\n"), "Nothing in /etc/yum.repos.d/x.repo would be checked for a signature."),
        (action("[y]\nbaseurl=http://x\ngpgcheck=1\n"), "has no section"),
        (packages("a b"), "is not the name of a package"),
        (packages("-y"), "is not the name of a package"),
        (packages("a", modules=("nvidia-driver",)), "is not a module and its stream"),
        (packages("a", disable_repositories=("*",)), "is not the id of a repository"),
        (actions.Packages((actions.Package("a", "1 2"),)), "is not a version"),
        (actions.Hold(("$(x)",)), "is not the name of a package"),
    ],
)
def test_what_no_script_should_hold_is_refused(wanted: actions.Action, complaint: str) -> None:
    with pytest.raises(render.RenderError, match=re.escape(complaint)):
        rendered(wanted)


def test_a_repository_whose_text_names_another_key_is_refused() -> None:
    with SigningKey("k <k@invalid>") as key:
        pinned = actions.Key("k", "", (key.fingerprint,), "/etc/pki/rpm-gpg/k", key.public())
    good = action("[x]\nbaseurl=http://x\ngpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/k\n")
    assert "rpm_refresh x" in rendered(replace(good, key=pinned))
    with pytest.raises(render.RenderError, match="does not name its key"):
        rendered(replace(good, key=pinned, text=good.text.replace("file:///etc/pki/rpm-gpg/k", "https://x/k")))
    with pytest.raises(render.RenderError, match="is not pinned"):
        rendered(replace(good, key=replace(pinned, fingerprints=("A" * 40,))))
    with pytest.raises(render.RenderError, match="has not been fetched"):
        rendered(replace(good, key=replace(pinned, text=b"")))


def test_the_scripts_for_rpms_are_ones_that_shellcheck_accepts(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("the program shellcheck is missing")
    good = action("[x]\nbaseurl=http://x\ngpgcheck=1\n")
    several: tuple[actions.Action, ...] = (good, packages("a=1:2.*", remove=("b",), modules=("m:1",), disable_repositories=("c",)), packages("d"), actions.Hold(("a",)))
    items = tuple(Item(f"step/{n}", "step", "x", CHANGE, "x", action=wanted) for n, wanted in enumerate(several))
    text = render.stage(Plan("h", PlatformRow("rocky", "9", "", "rhel", "x86_64", None), (), {}, items), run_id="r")
    for name, script in (("stage", text),):
        path = tmp_path / f"{name}.sh"
        path.write_text(script)
        done = subprocess.run(["shellcheck", "-s", "sh", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
