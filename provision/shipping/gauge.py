"""How far a transfer is: a bar on a terminal, a line now and then elsewhere, always on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from provision.report.layout import duration
from provision.report.sanitize import line

if TYPE_CHECKING:
    from typing_extensions import Self

EVERY = 5.0
"""Seconds between two lines where there is no terminal."""


def megabytes(size: float) -> str:
    """Bytes for people, in powers of ten as Docker shows them."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


class Gauge(Protocol):
    """What a transfer calls."""

    def begin(self, what: str, total: int) -> None:
        """A part begins; `total` is its length in bytes, 0 where unknown, and may be an estimate."""

    def moved(self, size: int) -> None:
        """So many bytes more."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Silent:
    """Shows nothing."""

    def begin(self, what: str, total: int) -> None:
        pass

    def moved(self, size: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Lines(Silent):
    """A line every few seconds."""

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self._what, self._total, self._done = "", 0, 0
        self._began = self._told = time.monotonic()

    def begin(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._began = self._told = time.monotonic()
        self.note(f"{what} ..." if not total else f"{what}, about {megabytes(total)} ...")

    def moved(self, size: int) -> None:
        self._done += size
        now = time.monotonic()
        if now - self._told >= self._every:
            self._told = now
            share = f" of about {megabytes(self._total)}" if self._total else ""
            self.note(f"  {megabytes(self._done)}{share}, {megabytes(self._done / (now - self._began))}/s, {duration(int(now - self._began))}")

    def note(self, text: str) -> None:
        indent = text[: len(text) - len(text.lstrip(" "))]
        with contextlib.suppress(OSError, ValueError):
            print(indent + line(text), file=sys.stderr, flush=True)


class Bar(Silent):
    """rich's progress bar."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task: Any = None

    def begin(self, what: str, total: int) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(line(what).replace("[", r"\["), total=total or None)

    def moved(self, size: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, size)

    def note(self, text: str) -> None:
        self._progress.console.print(line(text), markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()


def gauge(live: bool) -> Gauge:
    """A bar where that is welcome, else lines."""
    return Bar() if live else Lines()
