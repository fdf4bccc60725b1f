"""How long one input may take. A parser that backtracks is found by time alone, so the bound interrupts it in the middle."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Optional

# Seconds of processor time, not of the clock: a busy machine is no finding. What is linear takes a hundredth of that.
SECONDS = 12.0


class Hang(BaseException):
    """One input took longer than any should. No `Exception`, so that nothing on the way takes it for bad input."""


@contextlib.contextmanager
def bounded(seconds: float = SECONDS) -> Iterator[None]:
    """Raise Hang inside the body once it has used this much processor time. Only where signals can be had: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(_number: int, _frame: Optional[FrameType]) -> None:
        raise Hang(f"one input took more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
