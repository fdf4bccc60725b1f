"""Two images, layer by layer: which files differ, in what, and what that usually comes from."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.images.layers import Entry


@dataclass(frozen=True)
class Difference:
    """`where`: `layer 2` (from 1, the base's included) or `config`; `path` (or the setting), `what` differs, and `hint`: why that may be, what helps."""

    where: str
    path: str
    what: str
    hint: str = ""


def layers(number: int, first: Sequence[Entry], second: Sequence[Entry], hints: Sequence[Mapping[str, str]] = ()) -> tuple[Difference, ...]:
    """What differs between two layers' entries; `hints` are the rows `varies` of images.toml."""
    where = f"layer {number}"
    here, there = {entry.path: entry for entry in first}, {entry.path: entry for entry in second}
    found = []
    for path in dict.fromkeys([*here, *there]):
        one, other = here.get(path), there.get(path)
        if one is None or other is None:
            found.append(Difference(where, path, "is in the first only" if one else "is in the second only", hint(path, hints)))
            continue
        what = _what(one, other)
        if what:
            found.append(Difference(where, path, " and ".join(what), hint(path, hints)))
    if not found and [entry.path for entry in first] != [entry.path for entry in second]:
        found.append(Difference(where, "", "the same files in another order"))
    return tuple(found)


def _what(one: Entry, other: Entry) -> list[str]:
    if one.kind != other.kind:
        return [f"{one.kind} became {other.kind}"]
    found = []
    if one.digest != other.digest or one.size != other.size:
        found.append("content" if one.size == other.size else f"content ({one.size} and {other.size} bytes)")
    if one.mode != other.mode:
        found.append(f"mode ({one.mode:04o} and {other.mode:04o})")
    if one.owner != other.owner:
        found.append(f"owner ({one.owner} and {other.owner})")
    if one.time != other.time:
        found.append(f"time ({one.time} and {other.time})")
    if one.link != other.link:
        found.append(f"link ({one.link} and {other.link})")
    if one.attributes != other.attributes:
        found.append("extended attributes")
    return found


def hint(path: str, hints: Sequence[Mapping[str, str]]) -> str:
    """What is known of files like this one, "" for nothing."""
    for row in hints:
        if fnmatch.fnmatchcase("/" + path.strip("/"), row["path"]):
            return f"{row['why']}; {row['instead']}"
    return ""


def configs(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[Difference, ...]:
    """What differs between two images' configs, their layers' digests aside."""
    found = []
    for name in dict.fromkeys([*first, *second]):
        if name == "rootfs":
            continue
        one, other = first.get(name), second.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            for key in dict.fromkeys([*one, *other]):
                if one.get(key) != other.get(key):
                    found.append(Difference("config", f"{name}.{key}", f"{_short(one.get(key))} and {_short(other.get(key))}"))
        elif name == "history" and isinstance(one, list) and isinstance(other, list):
            rows = [number for number, pair in enumerate(zip(one, other), 1) if pair[0] != pair[1]]
            what = f"{len(one)} and {len(other)} entries" if len(one) != len(other) else f"entries {', '.join(map(str, rows[:8]))}"
            if one != other:
                found.append(Difference("config", "history", what))
        elif one != other:
            found.append(Difference("config", str(name), f"{_short(one)} and {_short(other)}"))
    return tuple(found)


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 120 else text[:117] + "..."
