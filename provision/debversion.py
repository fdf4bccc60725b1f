"""Which of two Debian package versions is newer, by the rules of Debian policy 5.6.12 (deb-version(7))."""

from __future__ import annotations

import re
from functools import cmp_to_key

_PIECES = re.compile(r"(\D*)(\d*)")


def compare(one: str, other: str) -> int:
    """Negative where `one` is the older version, 0 where they are equal, positive where it is the newer one."""
    (epoch, upstream, revision), (epoch2, upstream2, revision2) = _parts(one), _parts(other)
    return (epoch - epoch2) or _text(upstream, upstream2) or _text(revision, revision2)


key = cmp_to_key(compare)


def _parts(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    return int(epoch) if epoch.isdigit() else 0, upstream if dash else rest, revision if dash else ""


def _text(one: str, other: str) -> int:
    """Pieces of non-digits and digits in turn; non-digits by `_weight`, digits as numbers."""
    pieces, others = _PIECES.findall(one), _PIECES.findall(other)
    for at in range(max(len(pieces), len(others))):
        (word, number), (word2, number2) = (found[at] if at < len(found) else ("", "") for found in (pieces, others))
        weights, weights2 = [*map(_weight, word), 0], [*map(_weight, word2), 0]
        difference = _sign(weights, weights2) or int(number or 0) - int(number2 or 0)
        if difference:
            return difference
    return 0


def _weight(letter: str) -> int:
    """A tilde sorts before everything, even the end; letters before all else."""
    return -1 if letter == "~" else ord(letter) if letter.isalpha() else ord(letter) + 256


def _sign(one: list[int], other: list[int]) -> int:
    return (one > other) - (one < other)
