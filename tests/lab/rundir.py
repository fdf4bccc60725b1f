"""Folders of running hosts, and the end of those whose test run was killed before it could stop them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

from tests.lab.cache import cache_root


def new_run_folder() -> Path:
    """A fresh folder for one host, named after this process. Folders of processes that are gone are cleared first."""
    end_strays()
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=str(_runs())))


def remember(folder: Path, leader: int) -> None:
    """Note the process group (its leader's id) that runs the host of this folder."""
    (folder / "pid").write_text(str(leader))


def end_strays() -> None:
    """End hosts of test runs that are gone, and remove their folders."""
    for folder in _runs().iterdir():
        owner = folder.name.split("-")[0]
        if not owner.isdigit() or Path(f"/proc/{owner}").exists():
            continue
        with contextlib.suppress(OSError, ValueError):
            leader = int((folder / "pid").read_text())
            # Numbers are used again: only a process whose command line names the folder is ours.
            if str(folder) in Path(f"/proc/{leader}/cmdline").read_bytes().decode(errors="replace"):
                os.killpg(leader, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _runs() -> Path:
    folder = cache_root() / "run"
    folder.mkdir(exist_ok=True)
    return folder
