"""Reboots: a remote host is waited for until its boot id has changed; on this machine a one-shot unit goes on after the boot."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from provision.errors import Failed, Unreachable
from provision.shipped import shipped
from provision.transport import Transport
from provision.transport.errors import ConnectionLost, RunFailed, WireError

BOOT_ID = "cat /proc/sys/kernel/random/boot_id\n"
# A server with much memory and a firmware that tests it takes its time.
WAIT = 1200.0
UNIT = "mlhost-continue.service"


def _systemd_word(word: str) -> str:
    """One argument of ExecStart=: double quotes, with `%`, `$`, `\\` and `"` taken literally (systemd.service(5))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$").replace("\n", "\\n")
    return f'"{escaped}"'


def continue_unit(command: Sequence[str], directory: str) -> str:
    """The unit that runs `command` once after the boot. It takes itself out before it starts, so that a failure cannot repeat at every boot."""
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
        f"WorkingDirectory={directory.replace('%', '%%')}\n"
        "Environment=HOME=/root\n"
        f"ExecStart={' '.join(_systemd_word(w) for w in command)}\n"
        "TimeoutStartSec=infinity\n"
        "\n"
        "[Install]\n"
        "WantedBy=multi-user.target\n"
    )


def ask(transport: Transport, unit: str = "") -> None:
    """Have the host reboot in two seconds, continuing with `unit` afterwards where one is given. Raises Failed if it will not."""
    script = shipped("scripts/reboot.sh")
    result = transport.run(script, *([unit] if unit else []), sudo=True, timeout=60)
    if result.rc:
        raise Failed(
            f"{transport.name} would not reboot: {result.err.decode(errors='replace').strip()[:300] or f'exit code {result.rc}'}.",
            "Reboot it by hand, then run mlhost again.",
        )


def reboot_and_wait(
    transport: Transport, boot_id: str, heard: Callable[[str], None], wait: float = WAIT, pause: float = 3.0
) -> str:
    """Reboot a remote host and return its new boot id; only a changed one proves that it rebooted.

    `heard` is told what is being waited for. Raises Unreachable if the host is not back within `wait` seconds.
    """
    ask(transport)
    transport.close()
    started = time.monotonic()
    last = "it has not gone down yet"
    while time.monotonic() - started < wait:
        time.sleep(pause)
        try:
            result = transport.run(BOOT_ID, timeout=20)
        except (WireError, ConnectionLost, RunFailed) as error:
            last = error.message
            heard(f"rebooting: {last}")
            transport.close()
            continue
        now = result.out.decode(errors="replace").strip()
        if result.rc == 0 and now and now != boot_id:
            return now
        heard(f"rebooting: {last}")
        # An answer from the boot that is ending; the next must come over a new connection.
        transport.close()
    raise Unreachable(
        f"{transport.name} did not come back within {int(wait)} s of its reboot ({last}).",
        "Look at its console; when it is up again, run the same command once more.",
    )
