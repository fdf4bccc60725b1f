"""How a script travels: the framing, and the shell text that becomes root, under every shell that may be a host's sh."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.transport.errors import NoShell, NoSudo, SudoError, SudoPasswordWrong
from provision.transport.shell import STOP_SCRIPT, Call, Unwrap, call, not_started
from tests.sshd import needs

SHELLS = {"dash": ("dash",), "bash": ("bash",), "busybox": ("busybox", "sh")}

# A test double of sudo: reads the password from standard input only if it wants one, byte by byte, and asks three times, as sudo does.
SUDO_DOUBLE = """#!/bin/sh
echo "sudo $*" >>"$DOUBLE_LOG"
ask=yes
while :; do case $1 in -n) ask=no ;; -S) ;; -p) shift ;; *) break ;; esac; shift; done
if [ -n "$DOUBLE_WANTS" ]; then
    [ "$ask" = yes ] || { echo "sudo: a password is required" >&2; exit 1; }
    tries=0
    while IFS= read -r given; do
        tries=$((tries + 1))
        [ "$given" = "$DOUBLE_WANTS" ] && exec "$@"
        [ "$tries" -lt 3 ] || break
        echo "Sorry, try again." >&2
    done
    echo "sudo: $tries incorrect password attempts" >&2
    exit 1
fi
exec "$@"
"""


@pytest.fixture(params=SHELLS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory of programs in which `sh` is the shell in question and `sudo` is the double; `id` says that we are not root."""
    programs = tmp_path / "bin"
    programs.mkdir()
    shell, *arguments = SHELLS[request.param]
    path = needs(shell)
    (programs / "sh").symlink_to(path) if not arguments else _write(programs / "sh", f'#!/bin/sh\nexec {path} sh "$@"\n')
    _write(programs / "sudo", SUDO_DOUBLE)
    _write(programs / "id", "#!/bin/sh\necho 1000\n")
    for program in ("cat", "head"):
        (programs / program).symlink_to(needs(program))
    return programs


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def execute(host: Path, framed: Call, wants: str = "") -> tuple[int, bytes, bytes]:
    env = {"PATH": str(host), "DOUBLE_WANTS": wants, "DOUBLE_LOG": str(host / "log")}
    found = subprocess.run(
        [host / "sh", *framed.argv[1:]], input=framed.stdin, capture_output=True, check=False, env=env, timeout=20
    )
    return found.returncode, found.stdout, found.stderr


def unwrapped(framed: Call, output: bytes) -> bytes:
    return Unwrap(framed.mark).feed(output)


@pytest.mark.parametrize(
    ("password", "wants"),
    [(None, ""), ("pass word", ""), (r"it's \n %s", r"it's \n %s"), ("-n", "-n"), ("  spaces  ", "  spaces  ")],
)
def test_sudo_runs_the_script_whether_it_takes_the_password_or_leaves_it(host: Path, password: str, wants: str) -> None:
    framed = call('printf "%s|" "$#" "$1"; exit 42', ("it's",), sudo=True, sudo_password=password)
    rc, out, err = execute(host, framed, wants)
    assert (rc, unwrapped(framed, out), unwrapped(framed, err)) == (42, b"1|it's|", b"")


def test_a_wrong_password_meets_sudo_once_and_the_script_is_not_eaten(host: Path) -> None:
    framed = call("echo ran", (), sudo=True, sudo_password="wrong")
    rc, out, err = execute(host, framed, "right")
    assert isinstance(not_started(framed, "h", rc, out, err), SudoPasswordWrong)
    assert b"ran" not in out
    assert b"1 incorrect" in err
    assert (host / "log").read_text().count("sudo") == 1


def test_without_sudo_on_the_host_the_error_says_so(host: Path) -> None:
    (host / "sudo").unlink()
    framed = call("echo ran", (), sudo=True)
    assert isinstance(not_started(framed, "h", *execute(host, framed)), NoSudo)


