"""Running docker as if it were the command itself: its exit code, its signals, its terminal; and a guard that outlives this process.

Signals. Where standard input is a terminal, docker stays in this process's group: the terminal's own signals (Ctrl-C, Ctrl-Z) reach it as they reach
us, and only what somebody sends to us by `kill` is handed on. Elsewhere it gets a group of its own, and everything is handed on, once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from provision.launch.look import Here, Place
from provision.shipped import shipped

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_KEYS = (signal.SIGINT, signal.SIGQUIT)
TAIL = 8192
_GUARD_SECONDS = 30.0


@dataclass(frozen=True)
class Ended:
    """How docker ended: its exit code, 128 + n for a signal; the end of standard error; whether a signal was handed on; whether the wire broke."""

    code: int
    said: str
    signalled: bool
    lost: bool = False


class Guard:
    """A small shell that waits beside the container, and removes it if this process dies without a word."""

    def __init__(self, place: Place, name: str) -> None:
        wire = [] if isinstance(place, Here) else ["wire"]
        argv = place.words(["sh", "-c", shipped("scripts/run/guard.sh"), "sh", name, *wire])
        if wire:
            # Through the wire, an end of input may also be the wire's: only a word of this side removes anything.
            argv = ["sh", "-c", 'trap "" HUP INT QUIT TERM TSTP; { while IFS= read -r w; do echo "$w"; case $w in done|lost|over) exit;; esac; done; echo gone; } | "$@"', "sh", *argv]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/"
        )

    def tell(self, word: str) -> None:
        """`pid N`; `done`: the container is gone; `over`: docker has ended; `lost`: it goes on without us."""
        assert self._process.stdin is not None  # noqa: S101 - narrows the type
        with contextlib.suppress(OSError):
            self._process.stdin.write(word.encode() + b"\n")
            self._process.stdin.flush()

    def end(self, word: str = "") -> None:
        """Say the last word (none: the container is to go) and wait until the guard has done its part."""
        if word:
            self.tell(word)
        assert self._process.stdin is not None  # noqa: S101 - narrows the type
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GUARD_SECONDS)


def run(place: Place, argv: Sequence[str], environment: Mapping[str, str], name: str, terminal: bool, takes_input: bool) -> Ended:
    """Run docker's command line to its end. `environment` is added to its environment. Raises FileNotFoundError where there is no such program."""
    keyboard = takes_input and sys.stdin is not None and sys.stdin.isatty()
    remote = not isinstance(place, Here)
    received = _Signals(keyboard)
    guard = Guard(place, name)  # before signals are blocked, which it and what it calls would inherit
    ended, ran = Ended(1, "", False), False
    with received:
        try:
            process = subprocess.Popen(
                place.words(argv, terminal),
                stdin=None if takes_input else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, **environment},
                preexec_fn=_plain if keyboard else _own_group,  # noqa: PLW1509 - there is no other thread yet
            )
            if not remote:
                guard.tell(f"pid {process.pid}")
            tail = _Tail(process)

            def hand_on(number: int) -> None:
                if remote:
                    subprocess.Popen(place.words(["docker", "kill", "--signal", str(int(number)), name]), stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
                else:
                    with contextlib.suppress(ProcessLookupError):
                        process.send_signal(number)

            received.wait(process, hand_on)
            code, ran = process.returncode, True
            lost = code == 255 and not place.alive()
            ended = Ended(code if code >= 0 else 128 - code, tail.text(), received.sent, lost)
        finally:
            # Docker's client can end before its container does: killed itself, or after three signals.
            guard.end("done" if ended.code == 0 else "lost" if ended.lost else "over" if ran else "")
    return ended


def _plain() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _own_group() -> None:
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


class _Signals:
    """While it is entered, signals are taken one by one instead of interrupting something."""

    def __init__(self, keyboard: bool) -> None:
        self._keyboard = keyboard
        self._wanted = {*FORWARDED, signal.SIGCHLD}
        self.sent = False
        self._before: set[signal.Signals] = set()
        self._child: Any = signal.SIG_DFL

    def __enter__(self) -> _Signals:
        # A handler for SIGCHLD, as a signal that is ignored by default is dropped on some systems even while it is blocked.
        self._child = signal.signal(signal.SIGCHLD, lambda *_: None)
        self._before = {signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, self._wanted)}
        return self

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
        signal.signal(signal.SIGCHLD, self._child)

    def wait(self, process: subprocess.Popen[bytes], hand_on: Callable[[int], None]) -> None:
        """Hand signals on until the process has ended."""
        while process.poll() is None:
            number, from_terminal = self._next()
            if number in (None, signal.SIGCHLD):
                continue
            assert number is not None  # noqa: S101 - narrows the type
            self.sent = True
            if not (self._keyboard and number in _KEYS and from_terminal):
                hand_on(number)

    def _next(self) -> tuple[Optional[int], bool]:
        if hasattr(signal, "sigtimedwait"):
            # A bound, as a SIGCHLD of the guard and one of docker may be delivered as one.
            info = signal.sigtimedwait(self._wanted, 1.0)
            return (None, False) if info is None else (info.si_signo, info.si_code > 0)
        return signal.sigwait(self._wanted), True  # a Mac: what the keyboard can send is taken for the keyboard's


class _Tail:
    """Copies standard error on and keeps its end, which says what Docker's exit code means."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None  # noqa: S101 - narrows the type
        self._stream = process.stderr
        self._kept = b""
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def _copy(self) -> None:
        while True:
            try:
                chunk = os.read(self._stream.fileno(), 65536)
            except OSError:
                return
            if not chunk:
                return
            self._kept = (self._kept + chunk)[-TAIL:]
            view = memoryview(chunk)
            with contextlib.suppress(OSError):
                while view:
                    view = view[os.write(2, view) :]

    def text(self) -> str:
        """What was kept; waits a moment for the rest."""
        self._thread.join(2.0)
        return self._kept.decode(errors="replace")
