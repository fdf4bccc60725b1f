"""Many hosts: their order, what stops them, what is remembered, and a small real fleet of sshds on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision import catalog, playbook, prove, run, savedplan
from provision.capture import split
from provision.cli import main
from provision.cli.fleet import each
from provision.errors import Unreachable, UsageError
from provision.facts import parse
from provision.fleet.memory import Last, left, recall, remember
from provision.fleet.pace import Amount, Course, Pace, amount, waves
from provision.fleet.work import NotStarted
from provision.model import HostReport
from provision.plan import plan
from tests.sshd import Sshd, public, running_sshd

ROOT = Path(__file__).parent.parent


# ---------------------------------------------------------------- the order, pure


def test_the_canary_goes_alone_and_batches_follow() -> None:
    assert waves(20, Pace(8, 1, Amount(25, True))) == [1, 5, 5, 5, 4]
    assert waves(20, Pace(8, 0, Amount(7))) == [7, 7, 6]
    assert waves(3, Pace(8, 5)) == [3]
    assert waves(20, Pace(8, 2)) == [2, 18]
    assert waves(3, Pace(8, 0, Amount(1, True))) == [1, 1, 1]


def played(total: int, pace: Pace, bad: Sequence[int] = ()) -> tuple[list[list[int]], Course]:
    """Work through a course in rounds: in each, all that may begin begin, and then all end. A double of the threads."""
    course, rounds = Course(total, pace), []
    while not course.over:
        begun = list(iter(course.begin, None))
        assert begun, "a course that is not over, in which nothing runs, lets somebody begin"
        rounds.append(begun)
        for number in begun:
            course.end(number, number in bad)
    return rounds, course


def test_a_batch_begins_when_all_of_the_one_before_have_ended() -> None:
    rounds, _ = played(7, Pace(2, 1, Amount(3)))
    assert rounds == [[0], [1, 2], [3], [4, 5], [6]]


def test_a_failed_canary_stops_everything() -> None:
    rounds, course = played(10, Pace(8, 2), bad=[1])
    assert rounds == [[0, 1]]
    assert list(course.waiting) == list(range(2, 10))
    assert course.stopped == "one of the canaries failed"


def test_too_many_failures_stop_what_has_not_begun() -> None:
    rounds, course = played(10, Pace(2, max_failures=Amount(1)), bad=[0, 3, 5])
    assert rounds == [[0, 1], [2, 3]]
    assert course.stopped == "2 of 10 hosts had failed"
    assert played(10, Pace(2, max_failures=Amount(20, True)), bad=[0, 3])[1].stopped == ""
    assert played(10, Pace(4, max_failures=Amount(0)), bad=[9])[1].ended == 10


@given(
    st.integers(1, 60), st.integers(1, 9), st.integers(0, 5), st.none() | st.integers(1, 20), st.none() | st.integers(0, 5),
    st.sets(st.integers(0, 59)), st.randoms(use_true_random=False),
)
def test_whatever_ends_when_no_host_begins_twice_or_too_early(
    total: int, parallel: int, canary: int, batch: int | None, limit: int | None, bad: set[int], random: Any
) -> None:
    pace = Pace(parallel, canary, Amount(batch) if batch else None, None if limit is None else Amount(limit))
    course, order, running = Course(total, pace), [], []
    edges, edge = [], 0
    for size in waves(total, pace):
        edges.append((edge, edge + size))
        edge += size
    while not course.over:
        number = course.begin()
        if number is not None:
            order.append(number)
            running.append(number)
            low = next(a for a, b in edges if a <= number < b)
            assert all(other >= low for other in running)
            assert len(running) <= parallel
        if running and (number is None or random.random() < 0.5):
            course.end(done := running.pop(random.randrange(len(running))), done in bad)
    assert order == list(range(len(order)))
    assert len(order) == total or course.stopped
    if limit is not None:
        assert sum(number in bad for number in order) <= limit + parallel


@pytest.mark.parametrize("text", ["", "-1", "0", "101%", "0%", "2.5", "many", "9999999"])
def test_an_amount_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--batch cannot be"):
        amount(text, "--batch", 1)


# ---------------------------------------------------------------- the threads


def test_a_host_that_hangs_holds_up_nobody_and_hides_nobody() -> None:
    others = threading.Semaphore(0)

    def work(target: str | None) -> str:
        if target == "slow":
            for _ in range(20):
                others.acquire()  # until everybody else is done
        elif target == "h7":
            others.release()
            raise Unreachable("h7 is not there.")
        else:
            others.release()
        return f"{target} done"

    results = each(["slow", *(f"h{n}" for n in range(20))], work, 3)
    assert [result.target for result in results] == ["slow", *(f"h{n}" for n in range(20))]
    assert [result.target for result in results if result.error] == ["h7"]


def test_no_more_run_at_once_than_allowed() -> None:
    lock, now, most = threading.Lock(), [0], [0]
    met = threading.Barrier(4)

    def work(_: str | None) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        met.wait(timeout=60)  # four are there together, every time
        with lock:
            now[0] -= 1

    each([str(n) for n in range(40)], work, 4)
    assert most[0] == 4


def test_hosts_that_never_began_say_why_and_how_to_go_on() -> None:
    def work(target: str | None) -> str:
        if target == "a":
            raise Unreachable("a is not there.")
        return "done"

    results = each(["a", "b", "c"], work, 2, Pace(2, canary=1))
    assert [type(result.error) for result in results] == [Unreachable, NotStarted, NotStarted]
    assert "the canary failed" in str(results[1].error)
    assert "--retry-failed" in str(results[1].error)


def test_ten_thousand_hosts_are_worked_through() -> None:
    results = each([f"h{n}" for n in range(10_000)], lambda target: target, 50, Pace(50, 1, Amount(10, True), Amount(0)))
    assert [result.value for result in results] == [f"h{n}" for n in range(10_000)]


# ---------------------------------------------------------------- what is remembered


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/mlhost"


def test_what_is_left_is_kept_whole_and_for_the_user_alone(state: Path) -> None:
    assert remember("setup", Last(("fleet.yaml",), ("train",), ("b", "a"))) is None
    last = recall("setup")
    assert (last.sources, last.targets, last.failed) == (("fleet.yaml",), ("train",), ("b", "a"))
    assert (state / "last-setup.json").stat().st_mode & 0o077 == 0
    assert [path.name for path in state.iterdir()] == ["last-setup.json"]
    assert left(["a", "b", "c"], ["a", "b"], ["b"]) == ("c", "b")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "sources": [1], "targets": [], "failed": []}'])
def test_a_record_that_is_none_is_an_error_with_a_remedy(state: Path, content: str) -> None:
    state.mkdir(parents=True)
    (state / "last-setup.json").write_text(content)
    with pytest.raises(UsageError) as caught:
        recall("setup")
    assert "Remove it" in caught.value.fix


def test_a_state_directory_that_cannot_be_written_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert "--retry-failed" in (remember("setup", Last((), (), ())) or "")


# ---------------------------------------------------------------- the commands, with a double of what is done on a host

FLEET = """\
hosts:
  "gpu-[1:6]": {user: ada}
  odd: {address: 10.0.0.9, port: 2222, identity: /etc/hostname, playbook: docker-host, set: {docker.source: distro}}
