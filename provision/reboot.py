"""Reboots: a remote host is waited for until its boot id has changed; on this machine a one-shot unit goes on after the boot."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Sequence

from provision.errors import Failed, Unreachable
from provision.journal import STATE
from provision.shipped import shipped
from provision.transport import Transport
from provision.transport.errors import ConnectionLost, RunFailed, WireError

# The boot id, then what systemd says of the boot, which is nothing where there is no systemd. It exits non-zero for all but "running".
BOOT_ID = "cat /proc/sys/kernel/random/boot_id && { [ ! -d /run/systemd/system ] || systemctl is-system-running || :; }\n"
BOOTING = ("initializing", "starting")
# A server with much memory and a firmware that tests it takes its time.
WAIT = 1200.0
# ssh answers before the other services have started, Docker's among them. A boot with a unit that never ends is not waited for longer than this.
SETTLE = 180.0
UNIT = "mlhost-continue.service"
CONTINUE = "--continue-after-reboot"
RECORD = f"{STATE}/continue.json"


def _systemd_word(word: str) -> str:
    """One argument of ExecStart=: double quotes, with `%`, `$`, `\\` and `"` taken literally (systemd.service(5)), control characters as escapes."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return '"' + "".join(c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape")) for c in escaped) + '"'


def continue_unit(command: Sequence[str]) -> str:
    """The unit that goes on with `command` (`… -m provision setup …`) once after the boot, and takes itself out before it starts, so that a failure
    cannot repeat at every boot.

    Of the command only the program is in it: everybody may ask systemd and /proc what is started, and the rest may hold a proxy's password.
    """
    program = command[: _arguments_at(command)]
    return (
        "# Written by mlhost: the setup that needed a reboot goes on after it. Gone once it has started.\n"
        "[Unit]\n"
        "Description=mlhost continues the setup that needed a reboot\n"
        "Wants=network-online.target\n"
        "After=network-online.target docker.service\n"
        "\n"
        "[Service]\n"
        "Type=simple\n"
        f"ExecStartPre=/bin/rm -f /etc/systemd/system/{UNIT} /etc/systemd/system/multi-user.target.wants/{UNIT}\n"
        "WorkingDirectory=/\n"
        "Environment=HOME=/root\n"
        f"ExecStart={' '.join(_systemd_word(w) for w in (*program, CONTINUE, RECORD))}\n"
        "TimeoutStartSec=infinity\n"
        "\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    )


def continue_record(command: Sequence[str], directory: str) -> str:
    """What the unit goes on with: the command's arguments and its working directory. For a file that only root can read."""
    return json.dumps({"directory": directory, "arguments": list(command[_arguments_at(command) :])}) + "\n"


def _arguments_at(command: Sequence[str]) -> int:
    return list(command).index("-m") + 2


def take_record(path: str) -> list[str]:
    """The arguments that `continue_record` kept in `path`, which is removed; the process is in the directory kept there afterwards.

    Raises Failed for a file that others could have written or read, or that is none of ours.
    """
    fix = "Run `mlhost setup` again, as before the reboot."
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077 or found.st_nlink != 1:
                raise Failed(f"{path} is not a file of this user's own that nobody else can read.", fix)
            value = json.loads(file.read(1 << 20))
        arguments = [str(word) for word in value["arguments"]]
        directory = str(value["directory"])
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror}.", fix) from None
    except (ValueError, TypeError, KeyError):
        raise Failed(f"{path} does not say how to go on after the reboot.", fix) from None
    os.unlink(path)
    try:
        os.chdir(directory)
    except (OSError, ValueError):
        os.chdir("/")
    return arguments


def ask(transport: Transport, unit: str = "", record: str = "") -> None:
    """Have the host reboot in two seconds, continuing with `unit` and its `record` afterwards where they are given. Raises Failed if it will not."""
    script = shipped("scripts/reboot.sh")
    result = transport.run(script, *([unit, record] if unit else []), sudo=True, timeout=60)
    if result.rc:
        raise Failed(
            f"{transport.name} would not reboot: {result.last_words or f'exit code {result.rc}'}.",
            "Reboot it by hand, then run mlhost again.",
        )


def reboot_and_wait(
    transport: Transport, boot_id: str, heard: Callable[[str], None], wait: float = WAIT, pause: float = 3.0, settle: float = SETTLE
) -> str:
    """Reboot a remote host and return its new boot id; only a changed one proves that it rebooted.

    Once it answers, its services have `settle` seconds to start. `heard` is told what is being waited for. Raises Unreachable if the host is not
    back within `wait` seconds.
    """
    ask(transport)
    transport.close()
    started = time.monotonic()
    last = "it has not gone down yet"
    answered = 0.0
    while time.monotonic() - started < wait:
        time.sleep(pause)
        try:
            result = transport.run(BOOT_ID, timeout=20)
        except (WireError, ConnectionLost, RunFailed) as error:
            last = error.message
            heard(f"rebooting: {last}")
            transport.close()
            continue
        now, _, state = result.out.decode(errors="replace").strip().partition("\n")
        if result.rc == 0 and now and now != boot_id:
            answered = answered or time.monotonic()
            if state not in BOOTING or time.monotonic() - answered >= settle:
                return now
            heard("rebooting: its services are starting")
            continue
        heard(f"rebooting: {last}")
        # An answer from the boot that is ending; the next must come over a new connection.
        transport.close()
    raise Unreachable(
        f"{transport.name} did not come back within {int(wait)} s of its reboot ({last}).",
        "Look at its console; when it is up again, run the same command once more.",
    )
