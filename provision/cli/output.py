"""Printing: what the terminal can show, and the one place where results leave the program."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from provision.cli.options import Output
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.report.layout import Look


def fancy(stream: TextIO, no_color: bool) -> bool:
    """Whether colour and a live display are welcome: a capable terminal, and nobody said otherwise (no-color.org)."""
    return not no_color and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def look(output: Output) -> Look:
    """How text on standard output (or in `--out`) is to look."""
    import shutil

    from provision.report.layout import Look

    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("-", "")
    if output.out:
        return Look()
    columns = shutil.get_terminal_size((100, 24)).columns
    return Look(fancy(sys.stdout, output.no_color), min(max(columns, 60), 120), not encoding.startswith("utf"))


def check_out(output: Output) -> None:
    """Raise UsageError now for an `--out` or `--report` that could not be written later, when the work is done."""
    if output.out:
        _check_file(output.out, "--out")
    for path in output.report:
        from provision.cli.reports import format_of

        format_of(path)
        _check_file(path, "--report")


def _check_file(path: str, option: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise UsageError(f"{option} {path} is a directory.", "Name a file.")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise UsageError(f"{option} {path} cannot be written.", f"Is {folder} there, and may you write to it?")


def write(text: str, output: Output, mode: int = 0o666) -> None:
    """Text to standard output or `--out`, with a final newline. `mode` is what a new file gets, less the umask."""
    if text and not text.endswith("\n"):
        text += "\n"
    write_bytes(text.encode("utf-8" if output.out else getattr(sys.stdout, "encoding", None) or "utf-8", "replace"), output, mode)


def as_shown(text: str, output: Output) -> str:
    """Text that is to arrive as it is in a file or a pipe, for where it goes: on a terminal what would steer that is written as escapes."""
    if output.out or not sys.stdout.isatty():
        return text
    from provision.report.sanitize import visible

    return visible(text)


def write_pieces(pieces: Iterable[str], output: Output) -> None:
    """As `write`, with a text in ASCII that is made piece by piece and ends with a newline."""
    _write((piece.encode("ascii", "replace") for piece in pieces), output, 0o666)


def write_bytes(content: bytes, output: Output, mode: int = 0o600) -> None:
    """Bytes as they are. Raises UsageError where `--out` cannot be written."""
    _write((content,), output, mode)


def _write(pieces: Iterable[bytes], output: Output, mode: int) -> None:
    if not output.out:
        sys.stdout.flush()
        buffer = getattr(sys.stdout, "buffer", None)
        for piece in pieces:
            if buffer is None:
                sys.stdout.write(piece.decode("utf-8", "replace"))
            else:
                buffer.write(piece)
        if buffer is not None:
            buffer.flush()
        return
    try:
        handle = os.open(output.out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as file:
            if not mode & 0o077:
                _keep_private(handle, output.out, mode)
            file.writelines(pieces)
    except OSError as error:
        raise UsageError(f"{output.out} cannot be written: {error.strerror}.", "Name another file with --out.") from None


def _keep_private(handle: int, name: str, mode: int) -> None:
    """A file that was there before may be anybody's to read, or somebody else's."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        return
    if found.st_uid != os.geteuid():
        raise UsageError(f"{name} belongs to another user, who could read what is written there.", "Name a file that is not there yet.")
    os.fchmod(handle, mode)


def write_json(document: Mapping[str, Any], output: Output) -> None:
    """JSON in ASCII: control and bidi characters of a host's texts arrive escaped."""
    import json

    write(json.dumps(document, indent=2, ensure_ascii=True), output)


def errors(text: str) -> None:
    """A paragraph on standard error."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def write_private(text: str, path: str) -> None:
    """A file that its owner alone may read, there at once or not at all. Raises UsageError where it cannot be written."""
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise UsageError(f"{path} cannot be written: {error.strerror}.", "Name another file with --out.") from None
