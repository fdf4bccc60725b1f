"""What ssh_config says about one host.

A reader of its own, not paramiko's, for three reasons: paramiko's knows no Include and only some tokens; it can be read before paramiko
is imported, so that the import (0.1 s) happens while the TCP connection is being made; and what cannot be honoured is refused
with file and line. The format is that of ssh_config(5), OpenSSH 9; `ssh -G` is the oracle in the tests.
"""

from __future__ import annotations

import fnmatch
import getpass
import glob
import hashlib
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Optional

from provision.transport.errors import SshConfigError
from provision.transport.target import Target

SYSTEM_CONFIG = "/etc/ssh/ssh_config"
_MAX_INCLUDES = 16  # as in OpenSSH
_MAX_CHARACTERS = 4 << 20
_ACCUMULATE = ("identityfile", "certificatefile")
_MATCH_WITH_VALUE = ("host", "originalhost", "user", "localuser", "exec")
_LINE = re.compile(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+|$)(.*)", re.DOTALL)
_WORD = re.compile(r'\s*(?:"((?:\\.|[^"\\])*)"|((?:\\.|[^\s"\\])(?:\\.|[^\s\\])*))')


@dataclass
class Lookup:
    """The raw answer: keyword in lower case to its words, first value first; and the facts that tokens and Match are about."""

    original_host: str
    user: Optional[str] = None
    port: Optional[int] = None
    home: str = field(default_factory=lambda: os.path.expanduser("~"))
    values: dict[str, list[str]] = field(default_factory=dict)
    wants_final: bool = False

    def first(self, keyword: str) -> Optional[str]:
        words = self.values.get(keyword)
        return words[0] if words else None

    @property
    def host(self) -> str:
        name = self.first("hostname")
        return (
            self.original_host if name is None else name.replace("%%", "\0").replace("%h", self.original_host).replace("\0", "%")
        )

    @property
    def remote_user(self) -> str:
        return self.user or self.first("user") or getpass.getuser()

    @property
    def remote_port(self) -> int:
        text = self.first("port")
        if self.port is not None or text is None:
            return self.port or 22
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
            raise SshConfigError(
                f"ssh_config gives the port {text!r} for {self.original_host}.", "It must be a number from 1 to 65535."
            )
        return int(text)

    def expand(self, text: str, tilde: bool = False) -> str:
        """Replace ssh_config's tokens; with `tilde` also `~`, and environment variables as OpenSSH does for paths."""
        if tilde:
            text = re.sub(r"\$\{([^}]*)\}", self._environment, text)
            text = os.path.join(self.home, text[2:]) if text.startswith("~/") else os.path.expanduser(text)
        return re.sub(r"%(.)", lambda token: self._token(token.group(1), text), text)

    def _environment(self, reference: re.Match[str]) -> str:
        value = os.environ.get(reference.group(1))
        if value is None:
            raise SshConfigError(
                f"ssh_config uses {reference.group()} for {self.original_host}, and that variable is not set.",
                "Set it, or write the path out.",
            )
        return value

    def _token(self, letter: str, text: str) -> str:
        local = socket.gethostname()
        known: dict[str, Callable[[], str]] = {
            "%": lambda: "%",
            "h": lambda: self.host,
            "n": lambda: self.original_host,
            "p": lambda: str(self.remote_port),
            "r": lambda: self.remote_user,
            "u": getpass.getuser,
            "d": lambda: self.home,
            "i": lambda: str(os.getuid()),
            "l": lambda: local,
            "L": lambda: local.split(".")[0],
            "j": lambda: self.first("proxyjump") or "",
            "k": lambda: self.first("hostkeyalias") or self.original_host,
            "C": lambda: hashlib.sha1(  # noqa: S324 - the format asks for it; no secret
                f"{local}{self.host}{self.remote_port}{self.remote_user}{self.first('proxyjump') or ''}".encode()
            ).hexdigest(),
        }
        if letter not in known:
            raise SshConfigError(
                f"ssh_config uses the token %{letter} in {text!r}, which is not known here.", "See TOKENS in ssh_config(5)."
            )
        return known[letter]()


