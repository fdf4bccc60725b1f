"""Hosts made of Linux namespaces: ready in a tenth of a second, with this machine's kernel and a Debian of their own.

Each host has its own network, process, mount, UTS, IPC and cgroup namespace over a shared, read-only base tree.
Process 1 is sshd, or systemd where services, reboots or Docker matter. They sit on a bridge of this machine, in a part
of 10.77/16, with no route to anything else.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from tests.lab import tree
from tests.lab.cache import built_once, first_free, recipe_hash
from tests.lab.keys import lab_keys
from tests.lab.need import LabError, LabUnavailable, require_root, tool
from tests.lab.proxy import CachingProxy
from tests.lab.rundir import end_strays, new_run_folder, remember
from tests.lab.sshcli import Result, Ssh

NETWORKS = 16  # at a time on one machine, each of 4000 hosts
SUITE = "trixie"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3", "git", "ca-certificates"),
    *("iproute2", "procps", "less", "kmod"),
)
UNITS = (*tree.MASKED, "systemd-networkd.service", "systemd-networkd.socket", "getty.target", "console-getty.service")
BOOT_SECONDS = 60.0
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
REBOOTED = 129  # what unshare exits with when reboot(2) ends process 1 of its namespace by SIGHUP

# $1 folder, $2 base tree and what lies over it, $3 network namespace, $4 host name, $5 sshd|systemd, $6 cgroup2 mount or nothing
SUPERVISOR = r"""#!/bin/sh
set -u
folder=$1 cgroup=${6-}
cd "$folder" || exit 1
while :; do
    cat /proc/sys/kernel/random/uuid > boot_id
    if [ -n "$cgroup" ]; then
        mkdir -p "$cgroup/$3" && echo $$ > "$cgroup/$3/cgroup.procs" || exit 1
    fi
    nsenter --net="/run/netns/$3" unshare --mount --propagation private --uts --ipc --cgroup --pid --fork --kill-child \
        sh "$folder/init" "$@"
    rc=$?
    [ "$rc" = REBOOTED ] || exit "$rc"
done
"""
INIT = r"""#!/bin/sh
set -eu
folder=$1 base=$2 name=$4 kind=$5
root=$folder/root
mount -t overlay overlay -o "lowerdir=$base,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    rest=${node#*:}
    mknod -m 666 "$root/dev/${node%%:*}" c "${rest%:*}" "${rest#*:}"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
for link in fd: stdin:/0 stdout:/1 stderr:/2; do ln -s "/proc/self/fd${link#*:}" "$root/dev/${link%%:*}"; done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount --bind "$folder/boot_id" "$root/proc/sys/kernel/random/boot_id"
hostname "$name"
if [ "$kind" = systemd ]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    for data in docker containerd; do
        mkdir -p "$folder/$data" "$root/var/lib/$data"
        mount --bind "$folder/$data" "$root/var/lib/$data"
    done
    set -- /lib/systemd/systemd --log-target=journal
else
    mkdir -p "$root/run/sshd"
    set -- /usr/sbin/sshd -D
fi
cd "$root"
pivot_root . .
umount -l .
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=mlhost-lab chroot . "$@"
"""


class Network:
    """A bridge that namespace hosts sit on; a context manager that stops them all on exit.

    `address` is this machine's own on it: what listens there, the hosts can reach. Raises LabUnavailable where root, a tool or a kernel feature is missing.
    """

    def __init__(self) -> None:
        require_root("a namespace host")
        for name, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux"), ("mknod", "coreutils")):
            tool(name, package)
        if "overlay" not in Path("/proc/filesystems").read_text():
            subprocess.run(["modprobe", "overlay"], check=False, stderr=subprocess.DEVNULL)
            if "overlay" not in Path("/proc/filesystems").read_text():
                raise LabUnavailable("a namespace host needs overlayfs, which this kernel lacks")
        done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise LabUnavailable(f"a namespace host needs to make namespaces: {done.stderr.strip()}")
        # Each systemd needs several; where they run out it ends at once and says nothing.
        if int(INOTIFY.read_text()) < 1024:
            INOTIFY.write_text("1024\n")
        self.base = base_tree()
        self.hosts: list[NsHost] = []
        self.number, self._claim = first_free("network", NETWORKS)
        self.address = f"10.77.{self.number * 16}.1"
        self.bridge = f"mlhostlab{self.number}"

    def host(self, *, systemd: bool = False, name: str = "", suite: str = SUITE, over: Sequence[Path] = ()) -> NsHost:
        """Start a host of a Debian suite and return it without waiting for ssh. `over` are folders laid over the base tree, the uppermost first:
        copies of other hosts' `upper`, say, which must not change while it lives."""
        number = len(self.hosts) + 2  # one is this machine
        host = NsHost(self, number, name or f"h{number - 1}", systemd, self.base if suite == SUITE else base_tree(suite), over)
        self.hosts.append(host)
        host.start()
        return host

    def proxy(self, hosts_with_tls: list[str]) -> CachingProxy:
        """A caching proxy that the hosts can reach; start it as a context manager."""
        return CachingProxy(tls_hosts=hosts_with_tls, address=self.address)

    def __enter__(self) -> Network:
        end_strays()
        _ip("link", "delete", self.bridge, check=False)  # of a run that was killed
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.address}/20", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for host in self.hosts:
            host.stop()
        _ip("link", "delete", self.bridge, check=False)
        self._claim.close()


