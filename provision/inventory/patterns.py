"""Picking hosts by name, group and pattern. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from provision.errors import UsageError
from provision.inventory.model import ALL, Host, Inventory

HELP = "A pattern is a host, a group, `all`, or one with * or ?; `!pattern` takes hosts away, `&pattern` keeps only those; commas join them."
MAX_RANGE = 100_000
_RANGE = re.compile(r"\[([0-9]+|[A-Za-z]):([0-9]+|[A-Za-z])(?::([0-9]+))?\]")


def select(inventory: Inventory, patterns: Sequence[str], what: str = "") -> tuple[Host, ...]:
    """The hosts that the patterns pick, in the inventory's order; all of them for no pattern.

    `what` names the option the patterns came from. Raises UsageError for one that picks nothing, with the nearest name.
    """
    words = [word.strip() for pattern in patterns for word in pattern.split(",") if word.strip()]
    groups = {name: set(members) for name, members in inventory.groups.items()}
    names = [host.name for host in inventory.hosts]

    def picked(word: str) -> set[str]:
        if word == ALL:
            return set(names)
        if any(sign in word for sign in "*?"):
            found = {name for name in names if fnmatch.fnmatchcase(name, word.replace("[", "[[]"))}
            for group, members in groups.items():
                if fnmatch.fnmatchcase(group, word.replace("[", "[[]")):
                    found |= members
            if not found:
                raise UsageError(f"{what}no host or group matches {word!r}.", HELP)
            return found
        found = set(groups.get(word, ())) | ({word} if word in names else set())
        if not found:
            raise _unknown(word, what, [*names, *groups])
        return found

    plain = [word for word in words if word[0] not in "!&"]
    wanted = {name for word in plain for name in picked(word)} if plain else set(names)
    for word in words:
        if word[0] in "!&":
            if len(word) == 1:
                raise UsageError(f"{what}{word!r} has no pattern after it.", HELP)
            wanted = wanted & picked(word[1:]) if word[0] == "&" else wanted - picked(word[1:])
    return tuple(host for host in inventory.hosts if host.name in wanted)


def _unknown(word: str, what: str, known: Sequence[str]) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(word, known[:20_000], 1)
    if near:
        return UsageError(f"{what}the inventory has no host or group {word!r}.", f"Did you mean `{near[0]}`?")
    return UsageError(f"{what}the inventory has no host or group {word!r}.", "`mlhost inventory SOURCE` lists what it has.")


def spread(pattern: str, where: str) -> list[str]:
    """`node[01:20]` and `rack-[a:c]` as the names they stand for (an optional third number is the step); others as they are.

    Raises UsageError for a range that runs backwards or has too many.
    """
    found = _RANGE.search(pattern)
    if not found:
        return [pattern]
    first, last, step_text = found.groups()
    step = int(step_text or 1)
    if first.isdigit() != last.isdigit() or step < 1:
        raise UsageError(f"{where}: {found.group()} is no range.", "Write [01:20], [a:f] or [0:10:2].")
    low, high = (int(first), int(last)) if first.isdigit() else (ord(first), ord(last))
    if high < low or (high - low) // step >= MAX_RANGE:
        raise UsageError(f"{where}: the range {found.group()} runs backwards or has more than {MAX_RANGE} hosts.", "Write [01:20].")
    width = len(first) if first.isdigit() and first.startswith("0") else 0
    middles = [str(n).zfill(width) if first.isdigit() else chr(n) for n in range(low, high + 1, step)]
    head, tail = pattern[: found.start()], pattern[found.end() :]
    spread_ = [head + middle + rest for middle in middles for rest in spread(tail, where)]
    if len(spread_) > MAX_RANGE:
        raise UsageError(f"{where}: {pattern} stands for more than {MAX_RANGE} hosts.", "Write smaller ranges.")
    return spread_
