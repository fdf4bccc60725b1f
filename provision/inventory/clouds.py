"""What the clouds have in common: `KEY=VALUE,…` after the prefix, the choice of an address, names, and extras that may be missing. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Optional

from provision.errors import UsageError
from provision.inventory import checks
from provision.inventory.model import Host

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")


@dataclass(frozen=True)
class Asked:
    """What a source text asks for: plain keys, each with its values in order, and tags."""

    source: str
    values: Mapping[str, tuple[str, ...]]
    tags: Mapping[str, tuple[str, ...]]

    def one(self, key: str, default: str = "") -> str:
        """The only value of a key. Raises UsageError for several."""
        values = self.values.get(key, ())
        if len(values) > 1:
            raise UsageError(f"{self.source}: `{key}` is there more than once.", "Give it once.")
        return values[0] if values else default

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """One of some words; the first is the default. Raises UsageError for another."""
        value = self.one(key, choices[0])
        if value not in choices:
            raise UsageError(f"{self.source}: `{key}` cannot be {value!r}.", f"Choose from {', '.join(choices)}.")
        return value

    def check_states(self, states: Sequence[str]) -> None:
        """Raises UsageError for a `state` that is none of these."""
        for state in self.values.get("state", ()):
            if state not in states:
                raise UsageError(f"{self.source}: `state` cannot be {state!r}.", f"Choose from {', '.join(states)}.")

    def check_login(self) -> None:
        """Raises UsageError for a `user` or `port` that can be none."""
        if self.one("user"):
            checks.user(self.one("user"), self.source)
        if self.one("port"):
            checks.port(self.one("port"), self.source)


def ask(source: str, keys: Sequence[str], bare: Optional[str] = None) -> Asked:
    """Read `aws:key=value,tag:Role=gpu|train,…`: `|` parts alternatives, a key may be repeated. A word without `=` is a value of `bare`.

    Raises UsageError naming the nearest key.
    """
    prefix, _, text = source.partition(":")
    values: dict[str, tuple[str, ...]] = {}
    tags: dict[str, tuple[str, ...]] = {}
    for word in (part.strip() for part in text.split(",")):
        if not word:
            continue
        key, equals, value = word.partition("=")
        if not equals and bare:
            key, value = bare, word
        if (not equals and not bare) or not value or not all(value.split("|")):
            raise UsageError(f"{source}: {word!r} has no value.", f"Write {prefix}:key=value,… with {', '.join(keys)} or tag:NAME.")
        options = tuple(value.split("|"))
        if key.startswith("tag:") and key[4:]:
            tags[key[4:]] = (*tags.get(key[4:], ()), *options)
        elif key in keys:
            values[key] = (*values.get(key, ()), *options)
        else:
            from difflib import get_close_matches

            near = get_close_matches(key, keys, 1)
            raise UsageError(
                f"{source}: there is no key {key!r}.", f"Did you mean `{near[0]}`?" if near else f"There are {', '.join(keys)} and tag:NAME."
            )
    return Asked(source, values, tags)


def missing(extra: str, source: str, module: Optional[str]) -> UsageError:
    """The error for an SDK that is not installed."""
    return UsageError(
        f"{source}: {module or extra} is not installed, which this inventory needs.", f"Install it with: pip install 'mlhost[{extra}]'"
    )


def named(hosts: Sequence[Host], ids: Sequence[str]) -> list[Host]:
    """The hosts with names that are each there once: where a name is no plain word, or is another's too, the id takes its place."""
    times = Counter(host.name for host in hosts)
    return [
        host if times[host.name] == 1 and _PLAIN.fullmatch(host.name) else replace(host, name=identity)
        for host, identity in zip(hosts, ids)
    ]


def group(*parts: str) -> Optional[str]:
    """A group's name from words of the cloud (`tag_Role_gpu`), None where it cannot be one."""
    text = "_".join(re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-") for part in parts)
    return text if _PLAIN.fullmatch(text) else None
