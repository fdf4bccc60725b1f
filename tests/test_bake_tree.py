"""Real trees become images on this machine: real mounts, namespaces, dpkg, apt and rpm in them. The vendors' packages are doubles without an engine.

What is asked here is what the machine that it happens on notices of it, and what is left in the tree, also when mlhost is killed halfway.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.aptweather import base_of
from tests.lab.debs import Deb
from tests.lab.fixtures import available
from tests.lab.imagetree import ImageTree
from tests.lab.proxy import CachingProxy
from tests.lab.rpmtree import rpm_tree
from tests.lab.server import FileServer
from tests.lab.vendor import Vendors, add_docker, publish
from tests.program import CHECKOUT, Ran, environment

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]

SPACE = ("preflight.root_free_gb=1", "preflight.docker_free_gb=1")
# A package whose installation never ends the first time: there is always a moment at which it is half installed.
SLOW = Deb("docker-lab-slow", "1.0-1", postinst='if [ ! -e /srv/second ]; then : >/srv/first; exec sleep 3000; fi')
STEPS = '''\
"""Steps of a user's own: what a program sees inside, what it may leave behind, and a package that takes its time."""

import os
from provision.actions import Command, Package, Packages
from provision.model import CHANGE, OK, Item

watch = ("/srv/seen", "/srv/want-slow")

LOOK = """mkdir -p /srv
{
    echo "processes $(ls /proc | grep -c '^[0-9]')"
    echo "sys $(ls -A /sys | wc -l)"
    echo "docker $(ls /run | grep -c docker)"
    echo "devices $(ls /dev | tr '\\\\n' ' ')"
    echo "resolver $(grep -c . /etc/resolv.conf)"
    invoke-rc.d --quiet ssh start; echo "invoke-rc.d $?"
    systemctl start ssh; echo "started $(ls /run/sshd.pid 2>/dev/null)"
} >/srv/seen 2>&1
setsid sleep 3000 >/dev/null 2>&1 &
echo 0123456789abcdef0123456789abcdef >/etc/machine-id
echo secret >/etc/ssh/ssh_host_lab_key
"""


def step(facts, spec, platform):
    seen = facts.paths["/srv/seen"].kind == "file"
    yield Item("lab/look", "lab", "command", OK if seen else CHANGE, "the lab looks around", {"seen": True}, {"seen": seen},
               None if seen else Command("[ -e /srv/seen ]", LOOK, undo=":"), phase=65)
    if facts.paths["/srv/want-slow"].kind == "file":
        there = bool(facts.installed("docker-lab-slow"))
        yield Item("lab/slow", "lab", "packages", OK if there else CHANGE, "the lab is slow", {"docker-lab-slow": "any"}, {},
                   None if there else Packages((Package("docker-lab-slow"),)), phase=66)
