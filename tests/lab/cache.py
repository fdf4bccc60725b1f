"""The lab's cache folder: what is dear to build is built once and named by a hash of its recipe."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Callable

from tests.lab.need import LabUnavailable


def cache_root() -> Path:
    """The cache folder: $MLHOST_LAB_CACHE, else ~/.cache/mlhost-lab; made where it is missing."""
    root = Path(os.environ.get("MLHOST_LAB_CACHE") or Path.home() / ".cache" / "mlhost-lab")
    root.mkdir(parents=True, exist_ok=True)
    return root


def recipe_hash(recipe: Any) -> str:
    """Twelve hex digits that change when the recipe (anything JSON can hold) changes."""
    text = json.dumps(recipe, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold a lock of the cache folder, so that two test runs do not build the same thing at once."""
    with open(cache_root() / f"{name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def first_free(name: str, count: int) -> tuple[int, IO[str]]:
    """Claim the first number below `count` that no other process holds under `name`.

    Returns it with the open file that is the claim; closing that gives the number back. Raises LabUnavailable.
    """
    for number in range(count):
        handle = open(cache_root() / f"{name}-{number}.lock", "w")  # noqa: SIM115 - it is the claim, and stays open
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            continue
        return number, handle
    raise LabUnavailable(f"all {count} places for {name} are in use by other test runs")


def built_once(kind: str, name: str, build: Callable[[Path], None]) -> Path:
    """Return CACHE/kind/name, calling `build(folder)` for it if it is not there.

    A build that raises leaves nothing behind; a finished one appears under its name in one step.
    """
    target = cache_root() / kind / name
    with locked(f"{kind}-{name}"):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=str(target.parent)))
            work.chmod(0o755)
            try:
                build(work)
                work.rename(target)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
    return target
