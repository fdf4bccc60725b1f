"""A TCP proxy that delays: a long line on one machine, where the kernel has no netem."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from types import TracebackType
from typing import Optional

BLOCK = 1 << 16
Parcel = tuple[float, bytes]  # when it may be handed on, and what; no bytes means end of stream


class DelayProxy:
    """Listens on 127.0.0.1:`port` and hands every byte on to `target` after `one_way` seconds, each way.

    one_way=0.025 gives a round trip of 50 ms. Order is kept, throughput is not limited, and the end of one direction
    leaves the other open. Opening a connection costs a round trip too: the first bytes wait for both ways of the
    handshake, as they would on a long line. Use it as a context manager.
    """

    def __init__(self, target: tuple[str, int], one_way: float) -> None:
        self.target = target
        self.one_way = one_way
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="lab-delay", daemon=True)

    def start(self) -> DelayProxy:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening and cut what is open."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Drop every open connection, as a network does that goes away; new ones are still taken."""
        with self._lock:
            victims, self._open = self._open, []
        for victim in victims:
            with contextlib.suppress(OSError):
                victim.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> DelayProxy:
        return self.start()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), name="lab-delay-line", daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        opened = time.monotonic()
        try:
            far = socket.create_connection(self.target, timeout=30)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open += [near, far]
        # Loopback's handshake takes no time. On the long line the client could speak after two ways (heard after
        # three), and a server that speaks first has its connection after three (heard after four).
        out = _Line(near, far, self.one_way, opened + 3 * self.one_way)
        back = _Line(far, near, self.one_way, opened + 4 * self.one_way)
        for line in (out, back):
            line.start()
        for line in (out, back):
            line.join()
        with self._lock:
            self._open = [end for end in self._open if end is not near and end is not far]
        near.close()
        far.close()


class _Line:
    """One direction: a reader that stamps what arrives, and a writer that waits for the stamp."""

    def __init__(self, source: socket.socket, target: socket.socket, delay: float, not_before: float) -> None:
        self._source = source
        self._target = target
        self._delay = delay
        self._not_before = not_before
        # Bounded, so that a fast sender feels a slow reader at last.
        self._parcels: queue.Queue[Parcel] = queue.Queue(maxsize=512)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._write)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        data = b"start"
        while data:
            try:
                data = self._source.recv(BLOCK)
            except OSError:
                data = b""
            self._parcels.put((max(time.monotonic() + self._delay, self._not_before), data))

    def _write(self) -> None:
        broken = False
        while True:
            due, data = self._parcels.get()
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            if not data:
                with contextlib.suppress(OSError):
                    self._target.shutdown(socket.SHUT_WR)
                return
            if broken:
                continue  # keep draining, or the reader would block for ever
            try:
                self._target.sendall(data)
            except OSError:
                broken = True
                with contextlib.suppress(OSError):
                    self._source.shutdown(socket.SHUT_RD)
