"""The loop around one host, against a transport that is a test double: it answers the probe from a capture and breaks where it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest

from provision import catalog, run
from provision.errors import Unreachable
from provision.look import RunOptions
from provision.playbook import load
from provision.progress import NullProgress
from provision.transport import RunResult

HOSTS = Path(__file__).parent / "hosts"


@dataclass
class Double:
    """A transport double: `capture` answers every probe; anything else is remembered and then fails as a broken wire."""

    capture: bytes
    name: str = "double"
    other: list[str] = field(default_factory=list)

    def run(
        self,
        script: str,
        *args: str,
        sudo: bool = False,
        timeout: Optional[float] = None,
        on_output: Optional[Callable[[bytes], None]] = None,
        max_output: int = 0,
    ) -> RunResult:
        if "What this machine is" in script[:200]:
            mark = self.capture[: self.capture.index(b" ")].lstrip(b"@")
            return RunResult(0, self.capture.replace(b"@@" + mark, b"@@" + args[0].encode()), b"", 0.0)
        self.other.append(script)
        raise Unreachable("the double breaks here", "there is no remedy for a double")

    def close(self) -> None:
        pass

    def __enter__(self) -> Double:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def setup(capture: bytes, *sets: str, **options: Any) -> tuple[Any, Double]:
    double = Double(capture)
    chosen = RunOptions(offline=True, **options)
    return run.setup(double, load(None, sets), catalog.load(), chosen, NullProgress()), double


def test_a_host_that_cannot_be_reached_is_reported_not_raised() -> None:
    report, _ = setup((HOSTS / "debian13-cloud/probe.txt").read_bytes(), "docker.source=distro")
    assert (report.status, report.exit_code) == ("unreachable", 4)
    assert "double" in report.message


def test_a_refused_plan_starts_nothing_on_the_host() -> None:
    report, double = setup((HOSTS / "debian12-half-configured/probe.txt").read_bytes())
    assert (report.status, report.exit_code) == ("refused", 1)
    assert double.other == []
    assert all(item.state != "change" for item in report.after.items)


def test_an_answer_that_is_cut_short_is_a_failure_that_names_the_host() -> None:
    capture = (HOSTS / "debian13-cloud/probe.txt").read_bytes()
    report, double = setup(capture[: len(capture) // 2])
    assert report.exit_code == 1
    assert report.message.startswith("double: ")
    assert double.other == []


@pytest.mark.parametrize("answer", [True, False])
def test_what_would_be_removed_is_asked_and_a_no_changes_nothing(answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from provision import facts as facts_package
    from provision.model import Package

    real = facts_package.parse

    def with_an_old_package(sections: Any) -> Any:
        facts = real(sections)
        return replace(facts, packages={**(facts.packages or {}), "docker.io": Package("docker.io", "26.1.5")})

    monkeypatch.setattr(facts_package, "parse", with_an_old_package)
    asked: list[str] = []

    def ask(question: str) -> bool:
        asked.append(question)
        return answer

    report, double = setup((HOSTS / "debian13-cloud/probe.txt").read_bytes(), "docker.source=docker-ce", ask=ask)
    assert len(asked) == 1
    assert "docker.io" in asked[0]
    if answer:
        assert report.status != "refused", "it went on to the signing key and the host"
    else:
        assert report.status == "refused"
        assert double.other == []


def test_a_host_reboots_only_while_it_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = threading.Semaphore(1)
    free: list[bool] = []

    def rebooted(*_: object) -> str:  # a double of reboot_and_wait, which looks whether another could reboot meanwhile
        free.append(turns.acquire(blocking=False))
        return "another boot"

    monkeypatch.setattr("provision.reboot.reboot_and_wait", rebooted)
    options = RunOptions(reboot="allow", reboots=turns)
    work = run.Work(Double(b""), load(None), catalog.load(), options, NullProgress(), run.Clock())
    followed: Any = SimpleNamespace(reboot_reason="")
    facts: Any = SimpleNamespace(boot_id="one")
    assert work.reboot(facts, None, followed) is None  # type: ignore[arg-type]
    assert free == [False]
    assert turns.acquire(blocking=False)
