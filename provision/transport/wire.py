"""One authenticated SSH connection to one host, over whatever stream leads there.

paramiko alone, without fabric: fabric accepts any host key in its constructor, imports a third more, and what it adds over paramiko
(typed-in commands, config files, transfers) is not used here.
"""

from __future__ import annotations

import os
import re
import threading
import time
from typing import Any, Optional

import paramiko
from paramiko.auth_handler import AuthOnlyHandler
from paramiko.ssh_exception import IncompatiblePeer
from paramiko.transport import ServiceRequestingTransport

from provision.transport import errors, hostkeys
from provision.transport.dial import SOFTWARE, Stream
from provision.transport.options import SshOptions
from provision.transport.resolve import Host


class _AuthHandler(AuthOnlyHandler):
    """paramiko's, but with the event that the answer sets made before the question is sent.

    paramiko makes it afterwards (5.1, `send_auth_request`): where the thread that asks is held up for a moment, the answer finds no event,
    and the login waits for its timeout although it has succeeded.
    """

    _event: Optional[threading.Event] = None

    @property
    def auth_event(self) -> Optional[threading.Event]:
        return self._event

    @auth_event.setter
    def auth_event(self, event: Optional[threading.Event]) -> None:
        pass  # the one that is there already is waited for

    def send_auth_request(self, *args: Any, **kwargs: Any) -> list[str]:
        self._event = threading.Event()
        return list(super().send_auth_request(*args, **kwargs))


_WITHOUT_MAC = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")  # not in paramiko before 4
_WITH_MAC = tuple(name for name in paramiko.Transport._preferred_ciphers if name not in _WITHOUT_MAC)  # type: ignore[attr-defined]


class _Transport(ServiceRequestingTransport):
    """paramiko's transport with three things it lacks: the raw host key, the server's parting words, and no waiting before login."""

    _CLIENT_ID = SOFTWARE
    # paramiko checks every packet's MAC in Python, byte by byte, which is a third of what a connection costs. These ciphers need no MAC.
    _preferred_ciphers = (*(name for name in _WITHOUT_MAC if name in paramiko.Transport._cipher_info), *_WITH_MAC)  # type: ignore[attr-defined]
    host_key_algorithms: tuple[str, ...] = ()
    host_key_blob = b""
    disconnect_text = ""

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        return self.host_key_algorithms

    def _verify_key(self, host_key: bytes, sig: bytes) -> None:
        self.host_key_blob = bytes(host_key)
        super()._verify_key(host_key, sig)  # type: ignore[misc]

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.disconnect_text = m.get_text()

    def ensure_session(self) -> None:
        # paramiko's own polls for the answer ten times a second, for ever, even when the connection is gone. The answer need not be
        # awaited: a server handles the request for the service and the login that follows it in order. One round trip less.
        if self.auth_handler is None:
            m = paramiko.Message()
            m.add_byte(paramiko.common.cMSG_SERVICE_REQUEST)
            m.add_string("ssh-userauth")
            self._send_message(m)  # type: ignore[attr-defined]
            self.auth_handler = self.get_auth_handler()

    def get_auth_handler(self) -> AuthOnlyHandler:
        return _AuthHandler(self)

    def auth_none(self, username: str) -> list[str]:
        self.ensure_session()  # paramiko's own fails on a missing callback (5.1)
        return list(self.auth_handler.send_auth_request(username, "none", lambda message: None))  # type: ignore[union-attr]


class Wire:
    """A logged-in connection. `stream` tells when the host was last heard."""

    def __init__(self, host: Host, transport: _Transport, stream: Stream, via: Optional[Wire]) -> None:
        self.host, self.transport, self.stream, self._via = host, transport, stream, via

    @property
    def alive(self) -> bool:
        return bool(self.transport.is_active())

    def tunnel(self, to: Host) -> Stream:
        """A stream to another host, through this one. Raises JumpFailed."""
        try:
            channel = self.transport.open_channel(
                "direct-tcpip", (to.host, to.port), ("127.0.0.1", 0), timeout=to.connect_timeout
            )
        except (paramiko.SSHException, EOFError, OSError) as problem:
            reason = problem.args[1] if isinstance(problem, paramiko.ChannelException) and len(problem.args) > 1 else problem
            raise errors.JumpFailed(
                f"The jump host {self.host} cannot reach {to.address}: {reason}.",
                f"Check the address as seen from {self.host.host}, and that its sshd allows forwarding (AllowTcpForwarding).",
            ) from problem
        return Stream(channel)

    def close(self) -> None:
        self.transport.close()
        self.stream.close()
        if self._via:
            self._via.close()


def connect(host: Host, options: SshOptions, first: Stream) -> Wire:
    """Log in to `host`, hop by hop. `first` is the stream to the first hop. Raises WireError kinds, KeyFileError."""
    wire: Optional[Wire] = None
    for hop in (*host.jumps, host):
        try:
            stream = first if wire is None else wire.tunnel(hop)
            wire = _log_in(hop, options, stream, wire)
        except errors.WireError as problem:
            if wire is not None:
                wire.close()
            if hop is not host and not isinstance(problem, errors.JumpFailed):
                # The kind stays: a jump host that is booting is worth a wait, too.
                problem.message = f"On the way to {host}, at the jump host: {problem.message}"
            raise
        except BaseException:
            if wire is not None:
                wire.close()
            raise
    if wire is None:
        raise ValueError("a host is at least one hop")
    return wire


def _log_in(host: Host, options: SshOptions, stream: Stream, via: Optional[Wire]) -> Wire:
    from provision.transport.auth import log_in

    transport: Any = None
    try:
        transport = _shake_hands(host, stream)
        log_in(transport, host, options)
    except BaseException:
        if transport is not None:
            transport.close()
        stream.close()
        raise
    return Wire(host, transport, stream, via)


