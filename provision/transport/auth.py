"""Logging in: which keys there are, in which order they are tried, and what to say when none is let in.

The order: keys named with -i; configured keys that the agent holds; the agent's other keys (unless IdentitiesOnly); configured key files.
That is OpenSSH's order but for the first: a key someone names should not come after five others, when many servers hang up at the sixth.
Each key is offered with its signature at once, without asking first whether it would do: one round trip less.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Optional

import paramiko
from paramiko.agent import AgentKey, AgentSSH

from provision.transport import errors
from provision.transport.hostkeys import fingerprint, label
from provision.transport.options import SshOptions
from provision.transport.resolve import Host

# pam_nologin(8) and shutdown(8) in the words of systemd and sshd.
_NO_LOGINS_YET = re.compile(r"booting up|not permitted to log in|going down|going to be|shutting down|nologin", re.IGNORECASE)


@dataclass
class _Found:
    """A key to offer: what to call it, and the key itself."""

    name: str
    key: paramiko.PKey


class _HungUp(Exception):
    """The server closed the connection, or did not answer."""


def log_in(transport: paramiko.Transport, host: Host, options: SshOptions) -> None:
    """Authenticate. Raises AuthFailed, TooManyAuthFailures, NotAcceptingLogins or KeyFileError."""
    login = _Login(transport, host, options)
    try:
        if login.offer_keys() or login.offer_password():
            return
        if not login.allowed and login.attempt(lambda: transport.auth_none(host.user)):
            return  # a server that wants nothing at all
    except (paramiko.SSHException, EOFError, OSError, _HungUp) as problem:
        raise _hung_up(login, problem) from problem
    finally:
        login.agent.close()
    raise _refused(login)


class _Login:
    """One login under way: what was tried, what could not be, and what the server says it accepts."""

    def __init__(self, transport: paramiko.Transport, host: Host, options: SshOptions) -> None:
        self.transport, self.host, self.options = transport, host, options
        self.agent = _Agent(host.agent)
        self.tried: list[str] = []
        self.skipped: list[str] = []
        self.allowed: list[str] = []

    def offer_keys(self) -> bool:
        for found in self._keys():
            self.tried.append(found.name)
            if self.attempt(partial(self.transport.auth_publickey, self.host.user, found.key)):
                return True
            if self.allowed and "publickey" not in self.allowed:
                break
        return False

    def offer_password(self) -> bool:
        password = self.options.password
        if password is None or (self.allowed and not {"password", "keyboard-interactive"} & set(self.allowed)):
            return False
        self.tried.append("the password")
        return self.attempt(partial(self.transport.auth_password, self.host.user, password))

    def attempt(self, offer: Callable[[], list[str]]) -> bool:
        """Make one attempt; True if it let us in. Learns what the server would accept from how it refuses."""
        try:
            still_wanted = offer()
        except paramiko.BadAuthenticationType as refusal:
            self.allowed = list(refusal.allowed_types)
            return False
        except paramiko.AuthenticationException as refusal:
            if not self.transport.is_active() or "timeout" in str(refusal).lower():
                raise _HungUp(str(refusal)) from refusal
            return False
        if still_wanted:  # this was one of several factors
            self.allowed = list(still_wanted)
        return not still_wanted

    def _keys(self) -> Iterator[_Found]:
        """Every key to offer, in order, loaded only when its turn comes."""
        host, used = self.host, set[bytes]()
        by_agent = {path: self.agent.find(_public_blob(path)) for path in (*host.named_identities, *host.identities)}
        for path in host.named_identities:
            yield from _new(used, by_agent[path] or self._from_file(path, named=True))
        for path in host.identities:
            yield from _new(used, by_agent[path])
        if not host.identities_only:
            yield from _new(used, self.agent.held())
        for path in host.identities:
            if not by_agent[path]:
                yield from _new(used, self._from_file(path, named=False))

    def _from_file(self, path: str, named: bool) -> list[_Found]:
        """The key in a file, preceded by itself with its certificate where there is one. Raises KeyFileError for a bad file that was named."""
        if not os.path.exists(path):
            return []
        try:
            key = paramiko.PKey.from_path(path, (self.options.key_passphrase or "").encode() or None)  # type: ignore[arg-type]
        except Exception as problem:  # the loaders of paramiko and cryptography raise a dozen kinds
            encrypted = isinstance(problem, (paramiko.PasswordRequiredException, TypeError)) or "passw" in str(problem).lower()
            what, fix = _why_not(path, encrypted, self.options, problem)
            if named:
                raise errors.KeyFileError(f"The key file {path} {what}.", fix) from problem
            self.skipped.append(f"{path} ({what})")
            return []
        plain = _Found(f"{path} ({_describe(key.asbytes())})", key)
        certified = []
        for certificate in (f"{path}-cert.pub", *self.host.certificates):
            twin = _with_certificate(key, certificate)
            if twin is not None:
                certified.append(_Found(f"{certificate} (certificate)", twin))
        key.public_blob = None
        return [*certified, plain]


def _new(used: set[bytes], keys: Iterable[_Found]) -> Iterator[_Found]:
    for found in keys:
        blob = found.key.public_blob.key_blob if found.key.public_blob else found.key.asbytes()
        if blob not in used:
            used.add(blob)
            yield found


def _why_not(path: str, encrypted: bool, options: SshOptions, problem: Exception) -> tuple[str, str]:
    if encrypted and not options.key_passphrase:
        return "is encrypted and no passphrase was given", f"Load it into the agent first: ssh-add {path}"
    if encrypted or options.key_passphrase:
        return "cannot be decrypted with the passphrase given", f"Try: ssh-keygen -y -f {path}"
    if isinstance(problem, OSError):
        return f"cannot be read: {problem.strerror}", "Make it readable for you."
    return (
        "is not a private key that can be used here",
        "Name an OpenSSH or PEM private key of type ED25519, ECDSA or RSA (not the .pub file).",
    )


def _with_certificate(key: paramiko.PKey, path: str) -> Optional[paramiko.PKey]:
    """A copy of the key that shows the certificate, if that certificate is for this key."""
    import copy

    blob = _public_blob(path[: -len(".pub")] if path.endswith(".pub") else path)
    plain = key.asbytes()
    numbers = plain[4 + int.from_bytes(plain[:4], "big") :]
    if not blob or numbers not in blob:
        return None
    twin = copy.copy(key)
    with contextlib.suppress(ValueError, OSError, paramiko.SSHException):
        twin.load_certificate(path)
        return twin
    return None


def _public_blob(path: str) -> bytes:
    """The public key beside a private key file, as bytes; empty where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"{path}.pub", "rb") as file:
        return base64.b64decode(file.read().split()[1])
    return b""


