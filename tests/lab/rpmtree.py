"""A folder in which the real dnf, zypper and rpm of Debian's packages work on an rpm database of their own.

Only the package managers are real there: the tree is a Debian one, its os-release and its repositories are those that a test writes.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Optional

from tests.lab.cache import built_once, recipe_hash
from tests.lab.need import LabError, LabUnavailable, require_root, tool
from tests.lab.tree import debootstrap, write

COMMON = ("rpm", "createrepo-c", "gnupg", "busybox", "ca-certificates", "curl")
# Suite and packages of each tree. Debian has dnf5 only in what is to become its next release.
TREES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "dnf4": ("trixie", (*COMMON, "dnf", "dnf-plugins-core", "zypper")),
    "dnf5": ("forky", (*COMMON, "dnf5")),
}
OS_RELEASE = 'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"\nPLATFORM_ID="platform:el9"\nPRETTY_NAME="lab double of Rocky Linux 9"\n'
SETTINGS = {
    "usr/lib/os-release": OS_RELEASE,
    # without it dnf keeps a copy of every package in a repository of its own
    "etc/dnf/plugins/local.conf": "[main]\nenabled=0\n",
    "etc/dnf/libdnf5-plugins/local.conf": "[main]\nname = local\nenabled = false\n",
    "etc/dnf/plugins/versionlock.list": "",
    "etc/dnf/vars/releasever": "9\n",
    "etc/products.d/.lab": "",
    "etc/yum.repos.d/.lab": "",
    "etc/zypp/repos.d/.lab": "",
}


def rpm_tree(kind: str) -> Path:
    """The tree `dnf4` (with zypper) or `dnf5`, built once in about a minute. LabUnavailable where Debian's archive cannot give it."""
    suite, packages = TREES[kind]

    def build(folder: Path) -> None:
        try:
            # a mirror may keep an old snapshot of a suite that changes every day
            debootstrap(folder, suite, packages, ['--aptopt=Acquire::Check-Valid-Until "false"'])
        except LabError as error:
            raise LabUnavailable(f"the tree {kind} cannot be built from {suite}: {error}") from error
        # so that nothing takes it for the Debian that it is
        shutil.rmtree(folder / "var/lib/dpkg")
        shutil.rmtree(folder / "var/cache/apt", ignore_errors=True)
        write(folder, SETTINGS)

    return built_once("rpmtree", f"{kind}-{recipe_hash([suite, packages, SETTINGS])}", build)


def built_tdnf() -> Path:
    """The folder in $MLHOST_LAB_TDNF that holds tdnf, installed under it; LabUnavailable without one.

    Debian has no tdnf. From its source (github.com/vmware/tdnf), in the suite of the tree `dnf4`: `cmake -DCMAKE_INSTALL_PREFIX=/usr
    -DCMAKE_INSTALL_LIBDIR=lib .. && make && DESTDIR=FOLDER make install`.
    """
    named = os.environ.get("MLHOST_LAB_TDNF", "")
    if not named or not (Path(named) / "usr/bin/tdnf").exists():
        raise LabUnavailable("tdnf is in no Debian; $MLHOST_LAB_TDNF can name a folder with one that was built from its source")
    return Path(named)


class RpmHost:
    """A tree that may be written to: an overlay in a mount namespace of its own, gone with it. The network is this machine's.

    `binds` are folders of this machine by the place where they show up inside.
    """

    def __init__(self, base: Path, work: Path, binds: Optional[Mapping[str, Path]] = None) -> None:
        require_root("mounting a tree")
        self._unshare, self._nsenter = tool("unshare", "util-linux"), tool("nsenter", "util-linux")
        self.base, self.work = base, work
        self.merged = work / "merged"
        for name in ("upper", "scratch", "merged"):
            (work / name).mkdir(parents=True, exist_ok=True)
        mounts = [
            f"mount -t overlay overlay -o lowerdir={base},upperdir={work}/upper,workdir={work}/scratch {self.merged}",
            f"mount --rbind /dev {self.merged}/dev",
            f"mount -t proc proc {self.merged}/proc",
            f"mount -t tmpfs tmpfs {self.merged}/run",
        ]
        for place, folder in (binds or {}).items():
            mounts.append(f"mkdir -p {self.merged}{place} && mount --bind {folder} {self.merged}{place}")
        script = " && ".join([*mounts, "echo ready", "exec sleep 3600"])
        self._keeper = subprocess.Popen(
            [self._unshare, "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != b"ready\n":
            assert self._keeper.stderr is not None
            said = self._keeper.stderr.read().decode()
            self.close()
            raise LabUnavailable(f"a tree cannot be mounted here: {said}")

    def path(self, name: str) -> Path:
        """Where a file of the tree is found from outside."""
        return Path(f"/proc/{self._keeper.pid}/root{self.merged}/{name.lstrip('/')}")

    def run(
        self, *command: str, stdin: str = "", env: Optional[Mapping[str, str]] = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the tree; stdout and stderr come together."""
        words = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root", **(env or {})}
        return subprocess.run(
            [self._nsenter, "--target", str(self._keeper.pid), "--mount", "chroot", str(self.merged), *command],
            input=stdin, env=words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout, check=False,
        )

    def command(self, *command: str) -> str:
        """The same as a text for a shell of this machine, for callers that put something around it."""
        return shlex.join([self._nsenter, "--target", str(self._keeper.pid), "--mount", "chroot", str(self.merged), *command])

    def must(self, *command: str, stdin: str = "") -> str:
        """The output of a command that has to work."""
        done = self.run(*command, stdin=stdin)
        if done.returncode != 0:
            raise LabError(f"{' '.join(command)[:200]} failed with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def popen(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command in the tree."""
        return subprocess.Popen(
            [self._nsenter, "--target", str(self._keeper.pid), "--mount", "chroot", str(self.merged), *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """End the namespace; its mounts go with it, and so do the daemons that package managers have left in it (gpg-agent)."""
        own = ""
        with contextlib.suppress(OSError):  # it may have ended by itself
            own = os.readlink(f"/proc/{self._keeper.pid}/ns/mnt")
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if own and int(process.name) != self._keeper.pid and os.readlink(process / "ns/mnt") == own:
                    os.kill(int(process.name), signal.SIGKILL)
        self._keeper.kill()
        self._keeper.wait()
        for stream in (self._keeper.stdout, self._keeper.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> RpmHost:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
