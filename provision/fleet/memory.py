"""What the last run over a fleet left undone, kept for `--retry-failed` in the user's state directory (XDG base directories)."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from provision.errors import UsageError

SCHEMA = 1
MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Last:
    """A command's last run: what it was called with, and the hosts that were not brought to their end, in their order."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    failed: tuple[str, ...]
    time: str = ""


def path(command: str) -> Path:
    """Where a command's last run is kept."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "mlhost" / f"last-{command}.json"


def remember(command: str, last: Last) -> Optional[str]:
    """Keep it, whole or not at all. Returns why it could not be kept, which is no reason to fail."""
    place = path(command)
    document = {
        "schema": SCHEMA,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "sources": list(last.sources),
        "targets": list(last.targets),
        "failed": list(last.failed),
    }
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, prefix=place.name, delete=False, encoding="utf-8") as file:
            json.dump(document, file, indent=2)
        os.replace(file.name, place)
    except OSError as error:
        return f"{place} cannot be written ({error.strerror}), so --retry-failed will not know of this run."
    return None


def recall(command: str) -> Last:
    """The command's last run. Raises UsageError where there is none that can be read."""
    place = path(command)
    fix = f"Run `mlhost {command}` on several hosts first."
    try:
        with open(place, encoding="utf-8") as file:
            value = json.loads(file.read(MAX_BYTES))
        texts = [value[key] for key in ("sources", "targets", "failed")]
        if value["schema"] != SCHEMA or not all(isinstance(text, list) and all(isinstance(word, str) for word in text) for text in texts):
            raise ValueError
        return Last(tuple(texts[0]), tuple(texts[1]), tuple(texts[2]), str(value["time"]))
    except FileNotFoundError:
        raise UsageError(f"--retry-failed: no run of `mlhost {command}` over several hosts is remembered.", fix) from None
    except OSError as error:
        raise UsageError(f"--retry-failed: {place} cannot be read: {error.strerror}.", fix) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"--retry-failed: {place} is no record of a run.", f"Remove it. {fix}") from None


def left(before: Sequence[str], ran: Sequence[str], failed: Sequence[str]) -> tuple[str, ...]:
    """What is undone after a part of it was tried again."""
    return tuple(dict.fromkeys([*(name for name in before if name not in set(ran)), *failed]))
