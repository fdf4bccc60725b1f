"""A file as an item: ok where the host has it already."""

from __future__ import annotations

import hashlib

from provision.actions import File
from provision.model import CHANGE, Facts, Item
from provision.steps import settled


def file_item(facts: Facts, step: str, identifier: str, action: File, why: str, phase: int) -> Item:
    """An item for a file: ok when the host's file has the content and mode already. Contents are shown by hash, as they may hold secrets."""
    wanted = hashlib.sha256((action.content or "").encode()).hexdigest()
    fact = facts.paths.get(action.path)
    expected = {"path": action.path, "sha256": wanted[:12], "mode": action.mode}
    if fact and fact.sha256 == wanted and fact.mode.lstrip("0") == action.mode.lstrip("0"):
        return settled(step, identifier, "file", f"{action.path} is as it should be", expected, phase)
    actual = {
        "path": action.path if fact and fact.kind == "file" else "",
        "sha256": fact.sha256[:12] if fact else "",
        "mode": fact.mode if fact else "",
    }
    return Item(identifier, step, "file", CHANGE, why, expected, actual, action, phase=phase)
