"""Waiting for a host that reboots, against a transport that is a test double: it gives the answers it was handed, one after another."""

from __future__ import annotations

from typing import Any, Union

import pytest

from provision.errors import Unreachable
from provision.reboot import reboot_and_wait
from provision.transport import RunResult
from provision.transport.errors import ConnectionLost

OLD, NEW = "8d2f4a2e-0000-4000-8000-000000000001", "8d2f4a2e-0000-4000-8000-000000000002"


class Double:
    """A transport double: the first script it gets is the one that reboots; each further one takes the next answer, and the last answer stays."""

    name = "double"

    def __init__(self, *answers: Union[str, Exception]) -> None:
        self.answers = list(answers)
        self.asked = -1

    def run(self, script: str, *args: str, **_: Any) -> RunResult:
        self.asked += 1
        if self.asked == 0:
            return RunResult(0, b"", b"", 0.0)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return RunResult(0, answer.encode(), b"", 0.0)

    def close(self) -> None:
        pass


def rebooted(double: Any, **limits: float) -> tuple[str, list[str]]:
    heard: list[str] = []
    return reboot_and_wait(double, OLD, heard.append, pause=0, **limits), heard


def test_the_host_is_taken_as_back_once_its_services_have_started() -> None:
    double = Double(OLD + "\nrunning", ConnectionLost("gone", "wait"), NEW + "\nstarting", NEW + "\nstarting", NEW + "\nrunning")
    now, heard = rebooted(double)
    assert now == NEW
    assert double.asked == 5
    assert heard[-1] == "rebooting: its services are starting"


@pytest.mark.parametrize("state", ["degraded", "", "unknown"])
def test_a_host_with_a_failed_unit_or_without_systemd_is_back_at_once(state: str) -> None:
    double = Double(f"{NEW}\n{state}")
    assert rebooted(double)[0] == NEW
    assert double.asked == 1


def test_a_boot_that_never_ends_is_waited_for_only_so_long() -> None:
    double = Double(NEW + "\nstarting")
    assert rebooted(double, settle=0.05)[0] == NEW
    assert double.asked > 1


def test_a_host_that_does_not_go_down_is_not_taken_as_rebooted() -> None:
    with pytest.raises(Unreachable, match="did not come back within"):
        rebooted(Double(OLD + "\nrunning"), wait=0.05)
