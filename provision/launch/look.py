"""Looking at where a container is to run, and making ready what it needs: folders, account files, the image."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

from provision.dockrun import machine as facts
from provision.dockrun.machine import Machine
from provision.errors import Failed
from provision.shipped import shipped

LIMIT = 120.0
"""Seconds that a look may take: nvidia-smi alone takes several where no persistence daemon runs."""


class Place(Protocol):
    """Where scripts run: this machine or a host. `name` is for people."""

    name: str

    def words(self, argv: Sequence[str], terminal: bool = False) -> list[str]:
        """The command line here that runs a command there."""

    def alive(self) -> bool:
        """Whether the way there still stands."""


Say = Callable[[str], None]
"""Tells the user something, a sentence at a time, beside the command's output."""


class Here:
    """This machine."""

    name = "this machine"

    def words(self, argv: Sequence[str], terminal: bool = False) -> list[str]:
        """As it is."""
        return list(argv)

    def alive(self) -> bool:
        """Always."""
        return True


class LocalDisk:
    """This machine's files, as `provision.dockrun.paths` asks of them."""

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def link(self, path: str) -> Optional[str]:
        try:
            return os.readlink(path)
        except (OSError, ValueError):
            return None


def call(place: Place, script: str, *args: str, limit: Optional[float] = LIMIT, data: bytes = b"", loud: bool = False) -> bytes:
    """Run a shipped script there with arguments; returns its output. `data` is its standard input. Raises Failed with its last words.

    `loud` leaves standard error to the user.
    """
    text = shipped(f"scripts/run/{script}.sh")
    # The script is an argument, not standard input, which is free for data that way.
    argv = place.words(["sh", "-c", text, "sh", *args])
    try:
        done = subprocess.run(argv, input=data, stdout=subprocess.PIPE, stderr=None if loud else subprocess.PIPE, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{place.name} did not answer within {limit:.0f} s.", "Is Docker (or nvidia-smi) hanging there? `mlhost doctor` tells.") from None
    except FileNotFoundError as error:
        raise Failed(f"{error.filename} is not installed here.", "Install it (openssh-client for --host).") from None
    if done.returncode:
        said = (done.stderr or b"").decode(errors="replace").strip().splitlines()
        from provision.transport.errors import WireError

        if done.returncode == 255 and not isinstance(place, Here):
            raise WireError(f"{place.name} cannot be reached: {said[-1] if said else 'ssh ended with 255'}", f"Check that `ssh {place.name}` works.")
        raise Failed(f"{place.name}: {said[-1] if said else f'the script {script} ended with {done.returncode}'}", "`mlhost doctor` may know why.")
    return done.stdout


def look(place: Place, image: str) -> Machine:
    """The machine, as one read-only script sees it. Raises Failed, WireError."""
    from provision.capture import split

    mark = os.urandom(8).hex()
    return facts.parse(split(call(place, "look", mark, image), mark))


def prepare(place: Place, found: Machine, stem: str) -> None:
    """Make the cache folders and, with a stem, the account files. Raises Failed."""
    identity = found.image.id if found.image else ""
    uid = found.uid if stem else 0
    call(place, "prepare", found.cache, identity, str(uid), str(found.gid), found.user, stem)


def pull(place: Place, image: str, platform: str, say: Say) -> None:
    """Fetch an image with Docker's own progress on standard error. Raises Failed with Docker's words and what they mean."""
    argv = ["docker", "pull", *(["--platform", platform] if platform else []), image]
    say(f"{image} is not on {place.name} yet: pulling it.")
    try:
        # Its progress belongs on standard error: standard output is the command's.
        process = subprocess.Popen(place.words(argv), stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise Failed(f"{error.filename} is not installed here.", "Run `mlhost setup`.") from None
    said = b""
    with process:
        assert process.stderr is not None  # noqa: S101 - narrows the type
        try:
            said = process.stderr.read()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            raise
    if process.returncode:
        from provision.dockrun.ends import known

        text = said.decode(errors="replace").strip()
        raise Failed(f"{image} cannot be pulled: {text[-600:] or 'docker pull failed'}", known(text) or "Check the name, the network and `docker login`.")


def user_settings() -> list[tuple[str, dict[str, Any]]]:
    """What this machine's and the user's run.toml say, the user's last. Raises UsageError for a file that cannot be read."""
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "mlhost" / "run.toml"
    found: list[tuple[str, dict[str, Any]]] = []
    for path in (Path("/etc/mlhost/run.toml"), own):
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            from provision.errors import UsageError

            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise UsageError(f"{path} cannot be read: {reason}.", "Make it readable, or remove it.") from None
        from provision.shipped import parsed_toml

        try:
            found.append((str(path), parsed_toml(text)))
        except ValueError as error:
            from provision.errors import UsageError

            raise UsageError(f"{path} is no TOML: {error}.", 'A line is, for example, mount = "tree".') from None
    return found