def read(target: Target, config_file: Optional[str], home: Optional[str] = None, system_file: str = SYSTEM_CONFIG) -> Lookup:
    """Look `target` up in the user's and the system's ssh_config, or in `config_file` alone (`none`: in no file).

    Raises SshConfigError for a file that cannot be read or parsed, and for what is not supported (canonicalization, some Match criteria).
    """
    home = home or os.path.expanduser("~")
    answer = Lookup(target.host, target.user, target.port, home)
    files = _files(config_file, home, system_file)
    for path, directory in files:
        _File(answer, path, directory, final=False).read()
    _refuse_canonicalization(answer)
    if answer.wants_final:
        for path, directory in files:
            _File(answer, path, directory, final=True).read()
    return answer


def _files(config_file: Optional[str], home: str, system_file: str) -> list[tuple[str, str]]:
    """The files to read, each with the directory that its Includes are relative to."""
    user_directory = os.path.join(home, ".ssh")
    if config_file is None:
        candidates = [(os.path.join(user_directory, "config"), user_directory), (system_file, os.path.dirname(system_file))]
        return [(path, directory) for path, directory in candidates if os.path.exists(path)]
    return [] if config_file.lower() == "none" else [(os.path.expanduser(config_file), user_directory)]


def _refuse_canonicalization(answer: Lookup) -> None:
    wanted = (answer.first("canonicalizehostname") or "no").lower() in ("yes", "always")
    if (
        wanted
        and answer.values.get("canonicaldomains")
        and answer.original_host.count(".") <= _dots(answer)
    ):
        raise SshConfigError(
            f"ssh_config asks for CanonicalizeHostname for {answer.original_host}, which is not supported here.",
            "Name the host in full, or with a HostName line in ssh_config.",
        )


def _dots(answer: Lookup) -> int:
    text = answer.first("canonicalizemaxdots") or "1"
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise SshConfigError(f"ssh_config gives CanonicalizeMaxDots {text!r} for {answer.original_host}.", "It must be a number.")
    return int(text)


