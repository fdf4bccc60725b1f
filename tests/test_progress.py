"""What a run shows while it works: plain lines, the live display, and both under several threads."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from provision.model import HostReport
from provision.progress import Display, NullProgress, PlainProgress, Renamed, RichProgress, open_progress

DONE = HostReport("a", "changed", 0)


def play(progress: Display, target: str) -> None:
    """The events of a small run."""
    progress.stage(target, "working")
    progress.item(target, "docker/packages", "no engine here", "running")
    progress.line(target, "Unpacking docker-ce")
    progress.wait(target, "apt is held by unattended-upgrades")
    progress.wait(target, "apt is held by unattended-upgrades")
    progress.item(target, "docker/packages", "", "changed")
    progress.done(target, DONE)


def screen(targets: list[str], width: int = 80) -> tuple[RichProgress, io.StringIO]:
    """A live display on a terminal that is a string."""
    stream = io.StringIO()
    return RichProgress(targets, Console(file=stream, force_terminal=True, width=width, height=20, color_system=None)), stream


def shown(progress: RichProgress, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(progress.render())
    return capture.get()


def test_plain_progress_writes_one_line_per_event_and_waits_only_once() -> None:
    stream = io.StringIO()
    play(PlainProgress(["a"], stream), "a")
    assert stream.getvalue().splitlines() == [
        "working ...",
        "  docker/packages: no engine here ...",
        "  waiting: apt is held by unattended-upgrades",
        "  docker/packages: changed",
    ]


def test_plain_progress_names_the_host_where_there_are_several() -> None:
    stream = io.StringIO()
    play(PlainProgress(["a", "b"], stream), "b")
    assert all(text.startswith("b: ") for text in stream.getvalue().splitlines())
    assert stream.getvalue().endswith("b: changed\n")


def test_the_log_s_lines_come_with_verbose() -> None:
    stream = io.StringIO()
    play(PlainProgress(["a"], stream, verbose=True), "a")
    assert "  | Unpacking docker-ce" in stream.getvalue().splitlines()


def test_a_reader_that_has_gone_away_stops_nothing() -> None:
    stream = io.StringIO()
    stream.close()
    play(PlainProgress(["a"], stream), "a")


def test_a_stream_that_cannot_show_a_letter_shows_another() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    PlainProgress(["a"], stream).stage("a", "prüft")
    assert raw.getvalue() == b"pr?ft ...\n"


def test_the_live_display_of_one_host_shows_step_and_last_line() -> None:
    progress, _ = screen(["a"])
    progress.stage("a", "working")
    progress.item("a", "docker/packages", "no engine here", "running")
    progress.line("a", "Unpacking docker-ce")
    text = shown(progress)
    assert "working: no engine here" in text
    assert "Unpacking docker-ce" in text


def test_the_live_display_of_several_hosts_is_a_table_in_the_order_given() -> None:
    progress, _ = screen(["b", "a"])
    progress.stage("a", "looking")
    progress.done("b", HostReport("b", "failed", 1, message="b: apt failed"))
    rows = [row for row in shown(progress).splitlines() if row.strip()]
    assert [row.split()[:2] for row in rows] == [["b", "failed"], ["a", "looking"]]
    assert "apt failed" in rows[0]


def test_five_hundred_hosts_fit_on_the_screen_and_those_at_work_and_gone_wrong_are_seen() -> None:
    progress, _ = screen([f"h{number:03}" for number in range(500)])
    for number in range(60):
        progress.begun(f"h{number:03}")
        if number < 50:
            progress.left(f"h{number:03}", "unreachable" if number in (7, 23) else "done")
    progress.stage("h055", "working")
    rows = [row.split() for row in shown(progress).splitlines() if row.strip()]
    assert len(rows) == 18
    names = [row[0] for row in rows[:-1]]
    assert names == sorted(names)
    assert {"h007", "h023", "h055", *(f"h{number:03}" for number in range(50, 60))} <= set(names)
    assert " ".join(rows[-1]) == "500 hosts: 10 at work, 48 done, 2 unreachable, 440 waiting"


def test_many_hosts_gone_wrong_leave_room_for_those_at_work() -> None:
    progress, _ = screen([f"h{number:03}" for number in range(100)])
    for number in range(100):
        progress.begun(f"h{number:03}")
        if number < 80:
            progress.left(f"h{number:03}", "failed")
    rows = [row.split() for row in shown(progress).splitlines() if row.strip()]
    assert sum(row[1] == "failed" for row in rows[:-1]) == 8
    assert sum(row[1] == "connecting" for row in rows[:-1]) == 9


@pytest.mark.parametrize("width", [20, 40, 200])
def test_the_live_display_never_wraps(width: int) -> None:
    progress, _ = screen(["a"], width)
    progress.stage("a", "x" * 300)
    progress.line("a", "y" * 300)
    assert len(shown(progress, width).splitlines()) == 2


def test_the_live_display_leaves_nothing_behind_and_shows_no_host_s_escapes() -> None:
    progress, stream = screen(["a"])
    with progress:
        progress.line("a", "\x1b]0;pwned\x07\x1b[31mred")
        time.sleep(0.3)
    assert "pwned" not in stream.getvalue()
    assert "red" in stream.getvalue()
    # The last thing written erases the display.
    assert stream.getvalue().rstrip("\n").endswith(("\x1b[2K", "\x1b[?25h"))


def test_a_pause_gives_the_terminal_away_and_takes_it_back() -> None:
    progress, stream = screen(["a"])
    with progress:
        with progress.paused():
            written = len(stream.getvalue())
            time.sleep(0.5)
            assert len(stream.getvalue()) == written
        time.sleep(0.5)
        assert len(stream.getvalue()) > written
    with progress.paused():
        pass


@pytest.mark.parametrize("kind", ["plain", "rich"])
def test_many_hosts_at_once_lose_no_event(kind: str) -> None:
    targets = [f"host-{number}" for number in range(16)]
    stream = io.StringIO()
    progress: Display = PlainProgress(targets, stream) if kind == "plain" else screen(targets)[0]
    with progress:

        def many(name: str) -> None:
            for _ in range(20):
                play(progress, name)

        threads = [threading.Thread(target=many, args=(name,)) for name in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if isinstance(progress, RichProgress):
        assert shown(progress).count("changed") == 16
    else:
        lines = stream.getvalue().splitlines()
        assert all(text.startswith("host-") and ": " in text for text in lines)
        assert sum(text.endswith(": changed") and "docker" not in text for text in lines) == 16 * 20


def test_a_renamed_progress_tells_events_under_the_user_s_name() -> None:
    stream = io.StringIO()
    inner = PlainProgress(["gpu", "x"], stream)
    renamed = Renamed(inner, "gpu")
    renamed.stage("root@10.0.0.7:22", "looking")
    renamed.done("root@10.0.0.7:22", DONE)
    assert stream.getvalue() == "gpu: looking ...\ngpu: changed\n"


def test_the_null_progress_accepts_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    with NullProgress() as progress:
        play(progress, "a")
    assert capsys.readouterr() == ("", "")


def test_plain_progress_does_not_import_rich() -> None:
    code = "import sys; from provision.progress import open_progress; open_progress(['a'], live=False); sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert isinstance(open_progress(["a"], live=True), RichProgress)
