"""Vagrant with libvirt in namespaces of its own: its files, sockets, networks and machines are gone with it, and this machine's own libvirt is not touched.

Real: Vagrant, vagrant-libvirt, libvirtd, QEMU, dnsmasq, the machines (emulated). The box is the lab's own disk image.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Optional

from tests.lab import tree
from tests.lab.image import Image
from tests.lab.keys import lab_keys
from tests.lab.need import LabError, LabUnavailable, tool
from tests.lab.nshost import Network
from tests.lab.proxy import CachingProxy
from tests.lab.qemu import Qemu, find_qemu
from tests.lab.rundir import new_run_folder, remember

BOX = "mlhost-lab"
NAMESPACE = "mlhostvagrant"
QEMU_CONF = 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = []\nnamespaces = []\nstdio_handler = "file"\n'
LIBVIRTD_CONF = 'auth_unix_ro = "none"\nauth_unix_rw = "none"\n'
# $1 folder, $2 QEMU's modules or nothing: libvirt's places become this land's own before libvirtd starts. It wants its user to exist, though it is
# told to use root; and a QEMU from a tree must not find the modules of this machine's.
INIT = r"""
set -eu
folder=$1
for part in etc var/lib var/cache var/log run; do
    mkdir -p "$folder/$part" "/$part/libvirt"
    mount --bind "$folder/$part" "/$part/libvirt"
done
for list in passwd group; do
    { cat "/etc/$list"; grep -q ^libvirt-qemu: "/etc/$list" || echo libvirt-qemu:x:64055:$([ "$list" = group ] || echo 64055::/nonexistent:/usr/sbin/nologin); } >"$folder/$list"
    mount --bind "$folder/$list" "/etc/$list"
done
modules=/usr/lib/x86_64-linux-gnu/qemu
if [ -n "$2" ] && [ -d "$modules" ]; then mount --bind "$2" "$modules"; fi
libvirtd & # not process 1 itself: that must bury QEMUs that probed and ended, or libvirtd waits for each of them
wait $!
"""
# What QEMU 10 and newer know and libvirt asks for; the kernel is given, as the image has no boot loader.
BOX_FILE = """\
Vagrant.configure("2") do |config|
  config.ssh.username = "admin"
  config.ssh.private_key_path = "{key}"
  config.ssh.insert_key = false
  config.vm.provider :libvirt do |p|
    p.driver = "qemu"
    p.emulator_path = "{emulator}"
    p.cpu_mode = "custom"
    p.cpu_model = "qemu64"
    p.kernel = "{kernel}"
    p.initrd = "{initrd}"
    p.cmd_line = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off no_timer_check"
    p.disk_driver cache: "unsafe"
    p.graphics_type = "none"
    p.video_type = "none"
  end
end
"""
# ~/.vagrant.d/Vagrantfile, as a user behind a proxy has one
HOME_FILE = """\
Vagrant.configure("2") do |config|
  config.vm.provision "shell", inline: <<-'SH'
cat >/etc/apt/apt.conf.d/00lab-proxy <<'EOF'
{apt}EOF
SH
end
"""


@dataclass(frozen=True)
class Said:
    """A command's exit code and all it said."""

    code: int
    text: str