groups:
  train: {hosts: ["gpu-[1:6]"], set: {driver.branch: "580"}}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> str:
    (tmp_path / "fleet.yaml").write_text(FLEET)
    return str(tmp_path / "fleet.yaml")


@pytest.fixture
def setup_double(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, Any]]]:
    """A double of `run.setup`: answers with a report, failed for the hosts named; returns the list of (host, desired state)."""

    def install(*bad: str, code: int = 1) -> list[tuple[str, Any]]:
        calls: list[tuple[str, Any]] = []
        lock = threading.Lock()

        def setup(transport: Any, loaded: Any, _catalog: Any, _options: Any, _progress: Any) -> HostReport:
            with lock:
                calls.append((transport.name, loaded))
            name = transport.name.rpartition("@")[2].partition(":")[0]
            return HostReport(transport.name, "failed" if name in bad else "converged", code if name in bad else 0)

        monkeypatch.setattr(run, "setup", setup)
        return calls

    return install


def test_an_inventory_s_hosts_are_reached_as_it_says_and_called_by_their_names(
    fleet: str, setup_double: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    calls = setup_double()
    assert main(["setup", "-i", fleet, "odd", "gpu-2", "--format", "json"]) == 0
    assert [host["target"] for host in json.loads(capsys.readouterr().out)["hosts"]] == ["gpu-2", "odd"]
    assert sorted(name.rpartition("@")[2] for name, _ in calls) == ["10.0.0.9:2222", "gpu-2:22"]
    assert "ada@gpu-2:22" in [name for name, _ in calls]


def test_every_host_gets_its_own_desired_state_and_the_command_line_wins(fleet: str, setup_double: Callable[..., Any]) -> None:
    calls = setup_double()
    assert main(["setup", "-i", fleet, "odd", "gpu-2"]) == 0
    wanted = {name.rpartition("@")[2].partition(":")[0]: loaded.spec for name, loaded in calls}
    assert (wanted["10.0.0.9"].name, wanted["10.0.0.9"].docker.source) == ("docker-host", "distro")
    assert (wanted["gpu-2"].name, wanted["gpu-2"].driver.branch) == ("gpu-host", "580")
    calls.clear()
    assert main(["setup", "-i", fleet, "odd", "-p", "gpu-host", "--set", "docker.source=docker-ce"]) == 0
    assert (calls[0][1].spec.name, calls[0][1].spec.docker.source) == ("gpu-host", "docker-ce")


def test_a_host_s_wrong_playbook_is_told_before_any_host_is_touched(
    tmp_path: Path, setup_double: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.yaml").write_text("hosts: {a: {}, b: {set: {docker.sorce: distro}}}")
    calls = setup_double()
    assert main(["setup", "-i", str(tmp_path / "f.yaml")]) == 2
    err = capsys.readouterr().err
    assert "the host b" in err
    assert "docker.source" in err
    assert not calls


def test_only_what_failed_is_tried_again_until_nothing_is_left(
    fleet: str, setup_double: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    setup_double("gpu-2", "gpu-5")
    assert main(["setup", "-i", fleet, "train"]) == 1
    calls = setup_double("gpu-5")
    assert main(["setup", "--retry-failed", "--limit", "gpu-5"]) == 1
    assert [name for name, _ in calls] == ["ada@gpu-5:22"]
    calls = setup_double()
    assert main(["setup", "--retry-failed"]) == 0
    assert sorted(name.partition(":")[0] for name, _ in calls) == ["ada@gpu-2", "ada@gpu-5"]
    capsys.readouterr()
    assert main(["setup", "--retry-failed"]) == 0
    assert "left nothing to try again" in capsys.readouterr().err
    assert not setup_double()


def test_a_reboot_that_was_not_allowed_is_no_failure_but_is_tried_again(fleet: str, setup_double: Callable[..., Any]) -> None:
    setup_double("gpu-1", code=6)
    assert main(["setup", "-i", fleet, "--max-failures", "0", "train"]) == 6
    assert recall("setup").failed == ("gpu-1",)


def test_a_fleet_stops_at_a_failed_canary_and_goes_on_from_there(
    fleet: str, setup_double: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    calls = setup_double("gpu-1")
    assert main(["setup", "-i", fleet, "--canary", "1", "train"]) == 1
    assert len(calls) == 1
    out = capsys.readouterr().out
    assert "gpu-2: Not started: the canary failed." in out
    assert "6 hosts: 1 failed, 5 not started" in out
    calls = setup_double()
    assert main(["setup", "--retry-failed", "--batch", "50%"]) == 0
    assert len(calls) == 6


def test_a_plan_file_of_an_inventory_s_hosts_is_carried_out_where_the_inventory_says(
    tmp_path: Path, setup_double: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.yaml").write_text("hosts: {gpu-7: {address: 10.0.0.7, user: ada}}")
    loaded = playbook.load(None)
    seen = parse(split((ROOT / "tests/hosts/debian12-cloud/probe.txt").read_bytes()))
    made = plan(seen, loaded.spec, catalog.load())
    ready = replace(made, items=tuple(item for item in made.items if not item.kind.endswith("repository")))  # no keys from the network
    (tmp_path / "x.plan").write_text(savedplan.write([savedplan.saved_host("gpu-7", ready, ready)], loaded, made="2026-11-23T07:00:00Z", by="me"))
    calls = setup_double()
    assert main(["apply", str(tmp_path / "x.plan"), "-i", str(tmp_path / "f.yaml")]) == 0
    assert [name for name, _ in calls] == ["ada@10.0.0.7:22"]
    (tmp_path / "f.yaml").write_text("hosts: {gpu-8: {}}")
    assert main(["apply", str(tmp_path / "x.plan"), "-i", str(tmp_path / "f.yaml")]) == 2
    assert "`gpu-8`" in capsys.readouterr().err


def test_a_plan_file_is_not_made_for_hosts_that_are_to_be_different(fleet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-i", fleet, "--out", str(tmp_path / "x.plan")]) == 2
    assert "gpu-1 has one of its own" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan", "facts", "status", "doctor", "rollback", "uninstall", "support-bundle"])
def test_every_command_for_hosts_takes_an_inventory(command: str, fleet: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "-i", fleet, "gpu-77"]) == 2
    assert "no host or group 'gpu-77'" in capsys.readouterr().err


def test_a_limit_works_on_plain_targets_too(setup_double: Callable[..., Any]) -> None:
    calls = setup_double()
    assert main(["setup", "a", "b", "c", "--limit", "!b"]) == 0
    assert len(calls) == 2


def test_only_so_many_reboot_at_once(fleet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def double(transport: Any, loaded: Any, catalog: Any, options: Any, progress: Any, depth: Any) -> HostReport:  # of prove.verify, which "reboots"
        with options.reboots:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            threading.Event().wait(0.02)
            with lock:
                now[0] -= 1
        return HostReport(transport.name, "verified", 0)

    monkeypatch.setattr(prove, "verify", double)
    assert main(["verify", "-i", fleet, "--reboots-at-once", "2"]) == 0
    assert most[0] <= 2


def test_ctrl_c_tells_what_was_done_what_goes_on_and_what_was_not_begun(fleet: str, tmp_path: Path) -> None:
    code = """
import sys, threading
from provision import run
from provision.cli import main
from provision.facts import parse
from provision.model import HostReport
from provision.plan import plan
at_work = threading.Barrier(3)
def double(transport, *_):  # a double of run.setup: the first host is done at once, the next two work for ever
    if "gpu-1" in transport.name:
        return HostReport(transport.name, "converged", 0)
    at_work.wait()
    threading.Event().wait()
run.setup = double
threading.Thread(target=lambda: (at_work.wait(), print("at work", flush=True)), daemon=True).start()
sys.exit(main(["setup", "-i", sys.argv[1], "train", "--parallel", "2", "--report", sys.argv[2]]))
"""
    process = subprocess.Popen([sys.executable, "-c", code, fleet, str(tmp_path / "x.json")], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "6 hosts: 1 converged, 2 running, 3 not started" in out
    assert f"mlhost status --follow -i {fleet} train" in err
    assert "--retry-failed" in err
    assert recall("setup").failed == ("gpu-2", "gpu-3", "gpu-4", "gpu-5", "gpu-6")
    kept = json.loads((tmp_path / "x.json").read_text())["hosts"]
    assert [host["status"] for host in kept] == ["converged", "running", "running", *["not started"] * 3]


# ---------------------------------------------------------------- a small real fleet


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sshd]]:
    """Three sshds, each with keys of its own."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running_sshd(tmp_path_factory.mktemp("fleet") / f"s{n}")) for n in range(3)]


def lab(servers: list[Sshd], tmp_path: Path) -> list[str]:
    """Options that reach the servers as node0, dead (which nothing listens for), node1, node2, in the group `lab` of an Ansible inventory."""
    known = tmp_path / "known_hosts"
    known.write_text("".join(f"{server.name_in_known_hosts} {public(server.host_keys[0])}\n" for server in servers))
    lines = [f"node{n} ansible_host=127.0.0.1 ansible_port={s.port} ansible_user={s.user} ansible_ssh_private_key_file={s.user_key}\n" for n, s in enumerate(servers)]
    inventory = tmp_path / "hosts"
    inventory.write_text("[lab]\n" + lines[0] + "dead ansible_host=127.0.0.1 ansible_port=1\n" + "".join(lines[1:]))
    return ["--format", "json", "-i", str(inventory), "-F", "none", "--known-hosts", str(known)]


def mlhost(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """The program itself: its exit code, and its hosts' JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "provision", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "MLHOST_BOOTSTRAPPED": "1", "SSH_AUTH_SOCK": ""},
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["hosts"]


def commands(servers: list[Sshd]) -> list[int]:
    return [server.log.count("Starting session: command") for server in servers]


def test_real_hosts_of_an_inventory_are_looked_at_once_and_a_dead_one_hides_none(servers: list[Sshd], tmp_path: Path) -> None:
    before = commands(servers)
    code, hosts = mlhost("facts", "lab", *lab(servers, tmp_path))
    assert code == 4
    assert [host["target"] for host in hosts] == ["node0", "dead", "node1", "node2"]
    assert ["error" in host for host in hosts] == [False, True, False, False]
    assert [after - number for number, after in zip(before, commands(servers))] == [1, 1, 1]


def test_a_dead_canary_keeps_real_hosts_untouched_and_all_are_remembered(servers: list[Sshd], tmp_path: Path) -> None:
    options = lab(servers, tmp_path)
    text = (tmp_path / "hosts").read_text().splitlines(keepends=True)
    (tmp_path / "hosts").write_text("".join([text[0], text[2], text[1], *text[3:]]))  # the dead one first
    before = commands(servers)
    code, hosts = mlhost("verify", "lab", "--canary", "1", *options)
    assert (code, commands(servers)) == (1, before)
    assert [host["status"] for host in hosts] == ["unreachable", "not started", "not started", "not started"]
    assert recall("verify").failed == ("dead", "node0", "node1", "node2")
