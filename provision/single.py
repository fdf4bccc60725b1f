"""The single file, `mlhost.pyz`: what it has not, and how that is said."""

from __future__ import annotations

import os

from provision.errors import UsageError

MARK = "mlhost.single"
"""Beside the package where it came out of the single file; `provision.pyz` puts it there."""


def local_only() -> bool:
    """Whether this mlhost came out of the single file, which has no SSH and no cloud's SDK in it."""
    return os.path.exists(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), MARK))


def refuse(what: str) -> None:
    """Raise UsageError where this is the single file; `what` names what would need another machine."""
    if local_only():
        raise UsageError(
            f"mlhost.pyz works on the machine it runs on, and {what} is elsewhere: there is no SSH and no cloud's SDK in the single file.",
            "Copy mlhost.pyz to that machine and run it there, or install mlhost with pipx or pip.",
        )
