"""The tools mlhost is measured against, in an environment of their own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.lab.cache import cache_root

REQUIREMENTS = Path(__file__).resolve().parent / "requirements-peers.txt"


def peers_bin() -> Path:
    """The folder with `pyinfra` and `ansible-playbook`, installed on first use as requirements-peers.txt pins them."""
    name = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache_root() / "peers" / name
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", "--requirement", str(REQUIREMENTS)], check=True)
        (folder / "ready").touch()
    return folder / "bin"


def versions() -> list[str]:
    """The pins, one a line."""
    lines = [line.split("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()]
    return [line for line in lines if line]