'''


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vendors, FileServer]]:
    folder = tmp_path_factory.mktemp("vendors")
    with available(lambda: publish(folder)) as vendors, FileServer(vendors.root) as server:
        add_docker(vendors, "trixie", [SLOW])
        yield vendors, server


@pytest.fixture(scope="module")
def playbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("playbook")
    (folder / "look.py").write_text(STEPS)
    (folder / "image.yaml").write_text("extends: docker-host\nsteps: [./look.py]\n")
    return folder / "image.yaml"


Words = Callable[..., list[str]]


@pytest.fixture(scope="module")
def words(served: tuple[Vendors, FileServer], playbook: Path) -> Words:
    """The command line of `mlhost COMMAND --root TREE`."""
    vendors, server = served

    def line(command: str, root: Path, *more: str, settings: Sequence[str] = SPACE, own: bool = True) -> list[str]:
        mirrors = vendors.settings(server.url)
        sets = [word for setting in settings for word in ("--set", setting)]
        return [sys.executable, "-m", "provision", command, "--root", str(root), *(["-p", str(playbook)] if own else []), *mirrors, *sets, *more]

    return line


def run(line: list[str]) -> Ran:
    done = subprocess.run(line, cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def inside(tree: ImageTree) -> list[str]:
    """The processes whose root folder is in the tree, or whose mounts show more of it than this process's."""
    found = []
    ours = Path("/proc/self/mountinfo").read_text().count(str(tree.folder))
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            rooted = os.readlink(process / "root").startswith(str(tree.root))
            mounts = (process / "mountinfo").read_text().count(str(tree.folder))
            if rooted or mounts > ours:
                found.append((process / "cmdline").read_text().replace("\0", " ")[:200])
    return found


def until(said: str, true: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {said}"
        time.sleep(0.05)


OWN_MOUNTS = ("/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run", "/tmp")


def live_system(tree: ImageTree) -> dict[str, object]:
    """What a visitor would have changed of this machine, had it been let out of the tree. What other tests mount meanwhile does not count."""
    files = {}
    for folder in ("/etc", "/usr/sbin", "/usr/lib/systemd/system", "/run/systemd/system", "/etc/systemd/system", "/var/lib/mlhost"):
        for entry in sorted(Path(folder).glob("*")):
            known = entry.lstat()
            files[str(entry)] = (known.st_ino, known.st_size, known.st_mtime_ns if not entry.is_dir() else 0)
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(tree.folder) in line or line.split()[1] in OWN_MOUNTS]
    return {"files": files, "mounts": mounts, "resolver": Path("/etc/resolv.conf").read_bytes(), "host": os.uname().nodename}


@pytest.fixture
def tree(apt_proxy: CachingProxy) -> Iterator[ImageTree]:
    with available(ImageTree) as made:
        made.write("etc/apt/apt.conf.d/00lab-proxy", apt_proxy.apt_conf(apt_proxy.url))
        yield made


class TestATreeThatBecomesAnImage:
    def test_the_machine_it_happens_on_notices_nothing(self, tree: ImageTree, words: Words) -> None:
        before = live_system(tree)
        ran = run(words("setup", tree.root))
        assert ran.code == 0, str(ran)
        assert live_system(tree) == before
        assert inside(tree) == []

    def test_what_works_inside_sees_neither_this_machine_nor_its_hardware_and_starts_nothing(self, tree: ImageTree, words: Words) -> None:
        ran = run(words("setup", tree.root))
        assert ran.code == 0, str(ran)
        seen = dict(line.partition(" ")[::2] for line in tree.read("srv/seen").splitlines())
        assert int(seen["processes"]) < 20
        assert seen["sys"] == "0"
        assert seen["docker"] == "0"
        assert set(seen["devices"].split()) <= {"null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "shm", "pts", "ptmx"}
        assert int(seen["resolver"]) > 0
        assert seen["started"] == ""

    def test_it_holds_nothing_that_only_one_machine_can_have(self, tree: ImageTree, words: Words) -> None:
        before = {path.name for path in (tree.root / "etc/ssh").glob("ssh_host_*")}
        ran = run(words("setup", tree.root))
        assert ran.code == 0, str(ran)
        assert tree.read("etc/machine-id") == ""
        assert {path.name for path in (tree.root / "etc/ssh").glob("ssh_host_*")} == before
        assert "SSH host keys" in ran.out, "the lab's tree has one already, and that is worth a word"
        assert not list((tree.root / "var/lib/apt/lists").glob("*_*"))
        assert not list((tree.root / "var/cache/apt").rglob("*.deb"))
        assert sorted(path.name for path in (tree.root / "var/lib/mlhost").iterdir()) == ["backup", "receipts"]
        assert not (tree.root / "usr/sbin/policy-rc.d").exists()

    def test_it_is_set_up_for_its_first_boot_and_a_second_run_changes_nothing(self, tree: ImageTree, words: Words) -> None:
        assert run(words("setup", tree.root)).code == 0
        wants = tree.root / "etc/systemd/system/multi-user.target.wants"
        assert (wants / "docker.service").is_symlink()
        assert os.readlink(wants / "mlhost-first-boot.service") == "/etc/systemd/system/mlhost-first-boot.service"
        assert os.access(tree.root / "usr/local/lib/mlhost/first-boot", os.X_OK)
        before = tree.changed()
        again = run(words("setup", tree.root))
        assert again.code == 0, str(again)
        assert "nothing to change" in again.out
        after = tree.changed()
        assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == set()

    def test_the_plan_says_what_is_done_now_and_what_at_the_first_boot_and_changes_nothing(self, tree: ImageTree, words: Words) -> None:
        before = tree.changed()
        ran = run(words("plan", tree.root, "--bake", "--format", "json"))
        assert ran.code == 3, str(ran)
        states = {item["id"]: item["state"] for item in json.loads(ran.out)["items"]}
        assert states["docker/packages"] == states["docker/service-enabled"] == states["image/first-boot"] == "change"
        assert states["docker/service"] == states["smoke/container"] == "later"
        assert tree.changed() == before

    def test_the_names_are_resolved_as_here_whatever_its_own_resolver_is(self, words: Words, apt_proxy: CachingProxy) -> None:
        link = "../run/systemd/resolve/stub-resolv.conf"
        with available(ImageTree) as made:
            made.write("etc/apt/apt.conf.d/00lab-proxy", apt_proxy.apt_conf(apt_proxy.url))
            resolver = made.root / "etc/resolv.conf"
            resolver.unlink(missing_ok=True)
            resolver.symlink_to(link)
            before = list((made.root / "run").rglob("*"))
            ran = run(words("setup", made.root))
            assert ran.code == 0, str(ran)
            assert os.readlink(resolver) == link
            assert list((made.root / "run").rglob("*")) == before

    def test_where_selinux_will_be_on_the_trees_own_program_labels_its_files_or_the_first_boot_does(self, tree: ImageTree, words: Words) -> None:
        """The program and the rules are doubles: no kernel here knows SELinux."""
        tree.write("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
        tree.write("etc/selinux/targeted/contexts/files/file_contexts", "/.* system_u:object_r:default_t:s0\n")
        tree.write("usr/local/sbin/setfiles", '#!/bin/sh\n# a test double\necho "$@" >/srv/labelled\n')
        assert run(words("setup", tree.root)).code == 0
        assert tree.read("srv/labelled").split()[-2:] == ["/etc/selinux/targeted/contexts/files/file_contexts", "/"]
        assert not (tree.root / ".autorelabel").exists()
        tree.write("usr/local/sbin/setfiles", "#!/bin/sh\nexit 1\n")
        assert run(words("setup", tree.root, settings=(*SPACE, "docker.users=[admin]"))).code == 0
        assert (tree.root / ".autorelabel").exists()

    def test_what_others_have_mounted_in_it_is_neither_believed_nor_touched(self, tree: ImageTree, words: Words) -> None:
        for part in ("proc", "sys", "dev"):
            subprocess.run(["mount", "--bind", f"/{part}", str(tree.root / part)], check=True)
        try:
            ran = run(words("plan", tree.root, "--bake", "-v"))
            assert ran.code == 3, str(ran)
            assert os.uname().release not in ran.out
            assert run(words("setup", tree.root)).code == 0
            assert int(dict(line.partition(" ")[::2] for line in tree.read("srv/seen").splitlines())["processes"]) < 20
            assert all((tree.root / part).is_mount() for part in ("proc", "sys", "dev"))
        finally:
            for part in ("proc", "sys", "dev"):
                subprocess.run(["umount", str(tree.root / part)], check=True)


class TestCutOffHalfway:
    def test_killed_in_the_middle_of_dpkg_nothing_is_left_running_or_mounted_and_the_next_run_mends_it(self, tree: ImageTree, words: Words) -> None:
        tree.write("srv/want-slow", "")
        before = live_system(tree)["mounts"]
        working = subprocess.Popen(
            words("setup", tree.root), cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until("the slow package is being configured", lambda: (tree.root / "srv/first").exists() or working.poll() is not None)
            assert working.poll() is None
            assert inside(tree)
            working.send_signal(signal.SIGKILL)
        finally:
            working.kill()
            working.wait()
        until("the room is gone", lambda: not inside(tree), 60)
        assert live_system(tree)["mounts"] == before
        assert list((tree.root / "var/lib/dpkg/updates").glob("[0-9]*")), "dpkg was not cut off in the middle"
        tree.write("srv/second", "")
        ran = run(words("setup", tree.root))
        assert ran.code == 0, str(ran)
        assert "preflight/dpkg" in ran.out
        assert "half-configured" not in tree.read("var/lib/dpkg/status")
        assert not (tree.root / "usr/sbin/policy-rc.d").exists()
        assert sorted(path.name for path in (tree.root / "var/lib/mlhost").iterdir()) == ["backup", "receipts"]
        again = run(words("setup", tree.root))
        assert "nothing to change" in again.out, str(again)

    def test_two_at_once_in_one_tree_are_one_too_many(self, tree: ImageTree, words: Words) -> None:
        tree.write("srv/want-slow", "")
        working = subprocess.Popen(
            words("setup", tree.root), cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until("the first one is at work", lambda: (tree.root / "srv/first").exists() or working.poll() is not None)
            second = run(words("setup", tree.root))
            assert second.code == 1
            assert "Another mlhost is at work" in second.err
        finally:
            working.terminate()
            working.wait()
        until("the room is gone", lambda: not inside(tree), 60)


class TestTreesOfOtherKinds:
    def test_another_release_without_systemd_gets_its_packages_and_no_first_boot(self, words: Words, apt_proxy: CachingProxy) -> None:
        with available(lambda: ImageTree(base_of("bookworm"))) as made:
            made.write("etc/apt/apt.conf.d/00lab-proxy", apt_proxy.apt_conf(apt_proxy.url))
            ran = run(words("setup", made.root, "-p", "docker-host", settings=(*SPACE, "smoke.enabled=false"), own=False))
            assert ran.code == 0, str(ran)
            assert "bookworm" in made.read("etc/apt/sources.list.d/docker.sources")
            assert "Nothing is left for the first boot" in ran.out or "docker/service" in ran.out
            assert not (made.root / "usr/local/lib/mlhost").exists()

    def test_rpms_are_known_from_the_trees_own_database(self, words: Words) -> None:
        with available(lambda: ImageTree(rpm_tree("dnf4"))) as made:
            ran = run(words("plan", made.root, "--bake", "--format", "json", "-p", "docker-host", own=False))
            plan = json.loads(ran.out)
            assert plan["platform"]["family"] == "rhel", str(ran)
            assert "docker/unknown" not in [problem["id"] for problem in plan["problems"]]

    def test_one_that_cannot_be_written_to_is_refused(self, tree: ImageTree, words: Words) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(tree.root)], check=True)
        ran = run(words("setup", tree.root))
        assert ran.code == 2, str(ran)
        assert "is read-only" in ran.err

    def test_one_whose_programs_cannot_run_here_is_named_and_left_as_it_was(self, tmp_path: Path, words: Words) -> None:
        for name in ("usr/bin", "etc", "var", "dev", "bin"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "etc/os-release").write_text("ID=debian\nVERSION_ID=13\n")
        (tmp_path / "bin/sh").write_bytes(b"\x7fELF of another processor")
        (tmp_path / "bin/sh").chmod(0o755)
        before = sorted(str(path) for path in tmp_path.rglob("*"))
        ran = run(words("setup", tmp_path))
        assert ran.code == 1, str(ran)
        assert "nothing can be run inside this tree" in ran.err
        assert sorted(str(path) for path in tmp_path.rglob("*")) == before
