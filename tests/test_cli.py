"""The command line: arguments in, the library called, text out, exit code. The library is the real one, or a double that says so."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from provision import __version__, prove, run
from provision import status as status_module
from provision.cli import COMMANDS, INTERRUPTED, main
from provision.cli.fleet import HERE, Result, each, report_of
from provision.cli.options import Output, read_password
from provision.cli.output import fancy, look
from provision.cli.setup import self_command
from provision.errors import Failed, Interrupted, Unreachable, UsageError
from provision.model import Facts, HostReport, OsRelease, Plan
from provision.transport.errors import SudoPasswordNeeded
from tests import report_samples as samples

ROOT = Path(__file__).parent.parent
OS_RELEASE = 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n'


def mlhost(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The program itself, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "provision", *args], cwd=ROOT, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120, check=False, **options
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A system tree with nothing but a name, and a PCI bus without a GPU."""
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "sys/bus/pci/devices").mkdir(parents=True)
    (root / "etc/os-release").write_text(OS_RELEASE)
    return root


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """Put doubles in the place of the functions of `provision.run` and `provision.prove`; returns the list of their calls."""

    def install(**answers: Any) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def double(name: str, answer: Any) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                calls.append((name, *args))
                value = answer(*args) if callable(answer) else answer
                if isinstance(value, BaseException):
                    raise value
                return value

            return call

        for name, answer in answers.items():
            monkeypatch.setattr({"verify": prove, "status": status_module}.get(name, run), name, double(name, answer))
        return calls

    return install


def host_of(transport: Any) -> str:
    """The host a double was called for."""
    name: str = transport.name
    return name.rpartition("@")[2].partition(":")[0]


# ---------------------------------------------------------------- start-up and help


def test_the_version_is_printed_and_nothing_else() -> None:
    done = mlhost("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mlhost {__version__}\n", "")


