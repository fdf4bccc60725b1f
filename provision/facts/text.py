"""Small readings of a section's text. None raises, whatever the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from provision.model import Section

# What rc says in place of a command's own exit code; see scripts/probe.sh.
ABSENT, UNREADABLE, TOO_BIG, NOT_RUNNING, NO_PROGRAM = 2, 13, 27, 111, 127

MISSING = Section(NO_PROGRAM, "")

Sections = Mapping[str, Section]


def get(sections: Sections, name: str) -> Section:
    """The section, or one that stands for "could not be asked"."""
    return sections.get(name, MISSING)


def line(sections: Sections, name: str) -> str | None:
    """The first line of a section that was read, "" if what it shows does not exist, None if unknown."""
    section = get(sections, name)
    if section.rc == 0:
        return section.text.partition("\n")[0].strip()
    return "" if section.rc == ABSENT else None


def number(text: str | None) -> int | None:
    """A decimal number of at most 18 digits, None for anything else."""
    text = (text or "").strip()
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def pairs(text: str) -> dict[str, str]:
    """`key=value` lines; the first of two with one key counts."""
    found: dict[str, str] = {}
    for row in text.split("\n"):
        key, equals, value = row.partition("=")
        if equals:
            found.setdefault(key.strip(), value.strip())
    return found


def words(text: str) -> dict[str, str]:
    """`key=value` words of one line."""
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


def lines(text: str) -> list[str]:
    """The lines with their ends, where only a line feed ends one, as for apt and yum; `str.splitlines` knows ten more."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def rows(text: str) -> Iterator[str]:
    """The lines that are not empty."""
    return (row for row in text.split("\n") if row.strip())


def json_object(text: str) -> dict[str, Any] | None:
    """The first JSON object in a text that may have warnings around it, None if there is none."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def mapping(value: object) -> dict[str, Any]:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def strings(value: object) -> tuple[str, ...]:
    """The strings of a JSON list, or the keys of an object."""
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, (list, dict)) else ()


def string(value: object) -> str:
    """`value` if it is a string, else ""."""
    return value if isinstance(value, str) else ""
