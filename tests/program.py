"""Running mlhost as a user does: a process of its own, against a lab host."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.lab.keys import lab_keys
from tests.lab.sshcli import Ssh

CHECKOUT = Path(__file__).resolve().parent.parent


class Host(Protocol):
    """What the lab's hosts have in common."""

    ssh: Ssh


@dataclass(frozen=True)
class Ran:
    """What mlhost said and how it ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def words(command: str, host: Host, *arguments: str, user: str = "admin", settings: Sequence[str] = ()) -> list[str]:
    """The command line for a lab host."""
    line = [sys.executable, "-m", "provision", command, f"{user}@{host.ssh.host}:{host.ssh.port}"]
    line += ["-F", "none", "--identity", str(lab_keys().client), "--known-hosts", str(host.ssh.known_hosts)]
    for setting in settings:
        line += ["--set", setting]
    return [*line, *arguments]


def environment() -> dict[str, str]:
    """This process's environment without what would steer the one started."""
    return {k: v for k, v in os.environ.items() if k not in ("SSH_AUTH_SOCK", "NO_COLOR")}


def mlhost(
    command: str, host: Host, *arguments: str, user: str = "admin", settings: Sequence[str] = (), timeout: float = 1500
) -> Ran:
    """Run `mlhost command` on a lab host over SSH and wait for its end."""
    done = subprocess.run(
        words(command, host, *arguments, user=user, settings=settings),
        cwd=CHECKOUT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def specs(host: Host, folder: Path, **environ: str) -> Ran:
    """The shipped specs against a lab host, as a team's CI would run them: `pytest --pyargs provision.specs --hosts=ssh://... --sudo`."""
    config = folder / "ssh_config"
    config.write_text(f"Host *\n  UserKnownHostsFile {host.ssh.known_hosts}\n  IdentityFile {lab_keys().client}\n  IdentitiesOnly yes\n")
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", str(folder), "--pyargs", "provision.specs"]
    line += [f"--hosts=ssh://admin@{host.ssh.host}:{host.ssh.port}", f"--ssh-config={config}", "--sudo"]
    env = {**environment(), **environ}
    done = subprocess.run(line, capture_output=True, text=True, env=env, cwd=CHECKOUT, timeout=280, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)
