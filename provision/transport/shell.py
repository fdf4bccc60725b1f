"""How a script travels: one constant command line, everything else on standard input, and marks that tell its output from noise.

No value ever meets the login shell. The command line is the same text for every run and holds only characters that bash, dash,
zsh, fish and csh read alike inside single quotes (no backslash before a quote, no newline, no `!`). Arguments and the script follow
on standard input, so they are not in the process list either.

The first line of what the inner sh reads prints a random mark and its process id on both streams. What comes before it (an rc file
that prints, sudo's lecture, a login banner) is dropped; and if it never comes, the script never began, so a failed sudo or a nologin
account cannot be mistaken for a failed script.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Optional

from provision.sh import quote
from provision.transport import errors

# `sh -s` is not the last command on purpose: a script killed by a signal then ends as 128+n on every transport.
_PLAIN = "sh -s; exit $?"

# Standard input holds: password line (may be empty), mark line, script. The password is only ever in this shell's memory and in pipes.
# - `sudo -S` reads the password line only if it wants one (not with NOPASSWD or a fresh ticket), and asks three times if it is wrong,
#   which would eat the script and count as three failed logins. So a first sudo, fed nothing but that one line, tries the password;
#   the second one runs the script, and its shell drops all lines up to the mark, whether sudo took the password or left it.
# - printf must be a builtin, else the password would be an argument that `ps` shows.
_SUDO = (
    "LC_ALL=C; export LC_ALL; IFS= read -r p && IFS= read -r m || exit 125; "
    'if [ "$(id -u)" = 0 ]; then sh -s; exit $?; fi; '
    'command -v sudo >/dev/null 2>&1 || { echo "$m sudo-absent" >&2; exit 125; }; '
    'if [ -z "$p" ]; then sudo -n sh -s; exit $?; fi; '
    '[ "$(command -v printf)" = printf ] || { echo "$m sudo-no-printf" >&2; exit 125; }; '
    'printf "%s\\n" "$p" | sudo -S -p "" sh -c : || { echo "$m sudo-failed" >&2; exit 125; }; '
    '{ printf "%s\\n%s\\n" "$p" "$m"; exec cat; } | '
    'sudo -S -p "" sh -c "while IFS= read -r l; do [ \\"\\$l\\" = \\"\\$0\\" ] && exec sh -s; done; exit 125" "$m"; exit $?'
)

NOT_STARTED_RC = 125


@dataclass(frozen=True)
class Call:
    """One run, ready to be sent: what to execute and what to feed it. `stdin` may hold the sudo password and is never shown."""

    argv: tuple[str, ...]
    stdin: bytes
    mark: bytes
    sudo: bool
    has_password: bool

    @property
    def command(self) -> str:
        """The command line for a login shell."""
        return "exec sh -c '" + self.argv[2] + "'"

    def __repr__(self) -> str:
        return f"Call(sudo={self.sudo}, {len(self.stdin)} bytes)"


def call(script: str, args: tuple[str, ...], sudo: bool = False, sudo_password: Optional[str] = None) -> Call:
    """Frame `script` with its arguments. Raises ValueError for an argument or a script with a NUL byte, or a password that is no line."""
    if "\0" in script:
        raise ValueError("a NUL byte cannot be passed to a shell")
    mark = "@@" + os.urandom(12).hex()
    # `set --` gives the script its arguments exactly as `sh -s -- ARGS` would.
    words = "".join(f" {quote(str(arg))}" for arg in args)
    body = f"echo {mark} $$; echo {mark} $$ >&2; LC_ALL=C; export LC_ALL; set --{words}\n{script}\n"
    head = ""
    if sudo:
        password = sudo_password or ""
        if re.search(r"[\0\n\r]", password):
            raise ValueError("a sudo password is one line of text")
        head = f"{password}\n{mark}\n"
    # Text that came from undecodable bytes (a file name, say) goes back as those bytes.
    stdin = (head + body).encode("utf-8", "surrogateescape")
    return Call(("sh", "-c", _SUDO if sudo else _PLAIN), stdin, mark.encode(), sudo, bool(sudo and sudo_password))


# Ends the process group of the script with the given process id, politely and then for good.
STOP_SCRIPT = """
read -r _ _ _ _ group _ <"/proc/$1/stat" || exit 0
kill -TERM "-$group" || exit 0
sleep 1
kill -KILL "-$group" || exit 0
"""


class Unwrap:
    """Drops everything up to and including the line that holds the mark, chunk by chunk. `noise` keeps the last of what was dropped."""

    KEEP = 65536

    def __init__(self, mark: bytes) -> None:
        self._line = re.compile(re.escape(mark) + rb" ([0-9]+)\n")
        self.pid = ""
        self.noise = b""

    @property
    def started(self) -> bool:
        return bool(self.pid)

    def feed(self, chunk: bytes) -> bytes:
        """What of this chunk belongs to the script."""
        if self.started:
            return chunk
        held = self.noise + chunk
        found = self._line.search(held)
        if not found:
            self.noise = held[-self.KEEP :]
            return b""
        self.pid = found.group(1).decode()
        self.noise = held[: found.start()]
        return held[found.end() :]


def not_started(call_: Call, where: str, rc: int, out_noise: bytes, err_noise: bytes) -> errors.RunFailed:
    """The error for a run whose script never began, judged from what was printed instead."""
    err_text = err_noise.decode("utf-8", "replace")
    mark = call_.mark.decode()
    said = " ".join(line.strip() for line in err_text.splitlines() if line.strip() and mark not in line)
    if not call_.sudo or (rc != NOT_STARTED_RC and "sudo" not in err_text):
        return _no_shell(where, rc, said or out_noise.decode("utf-8", "replace").strip())
    if f"{mark} sudo-absent" in err_text:
        return errors.NoSudo(
            f"{where}: root is needed and sudo is not installed.",
            "Log in as root (root@HOST), or install sudo and allow this user to use it.",
        )
    if f"{mark} sudo-no-printf" in err_text:
        return errors.SudoError(
            f"{where}: the shell /bin/sh has no builtin printf, so the sudo password could not be kept out of the process list.",
            "Log in as root, or allow this user to use sudo without a password (NOPASSWD).",
        )
    lower = said.lower()
    for signs, error, message, fix in _SUDO_SAYS:
        if any(sign in lower for sign in signs):
            if error is errors.SudoPasswordNeeded and call_.has_password:
                continue
            return error(f"{where}: {message} It said: {_short(said)}", fix)
    return errors.SudoError(
        f"{where}: sudo did not start a root shell (exit {rc}). It said: {_short(said) or 'nothing'}", _LOG_IN_AS_ROOT
    )


def _no_shell(where: str, rc: int, said: str) -> errors.NoShell:
    return errors.NoShell(
        f"{where}: the login worked, but it did not run a shell command (exit {rc}). It said: {_short(said) or 'nothing'}",
        "The account needs an ordinary login shell and no forced command; perhaps another user is meant (user@HOST).",
    )


def _short(text: str) -> str:
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    return text if len(text) <= 400 else text[:400] + "…"


_LOG_IN_AS_ROOT = "Log in as root (root@HOST), or allow this user in sudoers: USER ALL=(ALL) ALL"
# Sentences of sudo (sudo.ws) and sudo-rs in the C locale. A configured insult or message matches none and falls to the last, general case.
_SUDO_SAYS: tuple[tuple[tuple[str, ...], type[errors.SudoError], str, str], ...] = (
    (
        ("must have a tty",),
        errors.SudoNeedsTerminal,
        "sudo insists on a terminal (requiretty in sudoers).",
        "Put 'Defaults:USER !requiretty' into /etc/sudoers.d/USER (visudo -f), or log in as root.",
    ),
    (
        ("not in the sudoers", "may not run sudo", "is not allowed to", "i'm afraid i can't do that", "not allowed to run sudo"),
        errors.NoSudo,
        "sudo does not allow this user to run commands as root.",
        _LOG_IN_AS_ROOT,
    ),
    (
        ("incorrect password", "no password was provided", "incorrect authentication", "authentication failed", "try again"),
        errors.SudoPasswordWrong,
        "sudo did not accept the password.",
        "Give the password that this user has on that host; it was tried once.",
    ),
    (
        ("password is required", "authentication is required", "terminal is required", "interactive authentication"),
        errors.SudoPasswordNeeded,
        "sudo needs a password.",
        "Pass --sudo-password-file FILE, or answer the prompt on a terminal, or allow sudo without a password (NOPASSWD).",
    ),
    (
        ("account validation", "account or password is expired", "password expired"),
        errors.NoSudo,
        "sudo refuses this account.",
        "Renew the account's password on the host, or log in as root.",
    ),
)