def _shake_hands(host: Host, stream: Stream) -> _Transport:
    """Exchange keys and judge the host's. Raises HandshakeFailed and HostKeyError kinds."""
    lines = hostkeys.concerning(host.known_hosts_files, (host.known_as, host.host.lower())) if host.host_keys != "ignore" else []
    known = hostkeys.known_keys(lines, host.known_as)
    vouched = _vouched(host)
    transport = _Transport(stream)  # type: ignore[arg-type]
    transport.host_key_algorithms = hostkeys.preferred([*vouched, *known], _supported(transport))
    transport.banner_timeout = transport.handshake_timeout = _patience(host)
    transport.auth_timeout = 60.0
    try:
        transport.start_client(timeout=2 * _patience(host))
        if not transport.host_key_blob:
            raise paramiko.SSHException("no key exchange in time")
    except (paramiko.SSHException, EOFError, OSError) as problem:
        said = stream.said or stream.proxy_said or transport.disconnect_text
        transport.close()
        raise _handshake_error(host, stream, said, problem) from problem
    try:
        _judge(host, transport.host_key_blob, known, lines, vouched)
    except BaseException:
        transport.close()
        raise
    return transport


def _supported(transport: _Transport) -> list[str]:
    plain = list(transport.get_security_options().key_types)
    return [*plain, *(f"{name}-cert-v01@openssh.com" for name in plain)]


def _handshake_error(host: Host, stream: Stream, said: str, problem: Exception) -> errors.WireError:
    if host.proxy_command and not stream.first_bytes:
        return errors.JumpFailed(
            f"{host.address}: the proxy command gave no SSH connection: {host.proxy_command}"
            + (f" It said: {said}" if said else ""),
            "Run the command by hand to see why.",
        )
    if isinstance(problem, IncompatiblePeer):
        return errors.HandshakeFailed(
            f"{host.address}: no algorithm in common with the SSH server ({problem}).",
            "The server is very old or very strict; update it.",
        )
    try_again = "It may be starting, overloaded (MaxStartups), or refuse this address (fail2ban, PerSourcePenalties). Try again in a moment."
    if not stream.first_bytes:
        what = "hung up without a word" if stream.hung_up else f"said nothing for {int(_patience(host))} seconds"
        return errors.HandshakeFailed(f"{host.address}: the SSH server took the connection and {what}.", try_again)
    if re.search("MaxStartups|Not allowed at this time", said):  # OpenSSH's own words before it says SSH-
        return errors.HandshakeFailed(f"{host.address}: the SSH server does not take this connection. It said: {said}", try_again)
    if b"SSH-" not in stream.first_bytes:
        return errors.HandshakeFailed(
            f"{host.address}: this is no SSH server. It said: {said}", "Check the port (user@HOST:PORT)."
        )
    detail = f" It said: {said}." if said else ""
    what = "hung up" if stream.hung_up else "stopped"
    return errors.HandshakeFailed(
        f"{host.address}: the SSH server {what} during key exchange ({problem or type(problem).__name__}).{detail}",
        "Try again; its own log says why (journalctl -u ssh).",
    )


def _patience(host: Host) -> float:
    """Seconds for a server to say hello: under load that takes longer than the network takes to connect."""
    return max(15.0, host.connect_timeout)


def _vouched(host: Host) -> list[hostkeys.KnownKey]:
    """The keys that the host's console has shown at some time."""
    return hostkeys.known_keys(hostkeys.read_known_hosts([host.voucher.file]), host.voucher.name) if host.voucher else []


def _judge(
    host: Host, blob: bytes, known: list[hostkeys.KnownKey], lines: list[tuple[str, str]], vouched: list[hostkeys.KnownKey]
) -> None:
    if host.host_keys == "ignore":
        return
    if "-cert-" in hostkeys.kind_of(blob):
        from provision.transport import hostcert

        name = host.known_as.rpartition("]:")[0].lstrip("[") or host.known_as
        if not hostcert.refusal(blob, known, name, time.time()):
            return
        blob = hostcert.plain_key(blob)  # as ssh does: without a good certificate, it is a key like any other
    bare = hostkeys.known_keys(lines, host.host.lower()) if host.known_as.startswith("[") else []
    verdict = hostkeys.check(blob, known, bare)
    if host.voucher and verdict in ("unknown", "changed"):
        # What known_hosts has for the address may be of the machine that had it before; the console is this one's own.
        if hostkeys.check(blob, vouched, []) != "known":
            _ask_voucher(host, blob)
        return
    if verdict == "unknown" and host.host_keys == "accept-new":
        hostkeys.remember(
            host.known_hosts_files[0] if host.known_hosts_files else os.devnull, host.known_as, blob, host.hash_known_hosts
        )
    elif verdict == "unknown":
        command = f"ssh -p {host.port} {host.user}@{host.host}" if host.port != 22 else f"ssh {host.user}@{host.host}"
        error = hostkeys.unknown_error(host.address, host.known_as, blob, command)
        if host.host_keys == "cloud":
            error.message += " --host-keys cloud cannot vouch for it: no inventory says which EC2 instance in which region it is."
        raise error
    elif verdict == "changed":
        raise hostkeys.changed_error(host.address, host.known_as, blob, known)
    elif verdict == "revoked":
        raise hostkeys.revoked_error(host.address, blob, [*known, *bare])


def _ask_voucher(host: Host, blob: bytes) -> None:
    voucher = host.voucher
    assert voucher is not None  # noqa: S101 - for the type checker
    shown = voucher.ask()
    if hostkeys.fingerprint(blob) not in shown:
        raise hostkeys.unvouched_error(host.address, voucher.name, blob, shown)
    hostkeys.remember(voucher.file, voucher.name, blob, hashed=False)