class VagrantLand:
    """A libvirtd and a Vagrant with one box, `BOX`. A context manager. `proxy` is where the machines' apt goes; it listens on the network's bridge.

    Raises LabUnavailable where this machine has no Vagrant, libvirtd or root.
    """

    def __init__(self, checkout: Path, image: Image, network: Network, proxy: CachingProxy) -> None:
        for program, package in (
            *(("vagrant", "vagrant"), ("libvirtd", "libvirt-daemon"), ("dnsmasq", "dnsmasq-base"), ("iptables", "iptables")),
            *(("nsenter", "util-linux"), ("ip", "iproute2")),
        ):
            tool(program, package)
        if not Path("/dev/net/tun").exists():
            raise LabUnavailable("libvirt's machines need /dev/net/tun, which this machine has not")
        self.checkout, self.image, self.network, self.proxy = checkout, image, network, proxy
        self.folder = new_run_folder()
        self.folder.chmod(0o755)
        self.dotfiles = self.folder / "vagrant"
        self.name = f"{NAMESPACE}{network.number}"
        self._daemon: Optional[subprocess.Popen[bytes]] = None

    def run(self, *words: str, environment: Optional[dict[str, str]] = None, timeout: float = 3000) -> Said:
        """A command in the land, from the checkout's folder (`vagrant`, `virsh`, python …)."""
        if self._daemon is None or self._daemon.poll() is not None:
            raise LabError(f"libvirtd has ended:\n{self._log()}")
        children = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children").read_text().split()
        env = {name: value for name, value in os.environ.items() if not name.startswith(("VAGRANT_", "LIBVIRT_", "MLHOST", "SSH_AUTH"))}
        env |= {"VAGRANT_HOME": str(self.folder / "home"), "VAGRANT_DOTFILE_PATH": str(self.dotfiles), "VAGRANT_DEFAULT_PROVIDER": "libvirt"}
        env |= {"VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_NO_COLOR": "1", **(environment or {})}
        done = subprocess.run(
            ["nsenter", "--target", children[0], "--mount", "--net", f"--wdns={self.checkout}", *words],
            env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False,
        )
        return Said(done.returncode, done.stdout)

    def start(self) -> VagrantLand:
        self._own_network()
        tree.write(self.folder / "etc", {"qemu.conf": QEMU_CONF, "libvirtd.conf": LIBVIRTD_CONF})
        where = find_qemu().where
        modules = f"{where}/usr/lib/x86_64-linux-gnu/qemu" if where else ""
        command = ["nsenter", f"--net=/run/netns/{self.name}", "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child"]
        with open(self.folder / "libvirtd.log", "ab") as log:
            self._daemon = subprocess.Popen(
                [*command, "sh", "-c", INIT, "init", str(self.folder), modules], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        remember(self.folder, self._daemon.pid)
        end = time.monotonic() + 120
        while not (self.folder / "run/libvirt-sock").exists():
            if self._daemon.poll() is not None or time.monotonic() > end:
                raise LabError(f"libvirtd did not start:\n{self._log()}")
            time.sleep(0.1)
        self._add_box()
        return self

    def _log(self) -> str:
        return (self.folder / "libvirtd.log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        if self._daemon is not None:
            if self._daemon.poll() is None:
                os.killpg(self._daemon.pid, signal.SIGKILL)
            self._daemon.wait()
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> VagrantLand:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.stop()

    def _own_network(self) -> None:
        """A network namespace on the lab's bridge, from which libvirt's own network leads on."""
        first, _, rest = self.network.address.rpartition(".")
        assert rest == "1"
        link = f"mlabv{self.network.number}"
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
        for words in (
            ["netns", "add", self.name],
            ["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.name],
            ["link", "set", link, "master", self.network.bridge, "up"],
            ["-n", self.name, "addr", "add", f"{first}.254/20", "dev", "eth0"],
            ["-n", self.name, "link", "set", "eth0", "up"],
            ["-n", self.name, "link", "set", "lo", "up"],
        ):
            _checked(["ip", *words])

    def _add_box(self) -> None:
        qemu = find_qemu()
        emulator = self.folder / "qemu-system-x86_64"
        emulator.write_text(_wrapper(qemu))
        emulator.chmod(0o755)
        box = self.folder / "box"
        values = {"key": lab_keys().client, "emulator": emulator, "kernel": self.image.kernel, "initrd": self.image.initrd}
        tree.write(box, {"Vagrantfile": BOX_FILE.format(**values)})
        # A disk over the lab's image, so that a gigabyte need not be copied three times.
        _checked(
            [*qemu.command("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self.image.disk), str(box / "box.img")], qemu.environment()
        )
        gigabytes = -(-self.image.disk.stat().st_size // (1 << 30))
        tree.write(box, {"metadata.json": json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": gigabytes})})
        with tarfile.open(self.folder / "lab.box", "w") as packed:
            for path in sorted(box.iterdir()):
                packed.add(path, path.name)
        tree.write(self.folder / "home", {"Vagrantfile": HOME_FILE.format(apt=self.proxy.apt_conf(self.proxy.url))})
        said = self.run("vagrant", "box", "add", "--name", BOX, str(self.folder / "lab.box"))
        if said.code:
            raise LabError(said.text)


def _wrapper(qemu: Qemu) -> str:
    """libvirt wants one program; the lab's QEMU may be one in a tree with libraries of its own."""
    return f"#!/bin/sh\nexec {shlex.join(qemu.command('qemu-system-x86_64'))} \"$@\"\n"


def _checked(command: Sequence[str], environment: Optional[dict[str, str]] = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
