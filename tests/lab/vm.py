"""Booted virtual machines: a real kernel, systemd and sshd, under KVM where that works and emulation elsewhere."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional

from tests.lab.cache import built_once, recipe_hash
from tests.lab.image import Image
from tests.lab.keys import lab_keys
from tests.lab.need import LabError
from tests.lab.proxy import CachingProxy
from tests.lab.qemu import TCG, accelerator, find_qemu
from tests.lab.qmp import monitor, qmp
from tests.lab.rundir import new_run_folder, remember
from tests.lab.sshcli import Result, Ssh

BOOT_SECONDS = 480.0  # emulated beside other work; alone it takes 17 s
SNAPSHOT = "ready"
GUEST_SEES_HOST_AS = "10.0.2.2"


class VM:
    """One virtual machine on an overlay of `image`; the image itself is never changed.

    `memory` is in MiB. `forwards` maps further guest ports to ports on 127.0.0.1 (0 picks one; read them from
    `self.forwards`). With `warm` it does not boot but wakes as it was just after a boot of the same image (kept in the
    cache folder, made on first use): quicker by a boot, but not a boot. As a context manager it boots on entry and is gone, overlay and all, on exit.
    `isolated`: nothing leads out of it, not even to this machine; only ssh leads in.
    Raises LabUnavailable, LabError.
    """

    def __init__(
        self,
        image: Image,
        *,
        memory: int = 2048,
        cpus: int = 2,
        forwards: Optional[dict[int, int]] = None,
        append: str = "",
        warm: bool = False,
        isolated: bool = False,
    ) -> None:
        self.image = image
        self.memory = memory
        self.cpus = cpus
        self.append = append
        self.warm = warm
        self.isolated = isolated
        self.qemu = find_qemu()
        self.accel = accelerator(self.qemu, image)
        self.folder = new_run_folder()
        self.disk = self.folder / "disk.qcow2"
        self.console = self.folder / "console.log"
        self.forwards = {guest: port or _free_port() for guest, port in (forwards or {}).items()}
        self.port = _free_port()
        known_hosts = self.folder / "known_hosts"
        known_hosts.write_text(lab_keys().known_hosts("127.0.0.1", self.port))
        self.ssh = Ssh("127.0.0.1", self.port, known_hosts)
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> VM:
        """Start the machine without waiting for it."""
        if not self.disk.exists():
            if self.warm:
                shutil.copyfile(self._sleeping(), self.disk)
            else:
                self._make_disk()
        self._launch(["-loadvm", SNAPSHOT] if self.warm else [])
        return self

    def boot(self, timeout: float = BOOT_SECONDS) -> float:
        """Start it and wait for ssh; returns the seconds from power-on to a working login."""
        begin = time.monotonic()
        self.start()
        self.wait(timeout)
        if self.warm:  # it slept since the snapshot was taken
            self.run(f"date -s @{time.time():.3f}", user="root")
        return time.monotonic() - begin

    def wait(self, timeout: float = BOOT_SECONDS) -> float:
        """Wait for a working login; the error carries the end of the console."""
        try:
            return self.ssh.wait(timeout, self._process)
        except LabError as error:
            raise LabError(f"{error}\nconsole:\n{self.console_text()[-2000:]}") from None

    def run(self, command: str, *, user: Optional[str] = None, stdin: str = "", check: bool = True,
            timeout: float = 900) -> Result:
        """Run a shell command line over OpenSSH's own client, as `admin` unless `user` says otherwise."""
        return self.ssh.run(command, user=user, stdin=stdin, check=check, timeout=timeout)

    def put(self, sources: list[Path], target: str, *, user: Optional[str] = None) -> None:
        """Copy files or folders into a folder of the guest."""
        self.ssh.put(sources, target, user=user)

    def boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id").out.strip()

    def reboot(self, timeout: float = BOOT_SECONDS) -> float:
        """Reboot from inside and wait for another boot id; returns the seconds from order to login."""
        return self._wait_for_other_boot(lambda: self.run("systemctl reboot", user="root", check=False), timeout)

    def reset(self, timeout: float = BOOT_SECONDS) -> float:
        """Pull the reset line, as a power cut would: nothing is synced or stopped. Returns seconds to login."""
        return self._wait_for_other_boot(self.cut_power, timeout)

    def cut_power(self) -> None:
        """Reset the machine without waiting for it to come back."""
        qmp(self.folder / "qmp", "system_reset", {})

    def use_proxy(self, proxy: CachingProxy) -> None:
        """Send the guest's apt through the lab's caching proxy."""
        self.run("cat > /etc/apt/apt.conf.d/00lab-proxy", user="root", stdin=proxy.apt_conf())

    def cpu_seconds(self) -> float:
        """Processor time that the whole machine has taken since it was started, in seconds."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def console_text(self) -> str:
        """What the serial console has shown so far, over all boots."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def known_hosts(self) -> str:
        """The line that a known_hosts file needs for this machine."""
        return self.ssh.known_hosts.read_text()

    def stop(self) -> None:
        """End it at once and remove its overlay."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._process is not None:
            self._process.wait()
        atexit.unregister(self.stop)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> VM:
        try:
            self.boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()

    def _wait_for_other_boot(self, order: Callable[[], object], timeout: float) -> float:
        before = self.boot_id()
        begin = time.monotonic()
        order()
        while time.monotonic() - begin < timeout:
            self.wait(timeout)
            done = self.run("cat /proc/sys/kernel/random/boot_id", check=False, timeout=60)
            if done.code == 0 and done.out.strip() != before:
                return time.monotonic() - begin
            time.sleep(0.5)
        raise LabError(f"no new boot within {timeout:.0f} s; console:\n{self.console_text()[-2000:]}")

    def _sleeping(self) -> Path:
        """The disk that holds a machine like this one as it was just after its boot."""
        kept = [self.image.disk.parent.name, self.memory, self.cpus, self.append, self.accel, self.qemu.version, 1]
        return built_once("warm", f"{self.image.suite}-{recipe_hash(kept)}", self._fall_asleep) / "disk.qcow2"

    def _fall_asleep(self, folder: Path) -> None:
        with VM(self.image, memory=self.memory, cpus=self.cpus, append=self.append) as awake:
            awake.run("systemctl is-system-running --wait", check=False, timeout=120)
            awake.run("sync")
            monitor(awake.folder / "qmp", f"savevm {SNAPSHOT}", 120)
            qmp(awake.folder / "qmp", "quit", {})  # in order, so that all of it is in the file
            if awake._process is not None:
                awake._process.wait(60)
            shutil.copyfile(awake.disk, folder / "disk.qcow2")

    def _make_disk(self) -> None:
        command = [*self.qemu.command("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "raw"]
        command += ["-b", str(self.image.disk), str(self.disk)]
        subprocess.run(command, check=True, env=self.qemu.environment())

    def _launch(self, more: list[str]) -> None:
        forwards = [f"hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        forwards += [f"hostfwd=tcp:127.0.0.1:{port}-:{guest}" for guest, port in self.forwards.items()]
        cpu = "host" if self.accel == "kvm" else "max,svm=off,vmx=off"
        command = [
            *self.qemu.command("qemu-system-x86_64"),
            *["-accel", self.accel, "-machine", "q35", "-cpu", cpu],
            *["-m", str(self.memory), "-smp", str(self.cpus), "-nodefaults", "-display", "none"],
            *["-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd)],
            *["-append", f"root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off no_timer_check {self.append}".strip()],
            *["-drive", f"file={self.disk},if=virtio,cache=unsafe,discard=unmap"],
            *["-device", "virtio-rng-pci"],
            *["-nic", f"user,model=virtio-net-pci,ipv6=off,restrict={'on' if self.isolated else 'off'}," + ",".join(forwards)],
            *["-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"],
            *["-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off"],
            *more,
        ]
        with open(self.folder / "qemu.log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self.qemu.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        remember(self.folder, self._process.pid)
        atexit.register(self.stop)


def emulated(vm: VM) -> bool:
    """Whether the machine runs without KVM, some ten times slower."""
    return vm.accel == TCG


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
