"""`[user@]host[:port]`, and what is no such thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.transport import Target, parse_target
from provision.transport.errors import BadTarget


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("host", Target("host")),
        ("me@host", Target("host", "me")),
        ("me@host:2222", Target("host", "me", 2222)),
        ("host.example.com:22", Target("host.example.com", None, 22)),
        ("10.0.0.1:1", Target("10.0.0.1", None, 1)),
        ("2001:db8::1", Target("2001:db8::1")),
        ("me@2001:db8::1", Target("2001:db8::1", "me")),
        ("[2001:db8::1]", Target("2001:db8::1")),
        ("[2001:db8::1]:2222", Target("2001:db8::1", None, 2222)),
        ("me@[fe80::1%eth0]:65535", Target("fe80::1%eth0", "me", 65535)),
        ("me@corp.example@host", Target("host", "me@corp.example")),
    ],
)
def test_a_target_is_read_and_written_alike(text: str, target: Target) -> None:
    assert parse_target(text) == target
    assert parse_target(str(target)) == target


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no host"),
        ("me@", "has no host"),
        (":22", "has no host"),
        ("@host", "no user before the @"),
        ("-oProxyCommand=x", "begins with a dash"),
        ("-l@host", "begins with a dash"),
        ("me@-host", "begins with a dash"),
        ("[-host]:22", "begins with a dash"),
        ("a b", "holds ' '"),
        ("host\n", "holds"),
        ("host\0", "holds"),
        ("me\t@host", "holds"),
        ("host;reboot", "holds ';'"),
        ("$(reboot)", r"holds '\$'"),
        ("me`id`@host", "holds '`'"),
        ("a/b", "holds"),
        ("[::1", "holds"),
        ("host:", "port ''"),
        ("host:0", "port '0'"),
        ("host:65536", "port '65536'"),
        ("host:22x", "port '22x'"),
        ("host:-1", "port '-1'"),
        ("[::1]:", "port ''"),
        ("host:٢٢", "port"),
    ],
)
def test_what_is_no_target_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(BadTarget, match=reason) as caught:
        parse_target(text)
    assert caught.value.exit_code == 2
    assert "[user@]host[:port]" in caught.value.fix


@given(st.text())
def test_any_text_is_a_target_that_survives_or_is_refused(text: str) -> None:
    try:
        target = parse_target(text)
    except BadTarget:
        return
    assert parse_target(str(target)) == target
    assert not target.host.startswith("-")
