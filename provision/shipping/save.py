"""Images into a file: read directly where that can be done, packed on all cores, under its name only when it is whole, with its checksum beside it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from provision.errors import Failed, UsageError
from provision.images import archive
from provision.images.tarstream import Scanner
from provision.shipping import engine, overlay, pipes
from provision.shipping.gauge import Gauge, megabytes


@dataclass(frozen=True)
class SavedFile:
    """What was written: where (`-`: standard output), bytes in it and before packing, its sha256, and how it was read and packed."""

    path: str
    size: int
    unpacked: int
    sha256: str
    images: tuple[engine.Image, ...]
    way: str
    program: str


@dataclass(frozen=True)
class Source:
    """An archive about to be made: its bytes, about how many, and how they are got (`directly`, or `docker save`)."""

    chunks: Iterator[bytes]
    size: int
    way: str


def default_name(image: str, packing: pipes.Packing) -> str:
    """The file that an image is saved to where none is named: its last name and tag."""
    plain = image.rpartition("/")[2].replace("@", "-").replace(":", "-")
    return (plain.strip(".-") or "image") + packing.suffix


def source(images: Sequence[engine.Image], about: engine.About, gauge: Gauge, direct: bool = True, without: Collection[str] = ()) -> Source:
    """An archive of images of this machine's Docker, without the layers whose chain ids are in `without` where it can be made without them."""
    if direct:
        try:
            export = overlay.prepare(about, images, without)
            return Source(overlay.chunks(export), export.size, "directly")
        except overlay.Unreadable as why:
            if os.geteuid() == 0 or about.driver != "overlay2":
                gauge.note(f"reading through `docker save`: {why.message}")
    names = [image.names[0] if image.names else image.id for image in images]
    chunks = pipes.output_of(engine.ours("save", *names), "`docker save`")
    return Source(chunks, sum(image.size for image in images), "docker save")


def checked(chunks: Iterator[bytes], images: Sequence[engine.Image], gauge: Gauge) -> Iterator[bytes]:
    """The same bytes, looked at: raises Failed where they end without being a whole archive of just these images."""
    scanner = Scanner(archive.is_small_part)
    for piece in chunks:
        scanner.feed(piece)
        gauge.moved(len(piece))
        yield piece
    if not scanner.complete:
        raise Failed("Docker's archive ended in the middle.", "Run the same command again.")
    held = archive.ids(scanner.kept)
    for image in images:
        if image.id not in held:
            raise Failed(f"Docker's archive holds another image than {image.asked} ({image.id[7:19]}).", "It was built or pulled anew meanwhile; run the same command again.")


def save(names: Sequence[str], out: str | None, packing: pipes.Packing, gauge: Gauge, direct: bool = True, force: bool = False) -> SavedFile:
    """Save images of this machine's Docker. Raises UsageError for a file that cannot be made, Failed kinds, and leaves nothing half done."""
    images = engine.images(names)
    about = engine.about()
    path = out or default_name(names[0], packing)
    if path == "-":
        if sys.stdout.isatty():
            raise UsageError("An archive is not for a terminal.", "Name a file with --out, or send it into a pipe.")
        return _stream(images, about, packing, gauge, direct, sys.stdout.buffer, path)
    if os.path.isdir(path):
        path = os.path.join(path, default_name(names[0], packing))
    if os.path.exists(path) and not force:
        raise UsageError(f"{path} is there already.", "Name another file with --out, or replace it with --force.")
    folder, name = os.path.split(os.path.abspath(path))
    partial = os.path.join(folder, f".{name}.part")
    with _claimed(partial, path) as file:
        done = _stream(images, about, packing, gauge, direct, file, path)
        file.flush()
        os.fsync(file.fileno())
        _write_checksum(f"{os.path.join(folder, name)}.sha256", name, done.sha256)
        os.replace(partial, path)
    return done


def _stream(
    images: Sequence[engine.Image], about: engine.About, packing: pipes.Packing, gauge: Gauge, direct: bool, file: IO[bytes], path: str
) -> SavedFile:
    found = source(images, about, gauge, direct)
    gauge.begin(f"saving {', '.join(image.asked for image in images)}", found.size)
    digest, written = hashlib.sha256(), 0
    counter = _Counter(checked(found.chunks, images, gauge))
    try:
        for piece in pipes.through(counter, packing.pack, packing.program):
            digest.update(piece)
            file.write(piece)
            written += len(piece)
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}. {megabytes(written)} were.", "Make room, or name another file with --out.") from None
    return SavedFile(path, written, counter.size, digest.hexdigest(), tuple(images), found.way, packing.program)


class _Counter:
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self.size = chunks, 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._chunks:
            self.size += len(piece)
            yield piece


@contextlib.contextmanager
def _claimed(partial: str, path: str) -> Iterator[IO[bytes]]:
    """The unfinished file, ours alone; taken away where it does not get its name. What a killed run left is written over."""
    try:
        handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.", "Name a file in a folder that you may write to.") from None
    with os.fdopen(handle, "wb", buffering=0) as file:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"Another run is writing {path} just now.", "Wait for it, or name another file.") from None
        try:
            os.ftruncate(handle, 0)
            yield file
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise


def _write_checksum(path: str, name: str, digest: str) -> None:
    """A file that `sha256sum -c` reads."""
    temporary = f"{path}.part"
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(f"{digest}  {name}\n")
    os.replace(temporary, path)
