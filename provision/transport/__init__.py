"""Running a script on a host, this one or another: one protocol, two implementations.

`open_transport` picks one. Nothing here knows what the scripts do. The SSH part is imported only when it is used, because paramiko
costs more start-up time than everything else together.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Optional, Protocol

from provision.single import refuse
from provision.transport.collect import MAX_OUTPUT, RunResult
from provision.transport.options import SshOptions
from provision.transport.target import Target, parse_target

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MAX_OUTPUT", "RunResult", "SshOptions", "Target", "Transport", "open_transport", "parse_target"]


class Transport(Protocol):
    """A host that runs POSIX sh. Used by one thread at a time; a context manager that closes itself."""

    @property
    def name(self) -> str:
        """The host for people: `this machine` or `user@host:port`."""

    def run(
        self,
        script: str,
        *args: str,
        sudo: bool = False,
        timeout: Optional[float] = None,
        on_output: Optional[Callable[[bytes], None]] = None,
        max_output: int = MAX_OUTPUT,
    ) -> RunResult:
        """Run `script` with the positional parameters `args`, as root where `sudo` is true and the user is not root already.

        `timeout` is in seconds, for the script alone. `on_output` gets standard output piece by piece as it comes, and must not take
        long; what it got is not kept, so that a script may go on for days. `max_output` bounds what is kept, in bytes. The environment has LC_ALL=C; whatever the login shell printed
        before the script began is not part of the output.

        A non-zero exit code is a value. Raises Unreachable kinds where the wire broke (ConnectionLost: midway, and what ran may have
        gone on), TimedOut and OutputTooLarge where it was stopped, NoShell where the host runs no shell, SudoError kinds where root was
        refused, ValueError for NUL bytes. See `provision.transport.errors`.
        """

    def close(self) -> None:
        """Hang up. A later `run` connects again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None: ...


def open_transport(target_text: Optional[str], options: SshOptions = SshOptions(), begin: bool = False) -> Transport:  # noqa: B008 - frozen
    """This machine for None, else the host that `[user@]host[:port]` names. Connects at the first run, or, with `begin`, in the background
    from now on; what goes wrong there is raised by the first run.

    Raises BadTarget, SshConfigError or KeyFileError (exit 2) for what can be seen to be wrong without the network, and UsageError for another
    machine where this is the single file.
    """
    if target_text is None:
        from provision.transport.local import LocalTransport

        return LocalTransport(sudo_password=options.sudo_password)
    target = parse_target(target_text)
    refuse(target_text)
    from provision.transport.ssh import SshTransport

    transport = SshTransport(target, options)
    if begin:
        transport.begin()
    return transport
