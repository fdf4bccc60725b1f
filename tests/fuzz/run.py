"""Runs a harness over so many inputs and counts them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded

from tests.fuzz.bounds import bounded
from tests.fuzz.harnesses import Harness


@dataclass
class Count:
    """How many inputs were fed."""

    inputs: int = 0


def fuzz(harness: Harness, examples: int, count: Count, seed: int | None = None) -> None:
    """Feed `examples` inputs. Raises what the first wrong one raised, shrunk to its smallest form, and shows it."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=seed is None,
        verbosity=Verbosity.normal,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(harness.inputs)
    def one(value: Any) -> None:
        count.inputs += 1
        with bounded():
            harness.feed(value)

    with contextlib.ExitStack():
        (one if seed is None else seeded(seed)(one))()
