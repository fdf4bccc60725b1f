"""Debian trees by mmdebstrap, and the accounts that every lab host has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.lab.keys import lab_keys
from tests.lab.mirror import read_mirror
from tests.lab.need import LabError, require_root, tool
from tests.lab.proxy import CachingProxy

SUDO_PASSWORD = "correct horse"  # of the user `secure`
SUDOERS = "admin ALL=(ALL) NOPASSWD: ALL\nsecure ALL=(ALL) ALL\n"
SSHD = (
    "HostKey /etc/ssh/ssh_host_ed25519_key\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
    "UseDNS no\nMaxStartups 200\n"
)
# OpenSSH 9.8 and newer lock an address out after failed logins, and all tests come from one. A test of just that
# removes the line again.
NO_PENALTIES = "PerSourcePenalties no\n"
# The apt timers of a real cloud machine take the dpkg lock at random moments; tests that want that start them.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "e2scrub_reap.service")


def debootstrap(folder: Path, suite: str, packages: Sequence[str], options: Sequence[str] = ()) -> None:
    """Unpack and configure `packages` of a Debian suite in `folder`, from this machine's mirror.

    Raises LabUnavailable without root or mmdebstrap, LabError with the program's last words if it fails.
    """
    require_root("building a Debian tree")
    program = tool("mmdebstrap", "mmdebstrap")
    mirror = read_mirror()
    with CachingProxy(tls_hosts=mirror.hosts_with_tls()) as proxy:
        command = [
            program,
            "--variant=minbase",
            "--quiet",
            "--format=directory",
            "--skip=check/empty",
            f"--include={','.join(packages)}",
            *options,
            suite,
            str(folder),
            *mirror.lines(suite),
        ]
        env = {**os.environ, "http_proxy": proxy.url, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    if done.returncode != 0:
        raise LabError(f"mmdebstrap {suite} failed with {done.returncode}:\n{done.stdout[-3000:]}")
    folder.chmod(0o755)
    (folder / "etc/apt/sources.list").unlink()
    write(folder, {"etc/apt/sources.list.d/debian.sources": mirror.deb822(suite)})


def write(root: Path, files: dict[str, str], mode: int = 0o644) -> None:
    """Write files, given by paths below `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)


def chroot(root: Path, *command: str, stdin: str = "") -> str:
    """Run a command in the tree and return what it prints; LabError if it fails."""
    done = subprocess.run(
        ["chroot", str(root), *command],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    )
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} in {root} failed with {done.returncode}:\n{done.stdout}")
    return done.stdout


def furnish(root: Path, hostname: str) -> None:
    """Give a tree the lab's accounts, keys and sshd settings.

    Users: `admin` (sudo without a password), `secure` (sudo asks for SUDO_PASSWORD), root (key only).
    """
    keys = lab_keys()
    public = keys.client.with_suffix(".pub").read_text()
    for user in ("admin", "secure"):
        chroot(root, "useradd", "--create-home", "--shell", "/bin/bash", user)
    chroot(root, "chpasswd", stdin=f"secure:{SUDO_PASSWORD}\n")
    write(root, {"etc/sudoers.d/lab": SUDOERS}, 0o440)
    for user, home in (("admin", "home/admin"), ("secure", "home/secure"), ("root", "root")):
        write(root, {f"{home}/.ssh/authorized_keys": public}, 0o600)
        (root / home / ".ssh").chmod(0o700)
        chroot(root, "chown", "-R", f"{user}:{user}", f"/{home}/.ssh")
    knows_penalties = b"persourcepenalties" in (root / "usr/sbin/sshd").read_bytes()
    for stale in (root / "etc/ssh").glob("ssh_host_*"):
        stale.unlink()
    write(root, {"etc/ssh/ssh_host_ed25519_key": keys.host.read_text()}, 0o600)
    write(
        root,
        {
            "etc/ssh/ssh_host_ed25519_key.pub": keys.host.with_suffix(".pub").read_text(),
            "etc/ssh/sshd_config.d/lab.conf": SSHD + (NO_PENALTIES if knows_penalties else ""),
            "etc/hostname": f"{hostname}\n",
            "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost\n",
            # Empty, not missing: systemd then makes an id at each host's first boot without "first boot" questions.
            "etc/machine-id": "",
        },
    )


def mask(root: Path, units: Sequence[str] = MASKED) -> None:
    """Mask systemd units in a tree."""
    folder = root / "etc/systemd/system"
    folder.mkdir(parents=True, exist_ok=True)
    for unit in units:
        link = folder / unit
        if not link.is_symlink():
            link.symlink_to("/dev/null")
