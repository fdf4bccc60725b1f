"""From the reason of a failed item to the layer that is broken and what to do about it: rows of `provision/data/remedies.toml`. Pure but for package data."""

from __future__ import annotations

import pkgutil
import re
import sys
from dataclasses import dataclass
from functools import lru_cache

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Remedy:
    """`layer` is a word for people; `says` the pattern that gave it away; `fix` a sentence or two."""

    layer: str
    says: re.Pattern[str]
    fix: str


@lru_cache(maxsize=1)
def remedies() -> tuple[Remedy, ...]:
    """All rows, in the order in which they are tried."""
    text = (pkgutil.get_data("provision", "data/remedies.toml") or b"").decode()
    return tuple(Remedy(row["layer"], re.compile(row["says"]), row["fix"]) for row in tomllib.loads(text)["remedy"])


def remedy(reason: str) -> Remedy | None:
    """What to do about a failed item's reason; None where the words are not known."""
    return next((row for row in remedies() if row.says.search(reason)), None)
