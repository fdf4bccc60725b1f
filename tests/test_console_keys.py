"""`--host-keys cloud`: host keys that an EC2 instance's console vouches for.

Real: sshd, boto3, moto's EC2 over HTTP, the form of the console's text (as cloud-init 22.4's own tool writes it). Doubles: GetConsoleOutput, which moto
answers with a text of its own, is answered by a small server in front of moto, which can also make instances older; the program `aws` in a ProxyCommand, which in the world
opens a tunnel to the instance, opens one to the test's sshd.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from provision.inventory.console import Console, console_of, fingerprints
from provision.inventory.model import Host
from provision.transport.hostkeys import fingerprint, kind_of
from tests.sshd import Sshd, free_port, make_key, needs, public, running_sshd

CHECKOUT = Path(__file__).resolve().parent.parent
REGION = "eu-west-1"
CONSOLE = (Path(__file__).parent / "consoles/debian12.txt").read_text()


def blob(key: Path) -> bytes:
    return base64.b64decode(public(key).split()[1])


def shown(*keys: Path, template: str = CONSOLE) -> str:
    """A console's text with these keys, its lines ended as a serial line ends them."""
    prints = [f"<14>Nov 23 10:15:24 cloud-init: 256 {fingerprint(blob(key))} root@gpu-1 ({kind_of(blob(key))[4:].upper()})" for key in keys]
    return template.format(fingerprints="\n".join(prints), keys="\n".join(f"{public(key)} root@gpu-1" for key in keys)).replace("\n", "\r\n")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("keys")
    return make_key(folder / "ed25519"), make_key(folder / "ecdsa", "ecdsa")


class TestWhatAConsoleShows:
    def test_all_its_keys_are_found(self, keys: tuple[Path, Path]) -> None:
        assert fingerprints(shown(*keys)) == {fingerprint(blob(key)) for key in keys}

    def test_a_line_that_the_kernel_wrote_into_is_passed_over(self, keys: tuple[Path, Path]) -> None:
        mangled = shown(*keys).replace(public(keys[0])[:40], public(keys[0])[:20] + "[   24.1] audit: type=1400\r\n" + public(keys[0])[20:40])
        assert fingerprints(mangled) == {fingerprint(blob(keys[1]))}

    def test_fingerprints_do_where_there_are_no_keys(self, keys: tuple[Path, Path]) -> None:
        only = CONSOLE[: CONSOLE.index("-----BEGIN SSH HOST KEY KEYS")] + "gpu-1 login:\n{keys}"
        text = shown(keys[0], template=only).rpartition("gpu-1 login:")[0]
        assert fingerprints(text) == {fingerprint(blob(keys[0]))}

    def test_keys_outside_their_block_and_of_a_block_without_an_end_do_not_count(self, keys: tuple[Path, Path]) -> None:
        assert fingerprints(public(keys[0]) + "\n" + shown(keys[1])) == {fingerprint(blob(keys[1]))}
        assert fingerprints("-----BEGIN SSH HOST KEY KEYS-----\n" + public(keys[0]) + "\n") == frozenset()

    def test_the_last_of_several_blocks_counts(self, keys: tuple[Path, Path]) -> None:
        assert fingerprints(shown(keys[0]) + shown(keys[1])) == {fingerprint(blob(keys[1]))}

    def test_a_key_that_says_it_is_of_another_kind_does_not_count(self, keys: tuple[Path, Path]) -> None:
        text = f"-----BEGIN SSH HOST KEY KEYS-----\nssh-rsa {public(keys[0]).split()[1]}\n-----END SSH HOST KEY KEYS-----"
        assert fingerprints(text) == frozenset()

    @pytest.mark.parametrize("text", ["", "\x00" * 100, "Linux version 2.6.16-xenU", "-----END SSH HOST KEY KEYS----------BEGIN SSH HOST KEY KEYS-----"])
    def test_of_other_text_nothing_is_made(self, text: str) -> None:
        assert fingerprints(text) == frozenset()


@pytest.mark.parametrize(
    ("host", "region"),
    [
        (Host("gpu-1", "192.0.2.1", variables={"id": "i-0123456789abcdef0", "region": REGION}), REGION),
        (Host("gpu-1", "192.0.2.1", variables={"id": "i-0123456789abcdef0", "zone": "us-east-1a"}), "us-east-1"),
        (Host("i-0123456789abcdef0", "192.0.2.1", variables={"availability_zone": "ap-southeast-2c"}), "ap-southeast-2"),
        (Host("gpu-1", "192.0.2.1", variables={"instance_id": "i-01234567", "arn": "arn:aws-us-gov:ec2:us-gov-west-1:123:instance/i-01234567"}), "us-gov-west-1"),
        (Host("gpu-1", "192.0.2.1", variables={"id": "i-0123456789abcdef0"}), None),
        (Host("gpu-1", "192.0.2.1", variables={"id": "vm-1", "region": REGION}), None),
        (Host("gpu-1", "192.0.2.1", variables={"id": "i-0123456789abcdef0", "region": "westeurope"}), None),
        (Host("gpu-1", "192.0.2.1"), None),
    ],
)
def test_which_instance_a_host_is_comes_from_its_inventory(host: Host, region: Any) -> None:
    console = console_of(host)
    assert (console and console.region) == region


