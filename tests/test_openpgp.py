"""Fingerprints are GnuPG's own, and nothing that is not a whole public key is taken for one."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision import openpgp

# Version 4 and version 6 certificates from the standard itself (RFC 9580, appendix A.1 and A.3), with the fingerprints it gives.
ED25519_V4 = """-----BEGIN PGP PUBLIC KEY BLOCK-----

xjMEU/NfCxYJKwYBBAHaRw8BAQdAPwmJlL3ZFu1AUxl5NOSofIBzOhKA1i+AEJku
Q+47JAY=
-----END PGP PUBLIC KEY BLOCK-----
"""
ED25519_V4_FINGERPRINT = "C959BDBAFA32A2F89A153B678CFDE12197965A9A"
V6 = """-----BEGIN PGP PUBLIC KEY BLOCK-----

xioGY4d/4xsAAAAg+U2nu0jWCmHlZ3BqZYfQMxmZu52JGggkLq2EVD34laPCsQYf
GwoAAABCBYJjh3/jAwsJBwUVCg4IDAIWAAKbAwIeCSIhBssYbE8GCaaX5NUt+mxy
KwwfHifBilZwj2Ul7Ce62azJBScJAgcCAAAAAK0oIBA+LX0ifsDm185Ecds2v8lw
gyU2kCcUmKfvBXbAf6rhRYWzuQOwEn7E/aLwIwRaLsdry0+VcallHhSu4RN6HWaE
QsiPlR4zxP/TP7mhfVEe7XWPxtnMUMtf15OyA51YBM4qBmOHf+MZAAAAIIaTJINn
+eUBXbki+PSAld2nhJh/LVmFsS+60WyvXkQ1wpsGGBsKAAAALAWCY4d/4wKbDCIh
BssYbE8GCaaX5NUt+mxyKwwfHifBilZwj2Ul7Ce62azJAAAAAAQBIKbpGG2dWTX8
j+VjFM21J0hqWlEg+bdiojWnKfA5AQpWUWtnNwDEM0g12vYxoWM8Y81W+bHBw805
I8kWVkXU6vFOi+HWvv/ira7ofJu16NnoUkhclkUrk0mXubZvyl4GBg==
-----END PGP PUBLIC KEY BLOCK-----
"""
V6_FINGERPRINT = "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"


class Gnupg:
    """A throw-away GnuPG home."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, *args: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--batch", "--no-autostart" if "--show-keys" in args else "--quiet", "--homedir", str(self.home), *args]
        return subprocess.run(command, input=data, check=True, capture_output=True, timeout=120).stdout

    def make(self, name: str, algorithm: str) -> None:
        self.run("--passphrase", "", "--quick-generate-key", name, algorithm, "default", "never")

    def primaries(self, key: bytes) -> tuple[str, ...]:
        """What GnuPG itself says the primary keys' fingerprints are."""
        found, wanted = [], False
        for line in self.run("--with-colons", "--show-keys", data=key).decode().splitlines():
            field = line.split(":")
            wanted = field[0] == "pub" or (wanted and field[0] != "sub")
            if field[0] == "fpr" and wanted:
                found.append(field[9])
                wanted = False
        return tuple(found)


@pytest.fixture(scope="module")
def gnupg() -> Iterator[Gnupg]:
    if not shutil.which("gpg"):
        pytest.skip("no gpg here (package gnupg)")
    # Sockets need a short path, which pytest's own directories do not always have.
    home = Path(subprocess.run(["mktemp", "-d", "/tmp/mlhost-gnupg.XXXXXX"], check=True, capture_output=True, text=True).stdout.strip())
    home.chmod(0o700)
    keys = Gnupg(home)
    keys.make("rsa@example.org", "rsa2048")
    keys.make("ed25519@example.org", "ed25519")
    yield keys
    if shutil.which("gpgconf"):
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, env={**os.environ, "GNUPGHOME": str(home)})
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def rsa(gnupg: Gnupg) -> bytes:
    return gnupg.run("--export", "rsa@example.org")


@pytest.fixture(scope="module")
def armoured(gnupg: Gnupg) -> bytes:
    return gnupg.run("--armor", "--export", "rsa@example.org")


