"""Importing paramiko at half of its price."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_lock = threading.Lock()


class _Metadata(ModuleType):
    """Stands in for importlib.metadata, which costs a fifth of paramiko's import time and which paramiko asks for its own version only.

    Whatever else is asked, by whomever, goes to the real one.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("importlib.metadata"), name)

    def version(self, name: str) -> str:
        """A distribution's version; for paramiko as its metadata folder is called."""
        spec = find_spec("paramiko") if name == "paramiko" else None
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for entry in os.listdir(os.path.dirname(folder)):
                if entry.startswith("paramiko-") and entry.endswith((".dist-info", ".egg-info")):
                    return entry.split("-")[1].partition(".dist")[0].partition(".egg")[0]
        return str(importlib.import_module("importlib.metadata").version(name))


def import_paramiko() -> None:
    """Import paramiko without invoke, which it wants only for `Match exec` in its own ssh_config reader, unused here.

    invoke is a third of paramiko's import time and 7 MB (measured with 5.1); paramiko itself provides for its absence. Also keeps
    paramiko's log records off standard error, where they land if no one asks for them.
    """
    with _lock:
        hide = "paramiko" not in sys.modules and "invoke" not in sys.modules
        if hide:
            sys.modules["invoke"] = None  # type: ignore[assignment] # how Python spells "cannot be imported"
        stand_in = "paramiko" not in sys.modules and not hasattr(importlib, "metadata")
        if stand_in:
            importlib.metadata = _Metadata("importlib.metadata")
        try:
            import paramiko  # noqa: F401
        finally:
            if hide:
                del sys.modules["invoke"]
            if stand_in and isinstance(importlib.metadata, _Metadata):
                del importlib.metadata
        log = logging.getLogger("paramiko")
        if not log.handlers:
            log.addHandler(logging.NullHandler())
