"""Images out of a file or a stream, into this machine's Docker: all of it, checked, or nothing.

`docker load` unpacks what it gets to the end before it makes an image of it. So the stream's end is held back until the checksum is right and the
archive is whole; where one is not, the client is killed instead, and Docker throws away what it got.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from provision.errors import Failed, UsageError
from provision.images import archive
from provision.images.tarstream import BadTar, Scanner
from provision.shipping import engine, pipes
from provision.shipping.gauge import Gauge

HOLD = 1 << 20
"""Bytes of the stream's end that Docker does not get before everything is checked. The list of images is the last or nearly the last of them."""


@dataclass(frozen=True)
class Loaded:
    """An image that Docker has now: its id, its tags, and how that was made sure (`id`: the very id; `layers`: the same layers under this store's own id)."""

    id: str
    tags: tuple[str, ...]
    proof: str


@dataclass(frozen=True)
class Result:
    """What was loaded, whether a checksum was there to compare with, and bytes read."""

    images: tuple[Loaded, ...]
    checksum: str
    size: int


def load(path: str, gauge: Gauge, sha256: str | None = None) -> Result:
    """Load an archive (`-`: standard input). `sha256`: what it must have; else FILE.sha256 says so, where there is one. Raises UsageError, Failed."""
    wanted = _wanted(path, sha256)
    engine.about()
    try:
        handle = os.dup(sys.stdin.fileno()) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Name a file that `mlhost image save` or `docker save` wrote.") from None
    with os.fdopen(handle, "rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        gauge.begin(f"loading {path}", total)
        head = file.read(512)
        digest, size = hashlib.sha256(), 0

        def content() -> Iterator[bytes]:
            nonlocal size
            piece = head
            while piece:
                digest.update(piece)
                size += len(piece)
                gauge.moved(len(piece))
                yield piece
                piece = file.read(pipes.CHUNK)

        def check() -> None:
            actual = digest.hexdigest()
            if wanted and actual != wanted:
                raise Failed(
                    f"{path} is not what was saved: its sha256 is {actual[:16]}…, its checksum says {wanted[:16]}…. Nothing was loaded.",
                    "Copy it again from where it was made.",
                )

        images = into_docker(unpacked(content(), head), check)
    return Result(images, (wanted and digest.hexdigest()) or "", size)


def _wanted(path: str, given: str | None) -> str:
    if given is not None:
        if not re.fullmatch(r"(sha256:)?[0-9a-fA-F]{64}", given):
            raise UsageError(f"--sha256 {given} is no sha256.", "It has 64 hexadecimal digits.")
        return given[-64:].lower()
    try:
        with open(f"{path}.sha256", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(65536)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UsageError(f"{path}.sha256 cannot be read: {error.strerror}.", "Make it readable, or remove it to load unchecked.") from None
    found = re.search(r"^([0-9a-f]{64}) [ *]", text, re.MULTILINE)
    if found is None:
        raise UsageError(f"{path}.sha256 holds no checksum.", "It is a line as sha256sum writes it; remove the file to load unchecked.")
    return found[1]


def unpacked(chunks: Iterator[bytes], head: bytes) -> Iterator[bytes]:
    """The tar in a stream, whatever it is packed with. `head` is how the stream begins. Raises UsageError where the program is not there."""
    kind = pipes.format_of(head)
    packing = pipes.packing(kind)
    return pipes.through(chunks, packing.unpack, f"Unpacking with {packing.program}")


def into_docker(chunks: Iterator[bytes], check: Callable[[], None] = lambda: None) -> tuple[Loaded, ...]:
    """Load a tar; `check()` is called when all of it has come, and what it raises keeps Docker from making anything of it. Raises Failed."""
    scanner = Scanner(archive.is_small_part)
    program = pipes.Program(engine.ours("load", "-q"))
    held: deque[bytes] = deque()
    waiting = 0
    try:
        try:
            for piece in chunks:
                scanner.feed(piece)
                held.append(piece)
                waiting += len(piece)
                while waiting - len(held[0]) >= HOLD:
                    waiting -= len(held[0])
                    program.write(held.popleft())
            check()
            if not scanner.complete:
                raise BadTar("The archive ends in the middle. Nothing was loaded.", "Make or copy it again.")
            images = archive.images(scanner.kept)
            for piece in held:
                program.write(piece)
        except BrokenPipeError:
            raise _said(program) from None
        program.no_more()
        for _ in pipes.read_all(program.out):
            pass
        if program.wait():
            raise _said(program)
    finally:
        program.end()
    return verified(images, scanner.kept)


def _said(program: pipes.Program) -> Failed:
    program.no_more()
    program.wait()
    return engine.problem(("load",), program.said(), "this machine")


def verified(images: tuple[archive.Saved, ...], kept: dict[str, bytes]) -> tuple[Loaded, ...]:
    """Ask Docker for what was loaded. Raises Failed where it is not that."""
    ids = archive.ids(kept)
    found = []
    for image in images:
        for name in image.tags or (image.id,):
            try:
                there = engine.images([name])[0]
            except engine.NoSuchImage:
                raise Failed(f"Docker took the archive, but has no {name} now.", "See what its log says (journalctl -u docker).") from None
            if there.id in ids:
                proof = "id"
            elif there.diff_ids == image.diff_ids:
                proof = "layers"
            else:
                raise Failed(f"Docker has another image as {name} ({there.id[7:19]}) than the archive ({image.id[7:19]}).", "Something else tagged it meanwhile; load again.")
        found.append(Loaded(there.id, image.tags, proof))
    return tuple(found)
