"""Merging wanted keys into Docker's daemon.json without losing anything the user has there. Pure text in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PATH = "/etc/docker/daemon.json"

# Keys the daemon takes over on SIGHUP; every other one needs a restart. Source: moby daemon/reload.go (29.x). `features` is read on SIGHUP too, but
# the image store and CDI are set up only at the start.
RELOADABLE = frozenset(
    (
        "authorization-plugins",
        "debug",
        "default-cgroupns-mode",
        "default-ipc-mode",
        "default-runtime",
        "default-shm-size",
        "default-stop-timeout",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "network-diagnostic-port",
        "nri-opts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    )
)
# Lists that are sets in meaning: what the user has there is kept behind what is wanted. Any other list is one value and replaced whole.
SETS = frozenset(("insecure-registries", "registry-mirrors"))


_HALF = re.compile("[\ud800-\udfff]")


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
        value = json.loads(text.lstrip("\ufeff"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise Malformed(_where(error)) from None
    except Malformed:
        raise
    except ValueError:  # more digits than Python turns into a number
        raise Malformed("it holds a number that is too long") from None
    except RecursionError:
        raise Malformed("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise Malformed(f"it holds a {type(value).__name__}, not an object")
    return value


def _where(error: json.JSONDecodeError) -> str:
    """The line and what is wrong there, in words of our own: Python's differ from version to version, and so does the place they name."""
    before, after = error.doc[: error.pos + 1].rstrip(), error.doc[error.pos :].lstrip(" \t\r\n,")
    if after[:1] in ("}", "]") and before.rstrip("}]").rstrip().endswith(","):
        comma = before.rindex(",")
        return f"line {error.doc.count(chr(10), 0, comma) + 1}: a comma before a closing bracket is not JSON"
    if error.doc[error.pos : error.pos + 1] in ("/", "#"):
        return f"line {error.lineno}: JSON has no comments"
    return f"line {error.lineno}: this is not JSON"


def _no_constant(name: str) -> Any:
    raise Malformed(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Malformed(f"the number {text[:40]} is too big")
    return value


def overlay(old: Any, new: Any) -> Any:
    """`new` over `old`: mappings are merged deeply, the old keys first and in their order; anything else is replaced."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    result = dict(old)
    for key, value in new.items():
        result[key] = overlay(result[key], value) if key in result else value
    return result


def _union(old: Any, new: Any) -> Any:
    """Every wanted entry, then the others that are there; `old` itself where nothing is missing. Docker adds a slash to a mirror's URL."""
    if not isinstance(old, list) or not isinstance(new, list):
        return new
    there, wanted = ([str(entry).rstrip("/") for entry in entries] for entries in (old, new))
    if set(wanted) <= set(there):
        return old
    return new + [entry for entry, name in zip(old, there) if name not in wanted]


def merge(text: str, wanted: Mapping[str, Any]) -> Merge:
    """Merge `wanted` into the file's text: mappings are merged deeply, `SETS` united, other values replaced, all other keys kept in their order.

    The options of a log driver go with it when it is replaced, as another one would refuse them. Nothing changed in meaning gives the same
    text back, byte for byte. Raises Malformed for a text Docker would not accept.
    """
    old = parse(text)
    start = dict(old)
    if "log-driver" in wanted and old.get("log-driver", wanted["log-driver"]) != wanted["log-driver"]:
        start.pop("log-opts", None)
    new = overlay(start, {key: _union(old.get(key), value) if key in SETS else value for key, value in wanted.items()})
    changed = tuple(key for key in new if key not in old or not _same(old[key], new[key]))
    if not changed:
        return Merge(text, ())
    merged = json.dumps(new, indent=4, ensure_ascii=False) + "\n"
    if _HALF.search(merged):  # half of a pair, which JSON can write as an escape and UTF-8 not at all
        merged = json.dumps(new, indent=4) + "\n"
    return Merge(merged, changed)


def _same(old: Any, new: Any) -> bool:
    """Equal as JSON: to Python `true` is 1."""
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
