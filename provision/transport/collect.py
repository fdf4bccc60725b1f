"""What a run gives back, gathered the same way on every transport."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, Optional

from provision.transport import errors
from provision.transport.shell import Call, Unwrap, not_started

MAX_OUTPUT = 64 * 1024 * 1024
# After the script has ended, something it left behind may still hold its output open. Wait this long without a byte, then go.
LINGER_SECONDS = 1.0
# What a login may print before the script begins: banners, lectures, rc files.
MAX_NOISE = 4 * 1024 * 1024


class RunResult(NamedTuple):
    """How a script ended: exit code (128+n where signal n killed it), both outputs as bytes, wall time in seconds."""

    rc: int
    out: bytes
    err: bytes
    seconds: float

    @property
    def last_words(self) -> str:
        """The last line of standard error, at most 300 characters of it; "" if nothing was said there."""
        return last_line(self.err)


def last_line(data: bytes) -> str:
    """The last line of a text that says something, at most 300 characters of it. However long the text, only its end is looked at."""
    said = data[-4096:].decode("utf-8", "replace").strip().splitlines()
    return said[-1].strip()[:300] if said else ""


class Collector:
    """Takes chunks of both streams, keeps those of the script, and makes the result or the error of them."""

    def __init__(
        self, call: Call, where: str, *, on_output: Optional[Callable[[bytes], None]], max_output: int, timeout: Optional[float]
    ) -> None:
        self._call, self._where, self._on_output, self._max, self._timeout = call, where, on_output, max_output, timeout
        self._unwrap = (Unwrap(call.mark), Unwrap(call.mark))
        self._kept: tuple[list[bytes], list[bytes]] = ([], [])
        self._size = 0
        self._noise = 0
        self._began = time.monotonic()
        self._last = self._began

    def out(self, chunk: bytes) -> None:
        """A chunk of standard output. Raises OutputTooLarge."""
        kept = self._take(0, chunk, keep=self._on_output is None)
        if kept and self._on_output is not None:
            self._on_output(kept)

    def err(self, chunk: bytes) -> None:
        """A chunk of standard error. Raises OutputTooLarge."""
        self._take(1, chunk)

    def _take(self, stream: int, chunk: bytes, keep: bool = True) -> bytes:
        self._last = time.monotonic()
        kept = self._unwrap[stream].feed(chunk)
        if not self._unwrap[stream].started:
            self._noise += len(chunk)
            if self._noise > MAX_NOISE:
                raise errors.OutputTooLarge(
                    f"{self._where}: the login printed more than {MAX_NOISE} bytes before the script began, and was stopped.",
                    "Look at what the account's shell prints when it starts (~/.profile, ~/.bashrc, a forced command).",
                )
        if kept and keep:
            self._kept[stream].append(kept)
            self._size += len(kept)
            if self._size > self._max:
                raise errors.OutputTooLarge(
                    f"{self._where}: the script wrote more than {self._max} bytes and was stopped.",
                    "Let it write less, or to a file on the host.",
                    out=self.out_bytes,
                    err=self.err_bytes,
                )
        return kept

    @property
    def out_bytes(self) -> bytes:
        return b"".join(self._kept[0])

    @property
    def err_bytes(self) -> bytes:
        return b"".join(self._kept[1])

    @property
    def pid(self) -> str:
        """The process id of the script's shell on its host; empty before it began."""
        return self._unwrap[0].pid or self._unwrap[1].pid

    @property
    def noise(self) -> str:
        """What was said before the script began, or instead of it."""
        return " ".join(part.noise.decode("utf-8", "replace").replace(self._call.mark.decode(), "").strip() for part in self._unwrap).strip()

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self._last

    def check_time(self) -> None:
        """Raises TimedOut when the time is over."""
        if self._timeout is not None and time.monotonic() - self._began > self._timeout:
            raise errors.TimedOut(
                f"{self._where}: the script did not end within {self._timeout:g} seconds and was stopped.",
                "See what it waits for on the host, or allow it more time.",
                out=self.out_bytes,
                err=self.err_bytes,
            )

    def result(self, rc: int) -> RunResult:
        """The run's result. Raises NoShell or a SudoError where the script never began."""
        if not self._unwrap[1].started and not self._unwrap[0].started:
            raise not_started(self._call, self._where, rc, self._unwrap[0].noise, self._unwrap[1].noise)
        return RunResult(rc, self.out_bytes, self.err_bytes, time.monotonic() - self._began)
