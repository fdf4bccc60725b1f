"""A small caching forward proxy for apt: what a mirror never changes (/pool/, /by-hash/) is fetched once."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import select
import socket
import tempfile
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Optional
from urllib.parse import urlsplit

from tests.lab.cache import cache_root

BLOCK = 1 << 16
SLIRP_HOST = "10.0.2.2"  # what a QEMU guest on user networking calls this machine's loopback
PASS_ON = ("Content-Type", "Content-Length", "Last-Modified", "ETag", "Location")


class CachingProxy:
    """An HTTP proxy at `address` that keeps immutable files in `folder`.

    `tls_hosts` are fetched by https although the client asked by http. With `credentials` (NAME:PASSWORD) it answers 407 to everybody else.
    Use it as a context manager.
    """

    def __init__(
        self,
        folder: Optional[Path] = None,
        tls_hosts: Iterable[str] = (),
        address: str = "127.0.0.1",
        credentials: str = "",
    ) -> None:
        self.authorization = f"Basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        self.folder = folder or cache_root() / "proxy"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tls_hosts = frozenset(tls_hosts)
        self._server = _Server((address, 0), _Handler)
        self._server.lab = self
        self.host = str(self._server.server_address[0])
        self.port = int(self._server.server_address[1])
        self.url = f"http://{self.host}:{self.port}"
        self.guest_url = f"http://{SLIRP_HOST}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="lab-proxy", daemon=True)

    def apt_conf(self, url: Optional[str] = None) -> str:
        """apt configuration text that sends a guest's apt through this proxy, but not to the lab's own servers."""
        host = SLIRP_HOST if url is None else urlsplit(url).hostname
        return f'Acquire::http::Proxy "{url or self.guest_url}";\nAcquire::http::Proxy::{host} "DIRECT";\n'

    def start(self) -> CachingProxy:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> CachingProxy:
        return self.start()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    lab: CachingProxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests read apt's own output."""

    def _welcome(self) -> bool:
        wanted = self.server.lab.authorization
        if not wanted or self.headers.get("Proxy-Authorization") == wanted:
            return True
        self.send_response(407, "Proxy Authentication Required")
        self.send_header("Proxy-Authenticate", 'Basic realm="lab"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def do_GET(self) -> None:
        if not self._welcome():
            return
        kept = self._kept_path()
        if kept is not None and kept.exists() and self.command == "GET":
            self._send_kept(kept)
            return
        try:
            self._forward(kept)
        except (OSError, http.client.HTTPException) as error:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.send_error(502, f"lab proxy: {error}")

    do_HEAD = do_GET

    def do_CONNECT(self) -> None:
        """Tunnel https untouched."""
        if not self._welcome():
            return
        host, _, port = self.path.rpartition(":")
        try:
            far = socket.create_connection((host, int(port)), timeout=30)
        except OSError as error:
            self.send_error(502, f"lab proxy: {error}")
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        self.close_connection = True
        with far:
            _splice(self.connection, far)

    def _kept_path(self) -> Optional[Path]:
        if "/pool/" not in self.path and "/by-hash/" not in self.path:
            return None
        return self.server.lab.folder / hashlib.sha256(self.path.encode()).hexdigest()

    def _send_kept(self, kept: Path) -> None:
        with open(kept, "rb") as source:
            self.send_response(200)
            self.send_header("Content-Length", str(os.fstat(source.fileno()).st_size))
            self.end_headers()
            while True:
                block = source.read(BLOCK)
                if not block:
                    break
                self.wfile.write(block)

    def _forward(self, kept: Optional[Path]) -> None:
        parts = urlsplit(self.path)
        if not parts.netloc:
            self.send_error(400, "lab proxy: the request names no host")
            return
        upstream = self._upstream(parts.netloc)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        skip = ("proxy-connection", "proxy-authorization", "connection", *(("range", "if-range") if kept else ()))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in skip}
        with contextlib.closing(upstream):
            upstream.request(self.command, path, headers=headers)
            answer = upstream.getresponse()
            self.send_response(answer.status, answer.reason)
            for name in (*PASS_ON, "Content-Range"):
                value = answer.getheader(name)
                if value is not None:
                    self.send_header(name, value)
            bodiless = self.command == "HEAD" or answer.status in (204, 304)
            if answer.getheader("Content-Length") is None and not bodiless:
                self.send_header("Connection", "close")
                self.close_connection = True
            self.end_headers()
            if not bodiless:
                self._copy(answer, kept if answer.status == 200 else None)

    def _upstream(self, netloc: str) -> http.client.HTTPConnection:
        host, _, port = netloc.partition(":")
        if netloc in self.server.lab.tls_hosts:
            return http.client.HTTPSConnection(netloc, timeout=120)
        if host == SLIRP_HOST:
            host = "127.0.0.1"
        return http.client.HTTPConnection(host, int(port or 80), timeout=120)

    def _copy(self, answer: http.client.HTTPResponse, kept: Optional[Path]) -> None:
        if kept is None:
            while True:
                block = answer.read(BLOCK)
                if not block:
                    return
                self.wfile.write(block)
        expected = answer.length
        handle, name = tempfile.mkstemp(dir=str(kept.parent))
        size = 0
        try:
            with os.fdopen(handle, "wb") as target:
                while True:
                    block = answer.read(BLOCK)
                    if not block:
                        break
                    size += len(block)
                    target.write(block)
                    self.wfile.write(block)
            if expected is None or size == expected:
                os.replace(name, kept)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


def _splice(near: socket.socket, far: socket.socket) -> None:
    pairs = {near: far, far: near}
    while True:
        ready, _, _ = select.select(list(pairs), [], [], 300)
        if not ready:
            return
        for source in ready:
            data = source.recv(BLOCK)
            if not data:
                return
            pairs[source].sendall(data)
