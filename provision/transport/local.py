"""This machine as a transport: a subprocess in a session of its own."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from types import TracebackType
from typing import Optional

from provision.errors import Failed
from provision.transport.collect import LINGER_SECONDS, MAX_OUTPUT, Collector, RunResult
from provision.transport.shell import STOP_SCRIPT, Call, call

_CHUNK = 65536
_TICK = 0.1
_GRACE_SECONDS = 1.0


class LocalTransport:
    """Runs scripts on this machine. `sudo_password` is used only where sudo asks for one."""

    name = "this machine"

    def __init__(self, sudo_password: Optional[str] = None) -> None:
        self._sudo_password = sudo_password

    def run(
        self,
        script: str,
        *args: str,
        sudo: bool = False,
        timeout: Optional[float] = None,
        on_output: Optional[Callable[[bytes], None]] = None,
        max_output: int = MAX_OUTPUT,
    ) -> RunResult:
        """See `provision.transport.Transport.run`."""
        sudo = sudo and os.geteuid() != 0
        framed = call(script, args, sudo, self._sudo_password)
        collector = Collector(framed, self.name, on_output=on_output, max_output=max_output, timeout=timeout)
        try:
            process = subprocess.Popen(
                framed.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C"},
                bufsize=0,
            )
        except OSError as problem:
            raise Failed(
                f"this machine: sh cannot be started: {problem.strerror}.", "A POSIX shell named sh must be on the PATH."
            ) from problem
        with process:  # closes the pipes and reaps
            try:
                pump(process, framed, collector)
            except BaseException:
                if sudo and collector.pid:  # only root may end what root runs
                    with contextlib.suppress(Exception):  # the first error is the one to tell
                        self.run(STOP_SCRIPT, collector.pid, sudo=True, timeout=5)
                kill(process)
                raise
        return collector.result(process.returncode if process.returncode >= 0 else 128 - process.returncode)

    def close(self) -> None:
        """Nothing to close here."""

    def __enter__(self) -> LocalTransport:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


def pump(process: subprocess.Popen[bytes], framed: Call, collector: Collector) -> None:
    """Feed stdin and drain both outputs together until the process has ended and both are closed."""
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise ValueError("all three streams must be pipes")
    left = memoryview(framed.stdin)
    with selectors.DefaultSelector() as selector:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ, collector.out)
        selector.register(process.stderr, selectors.EVENT_READ, collector.err)
        ended: Optional[float] = None
        while selector.get_map():
            for key, _ in selector.select(_TICK):
                if key.data is None:
                    left = _write(process.stdin.fileno(), left)
                    if not left:
                        selector.unregister(process.stdin)
                        process.stdin.close()
                    continue
                chunk = os.read(key.fd, _CHUNK)
                if chunk:
                    key.data(chunk)
                else:
                    selector.unregister(key.fileobj)
            collector.check_time()
            if ended is None and process.poll() is not None:
                ended = time.monotonic()
            if ended is not None and min(collector.silent_seconds, time.monotonic() - ended) > LINGER_SECONDS:
                return
    while process.poll() is None:  # closed its outputs and goes on
        collector.check_time()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_TICK)


def _write(fd: int, left: memoryview) -> memoryview:
    try:
        return left[os.write(fd, left[:_CHUNK]) :]
    except BlockingIOError:
        return left
    except BrokenPipeError:  # the script ended without reading all of it; its exit code tells
        return left[:0]


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group: politely, then for good."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
            if number == signal.SIGKILL:
                return