def test_a_script_that_fails_as_root_is_no_failure_of_sudo(host: Path) -> None:
    framed = call("echo 'sudo: a password is required' >&2; exit 1", (), sudo=True)
    rc, _, err = execute(host, framed)
    assert rc == 1
    assert unwrapped(framed, err) == b"sudo: a password is required\n"


def test_a_plain_run_ends_with_the_scripts_exit_code(host: Path) -> None:
    framed = call("exit 41", ())
    assert execute(host, framed)[0] == 41


def test_the_stop_script_ends_a_whole_process_group(host: Path) -> None:
    (host / "kill").symlink_to(needs("kill", "procps"))
    (host / "sleep").symlink_to(needs("sleep"))
    process = subprocess.Popen([needs("sh"), "-c", "sleep 60 & sleep 60"], start_new_session=True)
    framed = call(STOP_SCRIPT, (str(process.pid),))
    assert execute(host, framed)[0] == 0
    assert process.wait(5) != 0


@pytest.mark.parametrize("sudo", [False, True])
def test_the_command_lines_hold_nothing_that_a_login_shell_could_read_otherwise(sudo: bool) -> None:
    text = call("x", (), sudo).argv[2]
    assert not set(text) & set("'\n!")
    assert "\\\\" not in text  # fish reads two as one
    assert call("a", ("b",), sudo, "c").command == call("x", (), sudo).command


@pytest.mark.parametrize("sudo", [False, True])
def test_the_shell_texts_pass_shellcheck(sudo: bool, tmp_path: Path) -> None:
    script = tmp_path / "script"
    # SC2015: `a && b || exit` is meant as it reads. SC2016 and SC2034 do not apply.
    script.write_text(f"#!/bin/sh\n# shellcheck disable=SC2015\n{call('x', (), sudo).argv[2]}\n")
    found = subprocess.run([needs("shellcheck"), "-s", "sh", str(script)], capture_output=True, text=True, check=False)
    assert found.stdout == ""


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), max_size=4))
def test_any_arguments_come_out_as_they_went_in(args: list[str]) -> None:
    framed = call('printf "%s\\0" "$@"', tuple(args))
    found = subprocess.run([*framed.argv], input=framed.stdin, capture_output=True, check=True)
    assert unwrapped(framed, found.stdout) == b"".join(arg.encode() + b"\0" for arg in (args or [""]))


@given(st.binary(), st.binary(), st.integers(1, 50))
def test_noise_before_the_mark_is_dropped_however_the_bytes_are_cut(noise: bytes, output: bytes, size: int) -> None:
    framed = call("x", ())
    stream = noise + framed.mark + b" 123\n" + output
    unwrap = Unwrap(framed.mark)
    kept = b"".join(unwrap.feed(stream[at : at + size]) for at in range(0, len(stream), size))
    assert (kept, unwrap.noise, unwrap.pid) == (output, noise, "123")


def test_a_password_of_several_lines_is_refused() -> None:
    with pytest.raises(ValueError, match="one line"):
        call("x", (), True, "a\nreboot")


def test_a_call_shows_no_secret() -> None:
    assert "hush" not in repr(call("x", (), True, "hush"))


@pytest.mark.parametrize("rc", [1, 125, 127, 254])
def test_an_account_without_a_shell_is_quoted(rc: int) -> None:
    problem = not_started(call("x", ()), "me@h:22", rc, b"This account is currently not available.\n", b"")
    assert isinstance(problem, NoShell)
    assert f"me@h:22: the login worked, but it did not run a shell command (exit {rc}). It said: This account" in problem.message


def test_a_sudo_that_says_something_unheard_of_is_quoted() -> None:
    problem = not_started(call("x", (), True), "me@h:22", 1, b"", b"sudo: unable to resolve host h\nsudo: the moon is full\n")
    assert type(problem) is SudoError
    assert "the moon is full" in problem.message
    assert os.linesep not in problem.message