def _describe(blob: bytes) -> str:
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii", "replace")
    return f"{label(kind)} {fingerprint(blob)}"


class _Agent:
    """The keys an ssh-agent holds; asked only when needed, silent where there is none."""

    def __init__(self, path: Optional[str]) -> None:
        self._path = path
        self._keys: Optional[list[_Found]] = None
        self._connection: Optional[socket.socket] = None

    def held(self) -> list[_Found]:
        if self._keys is None:
            self._keys = []
            if self._path:
                with contextlib.suppress(OSError, paramiko.SSHException):
                    self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                    self._connection.settimeout(60)  # a person may have to touch or confirm
                    self._connection.connect(self._path)
                    agent = AgentSSH()
                    agent._connect(self._connection)  # type: ignore[attr-defined] # paramiko's Agent knows only SSH_AUTH_SOCK, not IdentityAgent
                    self._keys = [self._found(key) for key in agent.get_keys()]
        return self._keys

    def _found(self, key: AgentKey) -> _Found:
        return _Found(f"agent key {key.comment} ({_describe(key.blob)})", key)

    def find(self, blob: bytes) -> list[_Found]:
        return [found for found in self.held() if blob and getattr(found.key, "blob", b"") == blob]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _banner(transport: paramiko.Transport) -> str:
    banner = transport.auth_handler.banner if transport.auth_handler else None
    text = banner.decode("utf-8", "replace") if isinstance(banner, bytes) else str(banner or "")
    return " ".join(text.split())[:300]


def not_accepting(host: Host, said: str) -> Optional[errors.NotAcceptingLogins]:
    """The error for a host that says it is booting or going down; None if that is not what it says."""
    if not _NO_LOGINS_YET.search(said):
        return None
    return errors.NotAcceptingLogins(
        f"{host}: the host lets no one in at the moment. It said: {said}",
        "Try again in a minute; only root may log in while it boots.",
    )


def _tried_text(login: _Login) -> str:
    parts = ["Tried: " + ("; ".join(login.tried) if login.tried else "nothing, there was no key to try")]
    if login.skipped:
        parts.append("Not usable: " + "; ".join(login.skipped))
    if not login.host.agent:
        parts.append("No ssh-agent is running (SSH_AUTH_SOCK is not set)")
    return ". ".join(parts) + "."


def _hung_up(login: _Login, problem: Exception) -> errors.WireError:
    host, said = login.host, _banner(login.transport)
    booting = not_accepting(host, said)
    if booting:
        return booting
    reason = str(getattr(login.transport, "disconnect_text", "") or "")
    if "too many authentication failures" in reason.lower():
        return errors.TooManyAuthFailures(
            f"{host}: the host hung up after too many refused keys. {_tried_text(login)}",
            "Name the right key with -i FILE, and set 'IdentitiesOnly yes' for this host in ssh_config.",
        )
    if not reason and not said and not login.tried:
        return errors.HandshakeFailed(
            f"{host}: the host hung up during login ({problem}).", "Try again; its own log says why (journalctl -u ssh)."
        )
    detail = f" It said: {reason or said}." if reason or said else ""
    return errors.AuthFailed(
        f"{host}: the host hung up during login.{detail} {_tried_text(login)}",
        "Look into the host's own log (journalctl -u ssh): AllowUsers, an expired or locked account, or PAM may refuse this user.",
    )


def _refused(login: _Login) -> errors.WireError:
    host, allowed = login.host, login.allowed
    booting = not_accepting(host, _banner(login.transport))
    if booting:
        return booting
    accepts = f" The host accepts: {', '.join(allowed)}." if allowed else ""
    if allowed and "publickey" not in allowed:
        fix = "The host takes no keys; allow them there (PubkeyAuthentication yes) and add yours to ~/.ssh/authorized_keys."
    elif any("encrypted" in text for text in login.skipped):
        fix = "Load the encrypted key into the agent (ssh-add), or name another with -i FILE."
    else:
        copy = f"ssh-copy-id -p {host.port} {host.user}@{host.host}"
        fix = f"Check the user name ({host.user}), name the right key with -i FILE, or add it there: {copy}"
    return errors.AuthFailed(f"{host}: login refused. {_tried_text(login)}{accepts}", fix)
