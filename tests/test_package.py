"""What users get: the version in one place, old Pythons. The wheel and the rest are in test_distributions.py."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import provision


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
