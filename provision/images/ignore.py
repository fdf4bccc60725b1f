""".dockerignore: which files of a folder belong to the build context.

The rules: docs.docker.com/build/concepts/context (#dockerignore-files): patterns as Go's filepath.Match, `**` for any number of folders, `!` takes back,
the last match decides, and what lies in an ignored folder is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from posixpath import normpath


@dataclass(frozen=True)
class Rule:
    """One line: its pattern, and whether it takes files back in."""

    pattern: re.Pattern[str]
    back: bool


def rules(text: str) -> tuple[Rule, ...]:
    """The rules of a .dockerignore file; a line that is no pattern is left out, as nothing can match it."""
    found = []
    for row in text.lstrip("\ufeff").splitlines():
        words = row.strip()
        if not words or words.startswith("#"):
            continue
        back = words.startswith("!")
        words = words[1:].strip() if back else words
        pattern = normpath(words).lstrip("/") if words else ""
        if pattern in ("", "."):
            continue
        try:
            found.append(Rule(re.compile(_expression(pattern), re.DOTALL), back))
        except re.error:
            continue
    return tuple(found)


def ignored(path: str, all_rules: Sequence[Rule]) -> bool:
    """Whether a file or folder, by its path below the context, is left out."""
    parts = path.split("/")
    out = False
    for rule in all_rules:
        if rule.back == out and any(rule.pattern.fullmatch("/".join(parts[:depth])) for depth in range(1, len(parts) + 1)):
            out = not rule.back
    return out


def may_hold_kept(folder: str, all_rules: Sequence[Rule]) -> bool:
    """Whether an ignored folder must be looked into all the same, because some rule takes something back."""
    return any(rule.back for rule in all_rules)


def _expression(pattern: str) -> str:
    out, place = "", 0
    while place < len(pattern):
        sign = pattern[place]
        if pattern.startswith("**", place):
            place += 2
            if pattern.startswith("/", place):
                place += 1
                out += "(?:.*/)?"
            else:
                out += ".*"
            continue
        if sign == "*":
            out += "[^/]*"
        elif sign == "?":
            out += "[^/]"
        elif sign == "[" and (end := pattern.find("]", place + 2)) > 0:
            out += pattern[place : end + 1]
            place = end
        elif sign == "[":
            raise re.error("a bracket is not closed")
        elif sign == "\\" and place + 1 < len(pattern):
            place += 1
            out += re.escape(pattern[place])
        else:
            out += re.escape(sign)
        place += 1
    return out
