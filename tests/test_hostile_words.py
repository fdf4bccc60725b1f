"""Whatever a host says: on a terminal nothing moves, recolours, reorders, hides or looks like a message of ours; in files and pipes it arrives as it is."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from provision import capture, journal
from provision.cli import Session, _debug, main
from provision.cli.fleet import Result
from provision.cli.hosts import Terminal, tracebacks
from provision.cli.options import Output
from provision.cli.output import write
from provision.errors import Failed, UsageError
from provision.follow import Followed, _Listener
from provision.journal import Reader
from provision.model import Section
from provision.progress import NullProgress, PlainProgress, RichProgress
from provision.report import sanitize
from tests.fuzz.harnesses import UNSAFE, safe
from tests.fuzz.inputs import SPITEFUL
from tests.program import CHECKOUT

ATTACK = "\x1b]0;owned\x07\x1b[2J\x9b31mred\x1b[0m \u202egnp.exe\u2066 \u200bhid\u3164den\xad \x07\x08\x08\r\nmlhost: all is well\x85\u2028http://ada:s3cret@h/ \x1b]52;c;Zm9v\x1b\\"
CAPTURE = CHECKOUT / "tests/hosts/debian13-h100/probe.txt"


def capture_with(attack: str) -> bytes:
    """A real machine whose texts are hostile wherever a text can be: names, versions, files, error messages."""
    sections = dict(capture.split(CAPTURE.read_bytes()))
    hostile = attack.replace("\n", " ").replace("\r", " ")
    for name in ("hostname", "kernel", "container", "nvidia_smi", "docker_info", "cloud_status", "modinfo", "toolkit_version"):
        sections[name] = Section(sections.get(name, Section(0, "")).rc, hostile)
    release = 'ID=debian\nVERSION_ID="13"\nPRETTY_NAME="' + hostile.replace('"', "") + '"\n'
    sections["os_release"] = Section(0, release)
    sections["file:/etc/apt/sources.list.d/x.list"] = Section(0, f"deb http://{hostile.replace(' ', '')} {hostile} main\n")
    return capture.join(sections)


class TestOnTheTerminal:
    @pytest.mark.parametrize("words", [("plan",), ("plan", "-v"), ("facts",), ("facts", "-v"), ("facts", "--format", "raw"), ("plan", "--format", "sh"), ("plan", "--debug")])
    def test_commands_print_nothing_that_steers_it(self, words: tuple[str, ...], tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_bytes(capture_with(ATTACK))
        shown = on_a_terminal([sys.executable, "-m", "provision", *words, "--no-color", "--capture", str(tmp_path / "c.txt")])
        safe(shown.replace("\r\n", "\n").replace("\t", " "))
        assert "s3cret" not in shown
        assert len(shown) > 50

    def test_an_answer_that_is_none_looks_like_no_message_of_ours(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "c.txt").write_bytes(b"@@0 probe 1\nno\nmlhost: this machine is proved\n\x1b[2J\n@@0 end 0\n\n")
        assert main(["plan", "--capture", str(tmp_path / "c.txt")]) == 1
        err = capsys.readouterr().err
        safe(err)
        assert sum(row.startswith("mlhost:") for row in err.split("\n")) == 1

    def test_progress_lines(self) -> None:
        stream = io.StringIO()
        plain = PlainProgress(["a", f"b{ATTACK}"], stream, verbose=True)
        rich = RichProgress(["a"])
        for progress in (plain, rich):
            progress.stage("a", ATTACK)
            progress.item("a", ATTACK, ATTACK, "running")
            progress.item(f"b{ATTACK}", ATTACK, "", ATTACK)
            progress.line("a", ATTACK)
            progress.wait("a", ATTACK)
        safe(stream.getvalue())
        assert stream.getvalue().count("\n") == 5
        from rich.console import Console

        console = Console(file=io.StringIO(), force_terminal=False, width=200)
        console.print(rich.render())
        safe(console.file.getvalue())  # type: ignore[attr-defined]

    def test_questions(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        assert Terminal(NullProgress()).confirm(f"Remove {ATTACK}?") is False
        said = capsys.readouterr()
        safe(said.out + said.err)

    def test_tracebacks_with_debug(self, capsys: pytest.CaptureFixture[str]) -> None:
        def fail() -> None:
            raise Failed(ATTACK) from ValueError(ATTACK)

        with contextlib.suppress(Failed):
            try:
                fail()
            except Failed:
                _debug(Session(debug=True))
                raise
        context: Any = type("Context", (), {"ensure_object": lambda self, kind: Session(debug=True)})()
        tracebacks(context, [Result("a", error=KeyError(ATTACK))])
        said = capsys.readouterr().err
        safe(said)
        assert "Traceback" in said
        assert "s3cret" not in said

    @pytest.mark.parametrize("attack", SPITEFUL)
    def test_log_lines_that_are_followed(self, attack: str) -> None:
        stream = io.StringIO()
        followed, transport = Followed("1"), type("Host", (), {"name": "gpu-7"})()
        listener = _Listener(transport, Reader("1"), followed, PlainProgress(["gpu-7"], stream, verbose=True), {})
        row = attack.replace("\n", " ")
        listener(f"@@mlhost journal 1\nL\t{row}\nE\t1\tstart\t{row}\t{row}\nE\t1\twait\t{row}\t{row}\nO\t1\t1\n".encode("utf-8", "surrogateescape"))
        safe(stream.getvalue())

    def test_piles_of_marks_stay_on_their_line(self) -> None:
        assert len(sanitize.line("a" + "\u0301" * 300)) == 5
        assert sanitize.line("Việt Nam, ไทย, हिन्दी, é") == "Việt Nam, ไทย, हिन्दी, é"


class TestInFilesAndPipes:
    def test_json_is_ascii_and_whole(self, tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_bytes(capture_with(ATTACK))
        for command in ("facts", "plan"):
            done = subprocess.run(
                [sys.executable, "-m", "provision", command, "--format", "json", "--capture", str(tmp_path / "c.txt")], cwd=CHECKOUT, capture_output=True, check=False
            )
            assert done.stdout.isascii()
            assert not UNSAFE.search(done.stdout.decode())
            assert json.loads(done.stdout)["host"]
            assert b"s3cret" not in done.stdout

    def test_a_raw_capture_in_a_pipe_keeps_its_bytes(self, tmp_path: Path) -> None:
        data = capture_with("\x1b[2J")
        (tmp_path / "c.txt").write_bytes(data)
        done = subprocess.run([sys.executable, "-m", "provision", "facts", "--format", "raw", "--capture", str(tmp_path / "c.txt")], cwd=CHECKOUT, capture_output=True, check=False)
        assert done.stdout == data

    def test_a_file_with_secrets_is_its_owners_alone_even_where_it_was_there_before(self, tmp_path: Path) -> None:
        old = tmp_path / "script.sh"
        old.write_text("old")
        old.chmod(0o644)
        write("new", Output("sh", str(old), False, True), 0o700)
        assert old.stat().st_mode & 0o777 == 0o700

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
    def test_a_file_of_somebody_else_is_not_written_to(self, tmp_path: Path) -> None:
        old = tmp_path / "script.sh"
        old.write_text("")
        os.chown(old, 65534, 65534)
        with pytest.raises(UsageError, match="belongs to another user"):
            write("new", Output("sh", str(old), False, True), 0o700)
        assert old.read_text() == ""


def test_forged_frames_and_events_in_a_log_stay_log_lines() -> None:
    """What a package's scripts print goes to the log, whose every line the host's side marks as one; only the events file makes events."""
    printed = ["E\t1\tfailed\tdocker\tforged", "R\t0", "O\t9\t9", "@@mlhost journal 1", "F\tforged", "\x00E\t1\tend\t-\t0", "1700000000\tfailed\tdocker\tforged"]
    reader = Reader("1")
    frames = list(reader.feed(("@@mlhost journal 1\n" + "".join(f"L\t{row}\n" for row in printed) + "O\t0\t5\n").encode()))
    assert [type(frame) for frame in frames] == [journal.LogLine] * len(printed)


def on_a_terminal(command: list[str]) -> str:
    """What a command writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    said: list[bytes] = []

    def drain() -> None:
        with contextlib.suppress(OSError):
            while True:
                data = os.read(ours, 65536)
                if not data:
                    return
                said.append(data)

    reader = threading.Thread(target=drain)
    reader.start()
    process.wait(120)
    reader.join(10)
    os.close(ours)
    return b"".join(said).decode("utf-8", "surrogateescape")
