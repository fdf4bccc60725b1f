"""A host over SSH as a transport: one connection, one exec request for each run.

Importing this module does not import paramiko. Connecting goes on in threads of its own, so that the TCP handshake, and the server's
forking and greeting, pass while paramiko is being imported; `begin` lets all of it pass while the caller does something else.
"""

from __future__ import annotations

import contextlib
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Optional, Protocol, TypeVar

from provision.transport import errors
from provision.transport.collect import LINGER_SECONDS, MAX_OUTPUT, Collector, RunResult
from provision.transport.dial import Stream, dial
from provision.transport.importing import import_paramiko
from provision.transport.options import SshOptions
from provision.transport.resolve import Host, resolve
from provision.transport.shell import STOP_SCRIPT, Call, call
from provision.transport.target import Target

if TYPE_CHECKING:
    import paramiko

    from provision.transport.wire import Wire

_CHUNK = 65536
_TICK = 0.2
_WINDOW_TICK = 2  # milliseconds. OpenSSH grants no window before the command has started, and paramiko signals no grant


class SshTransport:
    """Runs scripts on a host over SSH. Connects at the first run, and again after the connection was lost."""

    def __init__(self, target: Target, options: SshOptions = SshOptions()) -> None:  # noqa: B008 - frozen
        self._options = options
        self.host: Host = resolve(target, options)
        self._wire: Optional[Wire] = None
        self._coming: Optional[_Behind[Wire]] = None

    @property
    def name(self) -> str:
        """`user@host:port` as resolved through ssh_config."""
        return str(self.host)

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
        sudo = sudo and self.host.user != "root"
        framed = call(script, args, sudo, self._options.sudo_password)
        wire = self._connected()
        collector = Collector(framed, self.name, on_output=on_output, max_output=max_output, timeout=timeout)
        try:
            rc = self._execute(wire, framed, collector)
            return collector.result(rc)
        except errors.ConnectionLost:
            self.close()
            raise
        except errors.NoShell as problem:
            from provision.transport.auth import not_accepting

            raise not_accepting(self.host, problem.message) or problem from None

    def _execute(self, wire: Wire, framed: Call, collector: Collector) -> int:
        """One exec request: start it, feed it, drain it, and say how it ended. Raises ConnectionLost, TimedOut, OutputTooLarge."""
        import paramiko

        watch = _Watch(wire)
        try:
            with _session(wire, framed) as channel:
                return pump(channel, framed, collector, watch)
        except (paramiko.SSHException, EOFError, OSError) as problem:
            raise watch.lost(str(problem) or type(problem).__name__) from problem
        except errors.ConnectionLost:
            raise
        except BaseException:
            self._stop(wire, framed.sudo, collector.pid)
            raise

    def _stop(self, wire: Wire, sudo: bool, pid: str) -> None:
        """End what runs, with a second request on the same connection: closing the channel leaves a quiet script running, and sshd
        honours the protocol's own signal request only for users other than root."""
        if not pid or not wire.alive:
            return
        framed = call(STOP_SCRIPT, (pid,), sudo, self._options.sudo_password)
        with (
            contextlib.suppress(Exception),
            _session(wire, framed) as channel,
        ):  # the connection may go; the first error is the one to tell
            pump(channel, framed, Collector(framed, self.name, on_output=None, max_output=MAX_OUTPUT, timeout=5), _Watch(wire))

    def begin(self) -> None:
        """Start to connect in the background; the next run takes the connection, or raises what went wrong.

        paramiko is imported before this returns: what the caller does next would only slow that down, and nothing can begin without it.
        """
        if self._wire is None and self._coming is None:
            log_in = self._dialled()
            self._coming = _Behind(log_in, discard=lambda wire: wire.close())

    def _connected(self) -> Wire:
        if self._wire is not None and not self._wire.alive:
            self.close()
        if self._wire is None:
            coming, self._coming = self._coming, None
            self._wire = coming.result() if coming else self._dialled()()
        return self._wire

    def _dialled(self) -> Callable[[], Wire]:
        """Import paramiko while the dialling goes on; what is given back waits for its end and logs in."""

        def greeted() -> Stream:
            stream = dial(self.host.jumps[0] if self.host.jumps else self.host)
            stream.greet()
            return stream

        # With paramiko there already, as for all but the first of many hosts, nothing is to be done meanwhile.
        first = None if "paramiko" in sys.modules else _Behind(greeted, discard=lambda stream: stream.close())
        import_paramiko()
        from provision.transport import auth, wire  # noqa: F401

        def log_in() -> Wire:
            try:
                stream = first.result() if first else greeted()
            except errors.WireError as problem:
                if self.host.jumps:
                    problem.message = f"On the way to {self.host}, at the jump host: {problem.message}"
                raise
            return wire.connect(self.host, self._options, stream)

        return log_in

    def close(self) -> None:
        """Hang up. A later `run` connects again."""
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.drop()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def __enter__(self) -> SshTransport:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


_T = TypeVar("_T")


