"""What makes mlhost quick, where that can be counted instead of timed; the times are in benchmarks/."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provision.transport import SshOptions, open_transport
from provision.transport.dial import Stream
from provision.transport.errors import ConnectionRefused
from provision.transport.ssh import SshTransport, _Behind
from provision.transport.target import parse_target
from tests.fresh import LAB, Fresh
from tests.program import mlhost
from tests.sshd import Relay, Sshd, free_port, public, running_sshd

CHECKOUT = Path(__file__).resolve().parent.parent
# What costs most to import and is not needed to say a version.
HEAVY = (
    "rich",
    "paramiko",
    "fabric",
    "cryptography",
    "yaml",
    "jinja2",
    "requests",
    "tomllib",
    "tomli",
    "provision.model",
    "provision.transport",
)


def start(*arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("SSH_AUTH_SOCK", "NO_COLOR")}
    env["MLHOST_BOOTSTRAPPED"] = "1"
    command = [sys.executable, *options, "-m", "provision", *arguments]
    return subprocess.run(
        command, cwd=CHECKOUT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )


def imported(*arguments: str) -> list[str]:
    """The modules that a command line imports, as Python itself tells them, each when it is done."""
    done = start(*arguments, options=("-X", "importtime"))
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:") and "[us]" not in line]
    assert lines, done.stderr
    return [line.rsplit("|", 1)[1].strip() for line in lines]


def among(found: list[str], names: tuple[str, ...]) -> list[str]:
    return sorted(name for name in names if any(module == name or module.startswith(f"{name}.") for module in found))


@pytest.mark.parametrize("arguments", [("--version",), ("--help",)], ids=" ".join)
def test_saying_a_version_or_help_loads_none_of_the_machinery(arguments: tuple[str, ...]) -> None:
    found = imported(*arguments)
    assert "click" in found
    assert among(found, HEAVY) == []


def test_a_commands_help_loads_none_of_the_machinery_either() -> None:
    assert among(imported("plan", "--help"), HEAVY) == []


def test_working_on_this_machine_loads_no_ssh() -> None:
    assert among(imported("facts", "--format", "raw"), ("paramiko", "cryptography", "fabric", "rich")) == []


def test_without_an_inventory_nothing_of_one_is_loaded_and_with_a_file_no_cloud() -> None:
    fleets = ("provision.inventory", "provision.fleet", "provision.cli.chosen", "boto3", "azure")
    assert among(imported("facts", "--format", "raw"), fleets) == []
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "fleet.yaml").write_text("hosts: {gpu-1: {}}\n")
        found = imported("inventory", f"{name}/fleet.yaml")
    assert "provision.inventory.own" in found
    assert among(found, ("boto3", "azure", "paramiko", "requests", "provision.fleet", "provision.inventory.aws")) == []


def test_a_plan_from_a_capture_renders_no_script() -> None:
    capture = sorted((CHECKOUT / "tests/hosts").glob("debian13*/probe.txt"))[0]
    found = imported("plan", "--capture", str(capture))
    assert "provision.plan" in found
    assert among(found, ("jinja2", "provision.render", "provision.journal", "paramiko", "requests")) == []


# ---------------------------------------------------------------- over SSH


@pytest.fixture(scope="module")
def sshd() -> Iterator[Sshd]:
    with tempfile.TemporaryDirectory(prefix="mlhost-speed-") as name, running_sshd(Path(name) / "sshd") as server:
        yield server


def through(relay: Relay, sshd: Sshd) -> tuple[str, ...]:
    """Target and options for the way through a relay that counts."""
    known_hosts = sshd.directory / f"known_hosts-{relay.port}"
    known_hosts.write_text("".join(f"[127.0.0.1]:{relay.port} {public(key)}\n" for key in sshd.host_keys))
    return (
        f"{sshd.user}@127.0.0.1:{relay.port}",
        "-F",
        "none",
        "--identity",
        str(sshd.user_key),
        "--known-hosts",
        str(known_hosts),
    )


def test_looking_at_a_host_takes_one_connection_and_one_command(sshd: Sshd) -> None:
    before = sshd.log.count("Starting session: command")
    with Relay(sshd.port) as relay:
        done = start("facts", "--format", "raw", *through(relay, sshd))
        assert relay.accepted == 1
    assert done.returncode == 0, done.stderr
    assert sshd.log.count("Starting session: command") - before == 1


def test_a_run_over_ssh_begins_the_key_exchange_before_it_reads_what_is_wanted(sshd: Sshd) -> None:
    """Until paramiko is there, each import is waited for; what comes later passes while the host is at work."""
    with Relay(sshd.port) as relay:
        found = imported("plan", "-p", "docker-host", "--set", "preflight.allow_container=true", *through(relay, sshd))
    before = found[: found.index("paramiko")]
    assert "click" in before
    later = ("provision.playbook", "provision.spec", "provision.model", "provision.actions", "provision.catalog", "provision.rows", "provision.look",
             "provision.run", "provision.facts", "provision.plan", "provision.steps", "provision.report", "provision.progress")
    assert among(found, later) == sorted(later)
    assert among(before, later) == []
    # The standard library's dearest, and what only other playbooks, systems and changes need.
    needless = ("importlib.metadata", "importlib.resources", "zipfile", "email", "configparser", "asyncio", "yaml", "invoke.context", "fabric", "jinja2",
                "requests", "rich", "provision.render", "provision.journal", "provision.keys", "provision.follow")
    assert among(found, needless) == []


def test_the_first_line_is_sent_once_and_before_anybody_asks() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = Stream(ours)
        stream.greet()
        greeting = theirs.recv(255)
        assert greeting.startswith(b"SSH-2.0-mlhost_")
        assert stream.send(greeting) == len(greeting)  # as paramiko does, once
        assert stream.send(b"next") == 4
        assert theirs.recv(255) == b"next"


@pytest.mark.host
def test_a_setup_that_finds_nothing_to_change_takes_one_connection_and_one_command(fresh: Fresh) -> None:
    """On a host that is really set up, by the log of its own sshd."""
    host = fresh.host()
    settings = [*LAB, "docker.source=distro"]
    first = mlhost("setup", host, "-p", "docker-host", settings=settings)
    assert first.code == 0, str(first)
    host.run("echo LogLevel VERBOSE > /etc/ssh/sshd_config.d/verbose.conf && systemctl restart ssh", user="root")

    def count() -> tuple[int, int]:
        """Logins and commands so far; the one that asks is among them."""
        log = host.run("journalctl --sync; journalctl -q -u ssh -o cat", user="root").out
        return log.count("Accepted publickey"), log.count("Starting session: command")

    before = count()
    second = mlhost("setup", host, "-p", "docker-host", settings=settings)
    after = count()
    assert second.code == 0, str(second)
    assert "nothing to change" in second.out
    assert (after[0] - before[0] - 1, after[1] - before[1] - 1) == (1, 1)


def test_a_run_takes_the_connection_that_was_begun_before(sshd: Sshd) -> None:
    with Relay(sshd.port) as relay:
        target, *_ = through(relay, sshd)
        known_hosts = str(sshd.directory / f"known_hosts-{relay.port}")
        options = SshOptions(config_file="none", identity_files=(str(sshd.user_key),), known_hosts_file=known_hosts)
        with open_transport(target, options, begin=True) as transport:
            assert transport.run("echo here").out == b"here\n"
            assert transport.run("echo again").out == b"again\n"
        assert relay.accepted == 1


def test_what_goes_wrong_in_the_background_is_raised_by_the_run() -> None:
    with open_transport(f"nobody@127.0.0.1:{free_port()}", SshOptions(config_file="none"), begin=True) as transport:
        with pytest.raises(ConnectionRefused):
            transport.run("true")
        with pytest.raises(ConnectionRefused):  # and the next run tries anew
            transport.run("true")


def test_a_connection_begun_for_nothing_is_closed(sshd: Sshd) -> None:
    known_hosts = str(sshd.known_hosts("known_hosts-for-nothing"))
    options = SshOptions(config_file="none", identity_files=(str(sshd.user_key),), known_hosts_file=known_hosts)
    transport = SshTransport(parse_target(sshd.target), options)
    transport.begin()
    coming = transport._coming
    assert coming is not None
    transport.close()
    coming._thread.join(30)
    assert not coming._made[0].alive


def test_work_that_is_dropped_before_its_end_is_discarded_when_it_ends() -> None:
    go, discarded = threading.Event(), []

    def work() -> str:
        go.wait(30)
        return "late"

    behind = _Behind(work, discarded.append)
    behind.drop()
    assert discarded == []
    go.set()
    behind._thread.join(30)
    assert discarded == ["late"]


def test_a_login_whose_answer_comes_before_anybody_waits_for_it_succeeds(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that asks is held up between sending and waiting, as it can be where other threads compute."""
    from provision.transport import wire

    send = wire._Transport._send_message  # type: ignore[attr-defined]

    def held_up(transport: object, message: object) -> None:
        send(transport, message)
        if message.asbytes()[0] == 50:  # type: ignore[attr-defined] # SSH_MSG_USERAUTH_REQUEST, RFC 4252
            time.sleep(1.0)

    monkeypatch.setattr(wire._Transport, "_send_message", held_up)
    known_hosts = str(sshd.known_hosts("known_hosts-held-up"))
    options = SshOptions(config_file="none", identity_files=(str(sshd.user_key),), known_hosts_file=known_hosts)
    with open_transport(sshd.target, options) as transport:
        began = time.monotonic()
        assert transport.run("echo in").out == b"in\n"
        assert time.monotonic() - began < 30  # paramiko's own wait would last for the login's timeout, a minute
