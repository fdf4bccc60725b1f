"""Bringing files onto a host over the one thing every transport can do: run a script. In pieces, so that a broken connection costs one piece."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from provision.errors import Failed
from provision.sh import Sh
from provision.transport import Transport
from provision.transport.errors import WireError

PIECE = 4 << 20
"""Bytes that one script carries; a shell holds all of them at once, as base64."""
TRIES = 5

# $1 the folder, $2 the SHA-256 of the archive
_HAVE = Sh(r"""
umask 077
for above in /var/lib/mlhost "${1%/*}"; do
    [ ! -L "$above" ] || { echo "$above is a symbolic link" >&2; exit 1; }
done
mkdir -p "$1" || exit 1
if [ "$(cat "$1/archive.sha256" 2>/dev/null)" = "$2" ] && [ -d "$1/files" ]; then echo done; exit 0; fi
if [ "$(cat "$1/part.sha256" 2>/dev/null)" != "$2" ]; then
    rm -f "$1/part" && printf '%s\n' "$2" >"$1/part.sha256" || exit 1
fi
stat -c %s "$1/part" 2>/dev/null || echo 0
""")
# $1 the folder, $2 how much of the archive is there already
_APPEND = """
umask 077
[ "$(stat -c %s "$1/part" 2>/dev/null || echo 0)" = "$2" ] || exit 9
base64 -d >>"$1/part" <<'MLHOST_PIECE'
{piece}MLHOST_PIECE
[ "$?" = 0 ] || exit 1
"""
# $1 the folder, $2 the SHA-256 of the archive
_UNPACK = Sh(r"""
umask 077
sum=$(sha256sum <"$1/part") || exit 1
if [ "${sum%% *}" != "$2" ]; then
    rm -f "$1/part" "$1/part.sha256"
    echo "what has arrived is not what was sent" >&2
    exit 1
fi
rm -rf "$1/files.new" && mkdir "$1/files.new" && tar -C "$1/files.new" --no-same-owner -xf "$1/part" && rm -rf "$1/files" && mv "$1/files.new" "$1/files" || exit 1
rm -f "$1/part" "$1/part.sha256"
printf '%s\n' "$2" >"$1/archive.sha256"
""")
_REMOVE = Sh('case $1 in /var/lib/mlhost/bundle/*) rm -rf "$1"; rmdir /var/lib/mlhost/bundle 2>/dev/null; exit 0 ;; esac; exit 1\n')


def send(transport: Transport, archive: BinaryIO, folder: str, told: Callable[[str], None] = lambda _text: None) -> None:
    """Unpack a tar archive (an open file) into `folder`/files on the host, as root; what has arrived before is not sent again.

    `told` hears how far it is. Raises Failed, and Unreachable kinds where the connection stays broken.
    """
    digest, size = _digest(archive)
    words = (folder, digest)
    at = _have(transport, words)
    tenth = -1
    while at is not None and at < size:
        if at * 10 // size > tenth:
            tenth = at * 10 // size
            told(f"sending the bundle: {tenth * 10} % of {size / 1e6:.0f} MB")
        archive.seek(at)
        piece = archive.read(PIECE)
        at = _append(transport, folder, piece, at, words)
    if at is None:
        return
    result = transport.run(_UNPACK, *words, sudo=True, timeout=1800)
    if result.rc:
        raise Failed(f"{transport.name}: the bundle cannot be unpacked there: {result.last_words}.", "Is there room in /var/lib/mlhost? Then run the same command again.")


def remove(transport: Transport, folder: str) -> None:
    """Take a bundle's files off the host again; that it cannot be is no error."""
    with contextlib.suppress(WireError):
        transport.run(_REMOVE, folder, sudo=True, timeout=300)


def _append(transport: Transport, folder: str, piece: bytes, at: int, words: tuple[str, str]) -> int | None:
    """How much of the archive is there after one more piece, None where all of it is unpacked already."""
    text = Sh(_APPEND.format(piece="".join(_lines(piece))))
    for left in range(TRIES - 1, -1, -1):
        try:
            result = transport.run(text, folder, str(at), sudo=True, timeout=900)
        except WireError:
            if not left:
                raise
            transport.close()
            time.sleep(1.0)
            now = _have(transport, words)
            if now != at:
                return now
            continue
        if result.rc == 9:
            return _have(transport, words)
        if result.rc:
            raise Failed(f"{transport.name}: the bundle cannot be written there: {result.last_words}.", "Is there room in /var/lib/mlhost? Then run the same command again.")
        return at + len(piece)
    return at


def _lines(piece: bytes) -> Iterator[str]:
    for start in range(0, len(piece), 48 * 1024):
        yield base64.b64encode(piece[start : start + 48 * 1024]).decode() + "\n"


def _have(transport: Transport, words: tuple[str, str]) -> int | None:
    result = transport.run(_HAVE, *words, sudo=True, timeout=120)
    said = result.out.decode("ascii", "replace").strip()
    if result.rc or not (said == "done" or said.isdigit()):
        raise Failed(f"{transport.name}: the bundle's folder cannot be made there: {result.last_words or said[:100]}.", "Look at /var/lib/mlhost on the host.")
    return None if said == "done" else int(said)


def _digest(archive: BinaryIO) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    archive.seek(0)
    while True:
        chunk = archive.read(1 << 20)
        if not chunk:
            return digest.hexdigest(), size
        digest.update(chunk)
        size += len(chunk)
