"""OpenSSH's own client against a lab host: an eye on the host that shares no code with mlhost."""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from tests.lab.keys import lab_keys
from tests.lab.need import LabError, tool


@dataclass(frozen=True)
class Result:
    """What a command on a lab host said. `code` 255 is ssh's own failure."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Ssh:
    """One address of a lab host. `prefix` are words put before ssh (such as `ip netns exec X`)."""

    host: str
    port: int
    known_hosts: Path
    user: str = "admin"
    prefix: tuple[str, ...] = ()

    def options(self) -> list[str]:
        """The options that ssh and scp share, the port excepted."""
        chosen = {
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "ServerAliveInterval": "10",
            "ServerAliveCountMax": "6",
            "LogLevel": "ERROR",
        }
        words = ["-F", "none", "-i", str(lab_keys().client)]
        for name, value in chosen.items():
            words += ["-o", f"{name}={value}"]
        return words

    def run(
        self,
        command: str,
        *,
        user: Optional[str] = None,
        stdin: str = "",
        check: bool = True,
        timeout: float = 600,
    ) -> Result:
        """Run a shell command line; LabError with both outputs if it fails and `check` holds."""
        words = [*self.prefix, tool("ssh", "openssh-client"), *self.options(), "-p", str(self.port)]
        words += [f"{user or self.user}@{self.host}", command]
        return self._call(words, command, stdin, check, timeout)

    def put(self, sources: list[Path], target: str, *, user: Optional[str] = None) -> None:
        """Copy files or folders into the folder `target` of the host, as tar through ssh."""
        names = " ".join(f"-C {shlex.quote(str(path.parent))} {shlex.quote(path.name)}" for path in sources)
        remote = f"mkdir -p {shlex.quote(target)} && tar -C {shlex.quote(target)} -xf -"
        words = [*self.prefix, tool("ssh", "openssh-client"), *self.options(), "-p", str(self.port)]
        words += [f"{user or self.user}@{self.host}", remote]
        line = f"tar --exclude=__pycache__ -cf - {names} | {shlex.join(words)}"
        self._call(["sh", "-c", line], line, "", True, 300)

    def wait(self, timeout: float, alive: Optional[subprocess.Popen[bytes]] = None) -> float:
        """Wait until a login works and return the seconds that took; LabError after `timeout` seconds."""
        start = time.monotonic()
        last = "no answer"
        while time.monotonic() - start < timeout:
            if alive is not None and alive.poll() is not None:
                raise LabError(f"the host's process ended with {alive.returncode}")
            if self.prefix or self._banner():
                done = self.run("true", check=False, timeout=60)
                if done.code == 0:
                    return time.monotonic() - start
                last = done.err.strip() or f"exit {done.code}"
            time.sleep(0.2)
        raise LabError(f"no ssh on {self.host}:{self.port} within {timeout:.0f} s: {last}")

    def _banner(self) -> bool:
        """Whether an ssh server speaks: a port forward takes connections before there is one behind it."""
        try:
            with socket.create_connection((self.host, self.port), timeout=2) as conn:
                conn.settimeout(1.5)
                return conn.recv(4) == b"SSH-"
        except OSError:
            return False

    def _call(self, words: list[str], shown: str, stdin: str, check: bool, timeout: float) -> Result:
        start = time.monotonic()
        try:
            done = subprocess.run(words, input=stdin.encode(), capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            if check:
                raise LabError(f"on {self.host}:{self.port}: no end after {timeout:.0f} s: {shown}") from None
            return Result(255, "", "timeout", timeout)
        out = done.stdout.decode("utf-8", "replace")
        err = done.stderr.decode("utf-8", "replace")
        if check and done.returncode != 0:
            raise LabError(f"on {self.host}:{self.port}: exit {done.returncode}: {shown}\n{out[-2000:]}{err[-2000:]}")
        return Result(done.returncode, out, err, time.monotonic() - start)
