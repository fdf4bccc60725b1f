"""Where a file's way back leads: through the states that runs have made of it, and out of a JSON file that others have changed since. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision import daemonjson
from provision.traces import ABSENT, GONE, Receipt, Traces


@dataclass(frozen=True)
class Way:
    """`run` is the one whose backup is to take the file's place, "" where there is nothing to do; `stays` says why the file stays (or goes
    back only part of the way), "" where it does not."""

    run: str
    stays: str = ""


def way(path: str, receipts: Sequence[Receipt], traces: Traces) -> Way:
    """From what is at `path` now back to what was there before the oldest of these receipts.

    Each receipt says what it left; where that is not what was found, somebody else has been there, and what he left stays.
    """
    state, run = traces.now.get(path, ABSENT), ""
    for receipt in reversed(receipts):
        ours = receipt.word(1) if receipt.kind == "file" else ABSENT
        before = traces.saved.get((receipt.run, path), GONE)
        if state == ours:
            if before == GONE:
                return Way(run, f"the backup of {path} is gone; it stays")
            if before != state:
                run, state = receipt.run, before
        elif state != before:
            return Way(run, f"{path} has been changed since; it stays")
    return Way(run)


@dataclass(frozen=True)
class Untied:
    """A JSON text without what mlhost had merged into it; None where nothing is left of it and there was no file before. `left` are keys of
    ours that somebody has changed since."""

    text: str | None
    left: tuple[str, ...] = ()


def untie(path: str, receipts: Sequence[Receipt], traces: Traces) -> Untied | None:
    """`path` as it is now, less what the runs behind these receipts had merged into it, plus what they had replaced.

    None where it is not known what they wrote, or the file is no JSON any more.
    """
    first, last = receipts[0].run, receipts[-1].run
    now, written = traces.texts.get(f"now:{path}"), traces.texts.get(f"written:{last}:{path}")
    if now is None or written is None:
        return None
    try:
        old, ours, found = (daemonjson.parse(text) for text in (traces.texts.get(f"saved:{first}:{path}", ""), written, now))
    except daemonjson.Malformed:
        return None
    left: list[str] = []
    result = _without(old, ours, found, left, "")
    was_there = traces.saved.get((first, path), ABSENT) != ABSENT
    if not result and not was_there:
        return Untied(None, tuple(left))
    # in meaning the same: not one byte of it is touched
    text = now if result == found else json.dumps(result, indent=4, ensure_ascii=False) + "\n"
    return Untied(text, tuple(left))


def _without(old: Mapping[str, Any], ours: Mapping[str, Any], now: Mapping[str, Any], left: list[str], where: str) -> dict[str, Any]:
    result = dict(now)
    for key in ours:
        if key not in now or (key in old and _same(old[key], ours[key])):
            continue
        if _same(now[key], ours[key]):
            if key in old:
                result[key] = old[key]
            else:
                del result[key]
        elif isinstance(now[key], Mapping) and isinstance(ours[key], Mapping):
            before = old.get(key)
            result[key] = _without(before if isinstance(before, Mapping) else {}, ours[key], now[key], left, f"{where}{key}.")
            if not result[key] and key not in old:
                del result[key]
        elif key in daemonjson.SETS and isinstance(now[key], list) and isinstance(ours[key], list):
            before = old.get(key) if isinstance(old.get(key), list) else []
            result[key] = [entry for entry in now[key] if entry not in ours[key] or entry in (before or [])]
            if not result[key] and key not in old:
                del result[key]
        else:
            left.append(f"{where}{key}")
    for key in old:
        if key not in ours and key not in now:
            result[key] = old[key]
    return result


def _same(one: object, other: object) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
