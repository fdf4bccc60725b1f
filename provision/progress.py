"""What a run shows while it works. The run loop tells events; how they look is decided here, and nowhere does a run depend on it.

All implementations may be called from several threads at once and write to standard error, so that standard output stays the result.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from provision.report.layout import duration
from provision.report.sanitize import line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from provision.model import HostReport


class Progress(Protocol):
    """What the run loop calls. `target` is the host as the user named it; texts may hold anything a host said."""

    def stage(self, target: str, name: str) -> None:
        """A part of the work begins: `looking`, `installing`, `rebooting`, `proving` …"""

    def item(self, target: str, item_id: str, title: str, state: str) -> None:
        """An item of the plan begins (`running`) or has ended (`ok`, `changed`, `failed`, `skipped`)."""

    def line(self, target: str, text: str) -> None:
        """The last line of the log."""

    def wait(self, target: str, text: str) -> None:
        """The host waits for somebody else: `apt is held by unattended-upgrades (process 812)`."""

    def done(self, target: str, report: HostReport) -> None:
        """All work on the host has ended."""


class Display(Progress, Protocol):
    """A progress that occupies the terminal while it is entered, and can step aside for a question."""

    def __enter__(self) -> Display: ...

    def __exit__(self, *exc: object) -> None: ...

    def paused(self) -> AbstractContextManager[None]:
        """While entered, the terminal belongs to somebody else."""

    def begun(self, target: str) -> None:
        """The host's turn has come."""

    def left(self, target: str, status: str) -> None:
        """Nothing more comes from the host; `done` may have told so before, with a report."""


class NullProgress:
    """Shows nothing."""

    def __enter__(self) -> NullProgress:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        yield

    def begun(self, target: str) -> None:
        pass

    def left(self, target: str, status: str) -> None:
        pass

    def stage(self, target: str, name: str) -> None:
        pass

    def item(self, target: str, item_id: str, title: str, state: str) -> None:
        pass

    def line(self, target: str, text: str) -> None:
        pass

    def wait(self, target: str, text: str) -> None:
        pass

    def done(self, target: str, report: HostReport) -> None:
        pass


class PlainProgress(NullProgress):
    """One line per event, for logs and pipes. Log lines only with `verbose`; the host's name before each where there are several."""

    def __init__(self, targets: Sequence[str], stream: TextIO | None = None, verbose: bool = False) -> None:
        self._several = len(targets) > 1
        self._stream = stream or sys.stderr
        self._verbose = verbose
        self._lock = threading.Lock()
        self._last_wait: dict[str, str] = {}

    def stage(self, target: str, name: str) -> None:
        self._write(target, f"{name} ...")

    def item(self, target: str, item_id: str, title: str, state: str) -> None:
        words = f"  {item_id}: {title}" if title else f"  {item_id}"
        self._write(target, f"{words} ..." if state == "running" else f"  {item_id}: {state}")

    def line(self, target: str, text: str) -> None:
        if self._verbose:
            self._write(target, f"  | {text}")

    def wait(self, target: str, text: str) -> None:
        # The run loop tells again and again; the reader needs it once.
        with self._lock:
            known, self._last_wait[target] = self._last_wait.get(target), text
        if known != text:
            self._write(target, f"  waiting: {text}")

    def done(self, target: str, report: HostReport) -> None:
        if self._several:
            self._write(target, report.status)

    def _write(self, target: str, text: str) -> None:
        indent = text[: len(text) - len(text.lstrip(" "))]
        prefix = f"{line(target)}: " if self._several else ""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        shown = f"{prefix}{indent}{line(text)}\n".encode(encoding, "replace").decode(encoding)
        # Progress is not worth failing for: whoever read it may have gone away.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(shown)
            self._stream.flush()


