"""Signing keys: real ones made by gpg, fetched from a real server, compared before anything trusts them."""

from __future__ import annotations

import shutil
import subprocess
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from provision import keys, openpgp
from provision.actions import AptRepository, Key
from provision.errors import Failed
from provision.keys import KeyMismatch
from provision.model import CHANGE, Item, Plan, PlatformRow


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """Two real keys: {name: (fingerprint, armoured, binary)}."""
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--no-tty", "--quiet"]
    found = {}
    for name in ("vendor", "stranger"):
        user = f"{name}@example.invalid"
        subprocess.run(
            [*gpg, "--passphrase", "", "--quick-gen-key", user, "ed25519", "sign", "never"], check=True, capture_output=True
        )
        listing = subprocess.run([*gpg, "--with-colons", "-k", user], check=True, capture_output=True, text=True).stdout
        fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr"))
        texts = [
            subprocess.run([*gpg, *form, "--export", user], check=True, capture_output=True).stdout for form in (["--armor"], [])
        ]
        found[name] = (fingerprint, *texts)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
    return found


@pytest.fixture
def site(ring):
    """A server of keys, and how often each was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            known = {
                "/vendor": ring["vendor"][1],
                "/binary": ring["vendor"][2],
                "/stranger": ring["stranger"][1],
                "/both": ring["vendor"][1] + ring["stranger"][1],
            }
            body = {**known, "/portal": b"<html>please log in</html>", "/endless": b"x" * (openpgp.MAX_BYTES + 70000)}.get(
                self.path
            )
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body or b"") + (9 if self.path == "/cut" else 0)))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def wanting(*wanted: Key) -> Plan:
    items = tuple(
        Item(f"x/{n}", "x", "apt-repository", CHANGE, "why", action=AptRepository("X", f"/etc/apt/{n}.sources", "text", key))
        for n, key in enumerate(wanted)
    )
    return Plan("box", PlatformRow("debian", "12", "bookworm", "debian", "x86_64", None), (), {}, items)


def texts(plan: Plan) -> list[bytes]:
    return [i.action.key.text for i in plan.items if isinstance(i.action, AptRepository) and i.action.key]


def nobody(urls: tuple[str, ...]) -> dict[str, bytes]:
    raise AssertionError(f"the host was asked for {urls}")


def test_the_pinned_key_is_fetched_once_and_comes_from_the_cache_after_that(ring, site, tmp_path):
    url, asked = site
    key = Key("X", f"{url}/vendor", (ring["vendor"][0],), "/etc/apt/keyrings/x.asc")
    for _ in range(2):
        assert texts(keys.gather(wanting(key, key), tmp_path / "cache", nobody)) == [ring["vendor"][1]] * 2
    assert asked == ["/vendor"]


@pytest.mark.parametrize("path", ["/stranger", "/both", "/portal", "/endless"])
def test_what_is_not_the_pinned_key_alone_is_refused_and_not_kept(ring, site, tmp_path, path):
    key = Key("Docker", f"{site[0]}{path}", (ring["vendor"][0],), "/etc/apt/keyrings/docker.asc")
    with pytest.raises(KeyMismatch, match="Docker signing key"):
        keys.gather(wanting(key), tmp_path, nobody)
    assert list(tmp_path.iterdir()) == []


def test_a_mismatch_names_both_fingerprints(ring, site, tmp_path):
    key = Key("Docker", f"{site[0]}/stranger", (ring["vendor"][0],), "/etc/apt/keyrings/docker.asc")
    with pytest.raises(KeyMismatch) as caught:
        keys.gather(wanting(key), tmp_path, nobody)
    assert ring["vendor"][0] in caught.value.message
    assert ring["stranger"][0] in caught.value.message
    assert caught.value.fix


def test_a_binary_key_becomes_the_armoured_text_that_apt_wants_and_gpg_reads_it(ring, site, tmp_path):
    key = Key("X", f"{site[0]}/binary", (ring["vendor"][0],), "/etc/apt/keyrings/x.asc")
    text = texts(keys.gather(wanting(key), tmp_path, nobody))[0]
    assert text.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert openpgp.fingerprints(text) == (ring["vendor"][0],)
    (tmp_path / "x.asc").write_bytes(text)
    shown = subprocess.run(
        ["gpg", "--batch", "--show-keys", "--with-colons", str(tmp_path / "x.asc")], check=True, capture_output=True, text=True
    )
    assert ring["vendor"][0] in shown.stdout


def test_a_key_file_named_gpg_gets_the_binary_form_that_old_apts_want(ring, site, tmp_path):
    for form in ("vendor", "binary"):
        key = Key("X", f"{site[0]}/{form}", (ring["vendor"][0],), "/etc/apt/keyrings/x.gpg")
        (text,) = texts(keys.gather(wanting(key), tmp_path, nobody))
        assert text == openpgp.dearmor(ring["vendor"][1])
        assert text[0] & 0x80


def test_a_cache_that_was_tampered_with_is_not_believed(ring, site, tmp_path):
    key = Key("X", f"{site[0]}/vendor", (ring["vendor"][0],), "/etc/apt/keyrings/x.asc")
    keys.store(key, ring["stranger"][1], tmp_path)
    assert texts(keys.gather(wanting(key), tmp_path, nobody)) == [ring["vendor"][1]]


def test_the_host_fetches_what_the_controller_cannot_and_its_answer_is_compared_too(ring, site, tmp_path):
    key = Key("X", f"{site[0]}/gone", (ring["vendor"][0],), "/etc/apt/keyrings/x.asc")
    assert texts(keys.gather(wanting(key), tmp_path / "a", lambda urls: dict.fromkeys(urls, ring["vendor"][1]))) == [
        ring["vendor"][1]
    ]
    with pytest.raises(KeyMismatch):
        keys.gather(wanting(key), tmp_path / "b", lambda urls: dict.fromkeys(urls, ring["stranger"][1]))


def test_a_key_that_nobody_can_fetch_says_why(ring, site, tmp_path):
    key = Key("Docker", f"{site[0]}/gone", (ring["vendor"][0],), "/etc/apt/keyrings/docker.asc")
    with pytest.raises(Failed, match=r"Docker signing key at .*/gone can be fetched neither from here .*404.* nor by the host"):
        keys.gather(wanting(key), tmp_path, lambda urls: {})


def test_a_key_that_the_plan_holds_already_is_not_fetched(ring, tmp_path):
    key = Key("X", "https://nowhere.invalid/key", (ring["vendor"][0],), "/etc/apt/keyrings/x.asc", ring["vendor"][1])
    assert texts(keys.gather(wanting(key), tmp_path, nobody)) == [ring["vendor"][1]]


def test_a_cache_that_cannot_be_written_is_no_failure(ring, site, tmp_path):
    (tmp_path / "file").write_text("")
    key = Key("X", f"{site[0]}/vendor", (ring["vendor"][0],), "/etc/apt/keyrings/x.asc")
    assert texts(keys.gather(wanting(key), tmp_path / "file" / "cache", nobody)) == [ring["vendor"][1]]


def test_two_keys_at_one_address_are_not_confused(ring, site, tmp_path):
    first = Key("X", f"{site[0]}/vendor", (ring["vendor"][0],), "/etc/apt/keyrings/x.asc")
    with pytest.raises(KeyMismatch):
        keys.gather(wanting(first, replace(first, fingerprints=(ring["stranger"][0],))), tmp_path, nobody)


def test_only_changes_need_a_key(tmp_path: Path):
    key = Key("X", "https://nowhere.invalid/key", ("A" * 40,), "/etc/apt/keyrings/x.asc")
    settled = replace(wanting(key), items=tuple(replace(i, state="ok") for i in wanting(key).items))
    assert keys.needed(settled) == ()
