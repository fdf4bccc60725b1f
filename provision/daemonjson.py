"""Merging wanted keys into Docker's daemon.json without losing anything the user has there. Pure text in, text out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATH = "/etc/docker/daemon.json"

# Keys the daemon takes over on SIGHUP; every other one needs a restart. Source: moby daemon/reload.go (29.x).
RELOADABLE = frozenset(
    ["debug", "labels", "live-restore", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "shutdown-timeout", "default-stop-timeout", "insecure-registries", "registry-mirrors", "runtimes", "default-runtime", "default-shm-size", "default-ipc-mode", "default-cgroupns-mode", "authorization-plugins", "network-diagnostic-port", "nri-opts"]
)


class Malformed(ValueError):
    """daemon.json is not what Docker accepts; the text says what and where."""


@dataclass(frozen=True)
class Merge:
    """The merged text (equal to the old one if nothing changed) and the top-level keys that changed."""

    text: str
    changed: tuple[str, ...]

    @property
    def needs_restart(self) -> bool:
        return any(key not in RELOADABLE for key in self.changed)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise Malformed(f"the key {key!r} is there twice")
        seen[key] = value
    return seen


def parse(text: str) -> dict[str, Any]:
    """The object in daemon.json; an empty or absent file is `{}`. Raises Malformed naming line and column."""
    if not text.strip():
        return {}
    try:
        value = json.loads(text.lstrip("\ufeff"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        hint = " (JSON has no comments)" if error.doc[error.pos : error.pos + 1] in ("/", "#") else ""
        raise Malformed(f"line {error.lineno}, column {error.colno}: {error.msg}{hint}") from None
    except RecursionError:
        raise Malformed("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise Malformed(f"it holds a {type(value).__name__}, not an object")
    return value


def _no_constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON")


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, Mapping):
        result = dict(old)
        for key, value in new.items():
            result[key] = _merged(result[key], value) if key in result else value
        return result
    return new


def merge(text: str, wanted: Mapping[str, Any]) -> Merge:
    """Merge `wanted` into the file's text: mappings are merged deeply, other values replaced, all other keys kept in their order.

    Nothing changed in meaning gives the same text back, byte for byte. Raises Malformed for a text Docker would not accept.
    """
    old = parse(text)
    new = _merged(old, wanted)
    changed = tuple(key for key in new if key not in old or old[key] != new[key])
    if not changed:
        return Merge(text, ())
    return Merge(json.dumps(new, indent=4, ensure_ascii=False) + "\n", changed)
