"""What a registry says of an image before it is pulled: asked of a real registry on this machine, with and without a login.

Doubles, where no registry would do such a thing by itself: a server that answers wrongly (BadServer), and the token service (TokenServer), whose
tokens the real registry checks.
"""

from __future__ import annotations

import base64
import datetime
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from provision import imageconfig
from provision.imageconfig import Reference, RegistryError, ask, is_loopback, reference
from tests.lab.fixtures import available
from tests.lab.images import DOCKER_INDEX, DOCKER_MANIFEST, Publisher
from tests.lab.registry import Registry

pytestmark = pytest.mark.slow

# As nvidia/cuda:12.0.0-base-ubuntu22.04 has it, shortened to its first alternatives (gitlab.com/nvidia/container-images/cuda, dist/12.0.0).
REQUIRES = "cuda>=12.0 brand=tesla,driver>=450,driver<451 brand=tesla,driver>=470,driver<471 brand=geforce,driver>=470,driver<471"
ENV = ("PATH=/usr/bin:/bin", f"NVIDIA_REQUIRE_CUDA={REQUIRES}", "CUDA_VERSION=12.0.0", "EMPTY=", "EQUAL=a=b")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A Docker config without a login: the tests know nothing of this machine's own."""
    (tmp_path / "config.json").write_text("{}")
    return tmp_path / "config.json"


