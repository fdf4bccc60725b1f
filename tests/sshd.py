"""A real sshd on 127.0.0.1 for tests, with keys and configuration of its own in a temporary directory.

It runs as whoever runs the tests, root or not, and lets that user in with a key made for the purpose. `in_a_world_of_its_own` runs it in
a private mount namespace (root only), in which /etc, /run and /home are throw-away copies: users, sudoers and PAM there are real, and
none of it exists outside.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM_PATH = f"/usr/sbin:/usr/local/sbin:/sbin:{os.environ.get('PATH', '')}"

_WORLD = """
set -e
mkdir -p {d}/etc
mount -t tmpfs tmpfs {d}/etc
mkdir {d}/etc/upper {d}/etc/work
mount -t overlay overlay -o lowerdir=/etc,upperdir={d}/etc/upper,workdir={d}/etc/work /etc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /home
mkdir /run/sshd
install -m 644 {d}/authorized_keys /etc/ssh/authorized_keys_of_the_test
{setup}
exec {command}
"""


def needs(program: str, package: str = "") -> str:
    """The program's path; skips the test, naming the program, where it is not installed."""
    path = shutil.which(program, path=PROGRAM_PATH)
    if path is None:
        pytest.skip(f"{program} is not installed (Debian package {package or program})")
    return path


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair at `path` and `path`.pub."""
    size = ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(
        [needs("ssh-keygen", "openssh-client"), "-q", "-t", kind, *size, "-N", passphrase, "-C", path.name, "-f", str(path)],
        check=True,
    )
    return path


def public(key: Path) -> str:
    """`type base64` of a key pair's public half."""
    return " ".join(Path(f"{key}.pub").read_text().split()[:2])


@dataclass
class Sshd:
    """A running server: where it listens, the keys it has and takes, and its log."""

    directory: Path
    port: int
    host_keys: tuple[Path, ...]
    user_key: Path
    user: str
    process: subprocess.Popen[bytes]

    @property
    def target(self) -> str:
        return f"{self.user}@127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    @property
    def name_in_known_hosts(self) -> str:
        return f"[127.0.0.1]:{self.port}"

    def known_hosts(self, name: str = "known_hosts") -> Path:
        """A known_hosts file with all of the server's keys."""
        path = self.directory / name
        path.write_text("".join(f"{self.name_in_known_hosts} {public(key)}\n" for key in self.host_keys))
        return path

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running_sshd(
    directory: Path,
    options: Sequence[str] = (),
    *,
    key_kinds: Sequence[str] = ("ed25519",),
    port: int = 0,
    world: str = "",
    user: str = "",
) -> Iterator[Sshd]:
    """Start sshd with the configuration lines `options` (they win over the defaults), and stop it at the end.

    `world` is shell text that prepares a private mount namespace in which it then runs.
    """
    program = needs("sshd", "openssh-server")
    directory.mkdir(parents=True, exist_ok=True)
    keys = tuple(make_key(directory / f"host_{kind}", kind) for kind in key_kinds)
    user_key = make_key(directory / "user_key")
    (directory / "authorized_keys").write_text(f"{public(user_key)}\n")
    port = port or free_port()
    said = {line.split()[0].lower() for line in options}
    defaults = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        *(f"HostKey {key}" for key in keys),
        f"AuthorizedKeysFile {'/etc/ssh/authorized_keys_of_the_test' if world else f'{directory}/authorized_keys'}",
        "StrictModes no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "UseDNS no",
        "PidFile none",
        "MaxStartups 100",
        "LogLevel VERBOSE",
        # The rc files of whoever runs the tests are none of their business, and may take long.
        *([] if world else [f"SetEnv HOME={directory}"]),
    ]
    lines = [*options, *(line for line in defaults if line.split()[0].lower() not in said)]
    config = directory / "sshd_config"
    config.write_text("\n".join(lines) + "\n")
    if (
        subprocess.run(
            [program, "-t", "-f", str(config), "-o", "PerSourcePenalties=no"], capture_output=True, check=False
        ).returncode
        == 0
    ):
        config.write_text("PerSourcePenalties no\n" + config.read_text())  # OpenSSH 9.8 and newer would lock 127.0.0.1 out
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd separates its privileges
    command = [program, "-D", "-e", "-f", str(config)]
    if world:
        script = _WORLD.format(d=shlex.quote(str(directory)), setup=world, command=shlex.join(command))
        command = [needs("unshare", "util-linux"), "--mount", "--propagation", "private", "sh", "-c", script]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    server = Sshd(directory, port, keys, user_key, user or getpass.getuser(), process)
    try:
        _wait_until_it_listens(server)
        yield server
    finally:
        server.stop()


def _wait_until_it_listens(server: Sshd) -> None:
    end = time.monotonic() + 20
    while "Server listening" not in server.log:
        if server.process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"sshd did not start: {server.log}")
        time.sleep(0.02)


def can_have_a_world() -> bool:
    """Whether this machine lets us make a private mount namespace with an overlay in it."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    probe = (
        "mount -t tmpfs t /run && mkdir /run/u /run/w && mount -t overlay o -o lowerdir=/etc,upperdir=/run/u,workdir=/run/w /etc"
    )
    return (
        subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", probe], capture_output=True, check=False
        ).returncode
        == 0
    )


class Relay:
    """A TCP relay on 127.0.0.1 to one port, that can be cut (both sides closed) or frozen (nothing passes, nothing is closed)."""

    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._running = threading.Event()
        self._running.set()
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.accepted += 1
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(65536)
                self._running.wait()
                if not data:
                    break
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def freeze(self) -> None:
        self._running.clear()

    def cut(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()
        self._running.set()


@contextlib.contextmanager
def agent_with(directory: Path, *keys: Path) -> Iterator[Path]:
    """A real ssh-agent that holds these keys (without passphrase); gives its socket."""
    path = directory / "agent"
    process = subprocess.Popen(
        [needs("ssh-agent", "openssh-client"), "-D", "-a", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 10
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.02)
        for key in keys:
            subprocess.run(
                [needs("ssh-add", "openssh-client"), "-q", str(key)], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(path)}
            )
        yield path
    finally:
        process.terminate()
        process.wait()
