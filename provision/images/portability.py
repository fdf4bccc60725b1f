"""What makes an image run only on processors or GPUs like those of the machine that built it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Snag:
    """A place (file and line) with what was found there, why that matters, and what to write instead."""

    file: str
    line: int
    found: str
    why: str
    instead: str


def warnings(files: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> tuple[Snag, ...]:
    """Look through texts (by name) for what `rows`, the rows `portability` of images.toml, describe. Comments do not count."""
    found = []
    patterns = [(re.compile(row["pattern"]), row) for row in rows]
    for name, text in files.items():
        for number, content in enumerate(text.splitlines(), 1):
            code = content.strip()
            if code.startswith("#"):
                continue
            for pattern, row in patterns:
                match = pattern.search(code)
                if match:
                    found.append(Snag(name, number, match[0].strip(), row["why"], row["instead"]))
    return tuple(found)


def missing(files: Mapping[str, str], rows: Sequence[Mapping[str, str]]) -> tuple[Snag, ...]:
    """Rows `needs` of images.toml: what builds from source (`pattern`) without anybody saying for which machines (`unless`)."""
    everything = "\n".join(files.values())
    found = []
    for row in rows:
        if re.search(row["unless"], everything):
            continue
        for name, text in files.items():
            for number, content in enumerate(text.splitlines(), 1):
                match = re.search(row["pattern"], content)
                if match and not content.strip().startswith("#"):
                    found.append(Snag(name, number, match[0].strip(), row["why"], row["instead"]))
                    break
    return tuple(found)
