"""The same harnesses under atheris (libFuzzer for Python): inputs are chosen by the code that they reach. Optional, and nothing else imports it."""

from __future__ import annotations

import sys

from tests.fuzz.bounds import bounded
from tests.fuzz.harnesses import Harness


def guided(harness: Harness) -> None:
    """Fuzz until something is found or the process is stopped; does not return."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed here: pip install atheris (Linux and macOS, CPython 3.11 to 3.13)")
    from hypothesis import HealthCheck, given, settings

    @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(harness.inputs)
    def one(value: object) -> None:
        with bounded():
            harness.feed(value)

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *sys.argv[sys.argv.index("--") + 1 :]] if "--" in sys.argv else sys.argv[:1], one.hypothesis.fuzz_one_input)  # type: ignore[attr-defined]
    atheris.Fuzz()
