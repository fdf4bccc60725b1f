"""Error texts, brought into one form and searched. Pure.

A kernel message of the NVIDIA driver is spread over several lines, each with its own time stamp and prefix; a terminal breaks lines anywhere.
Signatures are therefore searched in the text without all that and with every run of white space made one space.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from provision.report.sanitize import block, line

MOST, LONGEST = 1 << 18, 4000

# journalctl's and syslog's heads, then dmesg's time, then the driver's own prefix.
_HEAD = re.compile(
    r"^(?:(?:[A-Z][a-z]{2} [ \d]?\d [\d:]{8}|\d{4}-\d\d-\d\dT[\d:.,+Z-]+) \S+ [\w.@/-]+(?:\[\d+\])?: |\[ *\d+\.\d+\] (?:\S+ kernel: )?)?(?:\[ *\d+\.\d+\] ?)?(?:\[T\d+\] ?)?"
)
_NVRM = re.compile(r"^(?:kernel: )?NVRM: ?(?:GPU [0-9a-fA-F:.]+: )?")


@dataclass(frozen=True)
class Text:
    """A text to search. `name` tells where it is from; `current`: it tells of now, not of some time since the boot."""

    name: str
    lines: tuple[str, ...]
    current: bool
    flat: str
    starts: tuple[int, ...] = field(default=(), repr=False)

    def find(self, patterns: Iterable[re.Pattern[str]]) -> str:
        """The line in which one of the patterns is found first (its beginning, where it goes over several), "" if none is."""
        for pattern in patterns:
            found = pattern.search(self.flat)
            if found:
                first = bisect_right(self.starts, found.start()) - 1
                last = bisect_right(self.starts, max(found.start(), found.end() - 1)) - 1
                return line(" ".join(self.lines[first : last + 1]), 400)
        return ""


def text(name: str, raw: str, *, current: bool) -> Text:
    """A text in the form that is searched. Of it counts at most the last 256 KiB, and of a line its beginning: patterns take long on longer ones."""
    lines = tuple(row[:LONGEST] for row in block(raw[-MOST:], MOST).split("\n") if row.strip())
    parts: list[str] = []
    starts: list[int] = []
    at = 0
    for row in lines:
        bare = " ".join(_NVRM.sub("", _HEAD.sub("", row.strip(), 1), 1).split())
        starts.append(at)
        parts.append(bare)
        at += len(bare) + 1
    return Text(name, lines, current, " ".join(parts), tuple(starts))
