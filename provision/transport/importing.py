"""Importing paramiko at two thirds of its price."""

from __future__ import annotations

import logging
import sys
import threading

_lock = threading.Lock()


def import_paramiko() -> None:
    """Import paramiko without invoke, which it wants only for `Match exec` in its own ssh_config reader, unused here.

    invoke is a third of paramiko's import time and 7 MB (measured with 5.1); paramiko itself provides for its absence. Also keeps
    paramiko's log records off standard error, where they land if no one asks for them.
    """
    with _lock:
        hide = "paramiko" not in sys.modules and "invoke" not in sys.modules
        if hide:
            sys.modules["invoke"] = None  # type: ignore[assignment] # how Python spells "cannot be imported"
        try:
            import paramiko  # noqa: F401
        finally:
            if hide:
                del sys.modules["invoke"]
        log = logging.getLogger("paramiko")
        if not log.handlers:
            log.addHandler(logging.NullHandler())