@pytest.mark.parametrize("words", ["--version", "--help", "", "setup --help", "plan --help"])
def test_help_and_version_load_none_of_the_machinery(words: str) -> None:
    code = (
        "import sys; from provision.cli import main; main(sys.argv[1:]);"
        "heavy = {'rich', 'fabric', 'paramiko', 'requests', 'jinja2', 'yaml', 'provision.run', 'provision.transport'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_plain_local_run_imports_neither_rich_nor_ssh(tree: Path) -> None:
    code = (
        "import sys; from provision.cli import main; main(sys.argv[1:]);"
        "sys.exit(', '.join(sorted({'rich', 'fabric', 'paramiko', 'requests'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, "facts", "--root", str(tree)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Debian GNU/Linux 13" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_and_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"mlhost {command} " in text.partition("Examples:")[2]
    assert "Exit codes:" in text


def test_every_option_has_a_sentence() -> None:
    from importlib import import_module

    import click

    for name in COMMANDS:
        for parameter in import_module(f"provision.cli.{name.replace('-', '_')}").command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"


def test_without_arguments_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


# ---------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["setpu"], "Did you mean `setup`?"),
        (["root@gpu-7"], "mlhost setup root@gpu-7"),
        (["setup", "--hots-keys", "ignore"], "--host-keys"),
        (["setup", "--format", "xml"], "'text', 'json', 'junit'"),
        (["setup", "--host-keys", "never"], "enforce"),
        (["setup", "--parallel", "0"], "--parallel"),
        (["plan", "-p", "gpu-hots"], "gpu-host"),
        (["plan", "--set", "docker.sorce=distro"], "source"),
        (["plan", "a@"], "a@"),
        (["plan", "--root", "/nowhere/at/all"], "/nowhere/at/all"),
        (["plan", "--arch", "aarch64"], "--root"),
        (["plan", "--root", "/", "gpu-7"], "exclude each other"),
        (["plan", "--root", "/", "--capture", "x"], "exclude each other"),
        (["facts", "--capture", "/nowhere/x"], "/nowhere/x"),
        (["plan", "--format", "sh", "a", "b"], "one machine"),
        (["facts", "--format", "raw", "a", "b"], "one machine"),
        (["setup", "--out", "/nowhere/x"], "/nowhere"),
        (["verify", "--sudo-password-file", "/nowhere/x"], "/nowhere/x"),
        (["plan", "--ask-sudo-password"], "--sudo-password-file"),
        (["status", "--connect-timeout", "soon"], "soon"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_and_how_better(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mlhost: ")
    assert says in err
    assert "Traceback" not in err


def test_a_file_that_is_no_capture_is_refused_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("hello\n")
    assert main(["facts", "--capture", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err.startswith("mlhost: ")


# ---------------------------------------------------------------- the real thing on a tree


def test_a_plan_for_a_tree_changes_nothing_and_ends_with_3(tree: Path) -> None:
    before = sorted(path.name for path in tree.rglob("*"))
    done = mlhost("plan", "--root", str(tree), "--arch", "x86_64", "--format", "json")
    plan = json.loads(done.stdout)
    assert (done.returncode, done.stderr, plan["schema"]) == (3, "", 1)
    assert plan["platform"] == {"id": "debian", "version": "13", "codename": "trixie", "family": "debian", "arch": "x86_64", "cloud": None}
    assert plan["decisions"]["docker"]["action"] == "install"
    assert sorted(path.name for path in tree.rglob("*")) == before


def test_a_raw_capture_gives_the_same_plan_as_the_tree_it_came_from(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = tmp_path / "capture.txt"
    assert main(["facts", "--root", str(tree), "--arch", "aarch64", "--format", "raw", "--out", str(capture)]) == 0
    assert capture.stat().st_mode & 0o077 == 0
    plans = []
    for source in (["--root", str(tree), "--arch", "aarch64"], ["--capture", str(capture)]):
        assert main(["plan", "--format", "json", *source]) == 3
        plans.append(json.loads(capsys.readouterr().out))
    piped = subprocess.run(
        [sys.executable, "-m", "provision", "plan", "--capture", "-", "--format", "json"], cwd=ROOT, input=capture.read_bytes(), capture_output=True, check=False
    )
    assert plans[0] == plans[1] == json.loads(piped.stdout)
    assert plans[0]["platform"]["arch"] == "aarch64"


@pytest.mark.parametrize("form", ["raw", "json", "text"])
def test_no_form_of_the_facts_holds_a_proxy_s_or_a_mirror_s_password(form: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "etc/apt/apt.conf.d").mkdir(parents=True)
    (tree / "etc/apt/apt.conf.d/proxy").write_text('Acquire::http::Proxy "http://ada:secret-1@proxy.test:3128";\n')
    (tree / "etc/apt/sources.list").write_text("deb https://ada:secret-1@mirror.test/debian trixie main\n")
    assert main(["facts", "-v", "--root", str(tree), "--format", form]) == 0
    out = capsys.readouterr().out
    assert "mirror.test" in out
    assert "secret-1" not in out


def test_an_unsupported_tree_ends_with_5_and_still_prints_the_plan(tree: Path) -> None:
    (tree / "etc/os-release").write_text('ID=plan9\nVERSION_ID="4"\nPRETTY_NAME="Plan 9"\n')
    done = mlhost("plan", "--root", str(tree))
    assert done.returncode == 5
    assert "Plan 9" in done.stdout
    assert "Unsupported" in done.stdout


def test_an_unreachable_host_ends_with_4_and_one_paragraph() -> None:
    done = mlhost("plan", "127.0.0.1:1", "--connect-timeout", "5")
    assert (done.returncode, done.stdout) == (4, "")
    assert "mlhost: " in done.stderr
    assert "127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_closes_the_pipe_meets_silence(tree: Path) -> None:
    command = f"{sys.executable} -m provision facts --root {tree} --format json | head -c 1"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_without_unicode_still_gets_text(tree: Path, encoding: str) -> None:
    done = mlhost("plan", "--root", str(tree), env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 3
    assert done.stdout.isascii()


# ---------------------------------------------------------------- plan, with doubles


@pytest.mark.parametrize(
    ("plan", "code"), [(samples.CONVERGED, 0), (samples.PENDING, 3), (samples.REFUSED, 1), (samples.UNSUPPORTED, 5)]
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_the_plan_s_exit_code_does_not_depend_on_the_format(
    plan: Plan, code: int, form: str, doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    doubles(plan_of=(None, plan))
    assert main(["plan", "--format", form]) == code
    assert capsys.readouterr().out


def test_the_script_is_printed_for_a_plan_that_can_be_carried_out(doubles: Callable[..., Any], tmp_path: Path) -> None:
    doubles(plan_of=(None, samples.PENDING), script_of="#!/bin/sh\nexit 0\n")
    out = tmp_path / "stage.sh"
    assert main(["plan", "--format", "sh", "--out", str(out)]) == 3
    assert out.read_text() == "#!/bin/sh\nexit 0\n"
    assert out.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("plan", "code"), [(samples.REFUSED, 1), (samples.UNSUPPORTED, 5)])
def test_a_refused_plan_has_no_script(plan: Plan, code: int, doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    calls = doubles(plan_of=(None, plan), script_of="never")
    assert main(["plan", "--format", "sh"]) == code
    out, err = capsys.readouterr()
    assert (out, [call[0] for call in calls]) == ("", ["plan_of"])
    assert plan.problems[0].message in err


def test_several_plans_are_printed_in_the_order_given_with_the_worst_exit_code(
    doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def plan_of(transport: Any, *_: Any) -> Any:
        host = host_of(transport)
        time.sleep({"a": 0.2, "b": 0.1}.get(host, 0))
        return Unreachable(f"{host}: no answer.", "Is it on?") if host == "b" else (None, replace(samples.PENDING, host=host))

    doubles(plan_of=plan_of)
    assert main(["plan", "a", "b", "c", "a"]) == 4
    out, err = capsys.readouterr()
    assert [text.split()[0] for text in out.splitlines() if "Debian" in text] == ["a", "c"]
    assert "b: b: no answer." in err
    assert main(["plan", "--format", "json", "a", "b"]) == 4
    hosts = json.loads(capsys.readouterr().out)["hosts"]
    assert hosts[0]["host"] == "a"
    assert hosts[1]["error"] == {"message": "b: no answer.", "fix": "Is it on?", "exit_code": 4}


# ---------------------------------------------------------------- setup, verify, status, with doubles


def test_setup_passes_on_what_the_user_allows(doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    calls = doubles(setup=samples.CHANGED_REPORT)
    assert main(["setup", "--yes", "--no-reboot", "--lock-wait", "5", "--timeout", "60", "--set", "docker.source=distro", "root@gpu-7"]) == 0
    _, transport, loaded, _catalog, options, _progress = calls[0]
    assert host_of(transport) == "gpu-7"
    assert loaded.spec.docker.source == "distro"
    assert (options.yes, options.reboot, options.lock_wait, options.timeout, options.ask) == (True, "never", 5, 60.0, None)
    assert "set up and proved" in capsys.readouterr().out


@pytest.mark.parametrize(("args", "reboot"), [([], "ask"), (["--reboot"], "allow"), (["--set", "reboot=never"], "never"), (["--set", "reboot=never", "--reboot"], "allow")])
def test_the_command_line_wins_over_the_playbook_about_the_reboot(args: list[str], reboot: str, doubles: Callable[..., Any]) -> None:
    calls = doubles(setup=samples.SAME_REPORT)
    main(["setup", *args])
    assert calls[0][4].reboot == reboot


def test_the_command_that_continues_after_a_reboot_works_from_anywhere(tmp_path: Path, doubles: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("docker:\n  source: distro\n")
    monkeypatch.chdir(tmp_path)
    calls = doubles(setup=samples.SAME_REPORT)
    main(["setup", "-p", "./mine.yaml", "--set", "gpu=ignore", "--reboot"])
    words = calls[0][4].self_command
    assert words[-6:] == ("setup", "--playbook", str(tmp_path / "mine.yaml"), "--set", "gpu=ignore", "--reboot")
    done = subprocess.run([*words[: words.index("setup")], "--version"], cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout == f"mlhost {__version__}\n"


@pytest.mark.parametrize("command", ["setup", "verify", "status"])
def test_reports_come_as_json_too(command: str, doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    doubles(**{command: samples.FAILED_REPORT})
    assert main([command, "--format", "json"]) == 1
    value = json.loads(capsys.readouterr().out)
    assert (value["schema"], value["exit_code"], value["hosts"][0]["status"]) == (1, 1, "failed")


def test_a_junit_report_is_written_to_the_file(doubles: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doubles(verify=samples.UNVERIFIED_REPORT)
    out = tmp_path / "report.xml"
    assert main(["verify", "--format", "junit", "--out", str(out)]) == 7
    assert ET.parse(out).getroot().find("testsuite/testcase/failure") is not None
    assert capsys.readouterr().out == ""


def test_a_fleet_s_reports_come_in_the_order_given_with_a_summary(doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    def setup(transport: Any, *_: Any) -> Any:
        host = host_of(transport)
        if host == "gpu-9":
            return Unreachable("gpu-9: connection refused on port 22.", "Start sshd.")
        return replace(samples.SAME_REPORT if host == "gpu-7" else samples.FAILED_REPORT, target=host)

    doubles(setup=setup)
    assert main(["setup", "gpu-9", "gpu-7", "gpu-8"]) == 1
    out = capsys.readouterr().out
    assert out.index("connection refused") < out.index("gpu-7: nothing to change") < out.index("gpu-8: failed")
    assert out.rstrip().splitlines()[-1] == "3 hosts: 1 unreachable, 1 converged, 1 failed"


def test_one_host_s_bug_is_not_the_fleet_s(doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    doubles(setup=lambda transport, *_: ZeroDivisionError("x") if host_of(transport) == "a" else samples.SAME_REPORT)
    assert main(["setup", "a", "b"]) == 1
    out, err = capsys.readouterr()
    assert "this is a bug in mlhost" in out
    assert "nothing to change" in out
    assert "Traceback" not in err
    assert main(["setup", "--debug", "a", "b"]) == 1
    assert "ZeroDivisionError: x" in capsys.readouterr().err.partition("Traceback")[2]


def test_a_report_of_trouble_alone_is_an_error_like_any_other(doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    doubles(setup=samples.UNREACHABLE_REPORT)
    assert main(["setup", "gpu-9"]) == 4
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "mlhost: gpu-9: connection refused on port 22.", "Is sshd running there, and is the port right?"
    ]


def test_status_is_told_to_follow(doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    calls = doubles(status=HostReport("gpu-7", "running", 0, message="run 7 goes on"))
    assert main(["status", "--follow", "gpu-7"]) == 0
    assert calls[0][2] is True
    assert capsys.readouterr().out == "gpu-7: run 7 goes on\n"


def test_facts_of_several_hosts_name_each(doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    doubles(facts_of=lambda transport, *_: (b"", Facts(host_of(transport), "x86_64", OsRelease("debian", "13", "trixie"))))
    assert main(["facts", "a", "b"]) == 0
    assert [text for text in capsys.readouterr().out.splitlines() if text and not text.startswith(" ")] == ["a", "b"]


# ---------------------------------------------------------------- errors and interrupts


@pytest.mark.parametrize(
    ("error", "code"), [(Failed("x failed.", "Do y."), 1), (UsageError("x failed.", "Do y."), 2), (Unreachable("x failed.", "Do y."), 4)]
)
def test_an_error_is_one_paragraph_with_its_remedy_and_exit_code(
    error: Exception, code: int, doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    doubles(plan_of=error)
    assert main(["plan"]) == code
    assert capsys.readouterr() == ("", "mlhost: x failed.\nDo y.\n")


def test_a_traceback_comes_only_with_debug(doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    doubles(plan_of=RuntimeError("surprise"))
    assert main(["plan"]) == 1
    err = capsys.readouterr().err
    assert "bug" in err
    assert "RuntimeError: surprise" in err
    assert "--debug" in err
    assert "Traceback" not in err
    for args in (["plan", "--debug"], ["--debug", "plan"]):
        assert main(args) == 1
        assert "Traceback" in capsys.readouterr().err


def test_an_error_s_text_cannot_steer_the_terminal(doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    doubles(plan_of=Failed("the host said \x1b]0;pwned\x07\x1b[2Jhello", "\u202eDo y."))
    main(["plan"])
    assert capsys.readouterr().err == "mlhost: the host said hello\nDo y.\n"


def test_an_interrupted_setup_says_that_the_work_goes_on_and_how_to_follow(doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    doubles(setup=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    assert main(["setup", "root@gpu-7"]) == INTERRUPTED == 130
    assert "mlhost status --follow root@gpu-7" in capsys.readouterr().err
    doubles(setup=Interrupted("Stopped; the run goes on."))
    assert main(["setup", "root@gpu-7"]) == 130


def test_ctrl_c_ends_a_fleet_at_once_while_its_hosts_still_work() -> None:
    code = """
import sys, time, threading
from provision import run
from provision.cli import main
started = threading.Barrier(3)
def double(transport, *_):  # a double of run.setup that works for a minute
    started.wait()
    time.sleep(60)
run.setup = double
threading.Thread(target=lambda: (started.wait(), print("started", flush=True)), daemon=True).start()
sys.exit(main(["setup", "a", "b"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "mlhost status --follow a b" in err
    assert "Traceback" not in err


# ---------------------------------------------------------------- terminals and questions


def at_a_terminal(code: str, typed: bytes, **env: str) -> tuple[int, str]:
    """Run Python code on a terminal of its own, type, and return the exit code and all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ.update({"TERM": "xterm", **env})
        os.execv(sys.executable, [sys.executable, "-c", code])
    shown = b""
    with os.fdopen(terminal, "rb+", buffering=0) as stream:
        sent = False
        while True:
            try:
                piece = stream.read(4096)
            except OSError:
                break
            if not piece:
                break
            shown += piece
            if not sent and (b"[y/N]" in shown or b"password" in shown):
                stream.write(typed)
                sent = True
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


ASKING = """
import sys
from dataclasses import replace
from provision import run
from provision.cli import main
from tests import report_samples as samples
def double(transport, loaded, catalog, options, progress):  # a double of run.setup that asks
    progress.stage(transport.name, "working")
    return replace(samples.SAME_REPORT, message=str(options.ask("Reboot it now?")), status="failed", exit_code=1)
run.setup = double
sys.exit(main(["setup"]))
"""


@pytest.mark.parametrize(("typed", "answer"), [(b"y\n", "True"), (b"\n", "False")])
def test_a_question_is_asked_on_a_terminal_and_no_is_the_default(typed: bytes, answer: str) -> None:
    code, shown = at_a_terminal(ASKING, typed)
    assert code == 1
    assert "Reboot it now? [y/N]" in shown
    assert answer in shown.rpartition("[y/N]")[2]


def test_a_terminal_gets_colour_and_no_color_gets_none() -> None:
    assert "\x1b[3" in at_a_terminal(ASKING, b"\n")[1].rpartition("[y/N]")[2]
    assert "\x1b" not in at_a_terminal(ASKING, b"\n", NO_COLOR="1")[1]
    assert "\x1b" not in at_a_terminal(ASKING, b"\n", TERM="dumb")[1]


def test_the_sudo_password_is_asked_for_where_it_is_needed_and_never_shown() -> None:
    code = """
import sys
from provision import prove
from provision.cli import main
from provision.transport.errors import SudoPasswordNeeded
from tests import report_samples as samples
def double(transport, *_):  # a double of prove.verify behind a sudo that wants a password
    if transport._sudo_password is None:
        raise SudoPasswordNeeded("sudo needs a password.")
    print("given" if transport._sudo_password == "hunter2" else "wrong")
    return samples.SAME_REPORT
prove.verify = double
sys.exit(main(["verify"]))
"""
    ended, shown = at_a_terminal(code, b"hunter2\n")
    assert (ended, "given" in shown) == (0, True)
    assert "hunter2" not in shown


def test_nothing_is_asked_where_standard_input_is_no_terminal(doubles: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    calls = doubles(verify=SudoPasswordNeeded("sudo needs a password.", "Pass --sudo-password-file FILE."))
    assert main(["verify"]) == 1
    assert len(calls) == 1
    assert "--sudo-password-file" in capsys.readouterr().err


def test_a_password_file_is_its_first_line(tmp_path: Path, doubles: Callable[..., Any]) -> None:
    path = tmp_path / "password"
    path.write_bytes(b"hunter2 \r\nsecond\n")
    assert read_password(str(path)) == "hunter2 "
    path.write_bytes(b"\n")
    with pytest.raises(UsageError, match="empty first line"):
        read_password(str(path))
    path.write_bytes(b"\xff\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_password(str(path))


class Tty(io.StringIO):
    """A double of a terminal's stream."""

    def isatty(self) -> bool:
        return True


def test_plain_text_for_pipes_no_color_and_dumb_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert fancy(Tty(), no_color=False)
    assert not fancy(Tty(), no_color=True)
    assert not fancy(io.StringIO(), no_color=False)
    monkeypatch.setenv("TERM", "dumb")
    assert not fancy(Tty(), no_color=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not fancy(Tty(), no_color=False)


def test_a_file_gets_plain_text_whatever_the_terminal() -> None:
    assert not look(Output("text", "report.txt", False, False)).color


# ---------------------------------------------------------------- the fleet


def test_results_come_in_the_order_given_and_never_more_at_once_than_allowed() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def work(target: str | None) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02 if target == "h0" else 0.001)
        with lock:
            now[0] -= 1
        return str(target)

    targets = [f"h{number}" for number in range(30)]
    assert [result.value for result in each(targets, work, 4)] == targets
    assert 1 < most[0] <= 4


def test_no_target_is_this_machine() -> None:
    assert each([], lambda target: target, 8) == [Result(HERE, None)]


def test_every_error_becomes_a_report_with_its_exit_code() -> None:
    report = report_of(Result("a", error=Unreachable("a: gone.", "Wait.")))
    assert (report.target, report.status, report.exit_code, report.message, report.fix) == ("a", "unreachable", 4, "a: gone.", "Wait.")
    assert report_of(Result("a", error=KeyError("x"))).exit_code == 1
    assert report_of(Result("a", value=samples.SAME_REPORT)) is samples.SAME_REPORT


def test_the_continuing_command_holds_no_secret(tmp_path: Path) -> None:
    from provision.cli.options import Playbook
    from provision.playbook import load

    words = self_command(Playbook("gpu-host", ()), load("gpu-host", ()), yes=True, reboot=None, lock_wait=None, timeout=None)
    assert words[words.index("setup") :] == ("setup", "--playbook", "gpu-host", "--yes")


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input is no terminal, however the tests are started."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