class Renamed:
    """Tells every event of one host under the name the user gave it."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress, self._name = progress, name
        self.name = name

    def stage(self, target: str, name: str) -> None:
        self._progress.stage(self._name, name)

    def item(self, target: str, item_id: str, title: str, state: str) -> None:
        self._progress.item(self._name, item_id, title, state)

    def line(self, target: str, text: str) -> None:
        self._progress.line(self._name, text)

    def wait(self, target: str, text: str) -> None:
        self._progress.wait(self._name, text)

    def done(self, target: str, report: HostReport) -> None:
        self._progress.done(self._name, report)


@dataclass
class _Row:
    """What the live display knows of one host."""

    started: float | None = None
    stage: str = "waiting for its turn"
    step: str = ""
    last: str = ""
    changed: int = 0
    ended: float | None = None
    status: str = ""
    items: dict[str, str] = field(default_factory=dict)


class RichProgress:
    """A live display on a terminal: one host with its step and last log line, several hosts as a table. Leaves nothing behind."""

    def __init__(self, targets: Sequence[str], console: Any = None) -> None:
        """`console` is a `rich.console.Console`, by default one on standard error."""
        if console is None:
            from rich.console import Console

            console = Console(stderr=True, highlight=False)
        self._console = console
        self._lock = threading.Lock()
        self._rows = {target: _Row() for target in targets}
        self._live: Any = None

    def __enter__(self) -> RichProgress:
        from rich.live import Live

        self._live = Live(
            get_renderable=self.render,
            console=self._console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        if self._live is None:
            yield
            return
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def stage(self, target: str, name: str) -> None:
        with self._lock:
            row = self._row(target)
            row.stage, row.step, row.last = line(name), "", ""

    def item(self, target: str, item_id: str, title: str, state: str) -> None:
        with self._lock:
            row = self._row(target)
            row.items[item_id] = state
            if state == "running":
                row.step, row.last = line(title or item_id), ""
            row.changed = sum(value == "changed" for value in row.items.values())

    def line(self, target: str, text: str) -> None:
        with self._lock:
            self._row(target).last = line(text, 200)

    def wait(self, target: str, text: str) -> None:
        with self._lock:
            self._row(target).last = f"waiting: {line(text, 200)}"

    def done(self, target: str, report: HostReport) -> None:
        with self._lock:
            row = self._row(target)
            row.ended, row.status, row.step, row.last = time.monotonic(), line(report.status), "", line(report.message, 200)

    def begun(self, target: str) -> None:
        with self._lock:
            self._row(target).stage = "connecting"

    def left(self, target: str, status: str) -> None:
        with self._lock:
            row = self._row(target)
            if row.ended is None:
                row.ended, row.status, row.step, row.last = time.monotonic(), line(status), "", ""

    def _row(self, target: str) -> _Row:
        row = self._rows.setdefault(target, _Row())
        if row.started is None:
            row.started = time.monotonic()
        return row

    def render(self) -> Table:
        """The display at this moment; no higher than the terminal."""
        with self._lock:
            rows = [(target, _Row(**vars(row))) for target, row in self._rows.items()]
        if len(rows) == 1:
            return _one(rows[0][1])
        room = self._console.size.height - 2
        if len(rows) <= room:
            return _table(rows)
        table = _table(_foremost(rows, max(1, room - 1)))
        table.add_row("", _counts(rows), "")
        return table


WELL = ("converged", "changed", "baked", "verified", "rebooting", "running", "done")


def _foremost(rows: list[tuple[str, _Row]], room: int) -> list[tuple[str, _Row]]:
    """The rows most worth seeing where not all have room, in their own order: what is at work, what went wrong (half of the room at most while
    others are at work), what ended well, what waits."""
    kinds: list[list[int]] = [[], [], [], []]
    for number, (_, row) in enumerate(rows):
        wrong = bool(row.status) and row.status not in WELL
        kinds[1 if wrong else 2 if row.status else 3 if row.started is None else 0].append(number)
    work, wrong_ones, well, waiting = kinds
    shown = work[: max(room - len(wrong_ones), room - room // 2)]
    for others in (wrong_ones, well, waiting):
        # Of what has ended the latest in the fleet's order, of what waits the first.
        left = room - len(shown)
        shown += others[:left] if others is waiting else others[max(0, len(others) - left) :] if left else []
    return [rows[number] for number in sorted(shown)]


def _counts(rows: list[tuple[str, _Row]]) -> Text:
    from rich.text import Text

    counts: dict[str, int] = {}
    for _, row in rows:
        name = row.status or ("waiting" if row.started is None else "at work")
        counts[name] = counts.get(name, 0) + 1
    return Text(f"{len(rows)} hosts: " + ", ".join(f"{number} {name}" for name, number in sorted(counts.items())), "bold")


def _elapsed(row: _Row) -> str:
    seconds = int((row.ended or time.monotonic()) - row.started) if row.started is not None else 0
    return "" if not seconds else f"{seconds} s" if seconds < 60 else duration(seconds)


def _one(row: _Row) -> Table:
    from rich.table import Table
    from rich.text import Text

    text = Text().append(_spinner(), "cyan").append(f" {row.status or row.stage}", "bold")
    if row.step:
        text.append(f": {row.step}")
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column(no_wrap=True, justify="right")
    table.add_row(text, Text(_elapsed(row), "dim"))
    if row.last:
        table.add_row(Text(f"  {row.last}", "dim"), "")
    return table


def _table(rows: list[tuple[str, _Row]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column(no_wrap=True, justify="right")
    styles = {**dict.fromkeys(WELL, "green"), "": "cyan"}
    for target, row in rows:
        words = Text(row.status or row.stage, styles.get(row.status, "red" if row.status else ""))
        if row.step:
            words.append(f": {row.step}")
        if row.last:
            words.append(f"  {row.last}", "dim")
        table.add_row(Text(line(target), "bold"), words, Text(_elapsed(row), "dim"))
    return table


def _spinner() -> str:
    return "|/-\\"[int(time.monotonic() * 4) % 4]


def open_progress(targets: Sequence[str], *, live: bool, verbose: bool = False) -> Display:
    """The display for these hosts: live on a terminal, else plain lines on standard error. rich is imported only for the live one."""
    return RichProgress(targets) if live else PlainProgress(targets, verbose=verbose)
