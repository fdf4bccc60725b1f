"""The few words of QEMU's machine protocol that the lab needs."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.lab.need import LabError


def qmp(path: Path, command: str, arguments: dict[str, Any], timeout: float = 60) -> Any:
    """Send one command to the QMP socket at `path` and return its answer; LabError if QEMU refuses it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conn:
        conn.settimeout(timeout)
        conn.connect(str(path))
        with conn.makefile("rw", encoding="utf-8") as stream:
            stream.readline()  # the greeting
            _ask(stream, "qmp_capabilities", {})
            return _ask(stream, command, arguments)


def monitor(path: Path, line: str, timeout: float = 60) -> str:
    """Run a line of the human monitor (`savevm` exists only there); LabError if it answers with an error."""
    answer = str(qmp(path, "human-monitor-command", {"command-line": line}, timeout))
    if answer.lower().startswith("error"):
        raise LabError(f"QEMU refused {line}: {answer}")
    return answer


def _ask(stream: Any, command: str, arguments: dict[str, Any]) -> Any:
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    while True:
        line = stream.readline()
        if not line:
            raise LabError(f"QEMU closed its monitor during {command}")
        answer = json.loads(line)
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise LabError(f"QEMU refused {command}: {answer['error']}")
