"""How hosts stand: the last run, what has drifted since and what is pending; for one host and for a fleet."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision import catalog, playbook, status
from provision.capture import split
from provision.errors import Unreachable
from provision.facts import parse
from provision.facts.journal import runs
from provision.model import Facts, HostReport, Run, Section
from provision.plan import plan
from provision.progress import NullProgress
from provision.report.statustext import status_text
from provision.report.verdict import report_of_error
from provision.results import LastRun
from provision.run import about, values_name
from tests.sshd import Sshd, public, running_sshd

ROOT = Path(__file__).parent.parent
LOADED = playbook.load(None)
CATALOG = catalog.load()
WANTED = status.Wanted(LOADED, CATALOG)


class Nowhere:
    """A double of a transport that nothing is asked of."""

    name = "gpu-7"


def facts_of(name: str) -> Facts:
    return parse(split((ROOT / "tests/hosts" / name / "probe.txt").read_bytes()))


def told(seen: Facts, monkeypatch: pytest.MonkeyPatch) -> HostReport:
    """What is told of a host that answers the look with these facts; the look is a double."""
    monkeypatch.setattr(status, "_look", lambda *_: seen)
    return status.status(Nowhere(), False, NullProgress(), WANTED)  # type: ignore[arg-type]


def after(seen: Facts, state: str = "done", **other: Any) -> Facts:
    """The facts, with a last run that found half of the items right and was to put the others right."""
    ids = [item.id for item in plan(seen, LOADED.spec, CATALOG).items]
    run = Run("r1", state, "ada@desk", "2026-08-01T10:15:00Z", rc=0, version="0.1.0", playbook="gpu-host", values=values_name(LOADED),
              right=tuple(ids[::2]), doing=tuple(ids[1::2]))
    return replace(seen, last_run=replace(run, **other))


FRESH = facts_of("debian12-cloud")
PENDING = [item.id for item in plan(FRESH, LOADED.spec, CATALOG).items if item.state != "ok"]


def test_a_fresh_host_has_everything_pending_and_nothing_drifted(monkeypatch: pytest.MonkeyPatch) -> None:
    report = told(replace(FRESH, last_run=None, run=None, proof={}), monkeypatch)
    assert (report.status, report.exit_code, report.drift, report.last_run) == ("pending", 3, (), None)
    assert report.message == "mlhost has not run on this host"
    assert report.versions["system"] == "Debian GNU/Linux 12 (bookworm)"


def test_what_was_right_after_the_last_run_and_is_not_now_has_drifted(monkeypatch: pytest.MonkeyPatch) -> None:
    report = told(after(FRESH), monkeypatch)
    assert (report.status, report.exit_code) == ("pending", 3)
    assert list(report.drift) == PENDING
    assert report.last_run == LastRun("r1", "done", "2026-08-01T10:15:00Z", "ada@desk", "0.1.0", "gpu-host", 0)


def test_what_a_failed_run_was_still_to_do_has_not_drifted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = after(FRESH, "failed", rc=1)
    report = told(seen, monkeypatch)
    assert (report.status, report.exit_code) == ("failed", 1)
    assert seen.last_run
    assert list(report.drift) == [name for name in PENDING if name in seen.last_run.right]
    assert report.drift != tuple(PENDING)


@pytest.mark.parametrize("other", [{"values": "another"}, {"values": ""}, {"right": (), "doing": ()}])
def test_where_something_else_was_wanted_nothing_is_said_to_have_drifted(other: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    report = told(after(FRESH, **other), monkeypatch)
    assert (report.status, report.drift) == ("pending", ())


def test_a_run_that_goes_on_is_told_of_and_nothing_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = after(FRESH, "running", rc=None)
    report = told(replace(seen, run=seen.last_run), monkeypatch)
    assert (report.status, report.exit_code, report.before) == ("running", 0, None)
    assert report.last_run
    assert report.last_run.state == "running"


def test_a_run_that_waits_for_a_reboot_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(after(FRESH, "reboot", rc=76), monkeypatch).exit_code == 6


def test_a_host_that_cannot_be_set_up_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    report = told(facts_of("debian12-half-configured"), monkeypatch)
    assert (report.status, report.exit_code) == ("refused", 1)
    assert "dpkg" in report.fix


def test_what_a_run_writes_down_is_read_again() -> None:
    decided = plan(FRESH, LOADED.spec, CATALOG)
    meta = "".join(f"{key}={value}\n" for key, value in {"run": "r1", "owner": "me", **about(decided, LOADED)}.items())
    sections = {"journal": Section(0, ""), "run:r1:meta": Section(0, meta), "run:r1:result": Section(0, "0\n")}
    for section in ("run:r1:runner", "run:r1:script"):
        sections[section] = Section(2, "")
    _, last = runs(sections, None)
    assert last is not None
    assert (last.state, last.playbook, last.values) == ("done", "gpu-host", values_name(LOADED))
    assert sorted((*last.right, *last.doing)) == sorted(item.id for item in decided.items)
    assert {item.id for item in decided.items if item.state == "ok"} == set(last.right)


# ---------------------------------------------------------------- as text


def fleet(monkeypatch: pytest.MonkeyPatch) -> list[HostReport]:
    seen = told(after(FRESH), monkeypatch)
    assert seen.before
    right = replace(seen.before, items=tuple(replace(item, state="ok", action=None) for item in seen.before.items))
    fine = replace(seen, target="gpu-1", status="converged", exit_code=0, drift=(), before=right, versions={"docker": "29.1.3", "toolkit": ""})
    return [
        fine,
        replace(told(after(FRESH), monkeypatch), target="gpu-2", versions={"docker": "27.5.1", "toolkit": ""}),
        replace(told(replace(FRESH, last_run=None), monkeypatch), target="gpu-3"),
        report_of_error("gpu-4", Unreachable("gpu-4: connection refused on port 22.", "Start sshd.")),
    ]


def test_a_fleet_is_a_line_each_and_tells_how_versions_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = status_text(fleet(monkeypatch)).splitlines()
    assert lines[0].split() == ["HOST", "STATE", "LAST", "RUN", "DRIVER", "DOCKER", "TOOLKIT"]
    assert lines[1].split() == ["✓", "gpu-1", "right", "2026-08-01", "10:15", "done", "?", "29.1.3", "none"]
    assert lines[2].split()[:6] == ["+", "gpu-2", "drifted", "2026-08-01", "10:15", "done"]
    assert lines[3].split()[:4] == ["+", "gpu-3", "pending", "none"]
    assert "connection refused" in lines[4]
    assert any("29.1.3 on 1" in text and "27.5.1 on 1 (gpu-2)" in text for text in lines)
    assert lines[-1] == "4 hosts: 1 unreachable, 1 drifted, 1 pending, 1 right"
    assert all(len(text) <= 100 for text in lines)


def test_one_host_names_what_drifted_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    text = status_text([fleet(monkeypatch)[1]])
    assert text.startswith("gpu-2: has drifted; the last run, r1, ended: done")
    assert "docker/packages" in text.partition("Drifted")[2]
    assert "Pending" not in text
    assert "ada@desk" in text
    assert "`mlhost setup gpu-2`" in text


def test_a_host_that_is_right_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(status_text([fleet(monkeypatch)[0]]).splitlines()) == 1


# ---------------------------------------------------------------- real hosts: a few sshds of this machine


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sshd]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running_sshd(tmp_path_factory.mktemp("status") / f"s{n}")) for n in range(2)]


def test_real_hosts_are_asked_one_question_each_and_one_that_is_away_hides_none(servers: list[Sshd], tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("".join(f"{server.name_in_known_hosts} {public(server.host_keys[0])}\n" for server in servers))
    rows = [f"node{n} ansible_host=127.0.0.1 ansible_port={s.port} ansible_user={s.user} ansible_ssh_private_key_file={s.user_key}" for n, s in enumerate(servers)]
    (tmp_path / "hosts").write_text("\n".join(["[lab]", rows[0], "away ansible_host=127.0.0.1 ansible_port=1", rows[1]]) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "provision", "status", "-i", str(tmp_path / "hosts"), "-F", "none", "--known-hosts", str(known),
         "--report", str(tmp_path / "fleet.json"), "--report", str(tmp_path / "fleet.html")],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "MLHOST_BOOTSTRAPPED": "1", "SSH_AUTH_SOCK": ""},
    )  # fmt: skip
    document = json.loads((tmp_path / "fleet.json").read_text())
    assert done.returncode == document["exit_code"] != 0, done.stderr
    assert [host["target"] for host in document["hosts"]] == ["node0", "away", "node1"]
    assert document["command"] == "status"
    assert document["hosts"][1]["status"] == "unreachable"
    assert document["hosts"][0]["versions"]["kernel"] == document["hosts"][2]["versions"]["kernel"] == os.uname().release
    assert [server.log.count("Starting session: command") for server in servers] == [1, 1]
    assert "State of 3 hosts" in (tmp_path / "fleet.html").read_text()
    assert done.stdout.splitlines()[-1].startswith("3 hosts: ")
