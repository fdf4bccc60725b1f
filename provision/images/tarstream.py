"""A tar stream looked at while it passes: which members it holds, what the small ones say, and whether it is whole.

The format: POSIX.1-2001 pax and ustar (pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html), with GNU's long names and base-256 sizes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from provision.errors import Failed

BLOCK = 512
KEEP = 4 << 20
"""The largest member whose content is kept, in bytes, where it is wanted."""


class BadTar(Failed):
    """The stream is no tar archive, or is damaged."""


@dataclass(frozen=True)
class Member:
    """One member: its name, size in bytes, and ustar type ("0" file, "5" directory, "1" hard link, "2" symbolic link)."""

    name: str
    size: int
    kind: str
    link: str = ""


class Scanner:
    """Feed it every byte of a tar; it tells of each member as its header passes.

    `wanted(member)` says whose content is to be kept in `kept`, by name. `complete` is true once the two empty blocks at the end have passed, or
    the archive's data ends just after a member, as some writers leave it. Raises BadTar.
    """

    def __init__(self, wanted: Callable[[Member], bool] = lambda _m: False, seen: Callable[[Member], None] = lambda _m: None) -> None:
        self._wanted, self._seen = wanted, seen
        self.kept: dict[str, bytes] = {}
        self.members = 0
        self.position = 0
        """Bytes that have passed; in `seen`, where the member's content begins."""
        self.ended = False
        self._buffer = bytearray()
        self._skip = 0
        self._keep: list[bytearray] = []
        self._keeping = ""
        self._keep_left = 0
        self._pax: dict[str, str] = {}
        self._long: dict[str, str] = {}
        self._empty = 0

    @property
    def complete(self) -> bool:
        """Whether the stream may end here."""
        return self.ended or (self.members > 0 and not self._buffer and not self._skip and not self._keep_left)

    def feed(self, data: bytes | memoryview) -> None:
        """The next piece of the stream, of any length."""
        view = memoryview(data)
        while view:
            if self._keep_left:
                part = view[: self._keep_left]
                self._keep[-1] += part
                self._keep_left -= len(part)
                self.position += len(part)
                view = view[len(part) :]
                if not self._keep_left:
                    self._finished_keeping()
                continue
            if self._skip:
                part_length = min(self._skip, len(view))
                self._skip -= part_length
                self.position += part_length
                view = view[part_length:]
                continue
            part = view[: BLOCK - len(self._buffer)]
            self._buffer += part
            self.position += len(part)
            view = view[len(part) :]
            if len(self._buffer) == BLOCK:
                block = bytes(self._buffer)
                self._buffer.clear()
                self._header(block)

    def _header(self, block: bytes) -> None:
        if self.ended:
            return
        if not any(block):
            self._empty += 1
            self.ended = self._empty >= 2
            return
        self._empty = 0
        if number(block[148:156]) != sum(block[:148]) + 8 * 32 + sum(block[156:]):
            raise BadTar("This is no tar archive, or a damaged one: a header's checksum is wrong.", "Make the archive anew.")
        kind = chr(block[156]) if block[156] else "0"
        size = number(block[124:136])
        if kind in "xgLK":
            if size > KEEP:
                raise BadTar("This is no tar archive of an image: a member's name takes megabytes.", "Make the archive anew.")
            self._keep.append(bytearray())
            self._keeping, self._keep_left = kind, size
            self._skip = -size % BLOCK
            if not size:
                self._finished_keeping()
            return
        prefix = block[345:500].split(b"\0")[0] if block[257:262] == b"ustar" and block[257:265] != b"ustar  \0" else b""
        name = block[:100].split(b"\0")[0]
        full = (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")
        link = block[157:257].split(b"\0")[0].decode("utf-8", "surrogateescape")
        full = self._pax.get("path") or self._long.get("L") or full
        link = self._pax.get("linkpath") or self._long.get("K") or link
        size = number(self._pax["size"].encode(), 10) if "size" in self._pax else size
        self._pax, self._long = {}, {}
        member = Member(full, 0 if kind in "123456" else size, kind, link)
        self.members += 1
        self._seen(member)
        self._skip = -member.size % BLOCK
        if member.size and member.size <= KEEP and self._wanted(member):
            self._keep.append(bytearray())
            self._keeping, self._keep_left = member.name, member.size
        else:
            self._skip += member.size

    def _finished_keeping(self) -> None:
        content, name = bytes(self._keep.pop()), self._keeping
        if name in ("L", "K"):
            self._long[name] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif name == "x":
            self._pax.update(pax_records(content))
        elif name != "g":
            self.kept[name] = content


def number(field: bytes, base: int = 8) -> int:
    """A numeric field: digits, or GNU's base-256. Raises BadTar."""
    if field[:1] >= b"\x80" and base == 8:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.split(b"\0")[0].strip() or b"0"
    if not text.isdigit() or (base == 8 and (b"8" in text or b"9" in text)):
        raise BadTar("This is no tar archive, or a damaged one: a number in a header is none.", "Make the archive anew.")
    return int(text, base)


def pax_records(content: bytes) -> dict[str, str]:
    """The `length key=value` records of a pax header. Raises BadTar."""
    records = {}
    while content:
        length, _, rest = content.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(content):
            raise BadTar("This is no tar archive, or a damaged one: a pax record is cut short.", "Make the archive anew.")
        key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        content = content[int(length) :]
    return records


def header(name: str, size: int, mode: int = 0o644, kind: bytes = b"0") -> bytes:
    """The ustar header of a plain member that belongs to root and is of 1970; larger sizes than octal digits hold are in base-256. `name` has at most 100 bytes."""
    raw = name.encode()
    if len(raw) > 100:
        raise ValueError(f"{name} is too long for a plain tar header")
    digits = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    start = raw.ljust(100, b"\0") + b"%07o\0" % mode + b"%07o\0" % 0 + b"%07o\0" % 0 + digits + b"%011o\0" % 0
    rest = kind + b"\0" * 100 + b"ustar\x0000" + b"\0" * (BLOCK - 157 - 100 - 8)
    total = sum(start) + 8 * 32 + sum(rest)
    return start + b"%06o\0 " % total + rest


def member(name: str, content: bytes) -> bytes:
    """A whole small member, padded."""
    return header(name, len(content)) + content + padding(len(content))


def padding(size: int) -> bytes:
    """What follows a member's content up to the next block."""
    return b"\0" * (-size % BLOCK)


END = b"\0" * (2 * BLOCK)


def joined(parts: Iterable[bytes]) -> bytes:
    """A small archive of whole members."""
    return b"".join(parts) + END


def digest(content: bytes) -> str:
    """The sha256 of a blob, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
