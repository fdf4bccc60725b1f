"""The threads that work through a course: results in the order given, one host's trouble never another's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from provision.errors import Failed
from provision.fleet.pace import Course

T = TypeVar("T")


class NotStarted(Failed):
    """Nothing was done on the host, because the fleet was stopped before its turn."""


class LeftAtWork(Failed):
    """The user stopped waiting for this host; what had begun there goes on."""


def work_through(
    count: int, work: Callable[[int], T], failed: Callable[[T], bool], course: Course
) -> tuple[dict[int, T], bool]:
    """Call `work` with the numbers of the hosts as the course allows; `work` must not raise.

    Returns the results by number, without the hosts that never began, and whether the user broke it off: then those that were at work are
    missing too. The threads are daemons: after an interrupt the program can end at once, while what was begun on the hosts goes on there.
    """
    results: dict[int, T] = {}
    turn = threading.Condition()

    def worker() -> None:
        while True:
            with turn:
                number = course.begin()
                while number is None:
                    if course.over or course.stopped or course.begun >= course.total:
                        return
                    turn.wait()
                    number = course.begin()
            result = work(number)
            with turn:
                results[number] = result
                course.end(number, failed(result))
                turn.notify_all()

    try:
        for _ in range(min(course.pace.parallel, count)):
            threading.Thread(target=worker, daemon=True).start()
        with turn:
            while not course.over:
                turn.wait()
    except KeyboardInterrupt:
        with turn:
            course.stop("you stopped it")
            return dict(results), True
    return results, False

