"""The single file: built from pinned packages, always the same, and of use with nothing but a distribution's own python3."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from provision import __version__, pyz, unpack
from provision.errors import Failed, UsageError
from tests.fresh import LAB, Fresh
from tests.lab.fixtures import available
from tests.lab.nshost import NsHost

pytestmark = pytest.mark.timeout(1200)

SUITES = {"bullseye": (3, 9), "bookworm": (3, 11), "trixie": (3, 13)}


def an_archive(folder: Path, **members: str) -> Path:
    path = folder / "an.pyz"
    path.write_bytes(pyz.archive({name.replace("__", "/"): text.encode() for name, text in members.items()}))
    return path


class TestAnArchive:
    def test_is_the_same_for_the_same_members_in_whatever_order(self) -> None:
        assert pyz.archive({"a": b"1", "b": b"2"}) == pyz.archive({"b": b"2", "a": b"1"})

    def test_has_the_date_of_source_date_epoch_and_none_of_today(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
        assert zipfile.ZipFile(io.BytesIO(pyz.archive({"a": b""}))).getinfo("a").date_time == (1980, 1, 1, 0, 0, 0)
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        assert zipfile.ZipFile(io.BytesIO(pyz.archive({"a": b""}))).getinfo("a").date_time == (2023, 11, 14, 22, 13, 20)

    def test_begins_with_the_name_of_its_interpreter(self) -> None:
        assert pyz.archive({"a": b""}).startswith(b"#!/usr/bin/env python3\n")

    def test_what_runs_first_is_understood_by_a_python_that_is_too_old(self) -> None:
        ancient = re.compile(r"(?<![a-z])f[\"']|async |->|: str|:=")
        assert not ancient.search(pyz.MAIN)
        assert "(3, 9)" in pyz.MAIN


class TestWhatIsPinned:
    def test_is_what_mlhost_itself_asks_for(self, checkout: Path) -> None:
        text = (checkout / "pyproject.toml").read_text().split("dependencies = [", 1)[1].split("]", 1)[0]
        asked = [Requirement(word) for word in re.findall(r'"([^"]+)"', text)]
        have = {canonicalize_name(name): version for name, (version, _) in pyz.pinned().items()}
        for requirement in asked:
            if requirement.name in pyz.WANTED:
                assert requirement.specifier.contains(have[canonicalize_name(requirement.name)]), requirement
        assert {canonicalize_name(name) for name in pyz.WANTED} <= set(have)

    @pytest.mark.skipif(sys.version_info < (3, 10), reason="this Python does not say what its standard library is")
    def test_is_all_that_mlhost_imports_but_for_other_machines(self, checkout: Path) -> None:
        elsewhere = {"azure", "boto3", "botocore", "cryptography", "distributed", "fabric", "invoke", "paramiko", "pytest", "typing_extensions"}
        files = {"yaml": "pyyaml"}
        imported: dict[str, str] = {}
        for path in (checkout / "provision").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                imported.update({name.partition(".")[0]: path.name for name in names})
        ours = {*sys.stdlib_module_names, "provision", *elsewhere}
        have = {canonicalize_name(name) for name in pyz.pinned()}
        assert not {name: where for name, where in imported.items() if name not in ours and files.get(name, name) not in have}

    def test_a_wheel_that_is_not_the_pinned_one_is_not_taken(self, tmp_path: Path) -> None:
        name, (version, _) = next(iter(pyz.pinned().items()))
        with zipfile.ZipFile(tmp_path / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
        with pytest.raises(Failed, match=f"The wheel of {name} {re.escape(version)} with the sha256"):
            pyz.build(tmp_path / "out.pyz", tmp_path)
        assert not (tmp_path / "out.pyz").exists()


class TestUnpacking:
    def test_happens_once_and_another_archive_goes_elsewhere(self, tmp_path: Path) -> None:
        one = unpack.unpacked(an_archive(tmp_path, a__b="1"), tmp_path / "home")
        assert (one / "a/b").read_text() == "1"
        (one / "a/seen").touch()
        assert unpack.unpacked(tmp_path / "an.pyz", tmp_path / "home") == one
        assert (one / "a/seen").exists()
        assert unpack.unpacked(an_archive(tmp_path, a__b="2"), tmp_path / "home") != one

    def test_of_many_starts_at_once_leaves_one_whole_folder(self, tmp_path: Path) -> None:
        archive = an_archive(tmp_path, **{f"f{n}": "x" * 1000 for n in range(50)})
        with ThreadPoolExecutor(8) as pool:
            folders = set(pool.map(lambda _: unpack.unpacked(archive, tmp_path / "home"), range(8)))
        (folder,) = folders
        assert len(list(folder.iterdir())) == 50
        assert list((tmp_path / "home").iterdir()) == [folder]

    def test_of_half_a_file_leaves_nothing(self, tmp_path: Path) -> None:
        half = tmp_path / "half.pyz"
        whole = an_archive(tmp_path, a="1" * 5000).read_bytes()
        half.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(zipfile.BadZipFile):
            unpack.unpacked(half, tmp_path / "home")
        assert list((tmp_path / "home").iterdir()) == []

    def test_a_folder_that_others_could_have_filled_is_not_trusted(self, tmp_path: Path) -> None:
        archive = an_archive(tmp_path, a="1")
        unpack.unpacked(archive, tmp_path / "home").chmod(0o777)
        with pytest.raises(PermissionError):
            unpack.unpacked(archive, tmp_path / "home")


class TestTheRefusal:
    """`provision.single` looks for a file beside the package; here it is told that there is one."""

    @pytest.fixture(autouse=True)
    def _single(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("provision.single.local_only", lambda: True)

    def test_of_another_machine_says_what_to_do(self) -> None:
        from provision.transport import open_transport

        with pytest.raises(UsageError, match=r"root@gpu-7 is elsewhere: there is no SSH .* Copy mlhost\.pyz to that machine"):
            open_transport("root@gpu-7")

    @pytest.mark.parametrize("source", ["aws:", "azure:subscription=x"])
    def test_of_a_cloud_comes_before_its_sdk_is_looked_for(self, source: str) -> None:
        from provision.inventory.sources import resolve

        with pytest.raises(UsageError, match=f"{source} is elsewhere"):
            resolve([source])

    def test_leaves_this_machine_alone(self) -> None:
        from provision.transport import open_transport

        assert open_transport(None).name == "this machine"


@pytest.fixture(scope="session")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mlhost.pyz, built from this checkout with the packages from the index that pip uses."""
    return pyz.build(tmp_path_factory.mktemp("single") / "mlhost.pyz").path


