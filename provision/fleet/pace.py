"""In which order hosts begin and when no more of them do. Pure: a state that is told what happened and says what may begin next."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from provision.errors import UsageError


class Amount(NamedTuple):
    """So many hosts, or so many in a hundred."""

    number: int
    percent: bool = False

    def at_least_one(self, total: int) -> int:
        """For the size of a batch: a part of a host is a host, and there is at least one."""
        return max(1, math.ceil(total * self.number / 100) if self.percent else self.number)

    def at_most(self, total: int) -> int:
        """For a limit: a part of a host is none."""
        return total * self.number // 100 if self.percent else self.number


def amount(text: str, what: str, least: int) -> Amount:
    """`3` or `25%`. Raises UsageError for anything else, and for less than `least`."""
    found = re.fullmatch(r"([0-9]{1,6})(%?)", text.strip())
    if not found or int(found.group(1)) < least or (found.group(2) and int(found.group(1)) > 100):
        raise UsageError(f"{what} cannot be {text!r}.", f"Give a number of hosts ({least} or more), or a share such as 25%.")
    return Amount(int(found.group(1)), bool(found.group(2)))


@dataclass(frozen=True)
class Pace:
    """How a fleet is worked through: `parallel` at a time; `canary` first and alone; then in batches; no more after too many failures."""

    parallel: int = 8
    canary: int = 0
    batch: Optional[Amount] = None
    max_failures: Optional[Amount] = None


def waves(total: int, pace: Pace) -> list[int]:
    """The sizes of the groups that are worked on one after the other; each begins when all of the one before have ended."""
    sizes = [min(pace.canary, total)] if pace.canary and total else []
    left = total - sum(sizes)
    # A share is one of the whole fleet.
    size = pace.batch.at_least_one(total) if pace.batch else left
    while left > 0:
        sizes.append(min(size, left))
        left -= sizes[-1]
    return sizes


@dataclass
class Course:
    """A fleet under way. Hosts are known by their number, from 0 to `total` - 1; they begin in that order."""

    total: int
    pace: Pace
    running: set[int] = field(default_factory=set)
    ended: int = 0
    failed: int = 0
    begun: int = 0
    stopped: str = ""  # why no more hosts begin
    _edges: list[int] = field(init=False)

    def __post_init__(self) -> None:
        edge, self._edges = 0, []
        for size in waves(self.total, self.pace):
            edge += size
            self._edges.append(edge)

    def begin(self) -> Optional[int]:
        """The host that may begin now, which thereby has; None where none may, for now or for good (`over`)."""
        if self.stopped or self.begun >= self.total or len(self.running) >= self.pace.parallel:
            return None
        if self._edges and self.begun >= self._edges[0]:
            if self.running:
                return None
            self._edges.pop(0)
        number = self.begun
        self.begun += 1
        self.running.add(number)
        return number

    def end(self, number: int, failed: bool) -> None:
        """A host has ended, well or not."""
        self.running.discard(number)
        self.ended += 1
        self.failed += failed
        if self.stopped or not failed:
            return
        limit = self.pace.max_failures
        if number < min(self.pace.canary, self.total):
            self.stop("the canary failed" if self.pace.canary == 1 else "one of the canaries failed")
        elif limit is not None and self.failed > limit.at_most(self.total):
            self.stop(f"{self.failed} of {self.total} hosts had failed")

    def stop(self, why: str) -> None:
        """No more hosts begin. What has begun goes on."""
        self.stopped = self.stopped or why

    @property
    def over(self) -> bool:
        """Whether nothing runs and nothing will begin."""
        return not self.running and (bool(self.stopped) or self.begun >= self.total)

    @property
    def waiting(self) -> Sequence[int]:
        """The hosts that have not begun."""
        return range(self.begun, self.total)
