"""What an archive of `docker save` says of itself.

Its parts, for every Docker since 1.10: `manifest.json` names each image's config and layers; since 25 configs and layers are `blobs/sha256/<digest>`
and there is an OCI `index.json` besides (github.com/moby/moby, image/tarexport; github.com/opencontainers/image-spec, image-layout.md).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from provision.errors import Failed
from provision.images.tarstream import Member

MANIFEST = "manifest.json"
INDEX = "index.json"
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_OLD_CONFIG = re.compile(r"([0-9a-f]{64})\.json")


class NoImage(Failed):
    """The archive holds no image that Docker could load."""


@dataclass(frozen=True)
class Saved:
    """One image of an archive: its id (the digest of its config), its tags, its layers' names in the archive, and what they unpack to."""

    id: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...] = ()


def is_small_part(member: Member) -> bool:
    """Whether a member may be one of those that `images` reads."""
    name = member.name
    return name in (MANIFEST, INDEX) or _OLD_CONFIG.fullmatch(name) is not None or (_BLOB.fullmatch(name) is not None and member.size < 1 << 20)


def images(kept: Mapping[str, bytes]) -> tuple[Saved, ...]:
    """The images of an archive, from its kept small members. Raises NoImage where they are not there or do not fit together."""
    listed = _json(kept.get(MANIFEST))
    if not isinstance(listed, list) or not listed:
        raise NoImage("The archive holds no image: it has no manifest.json.", "Make one with `mlhost image save` or `docker save`.")
    found = []
    for entry in listed:
        name = str(entry.get("Config", "")) if isinstance(entry, dict) else ""
        blob, old = _BLOB.fullmatch(name), _OLD_CONFIG.fullmatch(name)
        matched = blob or old
        content = kept.get(name)
        if matched is None or content is None:
            raise NoImage(f"The archive is not whole: the config {name or 'of an image'} is not in it.", "Make it anew.")
        actual = hashlib.sha256(content).hexdigest()
        if actual != matched[1]:
            raise NoImage(f"The archive is damaged: the config {matched[1][:12]} has the digest {actual[:12]}.", "Make it anew.")
        config = _json(content)
        rootfs = config.get("rootfs") if isinstance(config, dict) else None
        diff_ids = rootfs.get("diff_ids") or [] if isinstance(rootfs, dict) else []
        found.append(Saved(f"sha256:{actual}", _words(entry.get("RepoTags")), _words(entry.get("Layers")), _words(diff_ids)))
    return tuple(found)


def ids(kept: Mapping[str, bytes]) -> frozenset[str]:
    """Every digest by which Docker may call an image of this archive: those of the configs and, with containerd's image store, of the manifests."""
    index = _json(kept.get(INDEX))
    entries = index.get("manifests", []) if isinstance(index, dict) else []
    named = {str(entry.get("digest")) for entry in entries if isinstance(entry, dict)}
    return frozenset({image.id for image in images(kept)} | named)


def manifest(saved: Sequence[Saved]) -> bytes:
    """The manifest.json of these images, whose configs are `blobs/sha256/<id>`."""
    rows = [{"Config": blob_name(image.id), "RepoTags": list(image.tags), "Layers": list(image.layers)} for image in saved]
    return json.dumps(rows, separators=(",", ":")).encode()


def blob_name(digest: str) -> str:
    """Where a blob is in an archive."""
    return "blobs/sha256/" + digest.partition(":")[2]


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """What Docker calls each layer together with those below it (image-spec, config.md: Layer ChainID)."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(diff_id if not chain else "sha256:" + hashlib.sha256(f"{chain[-1]} {diff_id}".encode()).hexdigest())
    return tuple(chain)


def _json(content: bytes | None) -> Any:
    try:
        return json.loads(content or b"null")
    except (ValueError, RecursionError):
        return None


def _words(value: object) -> tuple[str, ...]:
    return tuple(str(word) for word in value) if isinstance(value, list) else ()
