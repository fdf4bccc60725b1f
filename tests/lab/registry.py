"""A real container registry: Debian's docker-registry program on this machine's loopback."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Optional

from tests.lab.need import LabError, tool

CONFIG = """version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}/data}}
  delete: {{enabled: true}}
http:
  addr: {host}:{port}
"""


class Registry:
    """The registry at `address` (127.0.0.1:PORT); QEMU guests reach it at `guest_address`, over plain http.

    Guests need `guest_address` under `insecure-registries`, and so do namespace hosts `address` where `host` is the bridge's. `more` is further text of its config file, such as an `auth:` section.
    Raises LabUnavailable without the program.
    """

    def __init__(self, folder: Optional[Path] = None, more: str = "", host: str = "127.0.0.1") -> None:
        self._program = tool("docker-registry", "docker-registry")
        self._own_folder = folder is None
        self._more = more
        self.folder = folder or Path(tempfile.mkdtemp(prefix="lab-registry-"))
        with socket.socket() as probe:
            probe.bind((host, 0))
            self.port = int(probe.getsockname()[1])
        self.host = host
        self.address = f"{host}:{self.port}"
        self.guest_address = f"10.0.2.2:{self.port}"
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> Registry:
        config = self.folder / "config.yml"
        config.write_text(CONFIG.format(folder=self.folder, host=self.host, port=self.port) + self._more)
        with open(self.folder / "log", "ab") as log:
            command = [self._program, "serve", str(config)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return self
            time.sleep(0.05)
        said = (self.folder / "log").read_text(errors="replace")
        self.stop()
        raise LabError(f"docker-registry did not come up: {said[-1000:]}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Registry:
        return self.start()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()

    def _answers(self) -> bool:
        conn = http.client.HTTPConnection(self.host, self.port, timeout=2)
        try:
            conn.request("GET", "/v2/")
            return conn.getresponse().status in (200, 401)
        except OSError:
            return False
        finally:
            conn.close()
