"""How it ended, for those exit codes that say more than they seem to. Pure.

Source: docs.docker.com/engine/containers/run, exit status; 128 + n for signal n (POSIX shells).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Docker's client begins its own words so; everything else on standard error is the command's.
_DOCKERS = re.compile(r"^docker: (?:Error response from daemon: )?(.*)", re.MULTILINE)
_NOT_FOUND = re.compile(r'exec: "([^"]*)": (?:executable file not found|stat [^:]*: no such file)')
# docker-init is tini (github.com/krallin/tini, src/tini.c): 127 where there is no such file, 126 for every other reason.
_TINI = re.compile(r"^\[FATAL tini \(\d+\)\] exec (.*) failed: (.*)", re.MULTILINE)
_SECRETIVE = re.compile(r"(?i)(key|token|secret|passw|credential)")


def own_words(said: str) -> str:
    """What Docker itself said, rather than the command; "" for nothing."""
    found = _DOCKERS.findall(said)
    return found[-1].strip() if found else ""


def explained(code: int, said: str, command: Sequence[str], sent: bool = False) -> str:
    """A sentence about an exit code, "" where it needs none. `said` is the end of standard error; `sent`: a signal of the user's ended it."""
    docker, tini = own_words(said), _TINI.search(said)
    program = tini[1] if tini else command[0] if command else ""
    if code == 125 and docker:
        return "Docker could not start the container, so the command never ran (exit code 125)."
    if code == 126 and (docker or tini):
        return f"{program or 'The command'} is in the container, but cannot be executed (exit code 126): is it a program, and has it its x bit? Of a script, name its interpreter first."
    if code == 127 and (docker or tini):
        missing = _NOT_FOUND.search(docker)
        return _missing(missing[1] if missing else program)
    if code == 137 and not sent:
        return "The command was killed by signal 9 (exit code 137). If nobody did that, the memory ran out: the kernel's log tells (`dmesg`)."
    if code == 135:
        return "The command ended by a bus error (exit code 135): shared memory was too small, or a mapped file shrank. A larger --shm-size helps data loaders."
    if code == 139:
        return "The command ended by a segmentation fault (exit code 139)."
    return ""


def _missing(name: str) -> str:
    if name.startswith("/host/"):
        return f"{name} is not there (exit code 127): the container sees no such file of this machine."
    if name.startswith("/"):
        return f"There is no {name} in the image (exit code 127). This machine's own file would be /host{name}."
    other = {"python": "python3", "pip": "pip3", "bash": "sh"}.get(name)
    return f"The image has no program {name} on its PATH (exit code 127){f'; it may be called {other} there' if other else ''}."


def secretive(name: str) -> bool:
    """Whether a variable looks as if its value was nobody else's business."""
    return _SECRETIVE.search(name) is not None


def known(said: str) -> str:
    """What the doctor knows of an error text: the failure, its cause and its first remedy; "" for nothing."""
    from provision.doctor.checks import CHECKS
    from provision.doctor.diagnose import diagnose
    from provision.doctor.failures import load
    from provision.doctor.texts import text

    findings = diagnose(None, text("docker", said, current=True), load(), CHECKS).findings
    if not findings:
        return ""
    failure = findings[0].failure
    return f"{failure.title.rstrip('.')}: {failure.cause} Remedy: {failure.remedy[0] if failure.remedy else '`mlhost doctor`'}"
