"""The same work on several hosts at once: results in the order given, one host's trouble never another's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from provision.errors import Error
from provision.report.verdict import report_of_error

if TYPE_CHECKING:
    from provision.fleet.pace import Pace
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


def each(
    targets: Sequence[str], work: Callable[[str | None], T], parallel: int, pace: Pace | None = None, failed: Callable[[Result[T]], bool] | None = None
) -> list[Result[T]]:
    """Call `work` for every target (for None, this machine, where there are none), `parallel` at a time or as the pace has it.

    One target is worked on in this thread, and an interrupt is raised there. For several an interrupt ends the waiting: hosts whose turn had not
    come are `NotStarted`, those at work `LeftAtWork`. `failed` says which results count as failures; errors do, where it is not given.
    """
    wanted: list[str | None] = list(targets) or [None]
    if len(wanted) == 1:
        return [_one(wanted[0], work)]
    from provision.fleet.pace import Course, Pace
    from provision.fleet.work import LeftAtWork, NotStarted, work_through

    course = Course(len(wanted), pace or Pace(parallel))
    bad = failed or (lambda result: result.error is not None)
    results, _ = work_through(len(wanted), lambda number: _one(wanted[number], work), bad, course)
    never = NotStarted(f"Not started: {course.stopped}.", "Run the same command with --retry-failed to go on with what is undone.")
    left = LeftAtWork("Still at work when you stopped waiting; what has begun there goes on.", "Follow it with `mlhost status --follow`.")
    return [
        results.get(number) or Result(name_of(target), error=left if number < course.begun else never) for number, target in enumerate(wanted)
    ]


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
        from dataclasses import replace

        status = {"NotStarted": "not started", "LeftAtWork": "running"}.get(type(error).__name__)
        told = report_of_error(result.target, error)
        return replace(told, status=status) if status else told
    from provision.model import HostReport

    return HostReport(
        result.target,
        "failed",
        1,
        message=f"this is a bug in mlhost: {type(error).__name__}: {error}",
        fix="Please report it with the output of the same command for this host with --debug added.",
    )
