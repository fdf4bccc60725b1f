"""What can go wrong between this program and a host, each with what to do about it.

`Unreachable` and its kinds mean that the wire broke or never stood (exit 4). `Failed` kinds mean that the host was reached and
would not do the work (exit 1). `retryable` says whether the same call may well succeed a little later (a booting host, a full
queue, a dropped connection), and is what a wait loop asks.
"""

from __future__ import annotations

from provision.errors import Failed, Unreachable, UsageError


class WireError(Unreachable):
    """The host could not be talked to; `retryable` says whether trying again makes sense."""

    retryable = False


class NameNotFound(WireError):
    """The host's name does not resolve."""


class ConnectionRefused(WireError):
    """Nothing listens on that port."""

    retryable = True


class ConnectTimeout(WireError):
    """No answer within the connect timeout."""

    retryable = True


class NoRoute(WireError):
    """The network has no way to the host."""

    retryable = True


class HandshakeFailed(WireError):
    """A connection was made, but no SSH session came of it."""

    retryable = True


class HostKeyError(WireError):
    """The host's key is not one that can be trusted."""


class HostKeyUnknown(HostKeyError):
    """The host's key is in no known_hosts file."""


class HostKeyChanged(HostKeyError):
    """The host shows another key than the one known for it."""


class HostKeyRevoked(HostKeyChanged):
    """The host shows a key that known_hosts marks as revoked."""


class AuthFailed(WireError):
    """The host refused every way of logging in that was tried."""


class TooManyAuthFailures(AuthFailed):
    """The host hung up before every key could be tried."""


class NotAcceptingLogins(WireError):
    """The host is booting or shutting down and lets no one in yet."""

    retryable = True


class JumpFailed(WireError):
    """A jump host or a proxy command on the way failed; the message names it."""


class ConnectionLost(WireError):
    """The connection broke while something ran; what ran may have gone on or not."""

    retryable = True


class SshConfigError(UsageError):
    """An ssh_config file holds something that cannot be read or honoured."""


class KeyFileError(UsageError):
    """A private key file that was named cannot be used."""


class BadTarget(UsageError):
    """Text that is no `[user@]host[:port]`."""


class RunFailed(Failed):
    """The host was reached, but the script did not run to its end. Holds what came back until then."""

    retryable = False

    def __init__(self, message: str, fix: str = "", *, out: bytes = b"", err: bytes = b"") -> None:
        super().__init__(message, fix)
        self.out = out
        self.err = err


class TimedOut(RunFailed):
    """The script did not end in the time it was given, and was stopped."""


class OutputTooLarge(RunFailed):
    """The script wrote more than was allowed, and was stopped."""


class NoShell(RunFailed):
    """The host accepted the login but did not run sh (nologin account, forced command, no shell)."""


class SudoError(RunFailed):
    """sudo did not give root."""


class NoSudo(SudoError):
    """sudo is not installed, or does not allow this user."""


class SudoPasswordNeeded(SudoError):
    """sudo wants a password and none was given."""


class SudoPasswordWrong(SudoError):
    """sudo did not accept the password."""


class SudoNeedsTerminal(SudoError):
    """sudoers has `requiretty`, and there is no terminal."""
