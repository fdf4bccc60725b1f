"""Streams through programs: bytes in on one side, out on the other, never a temporary file, and no end that could be taken for a good one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from provision.errors import Failed, UsageError
from provision.report.sanitize import line

CHUNK = 1 << 20
_PIPE_SIZE = 1031  # F_SETPIPE_SZ; Python names it from 3.10 on
FORMATS = ("zst", "gz", "tar")
_MAGIC = {b"\x28\xb5\x2f\xfd": "zst", b"\x1f\x8b": "gz"}


@dataclass(frozen=True)
class Packing:
    """How an archive is compressed: the format (`zst`, `gz`, `tar`), the program that does it here, its command lines."""

    format: str
    program: str
    pack: tuple[str, ...]
    unpack: tuple[str, ...]

    @property
    def suffix(self) -> str:
        return ".tar" if self.format == "tar" else f".tar.{self.format}"


def packing(wanted: str | None, level: int | None = None) -> Packing:
    """The best compression that this machine has a program for; `wanted` insists on a format. Raises UsageError where that cannot be had."""
    if wanted == "tar":
        return Packing("tar", "none", (), ())
    if wanted in (None, "zst") and shutil.which("zstd"):
        strength = f"-{level or 3}"
        return Packing("zst", "zstd", ("zstd", "-T0", strength, *(("--ultra",) if (level or 0) > 19 else ()), "-q", "-c"), ("zstd", "-dc", "-q"))
    if wanted == "zst":
        raise UsageError("There is no `zstd` on this machine.", "Install the package zstd, or use --format gz.")
    program = next((name for name in ("pigz", "gzip") if shutil.which(name)), None)
    if program is None:
        raise UsageError("There is neither zstd nor pigz nor gzip on this machine.", "Install the package zstd, or use --format tar.")
    return Packing("gz", program, (program, f"-{min(level or 6, 9)}", "-n", "-c"), (program, "-dc"))


def format_of(head: bytes) -> str:
    """The format of an archive, from its first bytes; zstd's skippable frames count as zstd."""
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return "zst"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "tar")


class Program:
    """A program that is fed on its standard input; `out` is what it prints. Its errors are kept for whoever asks."""

    def __init__(self, argv: Sequence[str], *, stdin: bool = True) -> None:
        self.argv = tuple(argv)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the program
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._said,
                bufsize=0,
            )
        except OSError as error:
            self._said.close()
            raise Failed(f"{argv[0]} cannot be started: {error.strerror}.", "Is it installed, and on the PATH?") from None
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    fcntl.fcntl(stream.fileno(), _PIPE_SIZE, CHUNK)

    @property
    def out(self) -> IO[bytes]:
        if self._process.stdout is None:
            raise ValueError("standard output is a pipe")
        return self._process.stdout

    def write(self, data: bytes) -> None:
        """Feed it. Raises BrokenPipeError where it has gone."""
        if self._process.stdin is None:
            raise ValueError("standard input is a pipe")
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) or 0 :]

    def no_more(self) -> None:
        """That was all."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def wait(self) -> int:
        """The exit code, 128+n for a signal."""
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def said(self) -> str:
        """What it has written to its standard error."""
        self._said.seek(0)
        return self._said.read(1 << 20).decode("utf-8", "replace").strip()

    def end(self) -> None:
        """It must not go on, nor take what it has got for all: killed, before its input is closed. Does nothing where it has ended."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._said.close()

    def failure(self, code: int, what: str) -> Failed:
        """The error for its exit code."""
        said = self.said().splitlines()
        return Failed(f"{what} failed (exit {code}). It said: {line(said[-1], 400) if said else 'nothing'}", "Run the same command again; if it stays so, --debug shows more.")


def read_all(stream: IO[bytes]) -> Iterator[bytes]:
    """A pipe's content, as it comes."""
    handle = stream.fileno()
    while True:
        piece = os.read(handle, CHUNK)
        if not piece:
            return
        yield piece


def output_of(argv: Sequence[str], what: str) -> Iterator[bytes]:
    """What a program prints, as it comes. Raises Failed, with its last words, where it ends badly."""
    program = Program(argv, stdin=False)
    try:
        yield from read_all(program.out)
        code = program.wait()
        if code:
            raise program.failure(code, what)
    finally:
        program.end()


def through(chunks: Iterable[bytes], argv: Sequence[str], what: str) -> Iterator[bytes]:
    """Bytes as a program turns them into others; `()` leaves them as they are.

    What goes wrong with the input is raised here, and the program is killed then before it can end what it writes in good order. Raises Failed
    where the program itself fails.
    """
    if not argv:
        yield from chunks
        return
    program = Program(argv)
    problems: list[BaseException] = []

    def feed() -> None:
        try:
            for piece in chunks:
                program.write(piece)
            program.no_more()
        except BrokenPipeError:
            program.no_more()
        except BaseException as error:  # handed to the one who reads
            problems.append(error)
            with contextlib.suppress(OSError):
                program._process.kill()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield from read_all(program.out)
        code = program.wait()
        feeder.join()
        if problems:
            raise problems[0]
        if code:
            raise program.failure(code, what)
    finally:
        program.end()
        feeder.join(5)
