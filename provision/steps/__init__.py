"""The steps decide; each is a pure function from facts, spec and catalog to items, decisions and problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provision.catalog import Catalog
from provision.cudafit import ImageConfig
from provision.model import OK, REFUSED, Decision, Facts, Item, Notice, Problem, State
from provision.rows import Platform
from provision.spec import Spec

# The order in which items are carried out, whatever step they come from: sources first, then one package transaction, then what needs the packages.
REPAIR, SOURCES, BEFORE_PACKAGES, PACKAGES, MODULES, FILES, SERVICES, ACCESS, PROOF = range(10, 100, 10)


@dataclass(frozen=True)
class Context:
    """What every step may look at."""

    facts: Facts
    spec: Spec
    platform: Platform
    catalog: Catalog
    image: ImageConfig | None = None


@dataclass(frozen=True)
class Result:
    """What one step decided. `daemon` are keys it wants in Docker's daemon.json; `urls` what the host must be able to reach for its changes;
    `restart` says, in words, what of its changes Docker only sees when it is started anew."""

    items: tuple[Item, ...] = ()
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    notices: tuple[Notice, ...] = ()
    daemon: Mapping[str, Any] = field(default_factory=dict)
    urls: tuple[str, ...] = ()
    restart: str = ""


def settled(step: str, identifier: str, kind: str, why: str, state: State, phase: int) -> Item:
    """An item that is as it should be."""
    return Item(identifier, step, kind, OK, why, state, state, phase=phase)


def refused(step: str, kind: str, problem: Problem, phase: int, expected: State | None = None) -> Item:
    """The item that a problem stands in the way of; it has the problem's id and says its message."""
    return Item(problem.id, step, kind, REFUSED, problem.message, expected or {}, phase=phase)


def becomes_image(facts: Facts) -> bool:
    """Whether they were read inside a tree that becomes an image: nothing runs there, but it is known whether there is a systemd in it."""
    return not facts.live and facts.systemd is not None


def plural(count: int, one: str, many: str = "") -> str:
    """`1 container`, `3 containers`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
