"""known_hosts, judged as OpenSSH judges it: `ssh-keygen -F` is the oracle for which line applies to which host."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from provision.transport.errors import SshConfigError
from provision.transport.hostkeys import check, fingerprint, kind_of, known_keys, label, preferred, read_known_hosts, remember
from tests.sshd import make_key, needs, public

BLOB_A, BLOB_B, BLOB_C = (b"\0\0\0\x0bssh-ed25519" + letter * 36 for letter in (b"a", b"b", b"c"))


@pytest.mark.parametrize(
    ("patterns", "name"),
    [
        ("host", "host"),
        ("host", "other"),
        ("host,10.0.0.1", "10.0.0.1"),
        ("*.example.com", "a.example.com"),
        ("*.example.com", "example.com"),
        ("*.example.com,!bad.example.com", "bad.example.com"),
        ("!bad.example.com,*.example.com", "good.example.com"),
        ("h?st", "host"),
        ("[host]:2222", "[host]:2222"),
        ("[host]:2222", "host"),
        ("host", "[host]:2222"),
        ("[*]:2222", "[anything]:2222"),
        ("Host", "host"),
        ("h[o]st", "host"),
    ],
)
def test_a_line_applies_to_a_host_exactly_when_openssh_says_so(patterns: str, name: str, tmp_path: Path) -> None:
    key = public(make_key(tmp_path / "key"))
    known = tmp_path / "known"
    known.write_text(f"{patterns} {key}\n")
    theirs = subprocess.run([needs("ssh-keygen"), "-F", name, "-f", str(known)], capture_output=True, check=False).returncode == 0
    assert bool(known_keys(read_known_hosts([str(known)]), name)) == theirs


def test_comments_blank_and_broken_lines_are_passed_over() -> None:
    lines = [
        ("f:1", ""),
        ("f:2", "# host ssh-ed25519 AAAA"),
        ("f:3", "host"),
        ("f:4", "host ssh-ed25519 not*base64"),
        ("f:5", "|1|broken ssh-rsa AAAA"),
    ]
    assert known_keys(lines, "host") == []


def test_a_missing_file_is_empty_and_an_unreadable_one_is_an_error(tmp_path: Path) -> None:
    assert read_known_hosts([str(tmp_path / "none"), str(tmp_path / "key" / "none")]) == []
    with pytest.raises(SshConfigError, match="cannot be read"):
        read_known_hosts([str(tmp_path)])


def test_a_key_is_known_unknown_changed_or_revoked() -> None:
    known = known_keys([("f:1", f"h ssh-ed25519 {_text(BLOB_A)}"), ("f:2", f"@revoked * ssh-ed25519 {_text(BLOB_C)}")], "h")
    assert check(BLOB_A, known, []) == "known"
    assert check(BLOB_B, known, []) == "changed"
    assert check(BLOB_C, known, []) == "revoked"
    assert check(BLOB_A, [], []) == "unknown"
    assert check(BLOB_A, [], known) == "known"
    assert check(BLOB_B, [], known) == "unknown"


def test_an_authority_does_not_make_its_own_key_a_host_key() -> None:
    known = known_keys([("f:1", f"@cert-authority * ssh-ed25519 {_text(BLOB_A)}")], "h")
    assert check(BLOB_A, known, []) == "unknown"


def test_the_kinds_already_known_are_asked_for_first() -> None:
    supported = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519-cert-v01@openssh.com"]
    rsa = known_keys([("f:1", f"h ssh-rsa {_text(BLOB_A)}")], "h")
    assert preferred(rsa, supported) == ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519", "ecdsa-sha2-nistp256")
    assert preferred([], supported) == ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
    authority = known_keys([("f:1", f"@cert-authority h ssh-rsa {_text(BLOB_A)}")], "h")
    assert preferred(authority, supported)[0] == "ssh-ed25519-cert-v01@openssh.com"


def test_a_fingerprint_is_the_one_that_ssh_keygen_shows(tmp_path: Path) -> None:
    for kind in ("ed25519", "ecdsa", "rsa"):
        key = make_key(tmp_path / kind, kind)
        shown = subprocess.run(
            [needs("ssh-keygen"), "-lf", f"{key}.pub"], capture_output=True, text=True, check=True
        ).stdout.split()
        blob = _bytes(public(key).split()[1])
        assert fingerprint(blob) == shown[1]
        assert f"({label(kind_of(blob))})" == shown[-1]


def test_a_key_is_added_on_a_line_of_its_own(tmp_path: Path) -> None:
    known = tmp_path / "new" / "known"
    remember(str(known), "one", BLOB_A, hashed=False)
    known.write_text(known.read_text().rstrip("\n"))  # as editors leave it
    remember(str(known), "two", BLOB_B, hashed=True)
    lines = read_known_hosts([str(known)])
    assert len(lines) == 2
    assert check(BLOB_A, known_keys(lines, "one"), []) == "known"
    assert check(BLOB_B, known_keys(lines, "two"), []) == "known"
    assert known.parent.stat().st_mode & 0o777 == 0o700


def test_a_known_hosts_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SshConfigError, match="cannot be stored"):
        remember(str(tmp_path), "host", BLOB_A, hashed=False)


def _text(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