class _Behind(Generic[_T]):
    """Work going on in the background. Exactly one of `result` and `drop` is to be called, once."""

    def __init__(self, work: Callable[[], _T], discard: Callable[[_T], None]) -> None:
        self._work, self._discard = work, discard
        self._made: list[_T] = []
        self._problem: Optional[BaseException] = None
        self._dropped = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            made = self._work()
        except BaseException as problem:  # handed to the thread that waits
            self._problem = problem
            return
        with self._lock:
            self._made.append(made)
            dropped = self._dropped
        if dropped:
            self._discard(made)

    def result(self) -> _T:
        """Wait for the end; gives what came of it, or raises what went wrong."""
        self._thread.join()
        if not self._made:
            raise self._problem or RuntimeError("work in the background ended without a result")
        return self._made[0]

    def drop(self) -> None:
        """Nobody wants it any more: what has come of it, or comes of it later, is discarded. Does not wait."""
        with self._lock:
            self._dropped = True
            made = list(self._made)
        for one in made:
            self._discard(one)


@contextlib.contextmanager
def _session(wire: Wire, framed: Call) -> Iterator[paramiko.Channel]:
    channel = wire.transport.open_session(timeout=max(15.0, wire.host.connect_timeout))
    try:
        channel.exec_command(framed.command)
        yield channel
    finally:
        channel.close()


def pump(channel: paramiko.Channel, framed: Call, collector: Collector, watch: Watch) -> int:
    """Feed and drain in one loop, so that neither side ever waits for the other with both pipes full."""
    left = memoryview(framed.stdin)
    ended: Optional[float] = None
    ready = select.poll()  # not select(), which fails beyond 1024 open files, that is, some 300 hosts
    ready.register(channel.fileno(), select.POLLIN)
    while True:
        while left and channel.send_ready():
            left = _send(channel, left)
            if not left:
                channel.shutdown_write()
        ready.poll(_WINDOW_TICK if left else _TICK * 1000)
        while channel.recv_ready():
            collector.out(channel.recv(_CHUNK))
        while channel.recv_stderr_ready():
            collector.err(channel.recv_stderr(_CHUNK))
        collector.check_time()
        watch.check()
        if channel.eof_received or channel.closed:
            break
        if channel.exit_status_ready():
            left = left[:0]
            ended = ended or time.monotonic()
            if min(collector.silent_seconds, time.monotonic() - ended) > LINGER_SECONDS + watch.slack:
                return int(channel.recv_exit_status())
    while True:  # what came between the last look and the end of file
        out, err = _rest(channel.recv, channel.recv_ready()), _rest(channel.recv_stderr, channel.recv_stderr_ready())
        if out:
            collector.out(out)
        if err:
            collector.err(err)
        if not out and not err:
            break
    while not channel.status_event.wait(_TICK):  # closed its outputs and goes on
        collector.check_time()
        watch.check()
    rc = channel.exit_status
    if rc < 0:
        # No exit code: the wire broke, or the server's side of the session was killed.
        raise watch.lost("the session ended without an exit code")
    return int(rc)


def _send(channel: paramiko.Channel, left: memoryview) -> memoryview:
    try:
        return left[channel.send(bytes(left[:_CHUNK])) :]
    except OSError:  # the script ended without reading all of it; its exit code tells
        if channel.get_transport().is_active():
            return left[:0]
        raise


def _rest(receive: Callable[[int], bytes], ready: bool) -> bytes:
    return receive(_CHUNK) if ready else b""


class Watch(Protocol):
    """Says whether the host is still there."""

    @property
    def slack(self) -> float:
        """Extra patience, in seconds, for output still under way after the exit code."""

    def check(self) -> None:
        """Raise ConnectionLost where the host is gone."""

    def lost(self, reason: str) -> errors.ConnectionLost:
        """The error to raise."""


class _Watch:
    """Notices a host that has gone silent for good, where TCP alone would wait for a quarter of an hour or for ever."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._began = time.monotonic()
        self._ping: Optional[threading.Thread] = None

    @property
    def slack(self) -> float:
        """Extra patience, in seconds, for output still under way after the exit code."""
        return 1.0

    def check(self) -> None:
        """Ping after a while of silence; raise ConnectionLost after a long one."""
        if not self._wire.alive:
            raise self.lost("the connection was closed")
        host = self._wire.host
        silent = time.monotonic() - max(self._wire.stream.heard_at, self._began)
        if silent > host.keepalive_seconds * host.keepalive_count + 1:
            raise self.lost(f"nothing was heard for {silent:.0f} seconds")
        if silent > host.keepalive_seconds and (self._ping is None or not self._ping.is_alive()):
            self._ping = threading.Thread(target=self._send_ping, daemon=True)
            self._ping.start()

    def _send_ping(self) -> None:
        with contextlib.suppress(Exception):  # a failed ping is silence, and silence is what `check` measures
            self._wire.transport.global_request("keepalive@openssh.com", wait=True)

    def lost(self, reason: str) -> errors.ConnectionLost:
        text = self._wire.transport.disconnect_text
        return errors.ConnectionLost(
            f"{self._wire.host}: the connection was lost ({reason}{'; it said: ' + text if text else ''}).",
            "What was started there may have gone on. Run the same command again to find out and continue.",
        )
