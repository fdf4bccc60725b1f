"""The same work on several hosts at once: results in the order given, one host's trouble never another's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from provision.errors import Error
from provision.report.verdict import report_of_error

if TYPE_CHECKING:
    from provision.model import HostReport

T = TypeVar("T")

HERE = "this machine"


@dataclass(frozen=True)
class Result(Generic[T]):
    """What became of one host: a value, or the exception that ended its work."""

    target: str
    value: T | None = None
    error: Exception | None = None


def name_of(target: str | None) -> str:
    """The host for people."""
    return HERE if target is None else target


def each(targets: Sequence[str], work: Callable[[str | None], T], parallel: int) -> list[Result[T]]:
    """Call `work` for every target (for None, this machine, where there are none), at most `parallel` at a time.

    One target is worked on in this thread. For several, the threads are daemons: an interrupt ends the program at once, while what was
    begun on the hosts goes on there.
    """
    wanted: list[str | None] = list(targets) or [None]
    if len(wanted) == 1:
        return [_one(wanted[0], work)]
    todo: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Result[T]]] = queue.SimpleQueue()
    for entry in enumerate(wanted):
        todo.put(entry)

    def worker() -> None:
        while True:
            try:
                number, target = todo.get_nowait()
            except queue.Empty:
                return
            done.put((number, _one(target, work)))

    for _ in range(min(parallel, len(wanted))):
        threading.Thread(target=worker, daemon=True).start()
    results = dict(done.get() for _ in wanted)
    return [results[number] for number in range(len(wanted))]


def _one(target: str | None, work: Callable[[str | None], T]) -> Result[T]:
    try:
        return Result(name_of(target), value=work(target))
    except Exception as error:  # the caller decides what of it is a bug
        return Result(name_of(target), error=error)


def report_of(result: Result[HostReport]) -> HostReport:
    """The host's report; for an error one that tells it. A bug is one host's failure, not the fleet's."""
    if result.value is not None:
        return result.value
    error = result.error
    if isinstance(error, Error):
        return report_of_error(result.target, error)
    from provision.model import HostReport

    return HostReport(
        result.target,
        "failed",
        1,
        message=f"this is a bug in mlhost: {type(error).__name__}: {error}",
        fix="Please report it with the output of the same command for this host with --debug added.",
    )
