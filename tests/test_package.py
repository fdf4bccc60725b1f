"""What users get: the wheel, the version in one place, old Pythons."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import provision


def test_the_wheel_has_every_script_every_data_file_and_the_playbooks(tmp_path: Path, checkout: Path) -> None:
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling")
    copy = tmp_path / "source"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache"))
    build = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=copy, capture_output=True, text=True, check=False
    )
    assert build.returncode == 0, build.stderr
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"provision/{p.relative_to(checkout / 'provision')}"
        for p in (checkout / "provision").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    wanted |= {f"provision/{p.relative_to(checkout)}" for p in (checkout / "playbooks").rglob("*.yaml")}
    assert not wanted - inside


def test_the_version_is_said_in_one_place(checkout: Path) -> None:
    said = subprocess.run([sys.executable, "-m", "provision", "--version"], cwd=checkout, capture_output=True, text=True, check=True)
    assert said.stdout == f"mlhost {provision.__version__}\n"
    assert provision.__version__ not in (checkout / "pyproject.toml").read_text()


@pytest.mark.parametrize("path", sorted((Path(provision.__file__).parent).rglob("*.py")), ids=lambda p: p.name)
def test_every_module_is_python_3_9(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


OTHERS = [f"python3.{minor}" for minor in range(9, 15) if minor != sys.version_info[1]]


@pytest.mark.parametrize("name", OTHERS)
def test_planning_from_a_capture_works_under_other_pythons(name: str, tmp_path: Path, checkout: Path) -> None:
    python = shutil.which(name)
    if not python or subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode:
        pytest.skip(f"{name} with venv is not on this machine")
    captures = sorted((checkout / "tests/hosts").glob("*/probe.txt"))
    assert captures
    environment = dict(os.environ, MLHOST_HOME=str(tmp_path))
    for capture in captures[:3]:
        done = subprocess.run(
            [python, "-m", "provision", "plan", "--capture", str(capture), "--format", "json"],
            cwd=checkout, env=environment, capture_output=True, text=True, check=False,
        )
        assert done.returncode in (0, 1, 3, 5), done.stderr
        assert '"schema": 1' in done.stdout
