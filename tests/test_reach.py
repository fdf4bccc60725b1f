"""Whether a host can reach a source: the real script under real shells, against a real server on this machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources

import pytest

from provision import reach
from provision.spec import Proxy

SHELLS = {"dash": ["dash"], "bash": ["bash"], "busybox": ["busybox", "sh"]}
MARK = "5eed"
SCRIPT = (resources.files("provision") / "scripts" / "reach.sh").read_text(encoding="utf-8")
KEY = bytes(range(256)) * 20
NO_PROXY = Proxy()


class Handler(BaseHTTPRequestHandler):
    """Serves /key and /dists/old/Release; everything else is missing, and as a proxy it wants a password."""

    def do_GET(self) -> None:
        code, body = (200, KEY) if self.path in ("/key", "/dists/new/InRelease", "/dists/old/Release") else (404, b"")
        if self.path == "/broken":
            code = 503
        if "://" in self.path:
            code = 407
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(params=SHELLS)
def shell(request):
    if not shutil.which(SHELLS[request.param][0]):
        pytest.skip(f"{request.param} is not installed")
    return SHELLS[request.param]


def ask(shell: list[str], *asked: tuple[str, str], proxy: Proxy = NO_PROXY) -> dict[str, reach.Reach]:
    text = reach.script(SCRIPT, proxy)
    words = [word for pair in asked for word in pair]
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "no_proxy": "" if proxy.http else "*"}
    done = subprocess.run(
        [*shell, "-s", "--", MARK, *words], input=text.encode(), capture_output=True, timeout=120, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    return dict(reach.parse(done.stdout, asked, MARK))


def test_what_is_there_can_be_reached_and_fetched_byte_for_byte(shell, site):
    answers = ask(shell, ("head", f"{site}/dists/new/InRelease"), ("get", f"{site}/key"))
    assert {a.state for a in answers.values()} == {"ok"}
    assert answers[f"{site}/key"].content == KEY
    assert answers[f"{site}/dists/new/InRelease"].content == b""


def test_an_older_repository_without_inrelease_is_reached_by_its_release_file(shell, site):
    url = f"{site}/dists/old/InRelease"
    assert ask(shell, ("head", url))[url].ok


def test_a_file_that_is_missing_is_told_from_a_server_that_fails(shell, site):
    answers = ask(shell, ("head", f"{site}/dists/nowhere/InRelease"), ("head", f"{site}/broken"))
    missing, broken = answers[f"{site}/dists/nowhere/InRelease"], answers[f"{site}/broken"]
    assert (missing.state, broken.state) == ("missing", "http")
    assert "404" in missing.detail
    assert "503" in broken.detail
    assert "://" not in missing.detail + broken.detail


def test_a_refused_connection_says_so(shell):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/key"
        answer = ask(shell, ("head", url))[url]
    assert answer.state == "connect"
    assert "refused" in answer.detail.lower()


def test_a_name_that_does_not_resolve_is_named(shell):
    answer = ask(shell, ("head", "http://nowhere.invalid/x"))["http://nowhere.invalid/x"]
    assert answer.state == "dns"
    assert "nowhere.invalid" in answer.detail


def test_a_proxy_that_wants_a_password_is_told_and_the_password_is_in_no_argument(shell, site):
    url = "http://nowhere.invalid/key"
    proxy = Proxy(http=site.replace("http://", "http://user:sesame@"))
    answer = ask(shell, ("head", url), proxy=proxy)[url]
    assert answer.state == "proxy"
    assert "sesame" not in answer.detail


def test_nothing_is_left_behind(shell, site, tmp_path):
    text = f"export TMPDIR={tmp_path}\n{SCRIPT}"
    subprocess.run(
        [*shell, "-s", "--", MARK, "get", f"{site}/key"], input=text.encode(), capture_output=True, timeout=60, check=True
    )
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_was_cut_short_answers_nothing(site):
    asked = (("head", f"{site}/key"), ("head", f"{site}/other"))
    out = b"@@5eed probe 0\n\n@@5eed reach:1 0\n\n@@5eed end 0\n\n"
    assert set(reach.parse(out, asked, MARK)) == {f"{site}/key"}


@pytest.mark.parametrize(
    ("said", "state", "detail"),
    [
        ("Err:1 https://download.docker.com/x InRelease\n  Could not resolve 'download.docker.com'\nE: Failed to fetch https://download.docker.com/x  Could not resolve 'download.docker.com'", "dns", "Could not resolve 'download.docker.com'"),
        ("Err:1 https://tls.example/404/ssl InRelease\n  Could not connect to tls.example:443 (192.0.2.1), connection timed out", "connect", "Could not connect to tls.example:443 (192.0.2.1), connection timed out"),
        ("E: Failed to fetch https://x.example/a  Certificate verification failed: The certificate is NOT trusted.", "tls", "Certificate verification failed: The certificate is NOT trusted."),
        ("curl: (60) SSL certificate problem: unable to get local issuer certificate", "tls", "(60) SSL certificate problem: unable to get local issuer certificate"),
        ("curl: (56) CONNECT tunnel failed, response 407", "proxy", "(56) CONNECT tunnel failed, response 407"),
        ("wget: server returned error: HTTP/1.1 404 Not Found", "missing", "server returned error: HTTP/1.1 404 Not Found"),
        ("something else", "error", "something else"),
        ("", "error", "exit code 7"),
    ],
)  # fmt: skip
def test_the_telling_line_is_shown_without_the_url(said, state, detail):
    url = "https://x.example/a"
    out = f"@@5eed probe 0\n\n@@5eed reach:1 7\n{said}\n@@5eed end 0\n\n".encode()
    answer = reach.parse(out, [("head", url)], MARK)[url]
    assert (answer.state, answer.detail) == (state, detail)


@pytest.mark.parametrize(("rc", "state"), [(124, "connect"), (127, "no-client")])
def test_a_download_that_never_ended_and_a_host_without_a_downloader_are_told(rc, state):
    out = f"@@5eed probe 0\n\n@@5eed reach:1 {rc}\n\n@@5eed end 0\n\n".encode()
    assert reach.parse(out, [("head", "https://x.example/a")], MARK)["https://x.example/a"].state == state