@pytest.mark.parametrize(
    ("text", "registry", "repository", "wanted"),
    [
        ("debian", "docker.io", "library/debian", "latest"),
        ("nvidia/cuda:13.2.1-base-ubuntu24.04", "docker.io", "nvidia/cuda", "13.2.1-base-ubuntu24.04"),
        ("docker.io/debian:13", "docker.io", "library/debian", "13"),
        ("index.docker.io/nvidia/cuda", "docker.io", "nvidia/cuda", "latest"),
        ("nvcr.io/nvidia/pytorch:25.10-py3", "nvcr.io", "nvidia/pytorch", "25.10-py3"),
        ("localhost/x", "localhost", "x", "latest"),
        ("localhost:5000/x:1", "localhost:5000", "x", "1"),
        ("registry:5000/a/b/c", "registry:5000", "a/b/c", "latest"),
        ("[::1]:5000/x:2", "[::1]:5000", "x", "2"),
        (f"debian:13@sha256:{'0' * 64}", "docker.io", "library/debian", f"sha256:{'0' * 64}"),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(text: str, registry: str, repository: str, wanted: str) -> None:
    found = reference(text)
    assert (found.registry, found.repository, found.wanted) == (registry, repository, wanted)


@pytest.mark.parametrize(
    ("registry", "here"),
    [("localhost:5000", True), ("127.0.0.1:5000", True), ("127.9.9.9", True), ("[::1]:5000", True), ("127.0.0.1.example", False), ("10.0.0.1:5000", False)],
)
def test_only_this_machine_itself_is_asked_without_tls(registry: str, here: bool) -> None:
    assert is_loopback(registry) is here
    assert any(base.startswith("http:") for base, _ in imageconfig._places(Reference(registry, "x", "", ""), (), ())) is here


def test_a_mirror_of_docker_hub_is_asked_first_and_without_a_login_and_for_nothing_else() -> None:
    mirrors = ("https://mirror.example/",)
    assert list(imageconfig._places(reference("debian"), mirrors, ())) == [("https://mirror.example", False), ("https://registry-1.docker.io", True)]
    assert list(imageconfig._places(reference("nvcr.io/x/y"), mirrors, ())) == [("https://nvcr.io", True)]


def test_a_registry_that_the_playbook_calls_insecure_is_asked_without_tls_but_gets_no_login() -> None:
    wanted = reference("registry.example:5000/x")
    assert list(imageconfig._places(wanted, (), ("registry.example:5000",))) == [
        ("https://registry.example:5000", True),
        ("http://registry.example:5000", False),
    ]


@pytest.mark.parametrize(
    ("auths", "registry", "login"),
    [
        ({"nvcr.io": {"auth": base64.b64encode(b"$oauthtoken:secret").decode()}}, "nvcr.io", "$oauthtoken:secret"),
        ({"https://index.docker.io/v1/": {"auth": base64.b64encode(b"ada:x:y").decode()}}, "docker.io", "ada:x:y"),
        ({"https://nvcr.io": {"auth": base64.b64encode(b"a:b").decode()}}, "nvcr.io", "a:b"),
        ({"nvcr.io": {}}, "nvcr.io", ""),
        ({"nvcr.io": {"auth": "%%%"}}, "nvcr.io", ""),
        ({"nvcr.io": "a:b"}, "nvcr.io", ""),
        ({"other.io": {"auth": base64.b64encode(b"a:b").decode()}}, "nvcr.io", ""),
        ({"cr.example": {"auth": base64.b64encode(b"0:").decode(), "identitytoken": "x"}}, "cr.example", ""),
    ],
)
def test_a_login_is_taken_from_dockers_own_file(tmp_path: Path, auths: dict[str, Any], registry: str, login: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    assert imageconfig._credentials(registry, tmp_path / "config.json") == login


@pytest.mark.parametrize("text", ["", "[]", "{", '{"auths": []}'])
def test_a_docker_config_that_cannot_be_read_holds_no_login(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert imageconfig._credentials("nvcr.io", tmp_path / "config.json") == ""
    assert imageconfig._credentials("nvcr.io", tmp_path / "absent.json") == ""


# ---------------------------------------------------------------- a real registry


def publisher(registry: Registry, repository: str, **more: Any) -> Publisher:
    return Publisher(f"http://{registry.address}", repository, **more)


@pytest.mark.parametrize("kind", [DOCKER_MANIFEST, "application/vnd.oci.image.manifest.v1+json"])
def test_an_images_environment_labels_digest_and_size_are_told(registry: Registry, config: Path, kind: str) -> None:
    pushed = publisher(registry, "plain/cuda").image("1", ENV, {"com.nvidia.cuda.version": "12.0.0"}, kind=kind)
    found = ask(f"{registry.address}/plain/cuda:1", "x86_64", docker_config=config)
    assert found.environment == {"PATH": "/usr/bin:/bin", "NVIDIA_REQUIRE_CUDA": REQUIRES, "CUDA_VERSION": "12.0.0", "EMPTY": "", "EQUAL": "a=b"}
    assert found.labels == {"com.nvidia.cuda.version": "12.0.0"}
    assert found.digest == pushed.digest
    assert 0 < found.size < 1000
    assert found.offered == ()
    assert ask(f"{registry.address}/plain/cuda@{pushed.digest}", "x86_64", docker_config=config).environment == found.environment


@pytest.mark.parametrize(("index", "manifest"), [(DOCKER_INDEX, DOCKER_MANIFEST), ("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json")])
def test_of_several_architectures_the_hosts_own_is_read(registry: Registry, config: Path, index: str, manifest: str) -> None:
    images = publisher(registry, "multi/cuda")
    pushed = [images.image("", [f"NVIDIA_REQUIRE_CUDA=cuda>={cuda}"], arch=arch, kind=manifest) for arch, cuda in (("amd64", "12.4"), ("arm64", "13.0"))]
    both = images.index("1", pushed, index)
    name = f"{registry.address}/multi/cuda:1"
    assert ask(name, "x86_64", docker_config=config).environment == {"NVIDIA_REQUIRE_CUDA": "cuda>=12.4"}
    arm = ask(name, "aarch64", docker_config=config)
    assert (arm.environment, arm.digest) == ({"NVIDIA_REQUIRE_CUDA": "cuda>=13.0"}, both.digest)
    assert ask(name, "ppc64le", docker_config=config).offered == ("linux/amd64", "linux/arm64")


def test_an_image_for_another_architecture_says_which(registry: Registry, config: Path) -> None:
    publisher(registry, "arm/only").image("1", arch="arm64")
    assert ask(f"{registry.address}/arm/only:1", "x86_64", docker_config=config).offered == ("linux/arm64",)


def test_an_image_that_is_not_there_is_said_to_be_missing(registry: Registry, config: Path) -> None:
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:\d+/no/such:1: it has no such image") as caught:
        ask(f"{registry.address}/no/such:1", "x86_64", docker_config=config)
    assert "Check the name and the tag" in caught.value.fix


def test_a_mirror_answers_for_docker_hub(registry: Registry, config: Path) -> None:
    publisher(registry, "library/mirrored").image("1", ENV)
    assert ask("mirrored:1", "x86_64", mirrors=(f"http://{registry.address}",), docker_config=config).environment["CUDA_VERSION"] == "12.0.0"


def test_a_registry_that_is_not_there_is_named(config: Path) -> None:
    with pytest.raises(RegistryError, match=r"The registry 127\.0\.0\.1:9 cannot be asked: ConnectionError"):
        ask("127.0.0.1:9/x/y", "x86_64", docker_config=config)


# ---------------------------------------------------------------- logins


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real registry that wants a name and a password."""
    bcrypt = pytest.importorskip("bcrypt")
    folder = tmp_path_factory.mktemp("private")
    (folder / "htpasswd").write_text("ada:" + bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode() + "\n")
    more = f"auth:\n  htpasswd:\n    realm: lab\n    path: {folder}/htpasswd\n"
    with available(lambda: Registry(folder, more)) as running:
        publisher(running, "own/cuda", headers={"Authorization": basic("ada:s3cret")}).image("1", ENV)
        yield running


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def logged_in(folder: Path, registry: str, login: str) -> Path:
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": base64.b64encode(login.encode()).decode()}}}))
    return folder / "config.json"


def test_a_private_image_is_read_with_the_login_of_docker(private: Registry, tmp_path: Path) -> None:
    login = logged_in(tmp_path, private.address, "ada:s3cret")
    assert ask(f"{private.address}/own/cuda:1", "x86_64", docker_config=login).environment["CUDA_VERSION"] == "12.0.0"


def test_without_a_login_or_with_a_wrong_one_the_remedy_is_to_log_in_and_no_password_is_told(private: Registry, config: Path, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="it asks for a name and a password") as caught:
        ask(f"{private.address}/own/cuda:1", "x86_64", docker_config=config)
    assert "docker login" in caught.value.fix
    with pytest.raises(RegistryError, match="it does not let these credentials read it") as caught:
        ask(f"{private.address}/own/cuda:1", "x86_64", docker_config=logged_in(tmp_path, private.address, "ada:wrong-pw"))
    assert "wrong-pw" not in str(caught.value)


class TokenServer:
    """A double of a registry's token service: it gives signed tokens to everybody, or only to one login. The real registry checks them."""

    def __init__(self, folder: Path, login: str = "") -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.login, self.asked = login, []  # type: str, list[str]
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab tokens")])
        now = datetime.datetime.now(datetime.timezone.utc)
        made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self._key.public_key()).serial_number(1)
        made = made.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=9))
        certificate = made.sign(self._key, hashes.SHA256())
        self._certificate = certificate.public_bytes(serialization.Encoding.DER)
        (folder / "bundle.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.server, self.url = serve(self._answer)

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(handler.path)
        if self.login and handler.headers.get("Authorization") != basic(self.login):
            return 401, {}, b'{"details": "incorrect username or password"}'
        scope = parse_qs(urlsplit(handler.path).query)["scope"][0]
        return 200, {}, json.dumps({"token": self.token(scope)}).encode()

    def token(self, scope: str) -> str:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        kind, name, actions = scope.split(":")
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(self._certificate).decode()]}
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        body = {"iss": "lab", "sub": "", "aud": "lab registry", "exp": now + 300, "nbf": now - 60, "iat": now, "jti": "1", "access": access}
        text = b".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, body))
        signed = self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return (text + b"." + base64.urlsafe_b64encode(signed).rstrip(b"=")).decode()


