"""The wheel and the sdist: what is in them, that they are always the same, and that what is installed from them works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import provision

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PARTS = ("provision", "playbooks", "tests", "docs", "examples", "README.md", "Vagrantfile", "action.yml", "pyproject.toml", ".gitignore")


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path


def source(checkout: Path, folder: Path) -> Path:
    """The checkout's files elsewhere, with dates of their own and what is lying about in a folder that is worked in."""
    for name in (part for part in PARTS if (checkout / part).exists()):
        if (checkout / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(checkout / name, folder / name, ignore=ignored, copy_function=shutil.copyfile)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkout / name, folder / name)
    (folder / "provision/__pycache__").mkdir()
    (folder / "provision/__pycache__/left.cpython-311.pyc").write_bytes(os.urandom(64))
    return folder


def build(folder: Path, out: Path, umask: str = "022", kinds: tuple[str, ...] = ("wheel", "sdist")) -> Built:
    """Call the build backend itself, as every frontend does (PEP 517)."""
    out.mkdir(parents=True)
    code = f"import hatchling.build as b\nfor kind in {kinds!r}: getattr(b, 'build_' + kind)({str(out)!r})"
    command = f"umask {umask}; exec {sys.executable} -c \"$0\""
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(["sh", "-c", command, code], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Built(next(out.glob("*.whl")), next(out.glob("*.tar.gz"), out / "none"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Built:
    folder = tmp_path_factory.mktemp("source")
    return build(source(checkout, folder / "mlhost"), folder / "dist")


def test_the_wheel_has_every_script_every_data_file_and_the_playbooks(built: Built, checkout: Path) -> None:
    inside = set(zipfile.ZipFile(built.wheel).namelist())
    wanted = {
        f"provision/{p.relative_to(checkout / 'provision')}"
        for p in (checkout / "provision").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    wanted |= {f"provision/{p.relative_to(checkout)}" for p in (checkout / "playbooks").rglob("*.yaml")}
    assert not wanted - inside
    assert not [name for name in inside if name.endswith(".pyc")]


def test_wheel_and_sdist_are_the_same_from_another_folder_at_another_time(built: Built, tmp_path: Path, checkout: Path) -> None:
    elsewhere = source(checkout, tmp_path / "another/place")
    for path in elsewhere.rglob("*"):
        os.utime(path, (time.time() - 4e7, time.time() - 4e7))
    again = build(elsewhere, tmp_path / "dist", umask="077")
    assert again.wheel.read_bytes() == built.wheel.read_bytes()
    assert again.sdist.read_bytes() == built.sdist.read_bytes()


def test_the_sdist_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as packed:
        packed.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (unpacked,) = tmp_path.iterdir()
    assert unpacked.name == f"mlhost-{provision.__version__}"
    assert build(unpacked, tmp_path / "dist", kinds=("wheel",)).wheel.read_bytes() == built.wheel.read_bytes()


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel and what it asks for, from the index that pip uses."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(folder / "bin/python")]
    done = subprocess.run([*pip, "install", "--quiet", f"{built.wheel}[specs]"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def ran(command: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(command), *words], cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


class TestWhatTheWheelInstalls:
    def test_is_the_program(self, installed: Path) -> None:
        assert ran(installed / "mlhost", "--version").stdout == f"mlhost {provision.__version__}\n"

    @pytest.mark.parametrize("playbook", ["gpu-host", "docker-host"])
    def test_finds_its_playbooks_and_plans(self, installed: Path, checkout: Path, playbook: str) -> None:
        capture = sorted((checkout / "tests/hosts").glob("debian13-cloud/probe.txt"))[0]
        done = ran(installed / "mlhost", "plan", "--capture", str(capture), "-p", playbook, "--format", "json")
        assert done.returncode == 3, done.stderr
        assert json.loads(done.stdout)["decisions"]["docker"]["action"] == "install"

    def test_has_the_specs_that_pytest_finds_by_their_package(self, installed: Path) -> None:
        done = ran(installed / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "--pyargs", "provision.specs", "--hosts=local://")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "test_a_container_runs_to_its_end" in done.stdout

    def test_builds_the_single_file_that_the_checkout_builds(self, installed: Path, tmp_path: Path, checkout: Path) -> None:
        subprocess.run([sys.executable, "-m", "provision.pyz", "-o", str(tmp_path / "one.pyz")], cwd=checkout, check=True, capture_output=True)
        wheels = tmp_path / "wheels"
        from provision import pyz
        from provision.shipped import shipped

        (tmp_path / "pins").write_text(shipped(pyz.PINS))
        words = [*pyz.ASK, "--no-deps", "--require-hashes", "--dest", str(wheels), "--requirement", str(tmp_path / "pins")]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
        done = ran(installed / "python", "-m", "provision.pyz", "-o", str(tmp_path / "two.pyz"), "--wheels", str(wheels))
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "one.pyz").read_bytes() == (tmp_path / "two.pyz").read_bytes()
