"""From the reason of a failed item to the layer that is broken and what to do about it: rows of `provision/data/remedies.toml`. Pure but for package data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from provision.shipped import shipped_toml


@dataclass(frozen=True)
class Remedy:
    """`layer` is a word for people; `says` the pattern that gave it away; `fix` a sentence or two."""

    layer: str
    says: re.Pattern[str]
    fix: str


@lru_cache(maxsize=1)
def remedies() -> tuple[Remedy, ...]:
    """All rows, in the order in which they are tried."""
    return tuple(Remedy(row["layer"], re.compile(row["says"]), row["fix"]) for row in shipped_toml("data/remedies.toml")["remedy"])


def remedy(reason: str) -> Remedy | None:
    """What to do about a failed item's reason; None where the words are not known."""
    return next((row for row in remedies() if row.says.search(reason)), None)
