"""A tree that becomes an image: the lab's Debian unpacked in a folder, changed in an upper layer of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Optional

from tests.lab.need import LabUnavailable, require_root
from tests.lab.nshost import base_tree


class ImageTree:
    """The tree at `root`, over `base` (default: the base of the namespace hosts); what is changed in it is in `upper`. A context manager."""

    def __init__(self, base: Optional[Path] = None) -> None:
        require_root("a tree to make an image of")
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="mlhost-image-", dir=str(memory) if os.access(memory, os.W_OK) else None))
        self.folder.chmod(0o755)
        self.root, self.upper = self.folder / "root", self.folder / "upper"
        for part in (self.root, self.upper, self.folder / "work"):
            part.mkdir()
        options = f"lowerdir={base or base_tree()},upperdir={self.upper},workdir={self.folder / 'work'}"
        done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)], capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise LabUnavailable(f"a tree cannot be mounted here: {done.stderr.strip()}")

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def changed(self) -> dict[str, tuple[int, int, int]]:
        """Everything in the upper layer, with what tells whether it is touched again."""
        found = {}
        for path in sorted(self.upper.rglob("*")):
            known = path.lstat()
            found[str(path.relative_to(self.upper))] = (known.st_ino, known.st_mtime_ns, known.st_size)
        return found

    def __enter__(self) -> ImageTree:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        subprocess.run(["umount", "-l", str(self.root)], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
