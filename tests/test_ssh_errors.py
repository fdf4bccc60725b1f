"""What goes wrong on the way to a host, told so that one knows where and what to do. Against real servers, relays and agents."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provision.transport import SshOptions, Transport, errors, open_transport
from tests.sshd import Relay, Sshd, agent_with, free_port, make_key, needs, public, running_sshd

Write = Callable[..., SshOptions]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd"), key_kinds=("ed25519", "ecdsa", "rsa")) as sshd:
        yield sshd


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an ssh_config whose `there` is 127.0.0.1 with these lines, isolated from the user's own files, and gives the options."""

    def write_config(*lines: str, **options: object) -> SshOptions:
        path = tmp_path / "ssh_config"
        isolated = (
            "HostName 127.0.0.1",
            "GlobalKnownHostsFile none",
            "IdentityAgent none",
            "IdentityFile none",
            f"UserKnownHostsFile {tmp_path}/known",
        )
        path.write_text("\n".join(["Host there", *lines, *isolated]) + "\n")
        return SshOptions(config_file=str(path), **options)  # type: ignore[arg-type]

    return write_config


@pytest.fixture
def to(write: Write) -> Callable[..., SshOptions]:
    """The same, for a server that is known and takes the user's key; further lines win."""

    def options(server: Sshd, *lines: str, **more: object) -> SshOptions:
        here = (
            f"Port {server.port}",
            f"User {server.user}",
            f"UserKnownHostsFile {server.known_hosts()}",
            f"IdentityFile {server.user_key}",
        )
        return write(*lines, *here, **more)

    return options


def run(options: SshOptions, script: str = "echo fine", target: str = "there") -> bytes:
    with open_transport(target, options) as transport:
        return transport.run(script).out


# --- the network ---


def test_a_name_that_does_not_resolve_is_named(write: Write) -> None:
    with pytest.raises(
        errors.NameNotFound, match=r"no-such-host\.invalid:22: the name no-such-host\.invalid cannot be resolved"
    ) as caught:
        run(write(), target="no-such-host.invalid")
    assert "DNS" in caught.value.fix
    assert (caught.value.exit_code, caught.value.retryable) == (4, False)


def test_a_refused_connection_names_the_host_and_port(write: Write) -> None:
    port = free_port()
    with pytest.raises(errors.ConnectionRefused, match=rf"127\.0\.0\.1:{port}: connection refused") as caught:
        run(write(f"Port {port}"))
    assert "sshd" in caught.value.fix
    assert (caught.value.exit_code, caught.value.retryable) == (4, True)


def test_a_host_that_does_not_answer_is_given_up_after_the_connect_timeout(write: Write) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        port = full.getsockname()[1]
        for _ in range(3):  # fill the queue: what comes now gets no answer
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        began = time.monotonic()
        with pytest.raises(errors.ConnectTimeout, match=rf"127\.0\.0\.1:{port}: no answer within 0\.5 seconds") as caught:
            run(write(f"Port {port}", connect_timeout=0.5))
        assert time.monotonic() - began < 3
    assert "firewall" in caught.value.fix
    assert caught.value.retryable