def serve(answer: Callable[[http.server.BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]) -> tuple[http.server.ThreadingHTTPServer, str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    pytest.importorskip("cryptography")
    service = TokenServer(tmp_path)
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def guarded(tokens: TokenServer, tmp_path: Path) -> Iterator[Registry]:
    """A real registry that lets in whoever has a token of `tokens`, as Docker Hub and nvcr.io do."""
    more = f"auth:\n  token:\n    realm: {tokens.url}/token?account=x\n    service: lab registry\n    issuer: lab\n    rootcertbundle: {tmp_path}/bundle.pem\n"
    with available(lambda: Registry(None, more)) as running:
        push = {"Authorization": f"Bearer {tokens.token('repository:nvidia/cuda:pull,push')}"}
        publisher(running, "nvidia/cuda", headers=push).image("1", ENV)
        yield running


def test_a_token_is_fetched_where_the_registry_sends_for_one(guarded: Registry, tokens: TokenServer, config: Path) -> None:
    assert ask(f"{guarded.address}/nvidia/cuda:1", "x86_64", docker_config=config).environment["NVIDIA_REQUIRE_CUDA"] == REQUIRES
    assert tokens.asked == ["/token?account=x&service=lab+registry&scope=repository%3Anvidia%2Fcuda%3Apull"], "once for manifest and config"


def test_a_token_service_that_wants_a_login_gets_the_one_for_the_registry(guarded: Registry, tokens: TokenServer, config: Path, tmp_path: Path) -> None:
    tokens.login = "ada:s3cret"
    with pytest.raises(RegistryError, match=r"gives no token for it \(HTTP 401\)"):
        ask(f"{guarded.address}/nvidia/cuda:1", "x86_64", docker_config=config)
    login = logged_in(tmp_path, guarded.address, "ada:s3cret")
    assert ask(f"{guarded.address}/nvidia/cuda:1", "x86_64", docker_config=login).environment["CUDA_VERSION"] == "12.0.0"


# ---------------------------------------------------------------- answers that no registry should give (doubles)

MANIFEST = json.dumps({"mediaType": DOCKER_MANIFEST, "config": {"digest": "sha256:" + "1" * 64}, "layers": []}).encode()
BAD: dict[str, tuple[int, dict[str, str], bytes, str]] = {
    "a web page": (200, {"Content-Type": "text/html"}, b"<html>sign in</html>", "its manifest is not JSON"),
    "a list": (200, {}, b"[]", "its manifest is not JSON"),
    "another content": (200, {"Docker-Content-Digest": "sha256:" + "2" * 64}, MANIFEST, f"what it sent for sha256:{'2' * 64} is sha256:"),
    "the old schema": (200, {"Content-Type": "application/vnd.docker.distribution.manifest.v1+json"}, b'{"schemaVersion": 1}', "of a kind that is not read"),
    "no digest": (200, {"Content-Type": DOCKER_MANIFEST}, b'{"config": {"digest": "../../x"}}', "without a sha256 digest"),
    "a config that is another": (200, {}, MANIFEST, "is something else"),
    "far too much": (200, {}, b"x" * (imageconfig.MAX_BYTES + 1), "more than 4 MiB"),
    "a limit": (429, {}, b"", "asked too often"),
    "an error": (503, {}, b"", "HTTP 503"),
    "a challenge without a realm": (401, {"WWW-Authenticate": "Bearer"}, b"", "asks for a name and a password"),
    "a realm without TLS": (401, {"WWW-Authenticate": 'Bearer realm="http://tokens.example/t"'}, b"", "without TLS"),
    "a redirect to itself": (302, {"Location": "/again"}, b"", "redirects without end"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_answer_that_cannot_be_right_is_an_error_that_says_so(config: Path, what: str) -> None:
    status, headers, body, said = BAD[what]
    server, url = serve(lambda _: (status, headers, body))
    with pytest.raises(RegistryError) as caught:
        ask(f"{urlsplit(url).netloc}/x/y:1", "x86_64", docker_config=config)
    assert said in caught.value.message
    assert caught.value.fix
    server.shutdown()
    server.server_close()


def test_a_login_does_not_follow_a_redirect_to_another_server(config: Path, tmp_path: Path) -> None:
    seen: list[str | None] = []
    elsewhere, there = serve(lambda h: (seen.append(h.headers.get("Authorization")), (404, {}, b""))[1])  # type: ignore[func-returns-value]

    def first(handler: http.server.BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        if not handler.headers.get("Authorization"):
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        return 307, {"Location": f"{there}/blob"}, b""

    server, url = serve(first)
    address = urlsplit(url).netloc
    with pytest.raises(RegistryError, match="no such image"):
        ask(f"{address}/x/y:1", "x86_64", docker_config=logged_in(tmp_path, address, "ada:s3cret"))
    assert seen == [None]
    for one in (server, elsewhere):
        one.shutdown()
        one.server_close()


def test_a_registry_that_drips_is_not_waited_for(config: Path) -> None:
    def drip(handler: http.server.BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            for _ in range(200):
                handler.wfile.write(b" ")
                time.sleep(0.1)
        except OSError:
            pass
        return 500, {}, b""

    server, url = serve(drip)
    began = time.monotonic()
    with pytest.raises(RegistryError, match="too slowly"):
        ask(f"{urlsplit(url).netloc}/x/y:1", "x86_64", docker_config=config, limit=0.5)
    assert time.monotonic() - began < 30
    server.shutdown()
    server.server_close()