class _File:
    """Reads one file into the answer."""

    def __init__(self, answer: Lookup, path: str, directory: str, *, final: bool, active: bool = True, depth: int = 0) -> None:
        self.answer, self.path, self.directory, self.final, self.depth = answer, path, directory, final, depth
        self.enclosing = active  # an Include in a block that does not apply applies nowhere
        self.active = active
        self.where = path

    def read(self) -> None:
        try:
            with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read(_MAX_CHARACTERS + 1)
        except ValueError as problem:
            raise SshConfigError(f"{self.path!r} is no path of an ssh_config file: {problem}.", "Name another with -F.") from problem
        except OSError as problem:
            raise SshConfigError(
                f"The ssh_config file {self.path} cannot be read: {problem.strerror}.", "Name another with -F."
            ) from problem
        if len(text) > _MAX_CHARACTERS:
            raise SshConfigError(
                f"The ssh_config file {self.path} is larger than {_MAX_CHARACTERS >> 20} MiB.", "Is this the right file? Name another with -F."
            )
        for number, line in enumerate(text.split("\n"), 1):
            self.where = f"{self.path}:{number}"
            stripped = line.strip()
            if stripped and not stripped.startswith("#"):
                self._line(stripped)

    def _line(self, text: str) -> None:
        parts = _LINE.match(text)
        if not parts:
            raise SshConfigError(f"{self.where}: cannot be read as an ssh_config line: {text!r}.", "Expected: Keyword value.")
        keyword, rest = parts.group(1).lower(), parts.group(2)
        if keyword == "proxycommand":  # the rest of the line as it is
            self._set(keyword, [rest.strip()])
            return
        words = list(self._words(rest))
        if not words:
            raise SshConfigError(f"{self.where}: {parts.group(1)} has no value.", "See ssh_config(5).")
        if keyword == "host":
            self.active = self.enclosing and _matches(words, self.answer.original_host)
        elif keyword == "match":
            self.active = self._match(words) and self.enclosing
        elif keyword == "include":
            self._include(words)
        else:
            self._set(keyword, words)

    def _words(self, rest: str) -> Iterator[str]:
        at, rest = 0, rest.rstrip()
        while at < len(rest):
            word = _WORD.match(rest, at)
            if not word:
                raise SshConfigError(f"{self.where}: unbalanced quotes.", "Close them.")
            if word.group(2) and word.group(2).startswith("#"):
                return
            yield re.sub(r'\\(["\'\\ ])', r"\1", word.group(1) if word.group(1) is not None else word.group(2))
            at = word.end()

    def _set(self, keyword: str, words: list[str]) -> None:
        if not self.active:
            return
        values = self.answer.values
        if keyword in _ACCUMULATE:
            values.setdefault(keyword, []).extend(word for word in words if word not in values.get(keyword, []))
        elif keyword == "proxycommand" and "proxyjump" in values:
            return  # whichever of the two comes first counts
        elif keyword == "proxyjump" and "proxycommand" in values:
            return
        else:
            values.setdefault(keyword, words)

    def _include(self, words: list[str]) -> None:
        if self.depth >= _MAX_INCLUDES:
            raise SshConfigError(
                f"{self.where}: includes are nested more than {_MAX_INCLUDES} deep.", "Look for a file that includes itself."
            )
        for word in words:
            pattern = os.path.join(self.answer.home, word[2:]) if word.startswith("~/") else os.path.expanduser(word)
            for path in sorted(glob.glob(os.path.join(self.directory, pattern))):
                type(self)(self.answer, path, self.directory, final=self.final, active=self.active, depth=self.depth + 1).read()

    def _match(self, words: list[str]) -> bool:
        queue = [part for word in words for part in (word.split("=", 1) if re.match(r"!?[a-z]+=", word) else [word])]
        result = True
        while queue:
            criterion = queue.pop(0)
            negated, name = criterion.startswith("!"), criterion.lstrip("!").lower()
            if name in ("final", "canonical"):
                self.answer.wants_final = self.answer.wants_final or (name == "final" and not self.final)
                passed = self.final
            elif name == "all":
                passed = True
            elif name in _MATCH_WITH_VALUE and queue:
                value = queue.pop(0)
                # What follows a criterion that failed is not evaluated: `exec` may be slow, or not meant for this host.
                passed = result and self.enclosing and self._criterion(name, value)
            else:
                raise SshConfigError(
                    f"{self.where}: 'Match {criterion}' is not supported here.", "Use a Host line, or another file with -F."
                )
            result = result and passed != negated
        return result

    def _criterion(self, name: str, value: str) -> bool:
        if name == "exec":
            command = self.answer.expand(value)
            quiet = subprocess.DEVNULL
            # The user's own command from the user's own file, run by a shell as ssh does.
            return subprocess.run(["/bin/sh", "-c", command], check=False, stdin=quiet, stdout=quiet).returncode == 0
        subject = {
            "host": lambda: self.answer.host,
            "originalhost": lambda: self.answer.original_host,
            "user": lambda: self.answer.remote_user,
            "localuser": getpass.getuser,
        }[name]()
        return _matches(value.split(","), subject)


class _Names(_File):
    """Collects what Host lines name; nothing else of a file counts."""

    def _line(self, text: str) -> None:
        parts = _LINE.match(text)
        keyword = parts.group(1).lower() if parts else ""
        if parts and keyword in ("host", "include"):
            words = list(self._words(parts.group(2)))
            if keyword == "include":
                self._include(words)
            else:
                known = self.answer.values.setdefault("host", [])
                known += [word for word in words if not re.search(r"[*?!]", word) and word not in known]


def host_names(config_file: Optional[str], home: Optional[str] = None, system_file: str = SYSTEM_CONFIG) -> list[str]:
    """Every name that a Host line of the files gives in full, in their order. Raises SshConfigError for a file that cannot be read."""
    answer = Lookup("", home=home or os.path.expanduser("~"))
    for path, directory in _files(config_file, answer.home, system_file):
        _Names(answer, path, directory, final=False).read()
    return answer.values.get("host", [])


def matches(patterns: list[str], subject: str) -> bool:
    """Whether a list of ssh's patterns (`*`, `?`, `!no`) takes a name in."""
    return _matches(patterns, subject)


def _matches(patterns: list[str], subject: str) -> bool:
    """ssh's pattern lists: `*` and `?`, and one negated match refuses."""
    found = False
    for pattern in patterns:
        plain = pattern.lower().lstrip("!").replace("[", "[[]")  # `[` is no wildcard here
        if fnmatch.fnmatchcase(subject.lower(), plain):
            if pattern.startswith("!"):
                return False
            found = True
    return found
