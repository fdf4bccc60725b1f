"""From a target and the user's choices to everything needed to dial: one frozen value per host on the way."""

from __future__ import annotations

import os
import re
from typing import NamedTuple, Optional

from provision.transport.errors import KeyFileError, SshConfigError
from provision.transport.options import HOST_KEY_POLICIES, SshOptions, Voucher
from provision.transport.sshconfig import Lookup, read
from provision.transport.target import Target, parse_target

CONNECT_TIMEOUT = 10.0
KEEPALIVE_SECONDS = 15.0
KEEPALIVE_COUNT = 3
_MAX_JUMPS = 8
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
# ssh_config's StrictHostKeyChecking in our three words. `no` says by name that keys shall not be checked.
_STRICT = {
    "yes": "enforce",
    "ask": "enforce",
    "true": "enforce",
    "accept-new": "accept-new",
    "no": "ignore",
    "off": "ignore",
    "false": "ignore",
}


class Host(NamedTuple):
    """One host to log in to, fully decided. Times in seconds. `jumps` are to be gone through in this order."""

    host: str
    port: int
    user: str
    known_as: str
    host_keys: str
    voucher: Optional[Voucher]
    known_hosts_files: tuple[str, ...]
    hash_known_hosts: bool
    named_identities: tuple[str, ...]
    identities: tuple[str, ...]
    certificates: tuple[str, ...]
    agent: Optional[str]
    identities_only: bool
    connect_timeout: float
    keepalive_seconds: float
    keepalive_count: int
    address_family: str
    proxy_command: Optional[str]
    jumps: tuple[Host, ...]

    @property
    def address(self) -> str:
        """`host:port`, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.user}@{self.address}"


def resolve(target: Target, options: SshOptions, _depth: int = 0, _through: Optional[list[str]] = None) -> Host:
    """Join the target, ssh_config and the options. Reads files, no network. Raises SshConfigError, KeyFileError or BadTarget."""
    if options.host_keys not in (None, *HOST_KEY_POLICIES):
        raise SshConfigError(
            f"{options.host_keys!r} is no way to treat host keys.", f"Choose from {', '.join(HOST_KEY_POLICIES)}."
        )
    found = read(target, options.config_file)
    proxy_command, jumps = _proxy(found, options, _depth, _through)
    return Host(
        host=found.host,
        port=found.remote_port,
        user=found.remote_user,
        known_as=_known_as(found),
        host_keys=options.host_keys or _strict(found),
        voucher=options.voucher if options.host_keys == "cloud" and not _depth else None,
        known_hosts_files=_known_hosts_files(found, options),
        hash_known_hosts=_yes(found, "hashknownhosts"),
        named_identities=tuple(_named_key(path) for path in options.identity_files),
        identities=_identities(found),
        certificates=tuple(found.expand(path, tilde=True) for path in found.values.get("certificatefile", [])),
        agent=_agent(found),
        identities_only=_yes(found, "identitiesonly"),
        connect_timeout=options.connect_timeout or _number(found, "connecttimeout", CONNECT_TIMEOUT),
        keepalive_seconds=options.keepalive_seconds or _number(found, "serveraliveinterval", KEEPALIVE_SECONDS),
        keepalive_count=options.keepalive_count or int(_number(found, "serveralivecountmax", KEEPALIVE_COUNT)),
        address_family=(found.first("addressfamily") or "any").lower(),
        proxy_command=proxy_command,
        jumps=jumps,
    )


def _yes(found: Lookup, keyword: str) -> bool:
    return (found.first(keyword) or "no").lower() in ("yes", "true")


def _number(found: Lookup, keyword: str, default: float) -> float:
    """A time in ssh_config's notation (`15`, `1m`, `1h30m`). Zero and `none` mean the default here: a dead line must be noticed."""
    text = (found.first(keyword) or "").lower()
    if not text or text in ("none", "0"):
        return default
    if not re.fullmatch(r"(?:[0-9]+[smhdw]?)+", text):
        raise SshConfigError(f"ssh_config gives {keyword} {text!r} for {found.original_host}.", "Expected a number of seconds.")
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    return float(sum(int(number) * units[unit] for number, unit in re.findall(r"([0-9]+)([smhdw]?)", text)))


def _strict(found: Lookup) -> str:
    text = (found.first("stricthostkeychecking") or "ask").lower()
    if text not in _STRICT:
        raise SshConfigError(
            f"ssh_config gives StrictHostKeyChecking {text!r} for {found.original_host}.", "Expected yes, no, ask or accept-new."
        )
    return _STRICT[text]


def _known_as(found: Lookup) -> str:
    """The name in known_hosts: an alias stands alone, another port than 22 is part of it."""
    alias = found.first("hostkeyalias")
    if alias:
        return alias.lower()
    host = found.host.lower()
    return host if found.remote_port == 22 else f"[{host}]:{found.remote_port}"


def _known_hosts_files(found: Lookup, options: SshOptions) -> tuple[str, ...]:
    if options.known_hosts_file:
        return (os.path.expanduser(options.known_hosts_file),)
    user = found.values.get("userknownhostsfile", ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"])
    system = found.values.get("globalknownhostsfile", ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"])
    return tuple(found.expand(path, tilde=True) for path in [*user, *system] if path.lower() != "none")


def _identities(found: Lookup) -> tuple[str, ...]:
    said = [path for path in found.values.get("identityfile", []) if path.lower() != "none"]
    if "identityfile" in found.values:
        return tuple(dict.fromkeys(found.expand(path, tilde=True) for path in said))
    return tuple(os.path.join(found.home, ".ssh", name) for name in _DEFAULT_KEYS)


def _named_key(path: str) -> str:
    path = os.path.expanduser(path)
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as problem:
        raise KeyFileError(
            f"The key file {path} cannot be read: {problem.strerror}.",
            "Name the private key (not the .pub) of a login on the host.",
        ) from problem
    return path


def _agent(found: Lookup) -> Optional[str]:
    said = found.first("identityagent")
    if said is None or said == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    if said.lower() == "none":
        return None
    return os.environ.get(said[1:]) if re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", said) else found.expand(said, tilde=True)


def _proxy(
    found: Lookup, options: SshOptions, depth: int, through: Optional[list[str]]
) -> tuple[Optional[str], tuple[Host, ...]]:
    """The proxy command, or the chain of jump hosts. `through` replaces what ssh_config says, for a hop that is reached by another."""
    command = found.first("proxycommand")
    if through is None and command and command.lower() != "none":
        return found.expand(command), ()
    said = ",".join(found.values.get("proxyjump", [])) if through is None else ",".join(through)
    hops = [found.expand(hop.strip()) for hop in said.split(",") if hop.strip()]
    if not hops or hops == ["none"]:
        return None, ()
    if depth >= _MAX_JUMPS:
        raise SshConfigError(
            f"ProxyJump of {found.original_host} goes round in a circle.", "Give the jump host 'ProxyJump none'."
        )
    *before, last = [parse_target(re.sub(r"^ssh://", "", hop)) for hop in hops]
    seen = read(last, options.config_file)
    if (seen.host, seen.remote_port) == (
        found.host,
        found.remote_port,
    ):  # `Host *` with a ProxyJump, seen from the jump host itself
        return None, ()
    jump = resolve(last, options, depth + 1, [str(hop) for hop in before] or None)
    return None, (*jump.jumps, jump._replace(jumps=()))