class NsHost:
    """One namespace host, at `address`:22."""

    port = 22

    def __init__(self, network: Network, number: int, name: str, systemd: bool, base: Path, over: Sequence[Path] = ()) -> None:
        self.name = name
        self.systemd = systemd
        self.base = base
        self.layers = ":".join(str(folder) for folder in (*over, base))
        self.address = f"10.77.{network.number * 16 + (number >> 8)}.{number & 255}"
        self.namespace = f"mlhostlab-{network.number}-{number}"
        self._bridge = network.bridge
        self._link = f"mlab{network.number}x{number}"
        self.folder = new_run_folder()
        known_hosts = self.folder / "known_hosts"
        known_hosts.write_text(lab_keys().known_hosts(self.address, 22))
        self.ssh = Ssh(self.address, 22, known_hosts)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make its namespace and start process 1."""
        self._make_network()
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "upper").chmod(0o755)
        tree.write(self.folder / "upper", {"etc/hostname": f"{self.name}\n", "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n"})
        tree.write(self.folder, {"init": INIT, "supervisor": SUPERVISOR.replace("REBOOTED", str(REBOOTED))})
        command = ["sh", str(self.folder / "supervisor"), str(self.folder), self.layers, self.namespace, self.name]
        command += ["systemd", str(_cgroup2())] if self.systemd else ["sshd"]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        remember(self.folder, self._process.pid)
        atexit.register(self.stop)

    def wait(self, timeout: float = BOOT_SECONDS) -> float:
        """Wait for a working login; returns the seconds that took."""
        try:
            return self.ssh.wait(timeout, self._process)
        except LabError as error:
            raise LabError(f"{error}\n{(self.folder / 'log').read_text(errors='replace')[-2000:]}") from None

    def run(self, command: str, *, user: str | None = None, stdin: str = "", check: bool = True, timeout: float = 600) -> Result:
        """Run a shell command line over OpenSSH's own client, as `admin` unless `user` says otherwise."""
        return self.ssh.run(command, user=user, stdin=stdin, check=check, timeout=timeout)

    def put(self, sources: list[Path], target: str, *, user: str | None = None) -> None:
        """Copy files or folders into a folder of the host."""
        self.ssh.put(sources, target, user=user)

    def boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id").out.strip()

    def reboot(self, timeout: float = BOOT_SECONDS) -> float:
        """Reboot from inside (systemd only) and wait for another boot id; returns seconds."""
        return self._other_boot(lambda: self.run("systemctl reboot", user="root", check=False), timeout)

    def use_proxy(self, proxy: CachingProxy) -> None:
        """Send the host's apt through a proxy that listens on the bridge."""
        self.run("cat > /etc/apt/apt.conf.d/00lab-proxy", user="root", stdin=proxy.apt_conf(proxy.url))

    def known_hosts(self) -> str:
        """The line that a known_hosts file needs for this host."""
        return self.ssh.known_hosts.read_text()

    def stop(self) -> None:
        """End all its processes and remove its files and its network."""
        atexit.unregister(self.stop)
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        _ip("netns", "delete", self.namespace, check=False)
        if self.systemd:
            _remove_cgroup(_cgroup2() / self.namespace)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _other_boot(self, order: Callable[[], object], timeout: float) -> float:
        before = self.boot_id()
        begin = time.monotonic()
        order()
        while time.monotonic() - begin < timeout:
            done = self.run("cat /proc/sys/kernel/random/boot_id", check=False, timeout=20)
            if done.code == 0 and done.out.strip() != before:
                return time.monotonic() - begin
            time.sleep(0.1)
        raise LabError(f"{self.name}: no new boot within {timeout:.0f} s")

    def _make_network(self) -> None:
        _ip("netns", "delete", self.namespace, check=False)
        _ip("link", "delete", self._link, check=False)
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        _ip("link", "set", self._link, "master", self._bridge, "up")
        for words in (["addr", "add", f"{self.address}/20", "dev", "eth0"], ["link", "set", "eth0", "up"], ["link", "set", "lo", "up"]):
            _ip("-n", self.namespace, *words)


def base_tree(suite: str = SUITE) -> Path:
    """The tree under all namespace hosts of a Debian suite, built on first use (about half a minute)."""
    public = [key.with_suffix(".pub").read_text() for key in (lab_keys().client, lab_keys().host)]
    recipe = [suite, PACKAGES, UNITS, tree.SUDOERS, tree.SSHD, public, 2]
    return built_once("bases", f"{suite}-{recipe_hash(recipe)}", lambda root: _build_base(root, suite))


def _build_base(root: Path, suite: str) -> None:
    tree.debootstrap(root, suite, PACKAGES)
    tree.furnish(root, "lab")
    tree.mask(root, UNITS)
    tree.chroot(root, "systemctl", "enable", "ssh.service")


def _cgroup2() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind = line.split()[:3]
        if kind == "cgroup2":
            return Path(where)
    raise LabUnavailable("a namespace host with systemd needs a cgroup2 mount on this machine")


def _remove_cgroup(group: Path) -> None:
    """Remove a group and what systemd made below it; its processes may take a moment to be gone."""
    for _ in range(50):
        for folder in sorted(group.rglob("*"), key=lambda path: -len(path.parts)):
            if folder.is_dir():
                with contextlib.suppress(OSError):
                    folder.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
        if not group.exists():
            return
        time.sleep(0.02)


def _ip(*words: str, check: bool = True) -> None:
    done = subprocess.run([tool("ip", "iproute2"), *words], check=False, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise LabError(f"ip {' '.join(words)}: {done.stderr.strip()}")
