"""`aws:…` against moto's server: real boto3, real HTTP, real pages; moto stands in for EC2."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

import pytest

from provision.errors import Error, UsageError
from provision.inventory.aws import address_of, user_of
from provision.inventory.model import Host
from provision.inventory.sources import resolve
from tests.sshd import free_port

pytestmark = pytest.mark.slow

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto.server")

REGION = "eu-west-1"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def at_moto(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3's own chain: keys and endpoint from the environment."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def client(moto: str, region: str = REGION) -> Any:
    return boto3.client("ec2", region_name=region, endpoint_url=moto)


def launch(ec2: Any, image: str, count: int, kind: str = "t3.micro", **tags: str) -> list[str]:
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    done = ec2.run_instances(
        ImageId=image, MinCount=count, MaxCount=count, InstanceType=kind, TagSpecifications=[{"ResourceType": "instance", "Tags": listed}]
    )
    return [instance["InstanceId"] for instance in done["Instances"]]


@pytest.fixture(scope="module")
def fleet(moto: str) -> dict[str, list[str]]:
    """Two regions with a few instances each, as a user's account might have them."""
    import os

    kept = {name: os.environ.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    os.environ.update(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing")
    try:
        ireland, ohio = client(moto), client(moto, "us-east-2")
        images = {row["Name"]: row for row in ireland.describe_images()["Images"]}
        ubuntu = next(row["ImageId"] for name, row in images.items() if "ubuntu" in name)
        amazon = next(row["ImageId"] for name, row in images.items() if name.startswith("amzn"))
        known = {
            "gpu-1": launch(ireland, ubuntu, 1, "g5.xlarge", Name="gpu-1", Role="gpu"),
            "gpu-2": launch(ireland, amazon, 1, "p4d.24xlarge", Name="gpu-2", Role="gpu"),
            "web": launch(ireland, ubuntu, 1, Name="web", Role="web"),
            "same": launch(ireland, ubuntu, 2, Name="same", Role="twin"),
            "ohio": launch(ohio, "ami-12345678", 1, Name="ohio", Role="gpu"),
            "stopped": launch(ireland, ubuntu, 1, Name="stopped", Role="gpu"),
        }
        ireland.stop_instances(InstanceIds=known["stopped"])
        return known
    finally:
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def hosts(source: str) -> dict[str, Host]:
    return {host.name: host for host in resolve([source]).hosts}


def test_running_instances_are_found_by_tag_with_their_image_s_user_and_public_address(fleet: dict[str, list[str]]) -> None:
    found = hosts(f"aws:region={REGION},tag:Role=gpu")
    assert list(found) == ["gpu-1", "gpu-2"]
    assert (found["gpu-1"].user, found["gpu-2"].user) == ("ubuntu", "ec2-user")
    assert found["gpu-1"].address == found["gpu-1"].variables["public"]
    assert {"tag_Role_gpu", f"region_{REGION}", "type_g5.xlarge"} <= set(found["gpu-1"].groups)


def test_type_state_address_and_user_can_be_chosen(fleet: dict[str, list[str]]) -> None:
    assert list(hosts(f"aws:{REGION},type=g5.xlarge|p4d.24xlarge")) == ["gpu-1", "gpu-2"]
    stopped = hosts(f"aws:{REGION},tag:Role=gpu,state=stopped,address=private")
    assert list(stopped) == ["stopped"]
    assert set(hosts(f"aws:{REGION},tag:Role=gpu,state=any,address=private")) == {"gpu-1", "gpu-2", "stopped"}
    host = hosts(f"aws:{REGION},tag:Role=web,address=private,user=ops,port=2222")["web"]
    assert host.target == f"ops@{host.variables['private']}:2222"
    assert hosts(f"aws:{REGION},tag:Role=web,address=id")["web"].address == fleet["web"][0]


def test_several_regions_are_asked_and_a_region_may_come_from_the_environment(fleet: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(hosts(f"aws:region={REGION}|us-east-2,tag:Role=gpu")) == {"gpu-1", "gpu-2", "ohio"}
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")
    assert list(hosts("aws:tag:Role=gpu")) == ["ohio"]


def test_all_regions_are_those_that_the_account_has(fleet: dict[str, list[str]], moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = "".join(f"<item><regionName>{name}</regionName></item>" for name in ("us-east-2", REGION))
    answer = f"<DescribeRegionsResponse><regionInfo>{names}</regionInfo></DescribeRegionsResponse>".encode()
    with counting(moto, answers={"DescribeRegions": answer}) as front:  # moto has all there are
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        assert set(hosts("aws:region=all,tag:Role=gpu")) == {"gpu-1", "gpu-2", "ohio"}


def test_instances_of_one_name_are_called_by_their_id(fleet: dict[str, list[str]]) -> None:
    assert set(hosts(f"aws:{REGION},tag:Role=twin")) == set(fleet["same"])


def test_an_image_that_is_gone_leaves_the_user_to_ssh_config(fleet: dict[str, list[str]], moto: str) -> None:
    ec2 = client(moto, "us-west-2")
    image = ec2.register_image(Name="ubuntu-own")["ImageId"]
    launch(ec2, image, 1, Name="kept", Role="gone")
    ec2.deregister_image(ImageId=image)
    assert hosts("aws:us-west-2,tag:Role=gone")["kept"].user is None


def test_every_page_is_read(moto: str) -> None:
    ec2 = client(moto, "eu-north-1")
    for _ in range(12):  # moto's pages count reservations
        launch(ec2, "ami-12345678", 1, Role="many")
    with counting(moto) as front, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", front.url)
        assert len(hosts("aws:eu-north-1,tag:Role=many,page=5")) == 12
    assert front.asked == {"DescribeInstances": 3, "DescribeImages": 1}


def test_throttling_is_waited_out(fleet: dict[str, list[str]], moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with counting(moto, throttle=3) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        assert list(hosts(f"aws:{REGION},tag:Role=web")) == ["web"]
        assert front.asked["DescribeInstances"] == 4


def test_throttling_without_end_is_told(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provision.inventory.aws.ATTEMPTS", 2)
    with counting(moto, throttle=1000) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        error = refused(f"aws:{REGION}")
    assert error.exit_code == 4
    assert "RequestLimitExceeded" in error.message
    assert front.asked["DescribeInstances"] == 2


def refused(source: str) -> Error:
    with pytest.raises(Error) as caught:
        resolve([source])
    return caught.value


def test_missing_credentials_region_profile_and_a_dead_endpoint_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "aws:region=eu-west-1" in refused("aws:tag:Role=gpu").fix
    assert "profile (nobody) could not be found" in refused(f"aws:{REGION},profile=nobody").message
    monkeypatch.setattr("provision.inventory.aws.ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert refused(f"aws:{REGION}").exit_code == 4
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = refused(f"aws:{REGION}")
    assert (error.exit_code, "Unable to locate credentials" in error.message) == (2, True)


@pytest.mark.parametrize(("source", "hint"), [
    ("aws:regoin=eu-west-1", "`region`"), ("aws:state=up", "running"), ("aws:address=secret", "public"), ("aws:nowhere", "region=all"),
    ("aws:type=", "aws:key=value"), ("aws:eu-west-1,user=a@b", "alone"), ("aws:eu-west-1,port=0", "65535"), ("aws:eu-west-1,page=2", "1000"),
    ("aws:eu-west-1,user=a,user=b", "once"),
])
def test_a_source_that_cannot_be_is_refused_before_aws_is_asked(source: str, hint: str) -> None:
    error = refused(source)
    assert isinstance(error, UsageError)
    assert hint in error.fix


def test_without_boto3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    error = refused(f"aws:{REGION}")
    assert error.fix == "Install it with: pip install 'mlhost[aws]'"


@pytest.mark.parametrize(("owner", "words", "user"), [
    ("099720109477", "anything", "ubuntu"),
    ("898082745236", "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20260801", "ubuntu"),
    ("898082745236", "Deep Learning Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023) 20260801", "ec2-user"),
    ("137112412989", "al2023-ami-2023.8.20260801.0-kernel-6.12-x86_64", "ec2-user"),
    ("136693071363", "debian-13-amd64-20260801-2000", "admin"),
    ("309956199498", "RHEL-9.6.0_HVM-20260801-x86_64-0-Hourly2-GP3", "ec2-user"),
    ("1", "our own", None),
])
def test_the_default_user_is_told_by_an_image_s_owner_and_name(owner: str, words: str, user: str | None) -> None:
    assert user_of(owner, words) == user


def test_the_address_is_the_public_one_where_there_is_one() -> None:
    both = {"PublicIpAddress": "192.0.2.1", "PrivateIpAddress": "10.0.0.1", "PublicDnsName": "", "NetworkInterfaces": [{"Ipv6Addresses": [{"Ipv6Address": "2001:db8::1"}]}]}
    assert address_of(both, "auto") == "192.0.2.1"
    assert address_of({"PrivateIpAddress": "10.0.0.1"}, "auto") == "10.0.0.1"
    assert address_of(both, "ipv6") == "2001:db8::1"
    assert address_of(both, "public-dns") is None


# ---------------------------------------------------------------- a double in front of moto


class Front:
    """What the double in front counted, and where it listens."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: dict[str, int] = {}


@contextmanager
def counting(moto: str, throttle: int = 0, answers: Mapping[str, bytes] = MappingProxyType({})) -> Iterator[Front]:
    """A double of EC2's front door: counts the actions asked for, answers the first `throttle` with RequestLimitExceeded as EC2 does, some actions
    with `answers`, and hands the rest on to moto."""
    address = moto.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            action = dict(part.split("=", 1) for part in body.decode().split("&") if "=" in part)["Action"]
            front.asked[action] = front.asked.get(action, 0) + 1
            if sum(front.asked.values()) <= throttle:
                status, answer = 503, b"<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message></Error></Errors></Response>"
            elif action in answers:
                status, answer = 200, answers[action]
            else:
                onward = http.client.HTTPConnection(address)
                onward.request("POST", self.path, body, {name: value for name, value in self.headers.items() if name.lower() != "host"})
                got = onward.getresponse()
                status, answer = got.status, got.read()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    front = Front(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
