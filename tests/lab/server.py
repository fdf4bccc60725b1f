"""A plain http server for a folder, on this machine's loopback, that remembers what it was asked."""

from __future__ import annotations

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

GUEST_SEES_HOST_AS = "10.0.2.2"


class FileServer:
    """Serves `folder` at `url`; a QEMU guest on user networking reaches it at `guest_url`.

    `requests` lists `METHOD PATH STATUS` in the order of arrival. Use it as a context manager.
    """

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.requests: list[str] = []
        handler = functools.partial(_Handler, directory=str(folder), requests=self.requests)
        self._server = _Server((address, 0), handler)
        self.port = int(self._server.server_address[1])
        self.url = f"http://{address}:{self.port}"
        self.guest_url = f"http://{GUEST_SEES_HOST_AS}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="lab-files", daemon=True)

    def start(self) -> FileServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> FileServer:
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


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, requests: list[str], **kwargs: Any) -> None:
        self._requests = requests
        super().__init__(*args, **kwargs)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        self._requests.append(f"{self.command} {self.path} {int(code) if str(code).isdigit() else code}")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on stderr."""