class InFrontOfMoto:
    """A double of one call: GetConsoleOutput is answered with `text`, as an instance's console would be; all else goes on to moto."""

    def __init__(self, moto_port: int) -> None:
        self.text, self.asked, self.old_hypervisor, self.launched_long_ago = "", 0, False, False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                said = parse_qs(body.decode())
                if said.get("Action") == ["GetConsoleOutput"]:
                    outer.asked += 1
                    if outer.old_hypervisor and "Latest" in said:
                        self.answer(400, b"<Response><Errors><Error><Code>UnsupportedOperation</Code><Message>This instance type does not support retrieving the latest "
                                    b"console logs. Try your request without the 'latest' parameter.</Message></Error></Errors><RequestID>1</RequestID></Response>")
                        return
                    text = base64.b64encode(outer.text.encode()).decode()
                    self.answer(200, f'<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>1</requestId><instanceId>{said["InstanceId"][0]}'
                                f"</instanceId><timestamp>2026-11-23T10:16:00.000Z</timestamp><output>{text}</output></GetConsoleOutputResponse>".encode())
                    return
                passed = http.client.HTTPConnection("127.0.0.1", moto_port, timeout=60)
                passed.request("POST", self.path, body, {name: value for name, value in self.headers.items() if name.lower() != "connection"})
                answer = passed.getresponse()
                text = answer.read()
                passed.close()
                if outer.launched_long_ago:
                    text = re.sub(rb"<launchTime>[^<]*", b"<launchTime>2026-01-01T00:00:00.000Z", text)
                self.answer(answer.status, text)

            def answer(self, code: int, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


AWS = """#!/bin/sh
# A double of the aws program: it keeps what it was called with, and its tunnel ends at the sshd of the test.
printf '%s\\n' "$*" >>{log}
exec {python} -c '
import os, socket, sys, threading
line = socket.create_connection(("127.0.0.1", {port}))
def up():
    while data := os.read(0, 65536): line.sendall(data)
threading.Thread(target=up, daemon=True).start()
while data := line.recv(65536): os.write(1, data)
'
"""


@pytest.fixture(scope="module")
def moto() -> Iterator[InFrontOfMoto]:
    pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    front = InFrontOfMoto(port)
    yield front
    front.server.shutdown()
    front.server.server_close()
    server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("instance"), key_kinds=("ed25519", "ecdsa")) as running:
        yield running


@pytest.fixture
def environment(moto: InFrontOfMoto, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **kept, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_ENDPOINT_URL": moto.url, "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true", "XDG_DATA_HOME": str(tmp_path / "data"),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
    }


