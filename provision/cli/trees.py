"""Captures instead of hosts: a system tree read by the local probe, or a file that `facts --format raw` printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.playbook import Loaded

MAX_CAPTURE = 64 * 1024 * 1024


def check_source(targets: Sequence[str], root: str | None, arch: str | None, capture: str | None) -> None:
    """Raise UsageError where targets, `--root` and `--capture` are mixed, or name nothing that is there."""
    given = [name for name, value in (("targets", targets), ("--root", root), ("--capture", capture)) if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other.", "Name hosts, or a tree with --root, or a file with --capture.")
    if arch and not root:
        raise UsageError("--arch belongs to --root.", "A live host and a capture say themselves what they are.")
    if root and not os.path.isdir(root):
        raise UsageError(f"--root {root} is not a directory.", "Name the top of an unpacked or mounted system.")


def capture_bytes(root: str | None, arch: str | None, capture: str | None, loaded: Loaded, record: bool = False) -> bytes:
    """The raw capture; `record` is as for `provision.look.observe`. Raises UsageError for a file that cannot be read, and what the probe raises for a tree."""
    if root is not None:
        from provision import run

        return run.capture_root(root, arch, loaded.spec, record)
    assert capture is not None  # noqa: S101 - the caller has one of both
    try:
        if capture == "-":
            content = sys.stdin.buffer.read(MAX_CAPTURE + 1)
        else:
            with open(capture, "rb") as file:
                content = file.read(MAX_CAPTURE + 1)
    except OSError as error:
        raise UsageError(f"--capture {capture} cannot be read: {error.strerror}.", "Name a file that `mlhost facts --format raw` printed.") from None
    if len(content) > MAX_CAPTURE:
        raise UsageError(f"--capture {capture} is larger than {MAX_CAPTURE >> 20} MiB.", "Name a file that `mlhost facts --format raw` printed.")
    return content
