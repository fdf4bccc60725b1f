"""Getting a byte stream to a host: TCP, or what a ProxyCommand gives. No SSH here, and no paramiko."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import time
from typing import IO, Any, Optional

from provision import __version__
from provision.transport import errors
from provision.transport.resolve import Host

SOFTWARE = f"mlhost_{__version__}"  # RFC 4253, 4.2: what a server's log says of its client
_GREETING = f"SSH-2.0-{SOFTWARE}\r\n".encode()

_CHUNK = 65536
_FAMILIES = {"any": socket.AF_UNSPEC, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


class Stream:
    """A socket, or something like one, that knows when it last heard from the other side and what the first bytes were."""

    def __init__(self, inner: Any, proxy: Optional[Proxy] = None) -> None:
        self._inner, self._proxy = inner, proxy
        self.heard_at = time.monotonic()
        self.first_bytes = b""
        self.hung_up = False
        self._closed = False  # paramiko asks
        self._ahead = memoryview(b"")
        self._greeted = False

    def greet(self) -> None:
        """Say our first line now, and not again when paramiko does: the server gets ready for the key exchange only when it has heard it."""
        with contextlib.suppress(OSError):  # a line that is broken already tells when it is read
            self._inner.sendall(_GREETING)
            self._greeted = True

    def recv(self, size: int) -> bytes:
        # paramiko asks for a packet in two pieces, and there are many small packets: what is there already is taken at once.
        if self._ahead:
            there, self._ahead = self._ahead[:size], self._ahead[size:]
            return bytes(there)
        try:
            data: bytes = self._inner.recv(_CHUNK)
        except ConnectionError:
            self.hung_up = True
            raise
        self.hung_up = self.hung_up or not data
        if data:
            self.heard_at = time.monotonic()
            if len(self.first_bytes) < 512:
                self.first_bytes += data[:512]
        if len(data) > size:
            self._ahead = memoryview(data)[size:]
            data = data[:size]
        return data

    def send(self, data: bytes) -> int:
        if self._greeted and data == _GREETING:
            self._greeted = False
            return len(data)
        sent: int = self._inner.send(data)
        return sent

    def settimeout(self, seconds: Optional[float]) -> None:
        self._inner.settimeout(seconds)

    def close(self) -> None:
        self._closed = True
        self._inner.close()
        if self._proxy:
            self._proxy.close()

    @property
    def said(self) -> str:
        """What the other side said in plain text before any SSH (`Exceeded MaxStartups`, an HTTP answer), on one line."""
        lines = self.first_bytes[:512].decode("ascii", "replace").splitlines()
        return " ".join(line for line in lines if line.isprintable() and not line.startswith("SSH-"))[:200].strip()

    @property
    def proxy_said(self) -> str:
        """What the proxy command wrote to standard error, on one line; empty without one."""
        return self._proxy.said if self._proxy else ""


class Proxy:
    """A running ProxyCommand. Speaks over one end of a socket pair, so that it behaves as a socket in every respect."""

    def __init__(self, command: str) -> None:
        import tempfile

        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the command
        self._last_words = ""
        self.socket, theirs = socket.socketpair()
        with theirs:
            # The user's own command from the user's own file, run by a shell as ssh does.
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._stderr,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """The end of its standard error, on one line."""
        if self._stderr.closed:
            return self._last_words
        with contextlib.suppress(OSError):
            size = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, size - 400))
            return " ".join(self._stderr.read().decode("utf-8", "replace").split())
        return ""

    def close(self) -> None:
        self.socket.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            self._process.terminate()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._last_words = self.said
        self._stderr.close()


def dial(host: Host) -> Stream:
    """Connect to the host, or start its proxy command. Raises NameNotFound, ConnectionRefused, ConnectTimeout, NoRoute, HandshakeFailed."""
    if host.proxy_command:
        proxy = Proxy(host.proxy_command)
        return Stream(proxy.socket, proxy)
    try:
        # As bytes where that will do: for text Python loads its tables for names in other scripts first.
        name = host.host.encode("ascii") if host.host.isascii() else host.host
        found = socket.getaddrinfo(name, host.port, _FAMILIES.get(host.address_family, socket.AF_UNSPEC), socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as problem:
        reason = problem.strerror if isinstance(problem, socket.gaierror) else "it is no host name"
        raise errors.NameNotFound(
            f"{host.address}: the name {host.host} cannot be resolved ({reason}).",
            "Check the spelling and this machine's DNS; a short name may need a Host entry in ssh_config.",
        ) from problem
    failures: list[OSError] = []
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(host.connect_timeout)
            connection.connect(address)
        except OSError as problem:
            connection.close()
            failures.append(problem)
            continue
        _tune(connection, host)
        return Stream(connection)
    raise _error(host, failures)


def _tune(connection: socket.socket, host: Host) -> None:
    # Without this, each of the handshake's small packets waits for a delayed acknowledgement: 40 ms a step (measured).
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux: what was sent must be acknowledged within this time, in ms
    if option is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, option, int(host.keepalive_seconds * host.keepalive_count * 1000))


def _error(host: Host, failures: list[OSError]) -> errors.WireError:
    """One error for all addresses tried: the one that says most."""
    if any(isinstance(failure, ConnectionRefusedError) for failure in failures):
        return errors.ConnectionRefused(
            f"{host.address}: connection refused. The machine is there, but no SSH server listens on port {host.port}.",
            "Start sshd there, or give the right port (user@HOST:PORT); a machine that is just booting needs a moment.",
        )
    if any(isinstance(failure, socket.timeout) or failure.errno == errno.ETIMEDOUT for failure in failures):
        return errors.ConnectTimeout(
            f"{host.address}: no answer within {host.connect_timeout:g} seconds.",
            "Check that the machine is up, the address is right, and no firewall or security group drops the port; --connect-timeout waits longer.",
        )
    if any(failure.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN) for failure in failures):
        return errors.NoRoute(f"{host.address}: no route to the host.", "Check this machine's network, VPN and the address.")
    reason = failures[-1].strerror if failures else "it has no address of the wanted family"
    return errors.HandshakeFailed(f"{host.address}: cannot connect: {reason}.", "Check the address and this machine's network.")
