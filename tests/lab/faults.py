"""A web server in bad weather: serves a folder as `server` does, and spoils chosen answers in every way that mirrors and networks do."""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

PORTAL = b"<!DOCTYPE html><html><head><title>Welcome</title></head><body>Accept the terms of this network to go on.</body></html>\n"
KINDS = ("status", "corrupt", "cut", "short", "hang", "stall", "trickle", "reset", "portal", "loop", "swap", "proxy-auth")


@dataclass(frozen=True)
class Fault:
    """What happens to requests whose path `where` (a regular expression) is found in.

    `kind`: status (answers with `code`), corrupt (one byte is another), cut (half of it, then the connection ends), short (half of it, as if that were all),
    hang (no answer), stall (half of it, then silence), trickle (a byte every tenth of a second), reset, portal (a captive portal's page, 200), loop (redirected to
    itself), swap (the content is that of the file `other`), proxy-auth (407). `methods` it concerns. `times`: how often, 0 for always.
    """

    where: str
    kind: str
    code: int = 500
    other: Optional[Path] = None
    methods: tuple[str, ...] = ("GET", "HEAD")
    times: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no such fault: {self.kind}")


@dataclass
class Weather:
    """The faults in force, and how often each has struck. Shared by the server's threads."""

    faults: list[Fault] = field(default_factory=list)
    struck: dict[Fault, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def sunny(self) -> None:
        """No faults from now on; what hangs is let go."""
        with self._lock:
            self.faults, self.struck = [], {}
        self.over.set()

    def brings(self, *faults: Fault) -> None:
        with self._lock:
            self.faults, self.struck = list(faults), {}
        self.over.clear()

    def on(self, method: str, path: str) -> Optional[Fault]:
        """The fault that strikes this request."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            for fault in self.faults:
                if method not in fault.methods or not re.search(fault.where, path):
                    continue
                count = self.struck.get(fault, 0)
                if fault.times and count >= fault.times:
                    continue
                self.struck[fault] = count + 1
                return fault
        return None

    def has_struck(self) -> bool:
        with self._lock:
            return bool(self.struck)


class FaultServer:
    """Serves `folder` at `url`; `weather` says what goes wrong. A context manager."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.weather = Weather()
        weather = self.weather

        def handler(*args: Any) -> _Handler:
            return _Handler(*args, directory=str(folder), weather=weather)

        self._server = _Server((address, 0), handler)
        self.port = int(self._server.server_address[1])
        self.url = f"http://{address}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="lab-faults", daemon=True)

    def start(self) -> FaultServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self.weather.sunny()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> FaultServer:
        return self.start()

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news here."""


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, weather: Weather, directory: str) -> None:
        self._weather = weather
        super().__init__(*args, directory=directory)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""

    def do_GET(self) -> None:
        fault = self._weather.on(self.command, self.path)
        if fault is None:
            super().do_GET()
        else:
            self._spoil(fault)

    def do_HEAD(self) -> None:
        fault = self._weather.on(self.command, self.path)
        if fault is None:
            super().do_HEAD()
        else:
            self._spoil(fault)

    def _spoil(self, fault: Fault) -> None:
        self.close_connection = True
        simple: dict[str, Callable[[], None]] = {
            "status": lambda: self.send_error(fault.code),
            "hang": self._wait,
            "reset": self._reset,
            "portal": lambda: self._answer(PORTAL, "text/html"),
            "loop": lambda: self._redirect(self.path),
            "proxy-auth": self._credentials,
        }
        if fault.kind in simple:
            simple[fault.kind]()
            return
        file = fault.other if fault.kind == "swap" and fault.other else Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        data = file.read_bytes()
        half = data[: len(data) // 2]
        if fault.kind == "corrupt":
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        if fault.kind in ("swap", "corrupt"):
            self._answer(data)
        elif fault.kind == "short":
            self._answer(half)
        elif fault.kind == "trickle":
            self._answer(data, slowly=True)
        else:
            self._answer(half, length=len(data))
            if fault.kind == "stall":
                self._wait()

    def _answer(self, data: bytes, kind: str = "application/octet-stream", length: Optional[int] = None, slowly: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        pieces = [data[at : at + 1] for at in range(len(data))] if slowly else [data]
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()
            if slowly and not self._weather.over.is_set():
                time.sleep(0.1)

    def _wait(self) -> None:
        """Silence, until the weather is better."""
        self.wfile.flush()
        self._weather.over.wait(600)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _redirect(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _credentials(self) -> None:
        self.send_response(407)
        self.send_header("Proxy-Authenticate", 'Basic realm="lab"')
        self.send_header("Content-Length", "0")
        self.end_headers()
