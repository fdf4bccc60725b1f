"""Every error a user can meet: what is wrong and where (`message`), what to do about it (`fix`), and the exit code it ends with.

The exit codes are part of the outside contract: 1 failed, 2 usage or playbook, 4 unreachable, 5 unsupported, 6 reboot needed but not allowed,
7 verification failed (0 and 3 are not errors).
"""

from __future__ import annotations


class Error(Exception):
    """Something the user can understand and act on. `message` says what and where, `fix` what to do."""

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()


class Failed(Error):
    """The work was tried and did not succeed."""


class ProbeFailed(Failed):
    """The host's answer to the probe is cut short or is not one."""


class Refused(Failed):
    """The plan has problems that forbid carrying it out; nothing was changed."""


class UsageError(Error):
    """The command line, a playbook or an inventory is wrong."""

    exit_code = 2


class Unreachable(Error):
    """The host could not be talked to: the wire broke, not a command on it."""

    exit_code = 4


class Unsupported(Error):
    """The system is one that mlhost does not set up."""

    exit_code = 5


class Interrupted(Error):
    """The user stopped the controller; work on the host goes on."""
