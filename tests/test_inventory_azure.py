"""`azure:…` with the real SDK against a double of Azure's resource manager: a TLS server that answers as its REST reference documents.

The answers' shapes are those of learn.microsoft.com/rest/api: virtualMachines ListAll and InstanceView, networkInterfaces ListAll and Get,
publicIPAddresses ListAll, errors, paging by nextLink, and the App Service token endpoint that azure-identity's own chain asks.
"""

from __future__ import annotations

import datetime
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from provision.errors import Error, UsageError
from provision.inventory.model import Host
from provision.inventory.sources import resolve
from tests.sshd import free_port

pytestmark = pytest.mark.slow

pytest.importorskip("azure.mgmt.compute")
pytest.importorskip("azure.mgmt.network")
pytest.importorskip("azure.identity")

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
PREFIX = f"/subscriptions/{SUBSCRIPTION}"
Json = dict[str, Any]


def resource(group: str, provider: str, name: str) -> str:
    return f"{PREFIX}/resourceGroups/{group}/providers/{provider}/{name}"


class Manager:
    """The double: machines with their interfaces and addresses, how long a page is, and what it was asked."""

    def __init__(self) -> None:
        self.machines: list[Json] = []
        self.faces: list[Json] = []
        self.addresses: list[Json] = []
        self.page = 2
        self.throttle = 0
        self.refuse: Callable[[str], tuple[int, str] | None] = lambda _path: None
        self.asked: list[str] = []
        self.url = ""

    def add(self, name: str, group: str, *, state: str = "running", public: str = "", private: str = "10.0.0.4", size: str = "Standard_NC4as_T4_v3",
            location: str = "westeurope", face_group: str = "", **tags: str) -> None:
        identity = resource(group.upper(), "Microsoft.Compute/virtualMachines", name)  # Azure likes to change the case of ids
        face = resource(face_group or group, "Microsoft.Network/networkInterfaces", f"{name}-nic")
        address = resource(group, "Microsoft.Network/publicIPAddresses", f"{name}-ip")
        configuration: Json = {"primary": True, "privateIPAddress": private}
        if public:
            configuration["publicIPAddress"] = {"id": address}
            fqdn = f"{name}.westeurope.cloudapp.azure.com"
            self.addresses.append({"id": address, "name": f"{name}-ip", "properties": {"ipAddress": public, "dnsSettings": {"fqdn": fqdn}}})
        self.faces.append({"id": face, "name": f"{name}-nic", "properties": {"ipConfigurations": [
            {"name": "second", "properties": {"primary": False, "privateIPAddress": "10.9.9.9"}}, {"name": "first", "properties": configuration}]}})
        self.machines.append({"id": identity, "name": name, "location": location, "tags": tags, "state": state, "properties": {
            "hardwareProfile": {"vmSize": size}, "osProfile": {"adminUsername": "azureuser"},
            "networkProfile": {"networkInterfaces": [{"id": face.replace("networkInterfaces", "NetworkInterfaces")}]}}})

    def answer(self, raw: str) -> tuple[int, Json]:
        path, query = urlsplit(raw).path, parse_qs(urlsplit(raw).query)
        assert query.get("api-version"), raw
        refused = self.refuse(path if "statusOnly" not in query else path + "?statusOnly")
        if refused:
            return refused[0], {"error": {"code": refused[1], "message": f"{refused[1]}: the double says so."}}
        group, parts = "", path.removeprefix(PREFIX + "/").split("/")
        if parts[0].lower() == "resourcegroups":
            group, parts = parts[1].lower(), parts[2:]
        kind, rest = parts[2], parts[3:]
        listed = {"virtualmachines": self.machines, "networkinterfaces": self.faces, "publicipaddresses": self.addresses}[kind.lower()]
        inside = [row for row in listed if not group or f"/resourcegroups/{group}/" in row["id"].lower()]
        if rest:
            row = next(row for row in inside if row["name"] == rest[0])
            return 200, self.view(row) if rest[1:] == ["instanceView"] else row
        begin = int(query.get("skip", ["0"])[0])
        rows = [{**row, "properties": {**row["properties"], "instanceView": self.view(row)}} if query.get("statusOnly") == ["true"] else row
                for row in inside[begin : begin + self.page]]
        document: Json = {"value": rows}
        if begin + self.page < len(inside):
            more = "&".join(f"{key}={value[0]}" for key, value in query.items() if key != "skip")
            document["nextLink"] = f"{self.url}{path}?{more}&skip={begin + self.page}"
        return 200, document

    @staticmethod
    def view(row: Json) -> Json:
        return {"statuses": [{"code": "ProvisioningState/succeeded"}, {"code": f"PowerState/{row['state']}"}]}