def test_no_route_is_told_apart_from_no_answer() -> None:
    unshare = needs("unshare", "util-linux")
    code = """
from provision.transport import SshOptions, open_transport
try:
    open_transport("192.0.2.1", SshOptions(config_file="none", connect_timeout=2)).run("true")
except Exception as problem:
    print(type(problem).__name__, problem)
"""
    flags = ["--net"] if os.geteuid() == 0 else ["--map-root-user", "--net"]
    found = subprocess.run(
        [unshare, *flags, sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": "."},
    )
    if "unshare" in found.stderr:
        pytest.skip("unshare may not make a network namespace here")
    assert found.stdout.startswith("NoRoute 192.0.2.1:22: no route to the host"), found


@contextlib.contextmanager
def server_that(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A test double of a server that goes wrong: does `answer` with each connection, then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_a_server_that_hangs_up_at_once_is_worth_another_try(write: Write) -> None:
    with (
        server_that(lambda connection: None) as port,
        pytest.raises(errors.HandshakeFailed, match="hung up without a word") as caught,
    ):
        run(write(f"Port {port}"))
    assert "MaxStartups" in caught.value.fix
    assert caught.value.retryable


def test_something_that_is_no_ssh_server_is_quoted(write: Write) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with (
        server_that(answer) as port,
        pytest.raises(errors.HandshakeFailed, match=r"this is no SSH server\. It said: HTTP/1\.1 400 Bad Request"),
    ):
        run(write(f"Port {port}"))


def test_a_server_that_hangs_up_during_key_exchange_is_told_apart(write: Write) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-gone\r\n")
        connection.recv(100)

    with server_that(answer) as port, pytest.raises(errors.HandshakeFailed, match="hung up during key exchange") as caught:
        run(write(f"Port {port}"))
    assert caught.value.retryable


def test_a_full_server_says_so(tmp_path: Path, to: Write) -> None:
    with (
        running_sshd(tmp_path / "sshd", ["MaxStartups 1"]) as server,
        socket.create_connection(("127.0.0.1", server.port)) as first,
    ):
        first.recv(10)
        with pytest.raises(errors.HandshakeFailed, match=r"hung up without a word|Exceeded MaxStartups|Not allowed at this time") as caught:
            run(to(server))
    assert caught.value.retryable


# --- host keys ---


def test_an_unknown_host_key_is_refused_with_its_fingerprint_and_what_to_do(server: Sshd, to: Write, tmp_path: Path) -> None:
    shown = subprocess.run(
        [needs("ssh-keygen"), "-lf", f"{server.host_keys[0]}.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    with pytest.raises(errors.HostKeyUnknown, match=rf"127\.0\.0\.1:{server.port}: the host's ED25519 key ") as caught:
        run(to(server, f"UserKnownHostsFile {tmp_path}/none"))
    assert shown in caught.value.message
    assert "--host-keys accept-new" in caught.value.fix
    assert f"ssh -p {server.port} {server.user}@127.0.0.1" in caught.value.fix
    assert not (tmp_path / "none").exists()
    assert caught.value.exit_code == 4


def test_nothing_is_sent_to_a_host_whose_key_is_unknown(tmp_path: Path, to: Write) -> None:
    with running_sshd(tmp_path / "sshd") as server:
        with pytest.raises(errors.HostKeyUnknown):
            run(to(server, f"UserKnownHostsFile {tmp_path}/none", password="secret"))
        time.sleep(0.2)
        assert "publickey" not in server.log
        assert "password" not in server.log


def test_a_changed_host_key_is_told_louder_and_names_the_line(server: Sshd, to: Write, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"# mine\n{server.name_in_known_hosts} {public(make_key(tmp_path / 'other'))}\n")
    for policy in ("enforce", "accept-new"):
        with pytest.raises(errors.HostKeyChanged, match="THE HOST KEY HAS CHANGED") as caught:
            run(to(server, f"UserKnownHostsFile {known}", host_keys=policy))
        assert f"{known}:2" in caught.value.message
        assert f"ssh-keygen -R '{server.name_in_known_hosts}' -f {known}" in caught.value.fix


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_a_host_known_by_an_older_kind_of_key_is_no_stranger(server: Sshd, to: Write, tmp_path: Path, kind: str) -> None:
    (tmp_path / "known").write_text(f"{server.name_in_known_hosts} {public(server.directory / f'host_{kind}')}\n")
    assert run(to(server, f"UserKnownHostsFile {tmp_path}/known")) == b"fine\n"


def test_accept_new_stores_the_key_once_and_openssh_reads_it(server: Sshd, to: Write, tmp_path: Path) -> None:
    known = tmp_path / "new" / "known"
    for _ in range(2):
        assert run(to(server, f"UserKnownHostsFile {known}", host_keys="accept-new")) == b"fine\n"
    assert known.read_text() == f"{server.name_in_known_hosts} {public(server.host_keys[0])}\n"
    assert run(to(server, f"UserKnownHostsFile {known}")) == b"fine\n"
    found = subprocess.run(
        [needs("ssh-keygen"), "-F", server.name_in_known_hosts, "-f", str(known)], capture_output=True, check=False
    )
    assert found.returncode == 0


def test_accept_new_hashes_the_name_where_ssh_config_asks_for_it(server: Sshd, to: Write, tmp_path: Path) -> None:
    known = tmp_path / "hashed"
    run(to(server, f"UserKnownHostsFile {known}", "HashKnownHosts yes", host_keys="accept-new"))
    assert known.read_text().startswith("|1|")
    assert run(to(server, f"UserKnownHostsFile {known}")) == b"fine\n"


def test_ignore_asks_no_known_hosts_and_stores_nothing(server: Sshd, to: Write, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"{server.name_in_known_hosts} {public(make_key(tmp_path / 'other'))}\n")
    before = known.read_text()
    assert run(to(server, f"UserKnownHostsFile {known}", host_keys="ignore")) == b"fine\n"
    assert run(to(server, f"UserKnownHostsFile {known}", "StrictHostKeyChecking no")) == b"fine\n"
    assert known.read_text() == before


def test_the_command_line_wins_over_strict_host_key_checking_in_ssh_config(server: Sshd, to: Write, tmp_path: Path) -> None:
    with pytest.raises(errors.HostKeyUnknown):
        run(to(server, "StrictHostKeyChecking no", f"UserKnownHostsFile {tmp_path}/none", host_keys="enforce"))


def test_hashed_known_hosts_are_read(server: Sshd, to: Write) -> None:
    known = server.known_hosts("to_hash")
    subprocess.run([needs("ssh-keygen"), "-q", "-H", "-f", str(known)], check=True, capture_output=True)
    assert server.name_in_known_hosts not in known.read_text()
    assert run(to(server, f"UserKnownHostsFile {known}")) == b"fine\n"


def test_a_host_key_alias_stands_for_the_host(server: Sshd, to: Write, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(f"gpu-box {public(server.host_keys[0])}\n")
    assert run(to(server, "HostKeyAlias gpu-box", f"UserKnownHostsFile {tmp_path}/known")) == b"fine\n"


def test_a_key_known_for_the_host_without_its_port_is_enough_as_for_ssh(server: Sshd, to: Write, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(f"127.0.0.1 {public(server.host_keys[0])}\n")
    assert run(to(server, f"UserKnownHostsFile {tmp_path}/known")) == b"fine\n"


def test_a_revoked_key_is_refused_even_if_it_is_also_known(server: Sshd, to: Write, tmp_path: Path) -> None:
    key = public(server.host_keys[0])
    (tmp_path / "known").write_text(f"{server.name_in_known_hosts} {key}\n@revoked * {key}\n")
    with pytest.raises(errors.HostKeyRevoked, match="REVOKED"):
        run(to(server, f"UserKnownHostsFile {tmp_path}/known"))


@pytest.fixture(scope="module", params=["ed25519", "rsa"])
def certified(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, Path]]:
    """A server with a host certificate for 127.0.0.1, and its authority."""
    directory = tmp_path_factory.mktemp("certified")
    authority = make_key(directory / "authority")
    kind = request.param
    certificate = directory / "sshd" / f"host_{kind}-cert.pub"
    with running_sshd(directory / "sshd", key_kinds=[kind]) as first:
        port = first.port
        subprocess.run(
            [needs("ssh-keygen"), "-q", "-s", str(authority), "-I", "x", "-h", "-n", "127.0.0.1", f"{first.host_keys[0]}.pub"],
            check=True,
        )
        first.stop()
        config = first.directory / "sshd_config"
        config.write_text(config.read_text() + f"HostCertificate {certificate}\n")
        again = subprocess.Popen([needs("sshd"), "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
        try:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield first, authority
        finally:
            again.terminate()
            again.wait()


def test_a_host_certificate_of_a_known_authority_is_trusted(certified: tuple[Sshd, Path], to: Write, tmp_path: Path) -> None:
    server, authority = certified
    (tmp_path / "known").write_text(f"@cert-authority *,[127.0.0.1]:* {public(authority)}\n")
    assert run(to(server, f"UserKnownHostsFile {tmp_path}/known")) == b"fine\n"


def test_a_host_certificate_of_another_authority_is_not(certified: tuple[Sshd, Path], to: Write, tmp_path: Path) -> None:
    server, _ = certified
    (tmp_path / "known").write_text(f"@cert-authority *,[127.0.0.1]:* {public(make_key(tmp_path / 'stranger'))}\n")
    with pytest.raises(errors.HostKeyUnknown):
        run(to(server, f"UserKnownHostsFile {tmp_path}/known"))


def test_a_host_certificate_for_another_name_is_not(certified: tuple[Sshd, Path], to: Write, tmp_path: Path) -> None:
    server, authority = certified
    (tmp_path / "known").write_text(f"@cert-authority * {public(authority)}\n")
    with pytest.raises(errors.HostKeyUnknown):
        run(to(server, f"UserKnownHostsFile {tmp_path}/known", "HostKeyAlias other.example"))


def test_a_certified_host_can_be_known_by_its_plain_key_too(certified: tuple[Sshd, Path], to: Write) -> None:
    server, _ = certified
    assert run(to(server)) == b"fine\n"


# --- logging in ---


def test_a_refused_login_lists_what_was_tried_and_what_the_host_accepts(server: Sshd, to: Write, tmp_path: Path) -> None:
    keys = [make_key(tmp_path / "one"), make_key(tmp_path / "two", "ecdsa"), make_key(tmp_path / "three", "rsa")]
    options = to(server, *(f"IdentityFile {key}" for key in keys))
    config = Path(options.config_file or "")
    config.write_text(config.read_text().replace(f"IdentityFile {server.user_key}\n", ""))
    with pytest.raises(errors.AuthFailed) as caught:
        run(options)
    for key in keys:
        fingerprint = subprocess.run(
            [needs("ssh-keygen"), "-lf", f"{key}.pub"], capture_output=True, text=True, check=True
        ).stdout.split()[1]
        assert str(key) in caught.value.message
        assert fingerprint in caught.value.message
    assert f"{server.user}@127.0.0.1:{server.port}: login refused" in caught.value.message
    assert "The host accepts: publickey" in caught.value.message
    assert "-i FILE" in caught.value.fix
    assert (caught.value.exit_code, caught.value.retryable) == (4, False)


def test_a_login_without_any_key_says_that_there_was_none(server: Sshd, write: Write) -> None:
    with pytest.raises(errors.AuthFailed, match=r"nothing, there was no key to try.*No ssh-agent"):
        run(write(f"Port {server.port}", f"User {server.user}", host_keys="ignore"))


def test_too_many_keys_are_told_apart_from_wrong_keys(tmp_path: Path, to: Write) -> None:
    keys = [make_key(tmp_path / f"key{number}") for number in range(5)]
    with (
        running_sshd(tmp_path / "sshd", ["MaxAuthTries 3"]) as server,
        pytest.raises(errors.TooManyAuthFailures, match="after too many refused keys") as caught,
    ):
        run(to(server, *(f"IdentityFile {key}" for key in keys)))
    assert "IdentitiesOnly" in caught.value.fix


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_every_kind_of_key_logs_in(server: Sshd, to: Write, tmp_path: Path, kind: str) -> None:
    key = make_key(tmp_path / "mine", kind)
    allowed = server.directory / "authorized_keys"
    before = allowed.read_text()
    allowed.write_text(before + public(key) + "\n")
    try:
        assert run(to(server, "IdentitiesOnly yes", identity_files=(str(key),))) == b"fine\n"
    finally:
        allowed.write_text(before)


def test_a_key_named_on_the_command_line_is_tried_first(tmp_path: Path, to: Write) -> None:
    keys = [make_key(tmp_path / f"key{number}") for number in range(5)]
    with running_sshd(tmp_path / "sshd", ["MaxAuthTries 2"]) as server, agent_with(tmp_path, *keys) as agent:
        options = to(
            server, f"IdentityAgent {agent}", *(f"IdentityFile {key}" for key in keys), identity_files=(str(server.user_key),)
        )
        assert run(options) == b"fine\n"


def test_a_missing_key_file_that_was_named_is_a_usage_error(write: Write) -> None:
    with pytest.raises(errors.KeyFileError, match="The key file /nowhere/key cannot be read: No such file") as caught:
        open_transport("there", write(identity_files=("/nowhere/key",)))
    assert caught.value.exit_code == 2


def test_a_public_key_named_in_place_of_a_private_one_is_explained(server: Sshd, to: Write) -> None:
    with pytest.raises(errors.KeyFileError, match=r"\.pub is not a private key") as caught:
        run(to(server, identity_files=(f"{server.user_key}.pub",)))
    assert "not the .pub" in caught.value.fix


def test_an_encrypted_key_that_was_named_asks_for_the_agent(server: Sshd, to: Write, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", passphrase="open sesame")
    with pytest.raises(errors.KeyFileError, match="locked is encrypted and no passphrase was given") as caught:
        run(to(server, identity_files=(str(key),)))
    assert f"ssh-add {key}" in caught.value.fix


def test_an_encrypted_key_opens_with_its_passphrase(server: Sshd, to: Write, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", passphrase="open sesame")
    allowed = server.directory / "authorized_keys"
    before = allowed.read_text()
    allowed.write_text(public(key) + "\n")
    try:
        assert run(to(server, identity_files=(str(key),), key_passphrase="open sesame")) == b"fine\n"
        with pytest.raises(errors.KeyFileError, match="cannot be decrypted"):
            run(to(server, identity_files=(str(key),), key_passphrase="close sesame"))
    finally:
        allowed.write_text(before)


def test_an_encrypted_default_key_is_passed_over_and_named_in_the_end(server: Sshd, write: Write, tmp_path: Path) -> None:
    key = make_key(tmp_path / "locked", passphrase="open sesame")
    with pytest.raises(errors.AuthFailed, match=r"Not usable: .*locked \(is encrypted") as caught:
        run(write(f"Port {server.port}", f"User {server.user}", f"IdentityFile {key}", host_keys="ignore"))
    assert "ssh-add" in caught.value.fix


def test_a_key_in_the_agent_logs_in(server: Sshd, write: Write, tmp_path: Path) -> None:
    with agent_with(tmp_path, server.user_key) as agent:
        assert run(write(f"Port {server.port}", f"User {server.user}", f"IdentityAgent {agent}", host_keys="ignore")) == b"fine\n"


def test_identities_only_keeps_the_agents_other_keys_back(server: Sshd, write: Write, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    lines = (f"Port {server.port}", f"User {server.user}", "IdentitiesOnly yes", f"IdentityFile {other}")
    with agent_with(tmp_path, server.user_key) as agent, pytest.raises(errors.AuthFailed) as caught:
        run(write(f"IdentityAgent {agent}", *lines, host_keys="ignore"))
    assert "agent key" not in caught.value.message


def test_a_user_certificate_beside_the_key_is_shown(tmp_path: Path, to: Write) -> None:
    authority, key = make_key(tmp_path / "authority"), make_key(tmp_path / "mine")
    with running_sshd(tmp_path / "sshd", [f"TrustedUserCAKeys {authority}.pub"]) as server:
        subprocess.run([needs("ssh-keygen"), "-q", "-s", str(authority), "-I", "x", "-n", server.user, f"{key}.pub"], check=True)
        assert run(to(server, "IdentitiesOnly yes", identity_files=(str(key),))) == b"fine\n"
        assert "Accepted publickey for" in server.log
        assert "CERT" in server.log


def test_a_server_that_takes_no_keys_is_named_as_such(tmp_path: Path, to: Write) -> None:
    with (
        running_sshd(tmp_path / "sshd", ["PubkeyAuthentication no", "PasswordAuthentication yes"]) as server,
        pytest.raises(errors.AuthFailed, match="The host accepts: password") as caught,
    ):
        run(to(server))
    assert "takes no keys" in caught.value.fix


# --- the way there ---


def test_a_jump_host_that_is_not_there_is_named(server: Sshd, to: Write) -> None:
    port = free_port()
    with pytest.raises(
        errors.ConnectionRefused,
        match=rf"On the way to .*:{server.port}, at the jump host: 127\.0\.0\.1:{port}: connection refused",
    ):
        run(to(server, f"ProxyJump 127.0.0.1:{port}"))


def test_a_jump_host_that_cannot_reach_the_target_is_named(server: Sshd, to: Write, tmp_path: Path) -> None:
    options = to(server)
    config = Path(options.config_file or "")
    config.write_text(f"Host far\nHostName 127.0.0.1\nPort {free_port()}\nProxyJump there\n" + config.read_text())
    with pytest.raises(
        errors.JumpFailed, match=rf"The jump host {server.user}@127\.0\.0\.1:{server.port} cannot reach 127\.0\.0\.1"
    ):
        run(options, target="far")


def test_a_jump_host_with_an_unknown_key_is_refused_too(server: Sshd, to: Write, tmp_path: Path) -> None:
    options = to(server, f"UserKnownHostsFile {tmp_path}/none")
    config = Path(options.config_file or "")
    config.write_text(
        f"Host far\nHostName localhost\nPort {server.port}\nHostKeyAlias x\nProxyJump there,there\n" + config.read_text()
    )
    with pytest.raises(errors.HostKeyUnknown, match="at the jump host"):
        run(options, target="far")


def test_a_chain_of_jump_hosts_is_walked_in_order(tmp_path: Path, to: Write) -> None:
    with running_sshd(tmp_path / "a") as first, running_sshd(tmp_path / "b") as second, running_sshd(tmp_path / "c") as last:
        options = to(last, "ProxyJump first,second")
        config = Path(options.config_file or "")
        for name, server in (("first", first), ("second", second)):
            config.write_text(
                config.read_text()
                + f"Host {name}\nHostName 127.0.0.1\nPort {server.port}\nUser {server.user}\nIdentityFile {server.user_key}\n"
                f"UserKnownHostsFile {server.known_hosts()}\nGlobalKnownHostsFile none\nIdentityAgent none\n"
            )
        assert run(options) == b"fine\n"
        assert all("Accepted publickey" in server.log for server in (first, second, last))


def test_a_proxy_command_that_fails_is_quoted_with_what_it_said(server: Sshd, to: Write) -> None:
    with pytest.raises(errors.JumpFailed, match=r"the proxy command gave no SSH connection: .*It said: no way"):
        run(to(server, "ProxyCommand sh -c 'echo no way >&2; exit 1'"))


def test_a_jump_host_in_front_of_itself_is_a_circle_that_is_refused(write: Write) -> None:
    options = write()
    config = Path(options.config_file or "")
    config.write_text("Host a\nHostName a.invalid\nProxyJump b\nHost b\nHostName b.invalid\nProxyJump a\n")
    with pytest.raises(errors.SshConfigError, match="circle"):
        open_transport("a", options)


# --- while something runs ---


def relayed(server: Sshd, to: Write, relay: Relay, **more: object) -> Transport:
    return open_transport("there", to(server, f"Port {relay.port}", f"HostKeyAlias {server.name_in_known_hosts}", **more))


def test_a_connection_cut_midway_is_lost_not_a_failed_command(server: Sshd, to: Write) -> None:
    with Relay(server.port) as relay, relayed(server, to, relay) as transport:
        threading.Timer(0.5, relay.cut).start()
        with pytest.raises(errors.ConnectionLost, match=r"the connection was lost") as caught:
            transport.run("sleep 20")
        assert (caught.value.exit_code, caught.value.retryable) == (4, True)
        assert transport.run("echo back").out == b"back\n"
        assert relay.accepted == 2


def test_a_silent_black_hole_is_noticed(server: Sshd, to: Write) -> None:
    with Relay(server.port) as relay, relayed(server, to, relay, keepalive_seconds=0.5, keepalive_count=2) as transport:
        threading.Timer(0.3, relay.freeze).start()
        began = time.monotonic()
        with pytest.raises(errors.ConnectionLost, match="nothing was heard for"):
            transport.run("sleep 60")
        assert time.monotonic() - began < 10


def test_a_long_silence_of_a_living_host_is_no_black_hole(server: Sshd, to: Write) -> None:
    with Relay(server.port) as relay, relayed(server, to, relay, keepalive_seconds=0.3, keepalive_count=2) as transport:
        assert transport.run("sleep 4; echo alive").out == b"alive\n"


def test_a_forced_command_is_no_shell(tmp_path: Path, to: Write) -> None:
    with (
        running_sshd(tmp_path / "sshd", ["ForceCommand echo go away; exit 3"]) as server,
        pytest.raises(errors.NoShell, match=r"did not run a shell command \(exit 3\)\. It said: go away") as caught,
    ):
        run(to(server))
    assert caught.value.exit_code == 1


def test_what_the_login_shell_prints_first_is_no_output(tmp_path: Path, to: Write) -> None:
    with (
        running_sshd(tmp_path / "sshd", ['ForceCommand echo welcome; echo motd >&2; sh -c "$SSH_ORIGINAL_COMMAND"']) as server,
        open_transport("there", to(server)) as transport,
    ):
        result = transport.run("echo out; echo err >&2")
    assert (result.out, result.err) == (b"out\n", b"err\n")


# --- bad input ---


def test_a_missing_config_file_is_a_usage_error() -> None:
    with pytest.raises(errors.SshConfigError, match="/nowhere/config cannot be read: No such file") as caught:
        open_transport("there", SshOptions(config_file="/nowhere/config"))
    assert caught.value.exit_code == 2


def test_secrets_do_not_show_in_a_repr() -> None:
    assert "hush" not in repr(SshOptions(sudo_password="hush", password="hush", key_passphrase="hush"))
