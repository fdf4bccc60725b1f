"""A bundle's manifest, and the index of the package repository in it. Pure.

A bundle is one tar file: `manifest.json` first, its signature `manifest.json.sig` where it was signed, and the files that the manifest names with
their SHA-256. Packages lie in `pool/`, each once; every class of hosts has a signed apt index of its own in `classes/NAME/`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provision import lockfile
from provision.errors import UsageError
from provision.lockfile import FORMAT as LOCK_FORMAT
from provision.lockfile import Lock

FORMAT = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
MAX_MANIFEST = 16 << 20
NAMESPACE = "mlhost-bundle"
"""What an SSH signature of a manifest is made for, so that one made for anything else does not count."""
_MEMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:~@-]*(/[A-Za-z0-9][A-Za-z0-9._+:~@-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_AGAIN = "Make it again with `mlhost bundle`, or copy it again."


@dataclass(frozen=True)
class Member:
    """A file in a bundle: its SHA-256 and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Content:
    """What a bundle has for one class of hosts: path on the host (below the bundle's folder there) -> member; `images` are (path, reference)."""

    files: Mapping[str, str]
    images: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What is in a bundle. `key` is the fingerprint of the key that signed its package indexes; it was made for this bundle and thrown away."""

    lock: Lock
    classes: Mapping[str, Content]
    members: Mapping[str, Member]
    key: str
    made_by: str = ""


def pool_path(sha256: str, name: str, version: str, arch: str) -> str:
    """Where a package lies in a bundle: one file for one content, whoever asks for it."""
    plain = version.partition(":")[2] or version
    return f"pool/{sha256[:16]}/{name}_{plain}_{arch}.deb"


def stanza(control: str, path: str, member: Member) -> str:
    """A package's paragraph in an index, from its own control file. `path` is relative to the index."""
    kept = control.strip("\n")
    return f"{kept}\nFilename: {path}\nSize: {member.size}\nSHA256: {member.sha256}\n"


def release(packages: bytes, arch: str, date: str) -> str:
    """The text of a flat repository's Release file. `date` is as in an e-mail, in UTC."""
    digest = hashlib.sha256(packages).hexdigest()
    return (
        f"Origin: mlhost\nLabel: mlhost bundle\nSuite: bundle\nDate: {date}\nArchitectures: {arch}\n"
        f"Description: packages brought along in one file\nSHA256:\n {digest} {len(packages)} Packages\n"
    )


def dump(manifest: Manifest) -> bytes:
    """The manifest's text, the same for the same content."""
    document = {
        "mlhost_bundle": FORMAT,
        "made_by": manifest.made_by,
        "key": manifest.key,
        "lock": {"mlhost_lock": LOCK_FORMAT, "classes": {name: lockfile.plain(kind) for name, kind in manifest.lock.classes.items()}},
        "classes": {
            name: {"files": dict(content.files), "images": [list(image) for image in content.images]} for name, content in manifest.classes.items()
        },
        "files": {path: {"sha256": member.sha256, "size": member.size} for path, member in manifest.members.items()},
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")


def load(content: bytes, where: str) -> Manifest:
    """A manifest, checked. Raises UsageError for what is none, or is of another format."""
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise UsageError(f"{where}: its manifest is not JSON.", _AGAIN) from None
    if not isinstance(document, dict) or document.get("mlhost_bundle") != FORMAT:
        raise UsageError(f"{where} is no bundle that this mlhost can read.", _AGAIN)
    try:
        members = {_path(path): _member(value) for path, value in document["files"].items()}
        classes = {str(name): _content(value, members) for name, value in document["classes"].items()}
        lock = lockfile.of_values(document["lock"], where)
        key = str(document["key"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{where}: its manifest lacks a part, or has one that cannot be ({error}).", _AGAIN) from None
    if not classes or set(classes) != set(lock.classes):
        raise UsageError(f"{where}: its manifest has other classes of hosts than its lock.", _AGAIN)
    return Manifest(lock, classes, members, key, str(document.get("made_by", ""))[:1000])


def _path(path: object) -> str:
    if not isinstance(path, str) or not _MEMBER.fullmatch(path) or ".." in path:
        raise ValueError(f"{str(path)[:80]!r} is no path")
    return path


def _member(value: Mapping[str, Any]) -> Member:
    sha256, size = value["sha256"], value["size"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256) or not isinstance(size, int) or size < 0:
        raise ValueError("a file's hash or size")
    return Member(sha256, size)


def _content(value: Mapping[str, Any], members: Mapping[str, Member]) -> Content:
    files = {_path(path): _path(member) for path, member in value["files"].items()}
    missing = next((member for member in files.values() if member not in members), None)
    if missing is not None:
        raise ValueError(f"{missing} is not among the files")
    images = tuple((_path(path), _reference(reference)) for path, reference in value["images"])
    if any(path not in files for path, _ in images):
        raise ValueError("an image without its file")
    return Content(files, images)


def _reference(text: object) -> str:
    if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]*", text):
        raise ValueError(f"{str(text)[:80]!r} is no image")
    return text


def files_of(manifest: Manifest, name: str) -> tuple[tuple[str, str], ...]:
    """(path on the host, SHA-256) of what one class of hosts gets, sorted."""
    return tuple((path, manifest.members[member].sha256) for path, member in sorted(manifest.classes[name].files.items()))


def identity(manifest_text: bytes) -> str:
    """A bundle's short name, by what is in it."""
    return hashlib.sha256(manifest_text).hexdigest()[:16]
