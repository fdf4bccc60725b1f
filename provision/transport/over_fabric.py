"""A host over a fabric Connection that the caller has made: its keys, gateways and settings are the caller's own.

For notebooks and programs that use fabric already. Host keys are judged by what the caller's Connection does about them; `provision.transport.ssh`,
which the command line uses, is stricter and starts faster.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Optional

from provision.transport import errors
from provision.transport.collect import MAX_OUTPUT, Collector, RunResult
from provision.transport.shell import STOP_SCRIPT, call
from provision.transport.ssh import Watch, pump


class FabricTransport:
    """Runs scripts over a `fabric.Connection`, on a raw channel of it: fabric's own `run` would feed a script a character at a time."""

    def __init__(self, connection: Any, sudo_password: Optional[str] = None) -> None:
        self._connection = connection
        self._sudo_password = sudo_password

    @property
    def name(self) -> str:
        """`user@host:port`."""
        return f"{self._connection.user}@{self._connection.host}:{self._connection.port}"

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
        sudo = sudo and self._connection.user != "root"
        framed = call(script, args, sudo, self._sudo_password)
        collector = Collector(framed, self.name, on_output=on_output, max_output=max_output, timeout=timeout)
        try:
            return collector.result(self._exchange(framed, collector))
        except errors.ConnectionLost:
            self.close()
            raise
        except BaseException:
            if collector.pid:
                with contextlib.suppress(Exception):  # the first error is the one to tell
                    stop = call(STOP_SCRIPT, (collector.pid,), sudo, self._sudo_password)
                    self._exchange(stop, Collector(stop, self.name, on_output=None, max_output=MAX_OUTPUT, timeout=5))
            raise

    def _exchange(self, framed: Any, collector: Collector) -> int:
        import paramiko

        try:
            self._connection.open()
            channel = self._connection.create_session()
        except (paramiko.SSHException, EOFError, OSError) as problem:
            raise errors.WireError(
                f"{self.name}: {problem}.", "Check that the fabric Connection opens by itself: `connection.open()`."
            ) from problem
        try:
            channel.exec_command(framed.command)
            return pump(channel, framed, collector, _Watch(self.name, channel.get_transport()))
        except (paramiko.SSHException, EOFError, OSError) as problem:
            raise _Watch(self.name, None).lost(str(problem) or type(problem).__name__) from problem
        finally:
            channel.close()

    def close(self) -> None:
        """Hang up. A later `run` connects again."""
        self._connection.close()

    def __enter__(self) -> FabricTransport:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


class _Watch(Watch):
    """Only whether the connection stands; keep-alives are the caller's Connection's to send."""

    slack = 1.0

    def __init__(self, name: str, transport: Any) -> None:
        self._name, self._transport = name, transport

    def check(self) -> None:
        if not self._transport.is_active():
            raise self.lost("the connection was closed")

    def lost(self, reason: str) -> errors.ConnectionLost:
        return errors.ConnectionLost(
            f"{self._name}: the connection was lost ({reason}).",
            "What was started there may have gone on. Run the same command again to find out and continue.",
        )
