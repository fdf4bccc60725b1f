"""Becoming root with real sudo, real PAM and real users, who exist only in a mount namespace of the test (needs root)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.transport import SshOptions, Transport, errors, open_transport
from tests.sshd import Sshd, can_have_a_world, needs, running_sshd

PASSWORD = r"""it's a "pass\nword" $x `y` %s"""

# Who may what. `asks` has the password above; `ticket` never keeps one; `shell-*` differ in their login shells.
USERS = r"""
for user in free asks lost needtty ticket fishy cshy zshy; do
    useradd -m -s /bin/sh "$user"
    printf '%s:%s\n' "$user" "$PASSWORD" | chpasswd
done
for pair in fishy:fish cshy:tcsh zshy:zsh; do
    shell=$(command -v "${pair#*:}" || echo /bin/sh)
    usermod -s "$shell" "${pair%:*}"
    mkdir -p "/home/${pair%:*}/.config/fish"
done
useradd -m -s "$(command -v nologin)" nobodys
printf 'nobodys:x\n' | chpasswd
cat >/etc/sudoers <<'EOF'
Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Defaults lecture=always
Defaults:needtty requiretty
Defaults:ticket timestamp_timeout=0
root ALL=(ALL:ALL) ALL
free,needtty,fishy,cshy,zshy ALL=(ALL:ALL) NOPASSWD: ALL
asks,ticket ALL=(ALL:ALL) ALL
EOF
chmod 440 /etc/sudoers
rm -rf /etc/sudoers.d
mount -t tmpfs -o mode=700 tmpfs /var/lib/sudo 2>/dev/null || true
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    needs("sudo")
    needs("useradd", "passwd")
    if not can_have_a_world():
        pytest.skip("unshare, mount: this machine allows no private mount namespace with an overlay (root needed)")
    setup = f"PASSWORD={_quoted(PASSWORD)}\n{USERS}"
    with running_sshd(tmp_path_factory.mktemp("world"), ["PasswordAuthentication yes"], world=setup) as server:
        yield server


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def as_user(world: Sshd, user: str, **options: object) -> Transport:
    more = {"identity_files": (str(world.user_key),), "host_keys": "ignore", "config_file": "none", **options}
    return open_transport(f"{user}@127.0.0.1:{world.port}", SshOptions(**more))  # type: ignore[arg-type]


def sessions(world: Sshd, user: str) -> int:
    return world.log.count(f"Starting session: command for {user} ")


def test_without_sudo_the_user_stays_the_user(world: Sshd) -> None:
    with as_user(world, "free") as transport:
        assert transport.run("id -un").out == b"free\n"


def test_sudo_without_a_password_makes_root_in_one_request(world: Sshd) -> None:
    before = sessions(world, "free")
    with as_user(world, "free") as transport:
        result = transport.run('id -un; echo "$1"; exit 42', "it's", sudo=True)
    assert (result.rc, result.out, result.err) == (42, b"root\nit's\n", b"")
    assert sessions(world, "free") == before + 1


@pytest.mark.parametrize("user", ["asks", "ticket"])
def test_sudo_with_a_password_makes_root_in_one_request(world: Sshd, user: str) -> None:
    before = sessions(world, user)
    with as_user(world, user, sudo_password=PASSWORD) as transport:
        result = transport.run("id -un; echo err >&2; exit 43", sudo=True)
    assert (result.rc, result.out, result.err) == (43, b"root\n", b"err\n")
    assert sessions(world, user) == before + 1


@pytest.mark.parametrize("user", ["free", "asks", "root"])
def test_a_password_that_sudo_does_not_ask_for_is_never_a_command(world: Sshd, user: str) -> None:
    """With NOPASSWD, with a fresh ticket (second run of `asks`) and for root."""
    trap = "touch /tmp/.mlhost-trap-sprung"
    password = PASSWORD if user == "asks" else trap
    with as_user(world, user, sudo_password=password) as transport:
        for _ in range(2):
            result = transport.run("id -un; ls /tmp/.mlhost-trap-sprung 2>/dev/null", sudo=True)
            assert (result.out, result.err) == (b"root\n", b"")


def test_a_wrong_password_is_tried_once_and_the_script_never_begins(world: Sshd, tmp_path: Path) -> None:
    with as_user(world, "asks", sudo_password="wrong") as transport:
        transport.run("sudo -K")
        with pytest.raises(
            errors.SudoPasswordWrong, match=rf"asks@127\.0\.0\.1:{world.port}: sudo did not accept the password"
        ) as caught:
            transport.run(f"touch {tmp_path}/ran", sudo=True)
    assert not (tmp_path / "ran").exists()
    assert "1 incorrect password attempt" in caught.value.message
    assert "wrong" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_missing_password_is_asked_for(world: Sshd) -> None:
    with as_user(world, "ticket") as transport, pytest.raises(errors.SudoPasswordNeeded, match="sudo needs a password") as caught:
        transport.run("true", sudo=True)
    assert "--sudo-password-file" in caught.value.fix
    assert caught.value.exit_code == 1


def test_a_user_outside_sudoers_is_told_so(world: Sshd) -> None:
    with (
        as_user(world, "lost", sudo_password=PASSWORD) as transport,
        pytest.raises(errors.NoSudo, match="does not allow this user") as caught,
    ):
        transport.run("true", sudo=True)
    assert "sudoers" in caught.value.fix


def test_requiretty_is_told_apart(world: Sshd) -> None:
    for password in (None, PASSWORD):
        with (
            as_user(world, "needtty", sudo_password=password) as transport,
            pytest.raises(errors.SudoNeedsTerminal, match="requiretty") as caught,
        ):
            transport.run("true", sudo=True)
        assert "!requiretty" in caught.value.fix


def test_a_host_without_sudo_is_told_so(world: Sshd) -> None:
    needs("zsh")
    with as_user(world, "zshy") as transport:  # zsh reads its file even for a command; the PATH in it leads to no sudo
        transport.run("mkdir -p bin && for p in sh id cat; do ln -sf /bin/$p bin/; done; echo 'PATH=$HOME/bin' >.zshenv")
    try:
        with as_user(world, "zshy") as transport, pytest.raises(errors.NoSudo, match="sudo is not installed") as caught:
            transport.run("true", sudo=True)
    finally:
        with as_user(world, "zshy") as transport:
            transport.run("PATH=/bin:$PATH; rm .zshenv")
    assert "root@HOST" in caught.value.fix


def test_the_password_is_in_no_argument_and_no_environment(world: Sshd) -> None:
    look = r"""
    for f in /proc/[0-9]*/cmdline /proc/[0-9]*/environ; do tr '\0' ' ' <"$f" 2>/dev/null; done
    echo; ls -l /proc/self/fd >/dev/null; grep -rs 'word" \$x' /run /home /var/tmp /tmp/sh* 2>/dev/null
    """
    with as_user(world, "ticket", sudo_password=PASSWORD) as transport:
        seen = transport.run(look, sudo=True).out
    assert b"sudo" in seen
    # pieces that stand in no other process's arguments, split where a shell would split them
    assert b"it's a \"pass" not in seen
    assert rb"pass\nword" not in seen
    assert rb'nword" $x' not in seen


@pytest.mark.parametrize("user", ["fishy", "cshy", "zshy"])
def test_other_login_shells_change_nothing(world: Sshd, user: str) -> None:
    args = ["it's", "$HOME", "back\\slash", "two\nlines", "!x", ""]
    with as_user(world, user, sudo_password="not asked for") as transport:
        for sudo in (False, True):
            result = transport.run(r'printf "%s\0" "$@"; exit 44', *args, sudo=sudo)
            assert (result.rc, result.out.decode().split("\0")[:-1], result.err) == (44, args, b"")


def test_a_script_run_as_root_is_stopped_at_its_time(world: Sshd) -> None:
    for user, password in (("free", None), ("ticket", PASSWORD)):
        with as_user(world, user, sudo_password=password) as transport:
            with pytest.raises(errors.TimedOut) as caught:
                transport.run("echo $$; while :; do sleep 0.1; done", sudo=True, timeout=2)
            pid = caught.value.out.decode().strip()
            assert transport.run('test -d "/proc/$1" && grep -v "State:.Z" "/proc/$1/status" | grep State; true', pid).out == b""


def test_a_large_script_and_large_outputs_pass_through_sudo(world: Sshd) -> None:
    with as_user(world, "asks", sudo_password=PASSWORD) as transport:
        result = transport.run(
            "# padding\n" * 100_000 + "head -c 3000000 /dev/zero >&2 & head -c 3000000 /dev/zero; wait", sudo=True, timeout=60
        )
    assert (result.rc, len(result.out), len(result.err)) == (0, 3_000_000, 3_000_000)


def test_a_user_without_a_shell_is_told_apart_from_a_failed_script(world: Sshd) -> None:
    with as_user(world, "nobodys") as transport, pytest.raises(errors.NoShell, match="account is currently not available"):
        transport.run("true")


def test_a_password_logs_in_where_no_key_does(world: Sshd) -> None:
    with as_user(world, "free", identity_files=(), password=PASSWORD) as transport:
        assert transport.run("id -un").out == b"free\n"
    with (
        as_user(world, "free", identity_files=(), password="wrong") as transport,
        pytest.raises(errors.AuthFailed, match="the password"),
    ):
        transport.run("id -un")


def test_sudo_on_this_machine_behaves_the_same(world: Sshd) -> None:
    """The local transport, run by a user of the namespace."""
    code = """
