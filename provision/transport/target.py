"""`[user@]host[:port]` to a value and back."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

from provision.transport.errors import BadTarget

# ssh hands host and user to ProxyCommand and Match exec, that is, to a shell; OpenSSH refuses the same characters there
# (valid_hostname and valid_ruser in its ssh.c).
_FORBIDDEN = re.compile(r"""[\s\x00-\x1f\x7f'"`$\\;&<>|(){}]""")
_EXPECTED = "Expected [user@]host[:port]; an IPv6 address with a port goes in brackets: [2001:db8::1]:2222."


class Target(NamedTuple):
    """Where to go, as the user wrote it. `None` means not said: ssh_config or the default decides."""

    host: str
    user: Optional[str] = None
    port: Optional[int] = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


def parse_target(text: str) -> Target:
    """Read `[user@]host[:port]`. Raises BadTarget for anything else."""
    user, at, rest = text.rpartition("@")
    if at and not user:
        raise BadTarget(f"The target {text!r} has no user before the @.", _EXPECTED)
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", rest, re.DOTALL)
    if bracketed:
        host, port_text = bracketed.group(1), bracketed.group(2)
    elif rest.count(":") > 1:  # a bare IPv6 address
        host, port_text = rest, None
    else:
        host, colon, tail = rest.partition(":")
        port_text = tail if colon else None
    for what, value in (("host", host), ("user", user)):
        if what == "host" and not value:
            raise BadTarget(f"The target {text!r} has no host.", _EXPECTED)
        if value.startswith("-"):
            raise BadTarget(f"The {what} in the target {text!r} begins with a dash.", _EXPECTED)
        bad = _FORBIDDEN.search(value)
        if bad or "/" in host or "[" in host or "]" in host:
            sign = bad.group() if bad else "/, [ or ]"
            raise BadTarget(f"The {what} in the target {text!r} holds {sign!r}, which no {what} name has.", _EXPECTED)
    return Target(host, user or None, None if port_text is None else _port(port_text, text))


def _port(port_text: str, text: str) -> int:
    if re.fullmatch(r"[0-9]{1,5}", port_text) and 0 < int(port_text) < 65536:
        return int(port_text)
    raise BadTarget(f"The port {port_text!r} in the target {text!r} is not a number from 1 to 65535.", _EXPECTED)