@pytest.mark.parametrize("name", ["rsa@example.org", "ed25519@example.org"])
@pytest.mark.parametrize("form", ["--armor", "--no-armor"])
def test_the_fingerprint_is_the_one_that_gnupg_shows(gnupg: Gnupg, name: str, form: str) -> None:
    key = gnupg.run(form, "--export", name)
    found = openpgp.fingerprints(key)
    assert len(found) == 1
    assert re.fullmatch("[0-9A-F]{40}", found[0])
    assert found == gnupg.primaries(key)


def test_every_primary_key_of_a_file_is_listed_and_no_subkey(gnupg: Gnupg) -> None:
    gnupg.run("--passphrase", "", "--quick-add-key", gnupg.primaries(gnupg.run("--export", "ed25519@example.org"))[0], "cv25519", "encr", "never")
    both = gnupg.run("--export")
    assert openpgp.fingerprints(both) == gnupg.primaries(both)
    assert len(openpgp.fingerprints(both)) == 2


def test_a_second_armoured_block_in_the_file_does_not_go_unseen(gnupg: Gnupg, armoured: bytes) -> None:
    other = gnupg.run("--armor", "--export", "ed25519@example.org")
    assert openpgp.fingerprints(armoured + b"\n" + other) == (*gnupg.primaries(armoured), *gnupg.primaries(other))


def test_armour_and_binary_are_the_same_key(armoured: bytes, rsa: bytes) -> None:
    assert openpgp.dearmor(armoured) == rsa
    assert openpgp.dearmor(rsa) == rsa


@pytest.mark.parametrize(
    "change",
    [
        lambda key: re.sub(rb"\n=[A-Za-z0-9+/]{4}\n", b"\n", key),
        lambda key: key.replace(b"\n", b"\r\n"),
        lambda key: key.replace(b"-----\n\n", b"-----\nVersion: GnuPG v2.0.22 (GNU/Linux)\nComment: no\n\n", 1),
        lambda key: b"A key follows.\n\n" + key + b"\nThat was it.\n",
        lambda key: key.rstrip(b"\n"),
    ],
    ids=["no checksum", "windows line ends", "headers", "text around it", "no last line end"],
)
def test_every_usual_form_of_armour_is_read(armoured: bytes, rsa: bytes, change: object) -> None:
    changed = change(armoured)  # type: ignore[operator]
    assert changed != armoured
    assert openpgp.dearmor(changed) == rsa


def test_the_standards_own_keys_have_the_fingerprints_that_it_prints() -> None:
    assert openpgp.fingerprints(ED25519_V4.encode()) == (ED25519_V4_FINGERPRINT,)
    assert openpgp.fingerprints(V6.encode()) == (V6_FINGERPRINT,)


