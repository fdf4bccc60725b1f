"""The parts of one image of this machine's Docker: its config, and each layer's tar as often as wanted."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from provision.errors import Failed
from provision.images import archive
from provision.images.tarstream import Member, Scanner
from provision.shipping import engine, overlay, pipes
from provision.shipping.gauge import Gauge

if TYPE_CHECKING:
    from typing_extensions import Self

SPOOL = "/var/tmp"  # noqa: S108 - files without a name there; /tmp is memory on many systems
"""Where an archive is put that cannot be read directly."""


class Stream(io.RawIOBase):
    """Pieces of bytes as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


class Parts:
    """An image's parts, read directly where that can be done, else from a temporary `docker save`. A context manager.

    Raises NoSuchImage, NoDocker, Failed.
    """

    def __init__(self, name: str, gauge: Gauge) -> None:
        self.image = engine.images([name])[0]
        self._spool: IO[bytes] | None = None
        self._places: dict[str, tuple[int, int]] = {}
        self._layers: dict[str, overlay.Layer] = {}
        try:
            export = overlay.prepare(engine.about(), [self.image])
            self.config: dict[str, Any] = json.loads(export.configs[0])
            self._layers = {layer.diff_id: layer for layer in export.layers}
        except overlay.Unreadable:
            gauge.note(f"reading {self.image.asked} through `docker save`")
            self.config = self._saved()
        self.diff_ids: tuple[str, ...] = tuple(self.config["rootfs"].get("diff_ids") or ())

    def _saved(self) -> dict[str, Any]:
        spool = self._spool = tempfile.TemporaryFile(dir=SPOOL)  # noqa: SIM115 - closed on exit
        position = 0
        members: dict[str, tuple[int, int]] = {}

        def seen(member: Member) -> None:
            # The header's block has just passed; the content begins where the scanner is.
            members[member.name] = (scanner.position, member.size)

        scanner = Scanner(archive.is_small_part, seen)
        for piece in pipes.output_of(engine.ours("save", self.image.id), "`docker save`"):
            scanner.feed(piece)
            spool.write(piece)
            position += len(piece)
        saved = archive.images(scanner.kept)[0]
        self._places = {diff_id: members[name] for diff_id, name in zip(saved.diff_ids, saved.layers) if name in members}
        if len(self._places) != len(set(saved.diff_ids)):
            raise Failed(f"Docker's archive of {self.image.asked} lacks some of its layers.", "Run the same command again.")
        content = scanner.kept[archive.blob_name(saved.id)] if archive.blob_name(saved.id) in scanner.kept else scanner.kept[saved.id[7:] + ".json"]
        loaded: dict[str, Any] = json.loads(content)
        return loaded

    def layer(self, diff_id: str) -> IO[bytes]:
        """A layer's tar, from its beginning. One at a time."""
        return io.BufferedReader(Stream(self.pieces(diff_id)), 1 << 20)

    def pieces(self, diff_id: str) -> Iterator[bytes]:
        """The same in pieces."""
        if diff_id in self._layers:
            yield from overlay.content(self._layers[diff_id])
            return
        if self._spool is None:
            raise ValueError(f"{diff_id} is no layer of {self.image.asked}")
        place, left = self._places[diff_id]
        while left:
            self._spool.seek(place)
            piece = self._spool.read(min(left, pipes.CHUNK))
            if not piece:
                raise Failed("The temporary archive is shorter than it was.", "Run the same command again.")
            place, left = place + len(piece), left - len(piece)
            yield piece

    def size(self, diff_id: str) -> int:
        """How long a layer's tar is."""
        return self._layers[diff_id].size if diff_id in self._layers else self._places[diff_id][1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._spool is not None:
            self._spool.close()
