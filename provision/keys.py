"""Signing keys: fetched by the controller (by the host, where only it has a route), compared with the pinned fingerprint, cached, carried in the script."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from provision import openpgp
from provision.actions import AptRepository, Key
from provision.errors import Failed
from provision.model import CHANGE, Plan


class KeyMismatch(Failed):
    """What was served as a signing key is not the pinned one."""


def needed(plan: Plan) -> tuple[Key, ...]:
    """The keys that carrying the plan out needs."""
    return tuple(i.action.key for i in plan.items if i.state == CHANGE and isinstance(i.action, AptRepository) and i.action.key)


def compare(key: Key, text: bytes) -> bytes:
    """The key's text if every primary key in it is pinned; raises KeyMismatch otherwise."""
    try:
        found = openpgp.fingerprints(text)
    except ValueError as error:
        raise KeyMismatch(
            f"What {key.url} serves as the {key.name} signing key is not an OpenPGP key ({error}).",
            "Check that nothing (a captive portal, an inspecting proxy) answers in its place.",
        ) from None
    if not found or not set(found) <= set(key.fingerprints):
        raise KeyMismatch(
            f"The {key.name} signing key at {key.url} has the fingerprint {', '.join(found) or 'none'}; pinned is {', '.join(key.fingerprints)}. Nothing was trusted.",
            "If the vendor has changed the key, update mlhost; if a mirror signs anew, put its full fingerprint into the playbook (`mirrors.….fingerprint`).",
        )
    return text


def cache_path(key: Key, cache: Path) -> Path:
    """Where a key is kept: by its fingerprints, so that a changed pin never meets an old file."""
    return cache / ("-".join(sorted(key.fingerprints))[:160] + ".asc")


def cached(key: Key, cache: Path) -> bytes | None:
    """The key from the cache, compared again; None if it is not there or not right."""
    try:
        return compare(key, cache_path(key, cache).read_bytes())
    except (OSError, KeyMismatch):
        return None


def store(key: Key, text: bytes, cache: Path) -> None:
    """Keep a compared key; a cache that cannot be written is no error."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=cache)
        with os.fdopen(handle, "wb") as file:
            file.write(text)
        Path(name).replace(cache_path(key, cache))
    except OSError:
        return


def attach(plan: Plan, texts: Mapping[str, bytes]) -> Plan:
    """The plan with every needed key's text in place. `texts` is key URL -> key, compared already."""
    items = tuple(
        replace(i, action=replace(i.action, key=replace(i.action.key, text=texts[i.action.key.url])))
        if isinstance(i.action, AptRepository) and i.action.key and i.action.key.url in texts
        else i
        for i in plan.items
    )
    return replace(plan, items=items)


def fetch(url: str, timeout: float = 15) -> bytes:
    """GET a key. Raises OSError kinds (requests' own) where that fails; at most 256 KiB are read."""
    import requests

    with requests.get(url, timeout=timeout, stream=True) as answer:
        answer.raise_for_status()
        return answer.raw.read(262144, decode_content=True)


def gather(
    plan: Plan, cache: Path, ask_host: Callable[[tuple[str, ...]], Mapping[str, bytes]], get: Callable[[str], bytes] = fetch
) -> Plan:
    """The plan with its keys: from the cache, else fetched here, else by the host. Raises KeyMismatch, or Failed where nobody can fetch one."""
    texts: dict[str, bytes] = {}
    missing: list[Key] = []
    why: dict[str, str] = {}
    for key in needed(plan):
        text = cached(key, cache)
        if text is None:
            try:
                text = compare(key, get(key.url))
                store(key, text, cache)
            except OSError as error:
                why[key.url] = f"{type(error).__name__}: {error}"
                missing.append(key)
                continue
        texts[key.url] = text
    if missing:
        answers = ask_host(tuple(k.url for k in missing))
        for key in missing:
            if not answers.get(key.url):
                raise Failed(
                    f"The {key.name} signing key at {key.url} can be fetched neither from here ({why[key.url][:200]}) nor by the host.",
                    "Check the network of either, or name a mirror with `mirrors:` in the playbook.",
                )
            texts[key.url] = compare(key, answers[key.url])
            store(key, texts[key.url], cache)
    return attach(plan, texts)
