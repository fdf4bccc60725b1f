"""One contract, every transport: this machine, SSH, SSH through a jump host, SSH through a proxy command. All against real programs."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.transport import SshOptions, Transport, errors, open_transport
from provision.transport.over_fabric import FabricTransport
from tests.sshd import Sshd, needs, running_sshd

KINDS = ("local", "ssh", "ssh through a jump host", "ssh through a proxy command", "a fabric connection")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


def ssh_config(server: Sshd, *lines: str) -> str:
    """A configuration in which `there` is the server, and `jump` is the same server by another name."""
    path = server.directory / f"ssh_config_{abs(hash(lines))}"
    common = f"""
        HostName 127.0.0.1
        Port {server.port}
        User {server.user}
        IdentityFile {server.user_key}
        IdentityAgent none
        UserKnownHostsFile {server.known_hosts()}
        GlobalKnownHostsFile none
    """
    there = "\n".join(f"        {line}" for line in lines)
    path.write_text(f"Host jump\n{common}\nHost there\n        HostKeyAlias {server.name_in_known_hosts}\n{there}\n{common}\n")
    return str(path)


@pytest.fixture(params=KINDS, scope="module")
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    kind = request.param
    if kind == "local":
        yield open_transport(None)
        return
    server: Sshd = request.getfixturevalue("server")
    if kind == "a fabric connection":
        fabric = pytest.importorskip("fabric")
        keys = {"key_filename": str(server.user_key), "look_for_keys": False, "allow_agent": False}
        with FabricTransport(fabric.Connection("127.0.0.1", server.user, server.port, connect_kwargs=keys)) as over_fabric:
            yield over_fabric
        return
    lines: tuple[str, ...] = ()
    if kind == "ssh through a jump host":
        # By name, so that the jump host itself has no jump host.
        lines = ("ProxyJump jump", "HostName localhost")
    elif kind == "ssh through a proxy command":
        lines = (f"ProxyCommand {needs('ssh', 'openssh-client')} -q -F {ssh_config(server)} -W 127.0.0.1:%p jump",)
    with open_transport("there", SshOptions(config_file=ssh_config(server, *lines))) as over_ssh:
        yield over_ssh


@pytest.mark.parametrize("rc", [0, 1, 42, 127, 255])
def test_an_exit_code_is_a_value(transport: Transport, rc: int) -> None:
    assert transport.run('exit "$1"', str(rc)).rc == rc


def test_arguments_arrive_as_they_are(transport: Transport) -> None:
    args = [
        "",
        "a b",
        "it's",
        '"',
        "$HOME `id` $(id)",
        "back\\slash\\",
        "two\nlines\n",
        "-n",
        "--",
        "*",
        "é ü 漢",
        "!x !!",
        "'; exit 9; '",
        "\t",
        "~",
        "#c",
    ]
    result = transport.run(r'printf "%s\0" "$@"', *args)
    assert result.out.decode().split("\0")[:-1] == args


def test_an_argument_that_is_no_unicode_arrives_as_it_is(transport: Transport) -> None:
    assert transport.run('printf %s "$1"', os.fsdecode(b"caf\xe9")).out == b"caf\xe9"


def test_a_nul_byte_is_refused_before_anything_runs(transport: Transport) -> None:
    with pytest.raises(ValueError, match="NUL"):
        transport.run("echo ran", "a\0b")
    with pytest.raises(ValueError, match="NUL"):
        transport.run("echo ran\0")


def test_the_two_outputs_stay_apart_and_are_bytes(transport: Transport) -> None:
    result = transport.run(r"printf 'out\377\n'; printf 'err\376\n' >&2")
    assert (result.out, result.err) == (b"out\xff\n", b"err\xfe\n")


def test_five_megabytes_on_both_outputs_at_once_do_not_deadlock(transport: Transport) -> None:
    result = transport.run("head -c 5000000 /dev/zero >&2 & head -c 5000000 /dev/zero; wait", timeout=60)
    assert (len(result.out), len(result.err)) == (5_000_000, 5_000_000)


def test_a_long_script_that_writes_while_it_is_still_being_read_does_not_deadlock(transport: Transport) -> None:
    line = "echo " + "x" * 995 + "\n"
    result = transport.run(line * 3000, timeout=60)
    assert len(result.out) == 3000 * 996


def test_a_script_may_end_before_all_of_it_was_read(transport: Transport) -> None:
    assert transport.run("exit 7\n" + "# padding\n" * 400_000, timeout=60).rc == 7


def test_output_is_handed_on_while_the_script_still_runs(transport: Transport) -> None:
    seen: list[tuple[float, bytes]] = []
    transport.run("echo first; sleep 1; echo second", on_output=lambda chunk: seen.append((time.monotonic(), chunk)))
    assert b"".join(chunk for _, chunk in seen) == b"first\nsecond\n"
    assert seen[-1][0] - seen[0][0] > 0.5


def test_a_script_over_its_time_is_stopped_and_what_it_wrote_is_kept(transport: Transport, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(errors.TimedOut, match=r"within 1 seconds") as caught:
        transport.run('echo $$ >"$1"; echo begun; while :; do sleep 0.1; done', str(pid), timeout=1)
    assert time.monotonic() - began < 5
    assert caught.value.out == b"begun\n"
    assert _ends(int(pid.read_text()))


def test_the_transport_still_works_after_a_timeout(transport: Transport) -> None:
    with pytest.raises(errors.TimedOut):
        transport.run("sleep 20", timeout=0.3)
    assert transport.run("echo fine").out == b"fine\n"


def test_too_much_output_stops_the_script(transport: Transport) -> None:
    with pytest.raises(errors.OutputTooLarge, match="more than 100000 bytes"):
        transport.run("cat /dev/zero", max_output=100_000, timeout=30)


def test_a_script_killed_by_a_signal_ends_with_128_and_the_signal(transport: Transport) -> None:
    assert transport.run("kill -9 $$").rc == 137


def test_a_child_left_behind_with_the_output_open_does_not_hold_the_run(transport: Transport) -> None:
    began = time.monotonic()
    assert transport.run("sleep 30 & echo done").out == b"done\n"
    assert time.monotonic() - began < 10


def test_a_script_that_closes_its_outputs_is_waited_for(transport: Transport) -> None:
    assert transport.run("exec >&- 2>&-; sleep 0.5; exit 5").rc == 5


def test_messages_are_not_translated(transport: Transport) -> None:
    assert transport.run('echo "$LC_ALL"').out == b"C\n"


def test_neither_the_script_nor_its_arguments_are_in_the_process_list(transport: Transport) -> None:
    result = transport.run('for f in /proc/[0-9]*/cmdline; do tr "\\0" " " <"$f" && echo; done 2>/dev/null', "a-private-argument")
    assert b"sh" in result.out
    assert b"a-private-argument" not in result.out


def test_a_second_run_and_a_run_after_close_work(transport: Transport) -> None:
    assert transport.run("echo 1").out == b"1\n"
    assert transport.run("echo 2").out == b"2\n"
    transport.close()
    assert transport.run("echo 3").out == b"3\n"


def test_a_failing_listener_stops_the_script(transport: Transport, tmp_path: Path) -> None:
    def refuse(chunk: bytes) -> None:
        raise KeyboardInterrupt

    pid = tmp_path / "pid"
    with pytest.raises(KeyboardInterrupt):
        transport.run('echo $$ >"$1"; while :; do echo x; sleep 0.1; done', str(pid), on_output=refuse)
    assert _ends(int(pid.read_text()))


def test_the_time_taken_is_told(transport: Transport) -> None:
    assert 0.3 < transport.run("sleep 0.3").seconds < 5


def test_a_no_op_is_one_connection_and_one_exec_request(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "sshd") as server:
        options = SshOptions(config_file=ssh_config(server))
        with open_transport("there", options) as transport:
            transport.run("true", sudo=True)
        time.sleep(0.2)
        assert server.log.count("Accepted publickey") == 1
        assert server.log.count("Starting session: command") == 1


def test_a_transport_says_where_it_leads(server: Sshd) -> None:
    assert open_transport(None).name == "this machine"
    assert open_transport("there", SshOptions(config_file=ssh_config(server))).name == server.target


def test_this_machine_is_used_without_importing_paramiko() -> None:
    code = "import sys, provision.transport as t; t.open_transport(None).run('true'); print('paramiko' in sys.modules)"
    script = f'exec "{sys.executable}" -c "$1"'
    assert open_transport(None).run(script, code).out == b"False\n"


def test_ten_hosts_can_be_talked_to_at_once(server: Sshd) -> None:
    outputs: list[bytes] = []
    options = SshOptions(config_file=ssh_config(server))

    def talk(number: int) -> None:
        with open_transport("there", options) as transport:
            outputs.append(transport.run('echo "$1"', str(number)).out)

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outputs) == sorted(f"{number}\n".encode() for number in range(10))


def _ends(pid: int, within: float = 5) -> bool:
    """Whether the process has ended, or ends within that many seconds. It may still wait for its parent to take note."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False