@pytest.fixture
def instance(moto: InFrontOfMoto, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    import boto3

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ec2 = boto3.client("ec2", region_name=REGION)
    for reservation in ec2.describe_instances()["Reservations"]:
        ec2.terminate_instances(InstanceIds=[row["InstanceId"] for row in reservation["Instances"]])
    moto.text, moto.asked, moto.old_hypervisor, moto.launched_long_ago = "", 0, False, False
    return str(ec2.run_instances(ImageId=ec2.describe_images()["Images"][0]["ImageId"], MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"])


def facts(server: Sshd, environment: dict[str, str], tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`mlhost facts` of the account's only instance, through a tunnel that ssh_config names as AWS's own documents do."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    tunnel = tmp_path / "bin/aws"
    tunnel.write_text(AWS.format(log=tmp_path / "aws.log", python=sys.executable, port=server.port))
    tunnel.chmod(0o755)
    config = tmp_path / "config"
    config.write_text(
        "Host i-*\n"
        f"  User {server.user}\n"
        f"  UserKnownHostsFile {tmp_path}/known_hosts\n"
        "  ProxyCommand sh -c \"aws ssm start-session --target %h --document-name AWS-StartSSHSession --parameters 'portNumber=%p'\"\n"
    )
    return subprocess.run(
        [sys.executable, "-m", "provision", "facts", "-i", f"aws:{REGION},address=id,user={server.user}", "-F", str(config), "--identity", str(server.user_key), *options],
        cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
    )


@pytest.mark.slow
class TestAnInstanceBehindATunnel:
    def test_its_console_vouches_for_it_and_is_asked_only_once(
        self, moto: InFrontOfMoto, server: Sshd, instance: str, environment: dict[str, str], tmp_path: Path
    ) -> None:
        moto.text = shown(*server.host_keys)
        done = facts(server, environment, tmp_path, "--host-keys", "cloud")
        assert done.returncode == 0, done.stderr
        assert f"ssm start-session --target {instance} --document-name AWS-StartSSHSession --parameters portNumber=22" in (tmp_path / "aws.log").read_text()
        assert not (tmp_path / "known_hosts").exists()
        kept = (tmp_path / "data/mlhost/cloud_known_hosts").read_text()
        assert kept.split()[:1] == [f"{instance}.{REGION}.ec2"]
        moto.text, moto.asked = "the console has forgotten", 0
        assert facts(server, environment, tmp_path, "--host-keys", "cloud").returncode == 0
        assert moto.asked == 0

    def test_another_key_than_the_console_shows_is_refused_and_nothing_is_sent(
        self, moto: InFrontOfMoto, server: Sshd, instance: str, environment: dict[str, str], keys: tuple[Path, Path], tmp_path: Path
    ) -> None:
        moto.text = shown(*keys)
        done = facts(server, environment, tmp_path, "--host-keys", "cloud")
        assert done.returncode == 4
        said = " ".join(done.stderr.split())
        assert f"is not one of those that the console of {instance}" in said
        assert fingerprint(blob(keys[0])) in said
        assert not (tmp_path / "data/mlhost/cloud_known_hosts").exists()

    def test_a_console_without_keys_is_no_reason_to_trust(
        self, moto: InFrontOfMoto, server: Sshd, instance: str, environment: dict[str, str], tmp_path: Path
    ) -> None:
        moto.text, moto.launched_long_ago = "Linux version 6.1.0\r\n" + "x" * 65000, True
        done = facts(server, environment, tmp_path, "--host-keys", "cloud")
        assert done.returncode == 4
        assert f"the console of {instance}.{REGION}.ec2 shows no host keys" in " ".join(done.stderr.split())

    def test_what_known_hosts_has_for_an_address_that_was_another_s_does_not_stand_in_the_way(
        self, moto: InFrontOfMoto, server: Sshd, instance: str, environment: dict[str, str], keys: tuple[Path, Path], tmp_path: Path
    ) -> None:
        (tmp_path / "known_hosts").write_text(f"{instance} {public(keys[0])}\n")
        moto.text = shown(*server.host_keys)
        assert "HAS CHANGED" in facts(server, environment, tmp_path).stderr
        assert facts(server, environment, tmp_path, "--host-keys", "cloud").returncode == 0

    def test_known_hosts_and_a_host_authority_are_honoured_without_asking_the_cloud(
        self, moto: InFrontOfMoto, server: Sshd, instance: str, environment: dict[str, str], tmp_path: Path
    ) -> None:
        (tmp_path / "known_hosts").write_text(f"{instance} {public(server.host_keys[0])}\n")
        moto.text = shown(*server.host_keys)
        assert facts(server, environment, tmp_path, "--host-keys", "cloud").returncode == 0
        revoked = f"@revoked * {public(server.host_keys[0])}\n@revoked * {public(server.host_keys[1])}\n"
        (tmp_path / "known_hosts").write_text(revoked)
        assert "REVOKED" in facts(server, environment, tmp_path, "--host-keys", "cloud").stderr

    def test_an_instance_whose_hypervisor_has_no_latest_output_is_asked_for_the_posted_one(
        self, moto: InFrontOfMoto, server: Sshd, instance: str, environment: dict[str, str], tmp_path: Path
    ) -> None:
        moto.text, moto.old_hypervisor = shown(*server.host_keys), True
        assert facts(server, environment, tmp_path, "--host-keys", "cloud").returncode == 0

    def test_a_new_instance_is_asked_until_it_shows_its_keys(self, moto: InFrontOfMoto, server: Sshd, instance: str) -> None:
        heard: list[str] = []

        def later(_: float) -> None:
            moto.text = shown(*server.host_keys)

        assert Console(instance, REGION).ask(60, heard.append, later) == {fingerprint(blob(key)) for key in server.host_keys}
        assert heard == [f"the console of {instance} shows no host keys yet"]
        assert moto.asked == 2


def test_a_host_of_which_no_inventory_says_the_instance_is_enforced_as_ever(tmp_path: Path) -> None:
    needs("sshd", "openssh-server")
    with running_sshd(tmp_path / "sshd") as server:
        done = subprocess.run(
            [sys.executable, "-m", "provision", "facts", "-F", "none", "--host-keys", "cloud", "--known-hosts", str(tmp_path / "none"), "--identity", str(server.user_key),
             server.target],
            cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
        )
        assert done.returncode == 4
        assert "is not in known_hosts" in " ".join(done.stderr.split())
        assert "cannot vouch for it" in " ".join(done.stderr.split())
        done = subprocess.run(
            [sys.executable, "-m", "provision", "facts", "-F", "none", "--host-keys", "cloud", "--known-hosts", str(server.known_hosts()), "--identity", str(server.user_key),
             server.target],
            cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
        )
        assert done.returncode == 0
