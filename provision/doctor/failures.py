"""The known failures: rows of `provision/data/failures/*.toml`, one file a group of layers. Reading and checking them; pure but for package data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from provision.shipped import shipped_toml

# From the one that all others stand on to the one that stands on all others: the first broken one is the one to mend first.
LAYERS = (
    "access", "system", "disk", "network", "repository", "packages", "pci", "kernel-module", "device-nodes", "nvidia-smi", "persistenced", "fabric",
    "docker", "runtime", "cdi", "container", "application",
)
FILES = ("host", "packages", "driver", "docker", "runtime", "container")

_KEYS = {"id", "layer", "title", "signature", "check", "alone", "fallback", "cause", "remedy", "fix", "source"}
_NEEDED = {"id", "layer", "title", "cause", "remedy", "source"}


@dataclass(frozen=True)
class Failure:
    """One known failure.

    `signature`: patterns for error texts, any of which will do. `check`: names of predicates (`provision.doctor.checks`) that must all hold.
    `alone`: the predicates suffice without any text. `fallback`: to be told only where no other failure explains the same text.
    `fix`: the ids of the plan's items that put it right, where that is safe without asking.
    """

    id: str
    layer: str
    title: str
    cause: str
    remedy: tuple[str, ...]
    source: str
    signature: tuple[re.Pattern[str], ...] = ()
    check: tuple[str, ...] = ()
    alone: bool = False
    fallback: bool = False
    fix: tuple[str, ...] = ()


def read(rows: list[Mapping[str, Any]]) -> tuple[Failure, ...]:
    """Failures from parsed rows. Raises ValueError naming the row for what is not in their form."""
    found: dict[str, Failure] = {}
    for row in rows:
        name = str(row.get("id", row))
        wrong = [*(f"unknown key {key}" for key in row.keys() - _KEYS), *(f"no {key}" for key in sorted(_NEEDED - row.keys()))]
        if row.get("layer") not in LAYERS:
            wrong.append(f"layer {row.get('layer')!r}")
        if not row.get("signature") and not row.get("alone"):
            wrong.append("neither a signature nor alone")
        if row.get("alone") and not row.get("check"):
            wrong.append("alone without a check")
        if name in found:
            wrong.append("an id that is there already")
        if wrong:
            raise ValueError(f"{name}: {', '.join(wrong)}")
        found[name] = Failure(
            id=name, layer=row["layer"], title=row["title"], cause=" ".join(row["cause"].split()), remedy=tuple(row["remedy"]), source=row["source"],
            signature=tuple(re.compile(pattern, re.IGNORECASE) for pattern in row.get("signature", ())),
            check=tuple(row.get("check", ())), alone=bool(row.get("alone", False)), fallback=bool(row.get("fallback", False)),
            fix=tuple(row.get("fix", ())),
        )
    return tuple(sorted(found.values(), key=lambda failure: LAYERS.index(failure.layer)))


@lru_cache(maxsize=1)
def load() -> tuple[Failure, ...]:
    """The packaged failures, in the order of their layers."""
    rows: list[Mapping[str, Any]] = []
    for name in FILES:
        rows += shipped_toml(f"data/failures/{name}.toml")["failure"]
    return read(rows)
