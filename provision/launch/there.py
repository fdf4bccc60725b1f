"""A container on a host, over OpenSSH's client: the tree goes there, the command runs there as it would here, what it wrote comes back.

The system's own ssh is used and not `provision.transport`, as a command wants a terminal, a stream of input, and two streams of output. One connection
carries everything (ControlMaster); its options are those of the other commands, and host keys are enforced unless told otherwise.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Optional

from provision.dockrun import compose, gpus
from provision.dockrun.machine import Machine
from provision.dockrun.request import Request, env_file
from provision.errors import Failed, UsageError
from provision.launch.copies import Copies
from provision.launch.here import execute, ready
from provision.launch.look import LocalDisk, Say, call, look, prepare
from provision.transport.target import parse_target

HOST_KEYS = {"enforce": "yes", "accept-new": "accept-new", "ignore": "no"}


@dataclass(frozen=True)
class Login:
    """Where to, and what ssh is told beyond its own configuration."""

    target: str
    config: Optional[str] = None
    identities: Sequence[str] = ()
    known_hosts: Optional[str] = None
    host_keys: Optional[str] = None

    def options(self) -> list[str]:
        """ssh's options and the host, ready for a command. Raises BadTarget."""
        target = parse_target(self.target)
        words = ["-F", self.config] if self.config else []
        for identity in self.identities:
            words += ["-i", identity, "-o", "IdentitiesOnly=yes"]
        if self.known_hosts:
            words += ["-o", f'UserKnownHostsFile="{self.known_hosts}"', "-o", "GlobalKnownHostsFile=/dev/null"]
        if self.host_keys == "ignore":
            words += ["-o", "UserKnownHostsFile=/dev/null"]
        words += ["-o", f"StrictHostKeyChecking={HOST_KEYS[self.host_keys or 'enforce']}", "-o", "ConnectTimeout=20"]
        if target.port:
            words += ["-p", str(target.port)]
        if target.user:
            words += ["-l", target.user]
        return [*words, target.host]


class There:
    """A host with an open connection."""

    def __init__(self, name: str, options: Sequence[str], socket: str) -> None:
        self.name = name
        self._options = [*options[:-1], "-o", f"ControlPath={socket}", "-o", "LogLevel=ERROR"]
        self._host = options[-1]

    def words(self, argv: Sequence[str], terminal: bool = False) -> list[str]:
        """ssh with the command as one text, quoted for the shell there."""
        return ["ssh", "-o", "ControlMaster=no", *self._options, "-tt" if terminal else "-T", self._host, "--", shlex.join(argv)]

    def alive(self) -> bool:
        """Whether the connection still stands; a client that ends with 255 does not say whether that was the command's own code."""
        asked = ["ssh", "-O", "check", *self._options, self._host]
        return subprocess.run(asked, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0

    def master(self) -> list[str]:
        """The connection itself; it goes to the background, and away by itself a minute after its last user."""
        alive = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8")
        return ["ssh", "-M", "-N", "-f", "-o", "ControlPersist=60", *alive, *self._options, self._host]

    def close(self) -> list[str]:
        """The command that hangs up."""
        return ["ssh", "-O", "exit", *self._options, self._host]


@contextmanager
def connected(login: Login) -> Iterator[There]:
    """A connection for as long as it is wanted. Raises WireError with ssh's own words."""
    from provision.transport.errors import WireError

    options = login.options()
    # A socket's path must be short, and a Mac's own temporary folder is not.
    folder = tempfile.mkdtemp(prefix="mlhost-", dir="/tmp")
    place = There(login.target, options, f"{folder}/c")
    try:
        with open(f"{folder}/log", "wb") as log:  # not a pipe, which the process in the background would hold open
            try:
                code = subprocess.run(place.master(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
            except FileNotFoundError:
                raise Failed("There is no ssh here, which --host needs.", "Install OpenSSH's client (openssh-client).") from None
        if code:
            said = Path(folder, "log").read_text(errors="replace").strip().splitlines()
            reason = said[-1] if said else f"ssh ended with {code}"
            raise WireError(f"{login.target} cannot be reached: {reason}", f"Check that `ssh {login.target}` works; for an unknown host key: --host-keys accept-new.")
        try:
            yield place
        finally:
            subprocess.run(place.close(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_there(request: Request, login: Login, say: Say, show: Optional[Callable[[str], None]] = None, explain: bool = False) -> int:
    """Run it on the host and return the command's exit code; with `show` only print what would be run there. Raises Error kinds."""
    variables = _variables(request)
    with connected(login) as place:
        found = ready(place, request, look(place, request.image), show is not None, say)
        if "CUDA_VISIBLE_DEVICES" in variables:
            gpus.visible(variables["CUDA_VISIBLE_DEVICES"], found, gpus.give(request.settings.gpus, found))
        copies = Copies(place, found.cache, request.cwd, say)
        secrets = f"{found.cache}/env/{request.name}" if variables else ""
        asked = replace(request, env=(), values={}, env_files=(secrets,) if secrets else (), file_names=frozenset(variables),
                        environment={"TERM": "dumb"} if request.terminal else {})
        made = compose.compose(asked, found, LocalDisk(), tree=copies.folder, only_below=True)
        for note in made.notes:
            say(note)
        if show:
            show(f"# on {login.target}, with a copy of {request.cwd} in {copies.folder}\n{compose.shown(made, explain)}")
            return 0
        copies.forth()
        prepare(place, found, made.accounts)
        return _ran(place, asked, made, found, copies, secrets, variables, say)


def _ran(
    place: There, request: Request, made: compose.Command, found: Machine, copies: Copies, secrets: str, variables: dict[str, str], say: Say
) -> int:
    if secrets:
        text = "".join(f"{name}={value}\n" for name, value in variables.items())
        call(place, "tree", "keep", secrets, data=text.encode())
    try:
        code = execute(place, request, made, say)
    finally:
        if secrets:
            subprocess.run(place.words(["rm", "-f", "--", secrets]), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    copies.back()
    return code


def _variables(request: Request) -> dict[str, str]:
    """The user's variables with their values, which travel on standard input into a file there that only its owner reads. Raises UsageError."""
    around = dict(request.environment or {})
    found: dict[str, str] = {}
    for path in request.env_files:
        for name, value in env_file(Path(path).read_text(encoding="utf-8"), path).items():
            if value is not None or name in around:
                found[name] = around[name] if value is None else value
    for name in (*request.settings.env, *request.env):
        if name in around:
            found[name] = around[name]
    found.update(request.values or {})
    for name, value in found.items():
        if "\n" in value:
            raise UsageError(f"{name} holds a line break, which no env file of Docker's can.", "Put it into a file of the tree, and name that.")
    return found
