"""A host in a mount and a process namespace: the lab's Debian without an init, ready in a twentieth of a second, to be killed hundreds of times.

Real: the file tree, dpkg, apt, the shells, process ids, a boot id of its own. Not there: systemd, sshd, a network of its own (it has this
machine's). What runs in it is started by nsenter; `power_cycle` kills everything at once and starts it again with an empty /run and another boot id.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Optional

from provision.transport.collect import MAX_OUTPUT, Collector, RunResult
from provision.transport.local import pump
from provision.transport.shell import call
from tests.lab.need import LabError, LabUnavailable, require_root, tool
from tests.lab.nshost import base_tree

# $1 folder, $2 lower layers; a file named ready-PID says that it is up. Its process 1 does nothing but bury the dead.
INIT = r"""
set -eu
folder=$1 lower=$2
root=$folder/root
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys" && mount --make-rslave "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    rest=${node#*:}
    mknod -m 666 "$root/dev/${node%%:*}" c "${rest%:*}" "${rest#*:}"
done
for link in fd: stdin:/0 stdout:/1 stderr:/2; do ln -s "/proc/self/fd${link#*:}" "$root/dev/${link%%:*}"; done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount --bind "$folder/boot_id" "$root/proc/sys/kernel/random/boot_id"
if [ -x "$folder/boot" ]; then "$folder/boot" "$root"; fi
cd "$root"
pivot_root . .
umount -l .
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . sh -c ': >/run/up; while :; do sleep 3600 & wait; done'
"""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class TreeHost:
    """One such host over `below` (upper folders of other hosts, the uppermost first) and `base` (the lab's base tree). A context manager.

    `boot` is an sh script run at every start with the root folder as its argument, before anything runs in it. Its files are in memory where this
    machine has /dev/shm, so that nothing waits for a disk. It is also a transport (`provision.transport.Transport`).
    """

    name = "tree"

    def __init__(self, below: Sequence[Path] = (), boot: str = "", base: Optional[Path] = None) -> None:
        require_root("a host in namespaces")
        for program in ("unshare", "nsenter"):
            tool(program, "util-linux")
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix=f"mlhost-tree-{os.getpid()}-", dir=str(memory) if os.access(memory, os.W_OK) else None))
        self.folder.chmod(0o755)
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir()
        self.upper = self.folder / "upper"
        self.lower = ":".join(map(str, [*below, base or base_tree()]))
        if boot:
            (self.folder / "boot").write_text(boot)
            (self.folder / "boot").chmod(0o755)
        self._unshare: Optional[subprocess.Popen[bytes]] = None
        self._pid = 0

    def start(self) -> TreeHost:
        (self.folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        command = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "sh", "-c", INIT, "init"]
        self._unshare = subprocess.Popen(
            [*command, str(self.folder), self.lower], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        end = time.monotonic() + 20
        while time.monotonic() < end and self._unshare.poll() is None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                self._pid = int(children.read_text().split()[0])
                if Path(f"/proc/{self._pid}/root/run/up").exists():
                    return self
            time.sleep(0.01)
        self._unshare.kill()
        _, said = self._unshare.communicate()
        if b"ermitted" in said:
            raise LabUnavailable(f"this machine makes no namespaces: {said.decode()}")
        raise LabError(f"the tree host did not start: {said.decode()}")

    def power_off(self) -> None:
        """Every process of it is killed at once; the files stay."""
        if self._unshare is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._unshare.kill()
        self._unshare.communicate()
        # the overlay can be mounted again when the last of its processes is gone
        end = time.monotonic() + 20
        while Path(f"/proc/{self._pid}/root").exists() and time.monotonic() < end:
            time.sleep(0.005)
        self._unshare = None

    def power_cycle(self) -> None:
        self.power_off()
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        (self.folder / "work").mkdir()
        self.start()

    def stop(self) -> None:
        self.power_off()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> TreeHost:
        return self.start()

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.stop()

    @property
    def root(self) -> Path:
        """The running host's root folder, to read and to write. Its `upper` may only be read while it runs."""
        return Path(f"/proc/{self._pid}/root")

    def words(self, *command: str) -> list[str]:
        """The command line on this machine that runs `command` in the host."""
        where = ["nsenter", "--target", str(self._pid), "--mount", "--pid", "--root", "--wdns=/"]
        return [*where, "env", "-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C", *command]

    def sh(self, text: str, check: bool = True) -> str:
        """What a piece of shell prints there."""
        done = subprocess.run(self.words("sh", "-s"), input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if check and done.returncode != 0:
            raise LabError(f"{text}\nended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def run(
        self,
        script: str,
        *args: str,
        sudo: bool = False,
        timeout: Optional[float] = None,
        on_output: Optional[Callable[[bytes], None]] = None,
        max_output: int = MAX_OUTPUT,
    ) -> RunResult:
        """See `provision.transport.Transport.run`; it is root already."""
        framed = call(script, args)
        collector = Collector(framed, self.name, on_output=on_output, max_output=max_output, timeout=timeout)
        process = subprocess.Popen(
            self.words(*framed.argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        with process:
            try:
                pump(process, framed, collector)
            except BaseException:
                process.kill()
                raise
        return collector.result(process.returncode if process.returncode >= 0 else 128 - process.returncode)

    def close(self) -> None:
        """Nothing to close."""
