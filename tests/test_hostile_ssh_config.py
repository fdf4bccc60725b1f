"""What a broken or endless ssh_config costs: an error with its place, never a traceback, a hang or all memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from provision.errors import Error
from provision.transport import SshOptions, parse_target
from provision.transport.errors import SshConfigError
from provision.transport.resolve import resolve
from tests.fuzz.bounds import bounded


def lookup(path: object) -> None:
    resolve(parse_target("gpu-7"), SshOptions(config_file=str(path)))


def test_a_number_of_dots_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("CanonicalizeHostname yes\nCanonicalDomains example.com\nCanonicalizeMaxDots many\n")
    with pytest.raises(SshConfigError, match="CanonicalizeMaxDots 'many'"):
        lookup(tmp_path / "config")


def test_a_file_without_end() -> None:
    with bounded(10), pytest.raises(SshConfigError, match="larger than 4 MiB"):
        lookup("/dev/zero")


def test_a_line_of_a_hundred_thousand_words(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host " + "a " * 100_000 + "\n  Port 23\n")
    with bounded(10):
        lookup(tmp_path / "config")


def test_a_file_that_includes_itself(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(f"Include {tmp_path}/config\n")
    with bounded(10), pytest.raises(SshConfigError, match="nested"):
        lookup(tmp_path / "config")


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "a..b", "ü" * 70, "x" * 300, "\udcff", "1" * 400, "%s", "fe80::1%nosuch"])
def test_names_that_cannot_be_looked_up(name: str, tmp_path: Path) -> None:
    from provision.transport import open_transport

    with open_transport(name, SshOptions(config_file="none", connect_timeout=2)) as transport, pytest.raises(Error) as caught:
        transport.run("true")
    assert caught.value.fix