def ran(file: Path, *words: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The single file under this Python, with nothing of this environment's packages in reach."""
    command = [sys.executable, "-IS", str(file), *words]
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "MLHOST_HOME": str(home), **environment}
    return subprocess.run(command, env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


@pytest.mark.slow
class TestTheSingleFile:
    def test_is_the_same_from_another_folder_at_another_time(self, single_file: Path, tmp_path: Path, checkout: Path) -> None:
        copy = tmp_path / "elsewhere"
        copy.mkdir()
        for name in ("provision", "playbooks"):
            shutil.copytree(checkout / name, copy / name, copy_function=shutil.copyfile)  # new dates
        (copy / "provision/.editor.py").write_text("left over")
        (copy / "provision/pyz.py~").write_text("left over")
        command = f"umask 077; TZ=Asia/Tokyo exec {sys.executable} -m provision.pyz --out {tmp_path}/again.pyz"
        subprocess.run(["sh", "-c", command], cwd=copy, check=True, capture_output=True)
        assert (tmp_path / "again.pyz").read_bytes() == single_file.read_bytes()
        assert (tmp_path / "again.pyz").stat().st_mode & 0o777 == 0o755

    def test_has_every_file_of_the_package_and_no_compiled_one(self, single_file: Path, checkout: Path) -> None:
        inside = set(zipfile.ZipFile(single_file).namelist())
        tracked = subprocess.run(["git", "ls-files", "provision", "playbooks"], cwd=checkout, capture_output=True, text=True, check=False).stdout.split()
        if not tracked:
            pytest.skip("this is no git checkout")
        wanted = {re.sub("^playbooks/", "provision/playbooks/", name) for name in tracked if not name.startswith("provision/specs/")}
        assert not wanted - inside
        assert not [name for name in inside if name.endswith((".so", ".pyc", ".pyd", ".pyi"))]
        for name in pyz.pinned():
            assert any(re.match(rf"{name}-[^/]+\.dist-info/.*LICEN", member, re.IGNORECASE) for member in inside), f"the licence of {name}"

    def test_a_copy_of_itself_is_what_it_builds(self, single_file: Path, tmp_path: Path) -> None:
        unpacked = unpack.unpacked(single_file, tmp_path / "home")
        code = f"import sys; sys.argv[0] = {str(single_file)!r}; from pathlib import Path; from provision import pyz; pyz.build(Path('copy.pyz'))"
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(unpacked)}, check=True)
        assert (tmp_path / "copy.pyz").read_bytes() == single_file.read_bytes()

    def test_says_where_it_cannot_unpack_itself(self, single_file: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        done = ran(single_file, "--version", home=tmp_path / "file/below")
        assert done.returncode == 1
        assert "cannot be unpacked into" in done.stderr
        assert "MLHOST_HOME" in done.stderr
        assert "Traceback" not in done.stderr

    def test_refuses_another_machine_in_two_sentences(self, single_file: Path, tmp_path: Path) -> None:
        done = ran(single_file, "plan", "root@gpu-7.invalid", home=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "root@gpu-7.invalid is elsewhere" in done.stderr
        assert "Copy mlhost.pyz to that machine" in done.stderr

    def test_shows_progress_on_a_terminal_without_the_packages_that_are_not_in_it(self, single_file: Path, tmp_path: Path) -> None:
        # rich's Live draws only on a terminal; script(1) of util-linux gives it one
        command = f"{sys.executable} -IS {single_file} facts --debug"
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLHOST_HOME": str(tmp_path), "TERM": "xterm-256color"}
        done = subprocess.run(["script", "-qec", command, "/dev/null"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        assert "Traceback" not in done.stdout
        assert "System" in done.stdout

    def test_plans_from_a_capture_as_a_checkout_does(self, single_file: Path, tmp_path: Path, checkout: Path) -> None:
        capture = str(next(iter(sorted((checkout / "tests/hosts").glob("ubuntu*/probe.txt")))))
        words = ["plan", "--capture", capture, "--format", "json", "-p", "gpu-host"]
        done = ran(single_file, *words, home=tmp_path)
        wanted = subprocess.run([sys.executable, "-m", "provision", *words], cwd=checkout, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (wanted.returncode, wanted.stderr)
        assert json.loads(done.stdout) == json.loads(wanted.stdout)


@pytest.fixture(scope="module", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def host(suite: str, fresh: Fresh, single_file: Path) -> Iterator[NsHost]:
    host = available(lambda: fresh.network.host(systemd=True, suite=suite))
    host.wait()
    host.use_proxy(fresh.apt)
    host.put([single_file], "/root", user="root")
    yield host
    host.stop()


@pytest.mark.host
class TestOnADebianOfItsOwn:
    """A fresh host with that Debian's python3, without pip and without any of the packages; real systemd, apt and Docker Engine."""

    def run(self, host: NsHost, *words: str) -> tuple[int, str, str]:
        done = host.run("/root/mlhost.pyz " + " ".join(words), user="root", check=False)
        return done.code, done.out, done.err

    def settings(self) -> str:
        return " ".join(f"--set {word}" for word in (*LAB, "docker.source=distro"))

    def test_nothing_is_there_but_python(self, host: NsHost, suite: str) -> None:
        major, minor = SUITES[suite]
        assert host.run("python3 -c 'import sys; print(sys.version_info[:2])'").out.strip() == f"({major}, {minor})"
        for module in ("pip", "click", "yaml", "rich", "jinja2", "requests"):
            assert host.run(f"python3 -c 'import {module}'", check=False).code == 1, module

    def test_it_starts(self, host: NsHost) -> None:
        assert self.run(host, "--version") == (0, f"mlhost {__version__}\n", "")
        assert "Set machines up" in self.run(host, "setup", "--help")[1]

    def test_it_reads_what_the_machine_is(self, host: NsHost, suite: str) -> None:
        code, out, err = self.run(host, "facts", "--format", "json")
        assert code == 0, err
        assert suite in out

    def test_it_sets_the_machine_up_and_then_has_nothing_to_do(self, host: NsHost) -> None:
        code, out, err = self.run(host, "plan", "--format", "json", self.settings())
        assert code == 3, out + err
        assert json.loads(out)["decisions"]["docker"]["source"] == "distro"
        code, out, err = self.run(host, "setup", "--yes", self.settings())
        assert code == 0, out + err
        assert "set up and proved" in out
        code, out, err = self.run(host, "setup", "--yes", self.settings())
        assert code == 0, out + err
        assert "nothing to change" in out

    def test_it_takes_everything_back_and_itself_too(self, host: NsHost) -> None:
        code, out, err = self.run(host, "uninstall", "--yes")
        assert code == 0, out + err
        assert "Traceback" not in out + err
        assert host.run("test ! -e /var/lib/mlhost/pyz", user="root", check=False).code == 0
        assert host.run("dpkg-query -W -f '${db:Status-Status}' docker.io", check=False).out != "installed"
