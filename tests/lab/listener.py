"""A plain http server on this machine's loopback that takes what is sent to it: where a machine that sets itself up reports to."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Optional

from tests.lab.server import GUEST_SEES_HOST_AS


@dataclass(frozen=True)
class Heard:
    """One request that was answered with 200. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Listener:
    """Takes POST and PUT at `url` (a QEMU guest on user networking: `guest_url`); the first `refuse` requests are answered with 503.

    Use it as a context manager.
    """

    def __init__(self, refuse: int = 0) -> None:
        self.heard: list[Heard] = []
        self.refused = 0
        self._refuse = refuse
        self._news = threading.Condition()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.lab = self
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.guest_url = f"http://{GUEST_SEES_HOST_AS}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="lab-listener", daemon=True)

    def wait(self, seconds: float, count: int = 1) -> bool:
        """Wait until so many requests were taken; whether they were in time."""
        with self._news:
            return self._news.wait_for(lambda: len(self.heard) >= count, seconds)

    def take(self, heard: Heard) -> int:
        """Remember a request; the status to answer with."""
        with self._news:
            if self.refused < self._refuse:
                self.refused += 1
                return 503
            self.heard.append(heard)
            self._news.notify_all()
            return 200

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    lab: Listener


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(self.server.lab.take(Heard(self.command, self.path, headers, body)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""
