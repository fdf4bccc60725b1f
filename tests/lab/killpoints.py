"""Where a script can be killed, and killing it there: bash calls back before every simple command (its DEBUG trap), wherever that stands.

The product's text is not touched for this: a preamble is put before it, in the tests alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from provision.sh import Sh, quote

RECORD = "/run/kill-points"
# One line, so that line numbers stay what they are. $0 is the point to die at; without one, every point is written down.
PREAMBLE = (
    "set -T; mlhost_point() {{ mlhost_here=\"${{ITEM:--}} ${{FUNCNAME[1]}}:${{BASH_LINENO[0]}}\"; "
    "{act}; }}; trap mlhost_point DEBUG\n"
)
KILLS = {
    "group": "kill -KILL 0",  # the script, its runner, and whatever they have started
    "script": "kill -KILL $$",  # the script alone
    "power": "kill -KILL -1",  # everything on the host; whoever walks must then boot it again
}


@dataclass(frozen=True)
class Point:
    """Before a command: the item under way, the function, the line of the script."""

    item: str
    function: str
    line: int

    def __str__(self) -> str:
        return f"{self.item} {self.function}:{self.line}"


def recording(script: Sh) -> Sh:
    """The script that writes every point it comes by into RECORD."""
    return _with(script, f'printf "%s\\n" "$mlhost_here" >>{RECORD}')


def dying(script: Sh, point: Point, how: str) -> Sh:
    """The script that is killed when it first comes to `point`; `how` is a key of KILLS."""
    return _with(script, f'[ "$mlhost_here" != {quote(str(point))} ] || {KILLS[how]}')


def points(record: str) -> list[Point]:
    """The distinct points of a record, in the order in which they were first come by."""
    found = []
    for line in dict.fromkeys(record.splitlines()):
        item, _, place = line.partition(" ")
        function, _, number = place.rpartition(":")
        found.append(Point(item, function, int(number)))
    return found


def _with(script: Sh, act: str) -> Sh:
    first, _, rest = script.partition("\n")
    if not first.startswith("#!"):
        raise ValueError("a script begins with #!")
    return Sh(f"{first}\n{PREAMBLE.format(act=act)}{rest}")
