"""Importing paramiko at half of its price."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Optional

_lock = threading.Lock()


def import_paramiko() -> None:
    """Import paramiko without two modules that make half of its import time (measured with 5.1).

    invoke it wants only for `Match exec` in its own ssh_config reader, which is not used here, and provides for its absence;
    importlib.metadata only for its own version number, which nothing here asks. Also keeps paramiko's log records off standard
    error, where they land if no one asks for them.
    """
    with _lock:
        if "paramiko" not in sys.modules:
            with _in_place_of("invoke", None), _in_place_of("importlib.metadata", _no_metadata()):
                import paramiko  # noqa: F401
        log = logging.getLogger("paramiko")
        if not log.handlers:
            log.addHandler(logging.NullHandler())


def _no_metadata() -> ModuleType:
    module = ModuleType("importlib.metadata")
    module.version = lambda name: "unknown"  # type: ignore[attr-defined]
    return module


@contextlib.contextmanager
def _in_place_of(name: str, module: Optional[ModuleType]) -> Iterator[None]:
    """For a while, let `import name` give `module` (None: fail), unless the real one is there already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module  # type: ignore[assignment] # None is how Python spells "cannot be imported"
    try:
        yield
    finally:
        del sys.modules[name]
