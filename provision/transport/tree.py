"""A tree (an unpacked or mounted system) as a transport: each script runs inside it, in a room of its own.

A room has its own mounts and processes (`scripts/room.sh`): the machine that it is on sees neither, and nothing is left of them when the script has
ended, nor when mlhost is killed, as the kernel ends the room with the process that opened it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
from collections.abc import Callable
from types import TracebackType
from typing import Optional

from provision.errors import Failed, UsageError
from provision.model import Disk
from provision.shipped import shipped
from provision.transport.collect import MAX_OUTPUT, Collector, RunResult
from provision.transport.local import kill, pump
from provision.transport.shell import call

NO_ROOM = 124
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_UNSHARE = ("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-c")
# The way out of a closed network is the caller's; nothing else of the caller's environment has any business in an image.
_HANDED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_PR_SET_PDEATHSIG = 1  # prctl(2)


class TreeTransport:
    """Runs scripts inside the tree at `root`, as root. A context manager that keeps other mlhosts out of the tree.

    With `quiet` the scripts only read: nothing is put into the tree for them. Raises UsageError for a folder that is no system's tree, or that nothing can be written to, and Failed where this process is not root.
    """

    def __init__(self, root: str, quiet: bool = False) -> None:
        self._kind = "quiet" if quiet else "whole"
        self.root = os.path.realpath(root)
        self.name = self.root
        _check(root, self.root)
        self._hold: Optional[int] = None

    def run(
        self,
        script: str,
        *args: str,
        sudo: bool = False,
        timeout: Optional[float] = None,
        on_output: Optional[Callable[[bytes], None]] = None,
        max_output: int = MAX_OUTPUT,
    ) -> RunResult:
        """See `provision.transport.Transport.run`. It is always root's."""
        return self._run(self._kind, script, args, timeout, on_output, max_output)

    def look(self, script: str, *args: str, timeout: Optional[float] = None, max_output: int = MAX_OUTPUT) -> RunResult:
        """Run a script that only reads: the tree as it lies there, without anything of the running kernel, and nothing in it is changed."""
        return self._run("bare", script, args, timeout, None, max_output)

    def disk(self) -> Disk:
        """The free space of the file system that the tree is on."""
        found = os.statvfs(self.root)
        unit = found.f_frsize / 1024
        inodes = found.f_favail if found.f_files else None
        return Disk("/", self.root, int(found.f_bavail * unit), int(found.f_blocks * unit), inodes)

    def _run(
        self, kind: str, script: str, args: tuple[str, ...], timeout: Optional[float], on_output: Optional[Callable[[bytes], None]], max_output: int
    ) -> RunResult:
        framed = call(script, args)
        collector = Collector(framed, self.name, on_output=on_output, max_output=max_output, timeout=timeout)
        try:
            process = subprocess.Popen(
                [*_UNSHARE, shipped("scripts/room.sh"), "room", self.root, kind, *framed.argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                start_new_session=True,
                env=_environment(),
                bufsize=0,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - one system call, no lock is taken
            )
        except OSError as problem:
            raise Failed(f"unshare cannot be started: {problem.strerror}.", "Install util-linux; work inside a tree needs its unshare.") from problem
        with process:  # closes the pipes and reaps
            try:
                pump(process, framed, collector)
            except BaseException:
                kill(process)
                raise
        if not collector.pid:
            raise Failed(
                f"{self.name}: nothing can be run inside this tree (exit {process.returncode}). It said: {collector.noise or 'nothing'}",
                "It must be a system for this machine's processor, with a shell, and mlhost must be real root here (in a container: a privileged one).",
            )
        return collector.result(process.returncode if process.returncode >= 0 else 128 - process.returncode)

    def close(self) -> None:
        """Nothing to close here."""

    def __enter__(self) -> TreeTransport:
        hold = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(hold)
            raise Failed(f"Another mlhost is at work in {self.root}.", "Wait for it, then run this again.") from None
        self._hold = hold
        return self

    def __exit__(self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        if self._hold is not None:
            os.close(self._hold)
            self._hold = None


def _check(given: str, root: str) -> None:
    name = "Name the top of an unpacked or mounted system."
    if os.geteuid() != 0:
        raise Failed(f"Working inside {given} needs root.", "Run it with sudo.")
    if not os.path.isdir(root):
        raise UsageError(f"--root {given} is not a directory.", name)
    if os.path.samefile(root, "/"):
        raise UsageError("--root / is this machine itself.", "Leave --root out to set this machine up.")
    missing = [part for part in ("usr", "etc", "var", "dev") if not os.path.isdir(os.path.join(root, part))]
    release = any(os.path.lexists(os.path.join(root, part)) for part in ("etc/os-release", "usr/lib/os-release"))
    shell = any(os.path.lexists(os.path.join(root, part)) for part in ("bin/sh", "usr/bin/sh"))
    if missing or not release or not shell:
        lacks = missing[0] if missing else "etc/os-release" if not release else "bin/sh"
        raise UsageError(f"--root {given} is no unpacked system: it has no {lacks}.", name)
    if os.statvfs(root).f_flag & os.ST_RDONLY:
        raise UsageError(f"--root {given} is read-only.", "Mount it writable: mount -o remount,rw …")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    return {"PATH": _PATH, "HOME": "/root", "TERM": "dumb", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "SYSTEMD_OFFLINE": "1", **kept}


def _die_with(parent: int) -> Callable[[], None]:
    """For the child: the kernel is to kill it when `parent` ends, be it by a SIGKILL; `unshare --kill-child` hands that on to the room."""
    prctl = ctypes.CDLL(None).prctl

    def die() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(NO_ROOM)

    return die
