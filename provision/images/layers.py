"""A layer's tar read into a list of what is in it, and written anew without what differs from build to build for no reason.

What is taken out is time: everything newer than SOURCE_DATE_EPOCH gets just that (reproducible-builds.org/specs/source-date-epoch), fractions of seconds,
access and change times go, and so do names of users. Order, owners, modes, links, extended attributes and contents stay.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Protocol

from provision.errors import Failed

_XATTR = "SCHILY.xattr."
_KINDS = {
    tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "device", tarfile.BLKTYPE: "device", tarfile.FIFOTYPE: "pipe",
}


class Out(Protocol):
    """Where a layer is written to."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(frozen=True)
class Entry:
    """One entry of a layer. `time` is in whole seconds; `stamped` tells of a .pyc whose validity hangs on its source's time."""

    path: str
    kind: str
    mode: int
    owner: str
    time: int
    size: int
    digest: str
    link: str
    attributes: tuple[tuple[str, str], ...]
    stamped: bool = False


@dataclass(frozen=True)
class Layer:
    """A layer: the digest of its tar (what an image calls its diff id), the tar's length, and its entries in order."""

    diff_id: str
    size: int
    entries: tuple[Entry, ...]


class _Hashing:
    """Counts and hashes what is written, and passes it on."""

    def __init__(self, out: Out | None) -> None:
        self._out, self.size, self.digest = out, 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        if self._out is not None:
            self._out.write(data)
        return len(data)


class _Reading:
    """Hashes what is read by others."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.digest, self.head = file, hashlib.sha256(), b""

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self.head = self.head or piece[:16]
        self.digest.update(piece)
        return piece


def rewritten(tar: IO[bytes], out: Out, epoch: int) -> Layer:
    """Write a layer's tar anew with no time after `epoch` (seconds since 1970). Raises Failed where it is no tar."""
    hashing = _Hashing(out)
    entries = []
    try:
        with (
            tarfile.open(fileobj=tar, mode="r|", tarinfo=tarfile.TarInfo) as old,
            tarfile.open(fileobj=hashing, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as new,  # type: ignore[call-overload]
        ):
            for info in old:
                entry, content = _entry(old, info, epoch)
                clean = tarfile.TarInfo(info.name)
                clean.size, clean.mode, clean.uid, clean.gid = info.size, info.mode, info.uid, info.gid
                clean.mtime, clean.type, clean.linkname = entry.time, info.type, info.linkname
                clean.devmajor, clean.devminor = info.devmajor, info.devminor
                clean.pax_headers = {name: value for name, value in info.pax_headers.items() if name.startswith(_XATTR)}
                new.addfile(clean, content)
                entries.append(_with_content(entry, content))
    except (tarfile.TarError, EOFError) as error:
        raise Failed(f"A layer cannot be read: {error}", "Build it again.") from None
    return Layer(f"sha256:{hashing.digest.hexdigest()}", hashing.size, tuple(entries))


def listed(tar: IO[bytes]) -> tuple[Entry, ...]:
    """The entries of a layer's tar as they are. Raises Failed where it is no tar."""
    entries = []
    try:
        with tarfile.open(fileobj=tar, mode="r|") as old:
            for info in old:
                entry, content = _entry(old, info, None)
                while content is not None and content.read(1 << 20):
                    pass
                entries.append(_with_content(entry, content))
    except (tarfile.TarError, EOFError) as error:
        raise Failed(f"A layer cannot be read: {error}", "Build or pull the image again.") from None
    return tuple(entries)


def _entry(tar: tarfile.TarFile, info: tarfile.TarInfo, epoch: int | None) -> tuple[Entry, _Reading | None]:
    file = tar.extractfile(info) if info.isreg() else None
    moment = int(info.mtime)
    moment = moment if epoch is None else max(0, min(moment, epoch))
    attributes = tuple(sorted((name[len(_XATTR) :], value) for name, value in info.pax_headers.items() if name.startswith(_XATTR)))
    kind = _KINDS.get(info.type, "other")
    entry = Entry(info.name, kind, info.mode, f"{info.uid}:{info.gid}", moment, info.size, "", info.linkname, attributes)
    return entry, _Reading(file) if file is not None else None


def _with_content(entry: Entry, content: _Reading | None) -> Entry:
    if content is None:
        return entry
    # PEP 552: a word of flags after the magic number; no flags means that the source's time follows.
    stamped = entry.path.endswith(".pyc") and len(content.head) == 16 and content.head[4:8] == b"\0\0\0\0"
    return Entry(**{**vars(entry), "digest": content.digest.hexdigest(), "stamped": stamped})


def stamped(entries: Iterator[Entry] | tuple[Entry, ...]) -> tuple[str, ...]:
    """Compiled Python files that Python would find out of date after their sources' times were changed."""
    return tuple(entry.path for entry in entries if entry.stamped)