def test_old_and_new_packet_headers_of_every_size_are_the_same_key(rsa: bytes) -> None:
    body = next(body for tag, body in openpgp.packets(rsa) if tag == 6)
    n = len(body)
    headers = [
        bytes([0x99]) + n.to_bytes(2, "big"),
        bytes([0x9A]) + n.to_bytes(4, "big"),
        bytes([0xC6, ((n - 192) >> 8) + 192, (n - 192) & 0xFF]),
        bytes([0xC6, 0xFF]) + n.to_bytes(4, "big"),
    ]
    assert {openpgp.fingerprints(header + body) for header in headers} == {openpgp.fingerprints(rsa)}
    assert openpgp.fingerprints(rsa) == (hashlib.sha1(headers[0] + body).hexdigest().upper(),)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Sign in to the network</html>", "web page"),
        (b"not a key at all\n", "no armoured block"),
        (b"-----BEGIN PGP MESSAGE-----\n\nabcd\n-----END PGP MESSAGE-----\n", "it is a PGP message"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQENB", "cut short"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!!\n-----END PGP PUBLIC KEY BLOCK-----\n", "not base64"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END PGP PUBLIC KEY BLOCK-----\n", "no public key"),
        (b"\x99\xff\xff" + b"\x04" * 20, "cut short in the middle"),
        (b"\x99", "cut short in a packet header"),
        (b"\xc6", "cut short in a packet header"),
        (b"\xc6\xff\xff\xff", "cut short in a packet header"),
        (b"\xc6\xff\xff\xff\xff\xff\x04", "cut short in the middle"),
        (b"\xc6\xe1\x04\x04", "partial lengths"),
        (b"\x9b\x04\x00\x00", "unknown length"),
        (b"\x80\x01\x04", "reserved type 0"),
        (b"\x99\x00\x03\x04\x00\x00", "without a key in it"),
        (b"\x99\x00\x00", "without a key in it"),
        (b"\x99\x00\x0c\x03" + bytes(11), "version 3"),
        (b"\x95\x00\x0c\x04" + bytes(11), "secret key"),
        (b"\xb4\x04user", "does not begin with a public key"),
        (b"\xca\x03PGP", "no public key"),
        (b"\xff" * (openpgp.MAX_BYTES + 1), "more than any signing key"),
    ],
)
def test_what_is_no_key_is_refused_with_the_reason(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        openpgp.fingerprints(data)


def test_a_damaged_armour_is_noticed_by_its_checksum(armoured: bytes) -> None:
    lines = armoured.split(b"\n")
    lines[5] = lines[5].swapcase()
    with pytest.raises(ValueError, match="checksum does not match"):
        openpgp.fingerprints(b"\n".join(lines))


def test_a_secret_key_block_is_refused(gnupg: Gnupg) -> None:
    secret = gnupg.run("--armor", "--pinentry-mode", "loopback", "--passphrase", "", "--export-secret-keys", "rsa@example.org")
    with pytest.raises(ValueError, match="private key block, not a public key block"):
        openpgp.fingerprints(secret)


def test_a_key_cut_at_any_place_is_refused_or_ends_between_two_packets(rsa: bytes) -> None:
    ends, at = set(), 0
    while at < len(rsa):
        _, start, length = openpgp._header(rsa, at)
        at = start + length
        ends.add(at)
    for cut in range(len(rsa)):
        if cut in ends:
            assert openpgp.fingerprints(rsa[:cut]) == openpgp.fingerprints(rsa)
        else:
            with pytest.raises(ValueError, match="it "):
                openpgp.fingerprints(rsa[:cut])


def test_a_changed_key_never_keeps_its_fingerprint(rsa: bytes) -> None:
    _, start, length = openpgp._header(rsa, 0)
    for at in range(start + 1, start + length):
        changed = rsa[:at] + bytes([rsa[at] ^ 1]) + rsa[at + 1 :]
        assert openpgp.fingerprints(changed) != openpgp.fingerprints(rsa)


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_hostile_bytes_give_fingerprints_or_a_value_error(data: bytes) -> None:
    for text in (data, b"\x99" + data, b"\xc6" + data, b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n" + base64.b64encode(data) + b"\n-----END PGP PUBLIC KEY BLOCK-----\n"):
        try:
            found = openpgp.fingerprints(text)
        except ValueError:
            continue
        assert found
        assert all(re.fullmatch("[0-9A-F]{40}|[0-9A-F]{64}", fingerprint) for fingerprint in found)


@pytest.mark.parametrize(
    "data",
    [
        b"\xca\x00" * (openpgp.MAX_BYTES // 2),
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" * (openpgp.MAX_BYTES // 37),
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n" + b"\n" * (openpgp.MAX_BYTES - 80) + b"-----END PGP PUBLIC KEY BLOCK-----\n",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n" + b"A" * (openpgp.MAX_BYTES - 80) + b"\n=AAAA\n-----END PGP PUBLIC KEY BLOCK-----\n",
        b"-----BEGIN PGP " + b"A " * (openpgp.MAX_BYTES // 2 - 10),
    ],
    ids=["a million markers", "nothing but beginnings", "empty lines", "one long line", "an endless beginning"],
)
def test_the_largest_file_that_is_read_takes_seconds_at_most(data: bytes) -> None:
    assert len(data) <= openpgp.MAX_BYTES
    start = time.process_time()
    with pytest.raises(ValueError, match=r"it |the "):
        openpgp.fingerprints(data)
    assert time.process_time() - start < 5
