"""No text and no bytes that somebody else wrote may bring a traceback, a hang or endless memory: only errors that say what is wrong.

Here a few hundred inputs each, always the same ones; `MLHOST_FUZZ=20 pytest tests/test_fuzz.py` takes twenty times as many, `python -m tests.fuzz` fresh ones
for as long as you like.
"""

from __future__ import annotations

import os

import pytest

from tests.fuzz.harnesses import HARNESSES, Harness
from tests.fuzz.run import Count, fuzz

pytestmark = pytest.mark.slow

FACTOR = int(os.environ.get("MLHOST_FUZZ", "1"))


@pytest.mark.parametrize("harness", HARNESSES, ids=lambda harness: harness.name)
def test_only_errors_that_say_what_is_wrong(harness: Harness) -> None:
    count = Count()
    fuzz(harness, 30 * harness.weight * FACTOR, count)
    assert count.inputs >= 10
