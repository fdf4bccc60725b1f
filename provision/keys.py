"""Signing keys: fetched by the controller (by the host, where only it has a route), compared with the pinned fingerprint, cached, carried in the script."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from provision import openpgp
from provision.actions import AptRepository, Key, RpmRepository
from provision.errors import Failed
from provision.model import CHANGE, Plan


class KeyMismatch(Failed):
    """What was served as a signing key is not the pinned one."""


SIGNED = (AptRepository, RpmRepository)


def needed(plan: Plan) -> tuple[Key, ...]:
    """The keys that carrying the plan out needs and that it does not hold yet."""
    found = (i.action.key for i in plan.items if i.state == CHANGE and isinstance(i.action, SIGNED) and i.action.key)
    return tuple(dict.fromkeys(key for key in found if not key.text))


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
    return cache / ("-".join(sorted(key.fingerprints))[:160] + ".key")


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


def armoured(text: bytes) -> bytes:
    """The key as armoured text, which is what apt takes a file named .asc for, and rpm any. The checksum, optional in the format, is left out."""
    if not text[:1] or not text[0] & 0x80:
        return text
    lines = base64.encodebytes(text).replace(b"\n", b"")
    body = b"\n".join(lines[at : at + 64] for at in range(0, len(lines), 64))
    return b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n" + body + b"\n-----END PGP PUBLIC KEY BLOCK-----\n"


def as_named(path: str, text: bytes) -> bytes:
    """The key in the form that its file's name says: .gpg is binary, which apt before 1.4 is content with alone, all else armoured."""
    return openpgp.dearmor(text) if path.endswith(".gpg") else armoured(text)


def attach(plan: Plan, texts: Mapping[Key, bytes]) -> Plan:
    """The plan with every needed key's text in place. `texts` are keys compared already."""
    items = []
    for item in plan.items:
        action = item.action
        if isinstance(action, SIGNED) and action.key is not None and action.key in texts:
            key = replace(action.key, text=as_named(action.key.path, texts[action.key]))
            items.append(replace(item, action=replace(action, key=key)))
        else:
            items.append(item)
    return replace(plan, items=tuple(items))


def fetch(url: str, timeout: float = 15) -> bytes:
    """GET a key. Raises OSError kinds (requests' own) where that fails; a body longer than any key is cut off, which `compare` then refuses."""
    import requests

    body = b""
    with requests.get(url, timeout=timeout, stream=True) as answer:
        answer.raise_for_status()
        for part in answer.iter_content(65536):
            body += part
            if len(body) > openpgp.MAX_BYTES:
                break
    return body


def gather(
    plan: Plan, cache: Path, ask_host: Callable[[tuple[str, ...]], Mapping[str, bytes]], get: Callable[[str], bytes] = fetch
) -> Plan:
    """The plan with its keys: from the cache, else fetched here, else by the host. Raises KeyMismatch, or Failed where nobody can fetch one."""
    texts: dict[Key, bytes] = {}
    why: dict[Key, str] = {}
    for key in needed(plan):
        text = cached(key, cache)
        if text is None:
            try:
                text = compare(key, get(key.url))
            except OSError as error:
                why[key] = f"{type(error).__name__}: {error}"
                continue
            store(key, text, cache)
        texts[key] = text
    answers = ask_host(tuple(dict.fromkeys(key.url for key in why))) if why else {}
    for key, error_text in why.items():
        if not answers.get(key.url):
            raise Failed(
                f"The {key.name} signing key at {key.url} can be fetched neither from here ({error_text[:200]}) nor by the host.",
                "Check the network of either, or name a mirror with `mirrors:` in the playbook.",
            )
        texts[key] = compare(key, answers[key.url])
        store(key, texts[key], cache)
    return attach(plan, texts)
