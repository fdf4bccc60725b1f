"""How text reports look: colour, width and marks are the caller's decision and arrive here as one value."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from provision.report.sanitize import line

_SGR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_QUANTITY = re.compile(r"(\d) (s|min|h|MB|GiB|GPUs?)\b")
_MARKS = {
    "ok": ("✓", "ok", "green"),
    "change": ("+", "+", "yellow"),
    "changed": ("✓", "ok", "green"),
    "later": ("…", "..", "cyan"),
    "refused": ("✗", "!!", "red"),
    "failed": ("✗", "!!", "red"),
    "skipped": ("-", "-", "dim"),
    "note": ("•", "*", "cyan"),
}


@dataclass(frozen=True)
class Look:
    """How to write: ANSI colours or none, columns to fill, and whether only ASCII can be shown."""

    color: bool = False
    width: int = 100
    ascii: bool = False

    def paint(self, text: str, style: str) -> str:
        """The text in a style (`bold`, `dim`, `red` …), or unchanged without colour."""
        if not self.color or not text:
            return text
        codes = ";".join(_SGR[word] for word in style.split())
        return f"\x1b[{codes}m{text}\x1b[0m"

    def mark(self, state: str) -> str:
        """The one sign that stands for a state."""
        fancy, plain, style = _MARKS.get(state, ("•", "*", "dim"))
        return self.paint(plain if self.ascii else fancy, style)

    @property
    def dash(self) -> str:
        return "-" if self.ascii else "—"

    @property
    def dot(self) -> str:
        return "," if self.ascii else " ·"

    @property
    def times(self) -> str:
        return "x" if self.ascii else "\u00d7"


PLAIN = Look()
LABEL = 10  # columns of a label in front of a text


def wrap(text: object, look: Look, indent: int = 0, style: str = "") -> list[str]:
    """One paragraph, made safe, wrapped to the width and indented by `indent` columns; at least 40 columns wide."""
    width = max(40, look.width - indent)
    held = _QUANTITY.sub("\\1\x00\\2", line(text, 4000))  # a number stays with its unit
    lines = [part.replace("\x00", " ") for part in textwrap.wrap(held, width, break_long_words=False, break_on_hyphens=False)] or [""]
    return [" " * indent + look.paint(part, style) if style else " " * indent + part for part in lines]


def hang(head: str, plain_head: str, text: object, look: Look, style: str = "") -> list[str]:
    """A paragraph that hangs from `head` (already painted; `plain_head` is the same without colour and fixes the indent)."""
    lines = wrap(text, look, len(plain_head), style)
    return [head + lines[0][len(plain_head) :], *lines[1:]]


def labelled(label: str, text: object, look: Look, style: str = "") -> list[str]:
    """`label` in a column of its own, the text hanging beside it."""
    plain = f"  {label:<{LABEL}}"
    return hang(look.paint(plain, "dim"), plain, text, look, style)


def duration(seconds: float) -> str:
    """Seconds for a reader: `0.4 s`, `48 s`, `3 min 12 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: int, one: str, many: str = "") -> str:
    """`1 change`, `3 changes`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listing(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    items = [line(word) for word in words]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