def certificate(folder: Path) -> Path:
    """A new key and a certificate for 127.0.0.1 that signs itself, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the double of Azure")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "azure.pem"
    path.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("azure"))


@pytest.fixture
def azure(pem: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers: dict[str, str] = {}
            if self.path.startswith("/token"):
                assert self.headers["X-IDENTITY-HEADER"] == "of-the-test"
                status, document = 200, {"access_token": "the-token", "expires_on": str(int(time.time()) + 3600), "resource": "x", "token_type": "Bearer"}
            elif self.headers["Authorization"] != "Bearer the-token":
                status, document = 401, {"error": {"code": "AuthenticationFailed", "message": "no token"}}
            else:
                manager.asked.append(self.path)
                if manager.throttle:
                    manager.throttle -= 1
                    status, document, headers = 429, {"error": {"code": "TooManyRequests", "message": "slow down"}}, {"Retry-After": "0"}
                else:
                    status, document = manager.answer(self.path)
            content = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    manager.url = f"https://127.0.0.1:{server.server_port}"
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "AZURE_SUBSCRIPTION_ID", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{manager.url}/token")
    monkeypatch.setenv("IDENTITY_HEADER", "of-the-test")
    manager.add("gpu-1", "Train", public="192.0.2.1", Role="gpu")
    manager.add("gpu-2", "Train", private="10.0.0.5", Role="gpu", size="Standard_ND96isr_H100_v5")
    manager.add("gpu-3", "Other", public="192.0.2.3", Role="gpu", location="northeurope", size="Standard_NC6")
    manager.add("off", "Train", state="deallocated", Role="gpu")
    manager.add("web", "Train", public="192.0.2.8", Role="web")
    yield manager
    server.shutdown()
    server.server_close()


def hosts(azure: Manager, words: str = "") -> dict[str, Host]:
    return {host.name: host for host in resolve([f"azure:subscription={SUBSCRIPTION},endpoint={azure.url},{words}"]).hosts}


def test_running_machines_are_found_by_tag_with_their_user_and_public_address(azure: Manager) -> None:
    found = hosts(azure, "tag:Role=gpu")
    assert {name: host.target for name, host in found.items()} == {
        "gpu-1": "azureuser@192.0.2.1", "gpu-2": "azureuser@10.0.0.5", "gpu-3": "azureuser@192.0.2.3",
    }
    assert {"group_train", "location_westeurope", "size_Standard_NC4as_T4_v3", "tag_Role_gpu"} == set(found["gpu-1"].groups)


def test_every_page_is_read_and_no_machine_is_asked_for_by_itself(azure: Manager) -> None:
    hosts(azure)
    # Five machines and interfaces in pages of two, their states likewise, three addresses.
    assert len(azure.asked) == 3 + 3 + 3 + 2
    assert not [path for path in azure.asked if "instanceView" in path]


def test_group_location_size_state_address_and_user_can_be_chosen(azure: Manager) -> None:
    assert set(hosts(azure, "group=train,tag:Role=gpu")) == {"gpu-1", "gpu-2"}
    assert set(hosts(azure, "location=northeurope")) == {"gpu-3"}
    assert "size_Standard_NC6" in hosts(azure, "size=standard_nc6")["gpu-3"].groups  # a size that the SDK knows
    assert set(hosts(azure, "size=Standard_ND*")) == {"gpu-2"}
    assert set(hosts(azure, "state=deallocated")) == {"off"}
    assert hosts(azure, "tag:Role=web,address=private,user=ops,port=2222")["web"].target == "ops@10.0.0.4:2222"
    assert hosts(azure, "tag:Role=web,address=fqdn")["web"].address == "web.westeurope.cloudapp.azure.com"


def test_a_machine_without_the_wanted_address_is_named(azure: Manager) -> None:
    found = resolve([f"azure:subscription={SUBSCRIPTION},endpoint={azure.url},address=public,group=train"])
    assert [host.name for host in found.hosts] == ["gpu-1", "web"]
    assert any("gpu-2 was left out" in note for note in found.notes)


def test_an_interface_in_another_group_is_asked_for_by_itself(azure: Manager) -> None:
    azure.add("far", "Train", private="10.7.7.7", face_group="Network")
    assert hosts(azure, "group=train")["far"].address == "10.7.7.7"


def test_machines_of_one_name_in_two_groups_are_called_by_both(azure: Manager) -> None:
    azure.add("gpu-1", "Other", private="10.3.3.3")
    assert {"gpu-1.train", "gpu-1.other"} <= set(hosts(azure))


def test_credentials_for_one_group_alone_are_enough(azure: Manager) -> None:
    azure.refuse = lambda path: None if "/resourceGroups/" in path else (403, "AuthorizationFailed")
    assert set(hosts(azure, "group=train,tag:Role=gpu")) == {"gpu-1", "gpu-2"}
    assert len([path for path in azure.asked if "instanceView" in path]) == 4


def test_throttling_is_waited_out(azure: Manager) -> None:
    azure.throttle = 2
    assert "web" in hosts(azure, "tag:Role=web")


def refused(source: str) -> Error:
    with pytest.raises(Error) as caught:
        resolve([source])
    return caught.value


def test_what_azure_refuses_is_told(azure: Manager) -> None:
    source = f"azure:subscription={SUBSCRIPTION},endpoint={azure.url}"
    azure.refuse = lambda _path: (403, "AuthorizationFailed")
    assert "Reader" in refused(source).fix
    azure.refuse = lambda _path: (404, "SubscriptionNotFound")
    error = refused(source)
    assert (error.exit_code, "SubscriptionNotFound" in error.message) == (1, True)


@pytest.mark.parametrize(("source", "hint"), [
    ("azure:", "AZURE_SUBSCRIPTION_ID"), ("azure:subscripton=x", "`subscription`"), ("azure:subscription=x,state=up", "running"),
    ("azure:subscription=x,address=id", "fqdn"), ("azure:subscription=x,cloud=moon", "usgov"), ("azure:subscription=x,endpoint=http://h", "https"),
    ("azure:train", "azure:key=value"),
])
def test_a_source_that_cannot_be_is_refused_before_azure_is_asked(source: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_SUBSCRIPTION_ID", raising=False)
    error = refused(source)
    assert isinstance(error, UsageError)
    assert hint in error.fix


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    assert refused("azure:subscription=x").fix == "Install it with: pip install 'mlhost[azure]'"


def test_a_resource_manager_that_is_not_there_is_unreachable(azure: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provision.inventory.azure.RETRIES", 0)
    assert refused(f"azure:subscription={SUBSCRIPTION},endpoint=https://127.0.0.1:{free_port()}").exit_code == 4
