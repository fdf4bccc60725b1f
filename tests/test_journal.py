"""The journal on a real machine: this one. Detached processes, real locks, three shells; only the state folder is a temporary one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision import journal, render
from provision.actions import Command
from provision.model import CHANGE, Item, Plan, PlatformRow
from provision.sh import Sh

SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}


@pytest.fixture(params=list(SHELLS))
def shell(request: pytest.FixtureRequest) -> list[str]:
    if shutil.which(request.param) is None:
        pytest.skip(f"the shell {request.param} is missing")
    return [*SHELLS[request.param], "-s"]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "state"
    yield str(folder)
    for name in ("runner", "script"):
        for file in folder.glob(f"runs/*/{name}"):
            pid = int(dict(line.split("=", 1) for line in file.read_text().splitlines())["pid"])
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def script(body: str) -> Sh:
    return Sh(
        f'#!/bin/sh\nevent() {{ printf \'%s\\t%s\\t%s\\t%s\\n\' "$(date +%s)" "$@" >>"$MLHOST_EVENTS"; }}\nmain() {{\n{body}\n}}\nmain </dev/null\n'
    )


def call(shell: list[str], text: str) -> tuple[int, bytes]:
    env = {"PATH": os.environ["PATH"], "MLHOST_NO_SYSTEMD": "1"}
    done = subprocess.run(shell, input=text.encode(), stdout=subprocess.PIPE, env=env, timeout=60, check=False)
    return done.returncode, done.stdout


def opened(shell: list[str], text: str) -> subprocess.Popen[bytes]:
    env = {"PATH": os.environ["PATH"], "MLHOST_NO_SYSTEMD": "1"}
    process = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert process.stdin is not None
    process.stdin.write(text.encode())
    process.stdin.close()
    process.stdin = None
    return process


def read_until(process: subprocess.Popen[bytes], reader: journal.Reader, kind: type) -> list[journal.Frame]:
    """Frames from the process up to the first of this kind."""
    assert process.stdout is not None
    frames: list[journal.Frame] = []
    for line in process.stdout:
        frames += reader.feed(line)
        if any(isinstance(frame, kind) for frame in frames):
            return frames
    raise AssertionError(f"no {kind.__name__} in {frames}")


def wait_for(path: Path, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def test_a_run_is_told_from_its_start_to_its_exit_code(shell: list[str], state: str) -> None:
    body = "event begin - here; echo 'first line'; echo oops >&2; event start a 'the why'; sleep 0.5; event changed a ''; printf 'no newline'; exit 3"
    code, out = call(shell, journal.launch(script(body), run_id="r1", owner="me@there's", digest="abc", state=state))
    reader = journal.Reader("r1")
    frames = list(reader.feed(out))
    assert code == 0
    assert frames[0] == journal.Started("r1")
    assert frames[-1] == journal.Ended(3)
    assert [frame.kind for frame in frames if isinstance(frame, journal.Event)] == ["begin", "start", "changed"]
    assert [frame.text for frame in frames if isinstance(frame, journal.LogLine)] == ["first line", "oops", "no newline"]
    folder = Path(state) / "runs" / "r1"
    assert (reader.events, reader.log) == ((folder / "events").stat().st_size, (folder / "log").stat().st_size)
    assert "owner=me@there's\n" in (folder / "meta").read_text()
    assert (folder / "result").read_text() == "3\n"
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert Path(state).stat().st_mode & 0o777 == 0o755
    assert not (Path(state) / "lock").exists()
    assert not list(folder.glob("follow.*"))


def test_output_of_any_size_and_kind_arrives_whole(shell: list[str], state: str) -> None:
    body = r"i=0; while [ $i -lt 4000 ]; do echo \"line $i of many, long enough to fill more than one piece\"; i=$((i+1)); done; printf 'esc \033[31mred\033[0m\001\n\000nul\n\377\n'; head -c 200000 /dev/zero | tr '\0' x"
    code, out = call(shell, journal.launch(script(body.replace('\\"', '"')), run_id="r1", owner="me", state=state))
    assert code == 0
    lines = [frame.text for frame in journal.Reader("r1").feed(out) if isinstance(frame, journal.LogLine)]
    assert lines[:4000] == [f"line {number} of many, long enough to fill more than one piece" for number in range(4000)]
    assert lines[4000:4003] == ["esc red", "nul", "\N{REPLACEMENT CHARACTER}"]
    assert "".join(lines[4003:]) == "x" * 200000


def test_a_line_is_told_when_it_is_whole(shell: list[str], state: str) -> None:
    body = "printf 'half '; sleep 1; echo line; printf 'the '; sleep 0.6; printf end"
    _, out = call(shell, journal.launch(script(body), run_id="r1", owner="me", state=state))
    assert [frame.text for frame in journal.Reader("r1").feed(out) if isinstance(frame, journal.LogLine)] == [
        "half line",
        "the end",
    ]


def test_the_run_survives_its_connection_and_is_taken_up_where_it_was_lost(shell: list[str], state: str) -> None:
    body = f"echo one; event start a x; while [ ! -e {state}/go ]; do sleep 0.1; done; echo two; event changed a ''"
    process = opened(shell, journal.launch(script(body), run_id="r1", owner="me", state=state))
    reader = journal.Reader("r1")
    first = read_until(process, reader, journal.LogLine)
    # the session and everything in its process group is gone, as when a connection drops
    process.kill()
    process.communicate()
    Path(f"{state}/go").touch()
    code, out = call(shell, journal.follow("r1", events=reader.events, log=reader.log, state=state))
    resumed = journal.Reader("r1", events=reader.events, log=reader.log)
    second = list(resumed.feed(out))
    told = [frame for frame in first + second if isinstance(frame, (journal.Event, journal.LogLine))]
    assert code == 0
    assert [frame.text for frame in told if isinstance(frame, journal.LogLine)] == ["one", "two"]
    assert [frame.kind for frame in told if isinstance(frame, journal.Event)] == ["start", "changed"]
    assert second[-1] == journal.Ended(0)


def test_the_run_is_in_a_session_of_its_own(shell: list[str], state: str) -> None:
    call(shell, journal.launch(script("cut -d' ' -f6 /proc/self/stat; echo"), run_id="r1", owner="me", state=state))
    runner = dict(line.split("=", 1) for line in (Path(state) / "runs/r1/runner").read_text().splitlines())
    session = (Path(state) / "runs/r1/log").read_text().split()[0]
    assert session == runner["pid"]
    assert int(session) != os.getsid(0)


def test_starting_the_same_run_again_follows_it_and_does_not_run_it_twice(shell: list[str], state: str) -> None:
    text = journal.launch(script(f"echo x >>{state}/count; echo hi"), run_id="r1", owner="me", state=state)
    assert call(shell, text)[0] == 0
    code, out = call(shell, text)
    assert code == 0
    assert list(journal.Reader("r1").feed(out))[-1] == journal.Ended(0)
    assert Path(f"{state}/count").read_text() == "x\n"


def test_launches_of_the_same_run_at_the_same_time_all_follow_the_one(shell: list[str], state: str) -> None:
    text = journal.launch(script(f"echo x >>{state}/count; sleep 1; exit 6"), run_id="r1", owner="me", state=state)
    processes = [opened(shell, text) for _ in range(4)]
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert list(journal.Reader("r1").feed(out))[-1] == journal.Ended(6)
    assert Path(f"{state}/count").read_text() == "x\n"


def test_a_runner_that_was_killed_is_lost_and_does_not_block_the_next_run(shell: list[str], state: str) -> None:
    process = opened(shell, journal.launch(script("echo $$; sleep 60"), run_id="r1", owner="me", state=state))
    reader = journal.Reader("r1")
    read_until(process, reader, journal.LogLine)
    for name in ("runner", "script"):
        file = Path(state) / "runs/r1" / name
        os.kill(int(dict(line.split("=", 1) for line in file.read_text().splitlines())["pid"]), signal.SIGKILL)
    assert process.stdout is not None
    frames = list(reader.feed(process.stdout.read()))
    process.communicate()
    assert frames[-1] == journal.Ended(None)
    assert (Path(state) / "lock").exists()
    code, out = call(shell, journal.launch(script("echo next"), run_id="r2", owner="me", state=state))
    assert (code, list(journal.Reader("r2").feed(out))[-1]) == (0, journal.Ended(0))
    assert not (Path(state) / "lock").exists()


def test_a_script_that_outlives_its_runner_keeps_the_lock_and_its_end_is_told(shell: list[str], state: str) -> None:
    body = f"echo up; while [ ! -e {state}/go ]; do sleep 0.1; done; event end - 0"
    process = opened(shell, journal.launch(script(body), run_id="r1", owner="me", state=state))
    reader = journal.Reader("r1")
    read_until(process, reader, journal.LogLine)
    wait_for(Path(state) / "runs/r1/script")
    os.kill(
        int(dict(line.split("=", 1) for line in (Path(state) / "runs/r1/runner").read_text().splitlines())["pid"]), signal.SIGKILL
    )
    assert call(shell, journal.launch(script("true"), run_id="r2", owner="me", state=state))[0] == journal.LOCKED
    Path(f"{state}/go").touch()
    assert process.stdout is not None
    assert list(reader.feed(process.stdout.read()))[-1] == journal.Ended(0)
    process.communicate()


def test_a_second_launch_is_told_who_has_the_lock(shell: list[str], state: str) -> None:
    body = f"echo up; while [ ! -e {state}/go ]; do sleep 0.1; done; exit 4"
    process = opened(shell, journal.launch(script(body), run_id="r1", owner="ann@laptop", state=state))
    read_until(process, journal.Reader("r1"), journal.LogLine)
    code, out = call(shell, journal.launch(script("echo no"), run_id="r2", owner="bob", state=state))
    frames = list(journal.Reader("r2").feed(out))
    assert code == journal.LOCKED
    assert len(frames) == 1
    assert isinstance(frames[0], journal.Locked)
    assert (frames[0]["run"], frames[0]["owner"]) == ("r1", "ann@laptop")
    assert not (Path(state) / "runs/r2").exists()
    # who knows the run may follow it instead
    other = opened(shell, journal.launch(script("echo no"), run_id="r3", owner="bob", known_run="r1", state=state))
    reader = journal.Reader("r3")
    read_until(other, reader, journal.Locked)
    Path(f"{state}/go").touch()
    out, _ = other.communicate(timeout=30)
    frames = list(reader.feed(out))
    assert other.returncode == journal.LOCKED
    assert frames[-1] == journal.Ended(4)
    process.communicate(timeout=30)


def test_of_many_launches_at_once_exactly_one_runs(shell: list[str], state: str) -> None:
    Path(state).mkdir(mode=0o755)
    # a stale lock makes it harder: all of them want to take it over
    Path(f"{state}/lock").write_text("run=gone\npid=1\nstart=1\nboot=another\nowner=x\n")
    texts = [journal.launch(script("echo x; sleep 2"), run_id=f"r{number}", owner="me", state=state) for number in range(6)]
    processes = [opened(shell, text) for text in texts]
    for process in processes:
        process.communicate(timeout=60)
    assert sorted(process.returncode for process in processes) == [0, *[journal.LOCKED] * 5]


@pytest.mark.parametrize("lock", ["", "run=gone\npid=999999999\nstart=1\n", "run=gone\npid={self}\nstart=1\nboot={boot}\n"])
def test_a_stale_lock_is_taken_over(shell: list[str], state: str, lock: str) -> None:
    Path(state).mkdir()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    Path(f"{state}/lock").write_text(lock.replace("{self}", str(os.getpid())).replace("{boot}", boot))
    code, out = call(shell, journal.launch(script("exit 5"), run_id="r1", owner="me", state=state))
    assert (code, list(journal.Reader("r1").feed(out))[-1]) == (0, journal.Ended(5))


def test_a_state_folder_that_is_a_link_is_refused(shell: list[str], state: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path(state).symlink_to(tmp_path / "elsewhere")
    code, out = call(shell, journal.launch(script("true"), run_id="r1", owner="me", state=state))
    assert code == 1
    assert list(journal.Reader("r1").feed(out)) == [
        journal.Refusal(f"{state} is a symbolic link; it must be a directory of root")
    ]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_state_folder_of_somebody_else_is_refused(shell: list[str], state: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a folder to another user needs root")
    Path(state).mkdir()
    os.chown(state, 12345, 12345)
    code, out = call(shell, journal.launch(script("true"), run_id="r1", owner="me", state=state))
    assert code == 1
    assert "belongs to user 12345" in str(list(journal.Reader("r1").feed(out)))


def test_following_a_run_that_does_not_exist_says_so(shell: list[str], state: str) -> None:
    code, out = call(shell, journal.follow("r9", state=state))
    assert code == 1
    assert list(journal.Reader("r9").feed(out)) == [journal.Refusal(f"there is no run r9 in {state}/runs")]


def test_only_the_last_runs_are_kept(shell: list[str], state: str) -> None:
    for number in range(25):
        old = Path(state) / "runs" / f"old{number}"
        old.mkdir(parents=True)
        os.utime(old, (number + 1, number + 1))
    Path(state).joinpath("runs").chmod(0o700)
    call(shell, journal.launch(script("true"), run_id="r1", owner="me", state=state))
    left = sorted(path.name for path in (Path(state) / "runs").iterdir())
    assert left == sorted(["r1", *(f"old{number}" for number in range(6, 25))])


@pytest.mark.parametrize("name", ["dash", "bash"])  # busybox has these programs in itself
def test_following_a_quiet_run_starts_hardly_a_program(name: str, state: str, tmp_path: Path) -> None:
    shell = [shutil.which(name) or pytest.skip(f"the shell {name} is missing"), "-s"]
    counted = tmp_path / "counted"
    counted.mkdir()
    for program in ("sed", "cut", "cat", "stat", "tail", "head", "wc", "grep", "tr", "mktemp", "rm", "sleep"):
        wrapper = counted / program
        wrapper.write_text(f'#!/bin/sh\necho {program} >>{tmp_path}/calls\nexec {shutil.which(program)} "$@"\n')
        wrapper.chmod(0o755)
    process = opened(shell, journal.launch(script("echo up; sleep 4; echo done"), run_id="r1", owner="me", state=state))
    read_until(process, journal.Reader("r1"), journal.LogLine)
    process.kill()
    process.communicate()
    env = {"PATH": f"{counted}:{os.environ['PATH']}"}
    text = journal.follow("r1", state=state)
    done = subprocess.run(shell, input=text.encode(), stdout=subprocess.PIPE, env=env, timeout=60, check=False)
    frames = list(journal.Reader("r1").feed(done.stdout))
    assert [frame.text for frame in frames if isinstance(frame, journal.LogLine)] == ["up", "done"]
    calls = [call for call in (tmp_path / "calls").read_text().split() if call != "sleep"]
    # the two times when there was something to tell, and a look at the sizes now and then; a program for each look would be some hundred
    assert len(calls) < 60, calls


def test_news_are_told_although_the_clock_was_set_back(shell: list[str], state: str) -> None:
    late = 'echo late; touch -d "2001-01-01 00:00:00" "${MLHOST_EVENTS%/events}/log"'
    body = f"echo up; while [ ! -e {state}/on ]; do sleep 0.1; done; {late}; while [ ! -e {state}/go ]; do sleep 0.1; done"
    process = opened(shell, journal.launch(script(body), run_id="r1", owner="me", state=state))
    reader = journal.Reader("r1")
    read_until(process, reader, journal.LogLine)
    time.sleep(0.5)
    Path(f"{state}/on").touch()
    given_up = threading.Timer(30, Path(f"{state}/go").touch)
    given_up.start()
    read_until(process, reader, journal.LogLine)
    assert not Path(f"{state}/go").exists(), "it was told at the end only"
    given_up.cancel()
    Path(f"{state}/go").touch()
    process.communicate()


def test_a_request_to_stop_lets_the_item_finish(shell: list[str], state: str) -> None:
    items = [
        Item("a", "s", "command", CHANGE, "x", action=Command(f"test -e {state}/a", f"echo up; sleep 1; touch {state}/a")),
        Item("b", "s", "command", CHANGE, "x", action=Command("false", "false")),
    ]
    plan = Plan("h", PlatformRow("debian", "12", "bookworm", "debian", "x86_64", None), (), {}, tuple(items))
    text = render.stage(plan, run_id="r1").replace('[ -z "$ROOT" ] && [ "$(id -u)" != 0 ]', "false")
    process = opened(shell, journal.launch(Sh(text), run_id="r1", owner="me", state=state))
    reader = journal.Reader("r1")
    frames = read_until(process, reader, journal.LogLine)
    os.kill(
        int(dict(line.split("=", 1) for line in (Path(state) / "runs/r1/runner").read_text().splitlines())["pid"]), signal.SIGTERM
    )
    assert process.stdout is not None
    frames += reader.feed(process.stdout.read())
    process.communicate()
    assert frames[-1] == journal.Ended(1)
    events = [frame for frame in frames if isinstance(frame, journal.Event)]
    assert [(outcome.id, outcome.state) for outcome in journal.outcomes(events)] == [("a", "changed"), ("b", "skipped")]


# ---------------------------------------------------------------- reading, without a host


def test_frames_are_the_same_whatever_the_pieces() -> None:
    text = b"Welcome!\nE\tnot\tyet\n@@mlhost journal r\nS\tr\nE\t1.5\tstart\ta\twhy\nL\tx\nO\t12\t2\nH\nK\trun=r0\nK\towner=ann\nK\nR\t75\n"
    whole = list(journal.Reader("r").feed(text))
    reader = journal.Reader("r")
    assert [frame for index in range(len(text)) for frame in reader.feed(text[index : index + 1])] == whole
    assert whole == [
        journal.Started("r"),
        journal.Event(1.5, "start", "a", "why"),
        journal.LogLine("x"),
        journal.Heartbeat(),
        journal.Locked((("run", "r0"), ("owner", "ann"))),
        journal.Ended(75),
    ]
    assert (reader.events, reader.log) == (12, 2)


def test_what_was_not_confirmed_before_the_wire_broke_is_not_handed_out() -> None:
    reader = journal.Reader("r", events=7)
    assert list(reader.feed(b"@@mlhost journal r\nE\t1\tstart\ta\tx\nL\thalf")) == []
    assert (reader.events, reader.log) == (7, 0)


def test_an_offset_that_is_none_is_refused() -> None:
    with pytest.raises(journal.JournalError, match="not understood"):
        list(journal.Reader("r").feed(b"@@mlhost journal r\nO\tx\n"))


def test_an_endless_line_is_refused() -> None:
    reader = journal.Reader("r")
    with pytest.raises(journal.JournalError, match="a line of more than"):
        list(reader.feed(b"x" * (1 << 21)))


def test_escape_sequences_never_reach_the_terminal() -> None:
    assert journal.plain("\x1b]0;title\x07a\x1b[2J\x1b[1;31mb\rc\x9b31m\td\x7f") == "abc31m\td"


def test_outcomes_tell_times_reasons_and_what_was_never_finished() -> None:
    lines = [
        "1\tbegin\t-\tx",
        "2\tstart\ta\twhy",
        "3.5\tchanged\ta\t",
        "4\tstart\tb\t",
        "5\twait\tb\tapt",
        "6\tfailed\tb\tno space",
        "6\tskipped\tc\tb failed",
        "7\tstart\td\t",
        "half",
    ]
    events = [event for line in lines if (event := journal.parse_event(line))]
    assert [(outcome.id, outcome.state, outcome.seconds, outcome.detail) for outcome in journal.outcomes(events)] == [
        ("a", "changed", 1.5, ""),
        ("b", "failed", 2.0, "no space"),
        ("c", "skipped", 0.0, "b failed"),
        ("d", "running", 0.0, ""),
    ]


def test_a_run_id_that_is_no_file_name_is_refused() -> None:
    with pytest.raises(journal.JournalError, match="not a run id"):
        journal.follow("../etc")


def test_the_texts_are_clean(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("the program shellcheck is missing")
    (tmp_path / "launch.sh").write_text(journal.launch(script("true"), run_id="r1", owner="a'b", known_run="r0"))
    (tmp_path / "follow.sh").write_text(journal.follow("r1"))
    done = subprocess.run(
        ["shellcheck", "-s", "sh", *map(str, tmp_path.glob("*.sh"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_script_run_by_hand_takes_the_lock_and_is_waited_for(shell: list[str], state: str, tmp_path: Path) -> None:
    items = (Item("step/1", "step", "command", CHANGE, "x", action=Command(f"[ -e {state}/go ]", f"until [ -e {state}/go ]; do sleep 0.1; done")),)
    text = render.stage(Plan("h", PlatformRow("debian", "12", "", "debian", "x86_64", None), (), {}, items), run_id="by-hand")
    env = {"PATH": os.environ["PATH"], "MLHOST_STATE": state}
    hand = subprocess.Popen([*shell], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    assert hand.stdin is not None
    hand.stdin.write(text.encode())
    hand.stdin.close()
    wait_for(Path(state) / "lock")
    # a second one by hand is told who is at it
    again = subprocess.run([*shell], input=text.encode(), capture_output=True, env=env, timeout=60, check=False)
    assert again.returncode == 1
    assert b"A run of mlhost is under way here (run=by-hand" in again.stderr
    assert b"mlhost status --follow" in again.stderr
    # and so is a controller, which can wait for its end
    code, out = call(shell, journal.launch(script("echo no"), run_id="r2", owner="bob", state=state))
    held = next(iter(journal.Reader("r2").feed(out)))
    assert code == journal.LOCKED
    assert isinstance(held, journal.Locked)
    assert held["run"] == "by-hand"
    assert held["owner"].endswith("(by hand)")
    follower = opened(shell, journal.follow("by-hand", state=state))
    reader = journal.Reader("by-hand")
    read_until(follower, reader, journal.Started)
    Path(f"{state}/go").touch()
    rest, _ = follower.communicate(timeout=60)
    assert list(reader.feed(rest))[-1] == journal.Ended(0)
    assert hand.wait(60) == 0
    assert not (Path(state) / "lock").exists()
    code, _ = call(shell, journal.launch(script("exit 0"), run_id="r3", owner="bob", state=state))
    assert code == 0


def test_a_script_by_hand_takes_over_the_lock_of_one_that_is_gone(shell: list[str], state: str) -> None:
    Path(state).mkdir()
    (Path(state) / "lock").write_text(f"run=gone\npid={os.getpid()}\nstart=1\nboot=another\n")
    text = render.stage(Plan("h", PlatformRow("debian", "12", "", "debian", "x86_64", None), (), {}, ()), run_id="by-hand")
    env = {"PATH": os.environ["PATH"], "MLHOST_STATE": state}
    done = subprocess.run([*shell], input=text.encode(), capture_output=True, env=env, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in Path(state).iterdir()] == []