import json, sys
from provision.errors import Error
from provision.transport.local import LocalTransport
password, script = json.loads(sys.stdin.read())
try:
    result = LocalTransport(sudo_password=password).run(script, "it's", sudo=True)
    print(json.dumps([result.rc, result.out.decode(), result.err.decode()]))
except Error as problem:
    print(json.dumps(type(problem).__name__))
"""
    root = Path(__file__).parent.parent
    # Not the interpreter of the tests, which may live in a home that other users cannot enter; the local transport needs nothing installed.
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable
    enter = ["nsenter", "--mount", "--target", str(world.process.pid), "setpriv", "--reset-env", "--init-groups", "--reuid"]

    def local(user: str, password: object, script: str = 'id -un; echo "$1"; exit 45') -> object:
        found = subprocess.run(
            [*enter, user, "--regid", user, "env", f"PYTHONPATH={root}", "PYTHONDONTWRITEBYTECODE=1", python, "-c", code],
            input=json.dumps([password, script]),
            capture_output=True,
            text=True,
            check=False,
        )
        if "Permission denied" in found.stderr or "No module" in found.stderr:
            pytest.skip(f"other users cannot read this checkout or this Python: {found.stderr.splitlines()[-1]}")
        return json.loads(found.stdout or json.dumps(found.stderr))

    assert local("free", None) == [45, "root\nit's\n", ""]
    assert local("ticket", PASSWORD) == [45, "root\nit's\n", ""]
    assert local("ticket", "wrong") == "SudoPasswordWrong"
    assert local("ticket", None) == "SudoPasswordNeeded"
    assert local("lost", PASSWORD) == "NoSudo"


# --- hosts that let no one in yet ---

BOOTING = 'echo "System is booting up. Unprivileged users are not permitted to log in yet." >/run/nologin; '


def test_a_booting_host_is_worth_a_wait(tmp_path: Path) -> None:
    needs("useradd", "passwd")
    if not can_have_a_world():
        pytest.skip("unshare, mount: this machine allows no private mount namespace with an overlay (root needed)")
    setup = BOOTING + "cp /run/nologin /etc/nologin; useradd -m -s /bin/sh free; printf 'free:x\\n' | chpasswd"
    for number, pam in enumerate(("yes", "no")):
        with running_sshd(tmp_path / str(number), [f"UsePAM {pam}"], world=setup) as server:
            with (
                as_user(server, "free") as transport,
                pytest.raises(errors.NotAcceptingLogins, match="System is booting up") as caught,
            ):
                transport.run("true")
            assert caught.value.retryable
            assert caught.value.exit_code == 4
