"""What the texts in a playbook may look like: each check takes a text and gives its canonical form, or raises `Bad`.

Texts end up in apt sources, unit files, fstab and JSON on somebody's machine, so characters that mean something there are refused here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from provision.playbook_yaml import show


class Bad(Exception):
    """A value that will not do: what is wrong with it (a predicate to "`key` …") and what to write instead."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


_HOST = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
_HOST_PORT = re.compile(rf"({_HOST}|\[[0-9A-Fa-f:.]+\])(?::([0-9]{{1,5}}))?")
_USER = re.compile(r"[a-z_][a-z0-9_-]*[$]?")
_VERSION = re.compile(r"[0-9](?:[0-9A-Za-z.:+~-]*[0-9A-Za-z])?")
_PATH = re.compile(r"[A-Za-z0-9/._+@:=,~-]")
_URL = re.compile(r"[A-Za-z0-9._~:/@!&*+,;=%\[\]-]")
_SIZE = re.compile(r"([1-9][0-9]{0,9})([kmgt])")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE_NAME = re.compile(rf"(?:(?:{_HOST}|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?/)?{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SYSTEM = (
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys",
    "/tmp", "/usr", "/var", "/var/lib",  # noqa: S108 - refused, not used
)
ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
)


def _named(char: str) -> str:
    if char == " ":
        return "a space"
    return f"the character `{char}`" if char.isprintable() else f"the control character U+{ord(char):04X}"


def _only(allowed: re.Pattern[str], text: str, what: str, fix: str) -> None:
    for char in text:
        if not allowed.fullmatch(char):
            raise Bad(f"holds {_named(char)}, which cannot be in {what}", fix)


def text(value: str) -> str:
    """One line of text without control characters."""
    for char in value:
        if not char.isprintable():
            raise Bad(f"holds {_named(char)}", "Write it on one line, without control characters.")
    if len(value) > 4096:
        raise Bad("is longer than 4096 characters", "Shorten it.")
    return value


def path(value: str) -> str:
    """An absolute path, or "" for none; a trailing slash is dropped."""
    if not value:
        return value
    if not value.startswith("/"):
        raise Bad(f"must be an absolute path, not `{show(value)}`", "Begin it with `/`.")
    _only(_PATH, value, "this path", "Letters, digits and `/._+@:=,~-` are allowed: the path goes into unit files and fstab.")
    if ".." in value.split("/"):
        raise Bad("holds `..`", "Write the path without detours.")
    parts = [part for part in value.split("/") if part not in ("", ".")]
    return "/" + "/".join(parts)


def own_path(value: str) -> str:
    """A path that mlhost may fill: not one of the system's directories."""
    clean = path(value)
    if clean in _SYSTEM or clean.startswith(("/proc/", "/sys/", "/dev/", "/run/")):
        raise Bad(f"is `{clean}`, which belongs to the system", "Name a directory of its own, for example `/mnt/scratch`.")
    return clean


def volume(value: str) -> str:
    """A folder for containers: `/data`, `/data:ro`, `/data:/inside`, `/data:/inside:ro`."""
    if not re.fullmatch(r"/[^:]*(:/[^:]*)?(:(ro|rw))?", text(value)):
        raise Bad(f"is `{show(value)}`, which is no folder for a container", "Write `/data`, `/data:ro`, `/data:/inside` or `/data:/inside:ro`.")
    return value


def variable(value: str) -> str:
    """The name of an environment variable."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", value):
        name = value.partition("=")[0]
        raise Bad(f"holds `{show(name)}…`, which is no variable's name", "Name the variable; its value is the caller's.")
    return value


def url(value: str) -> str:
    """An http or https URL without query, or "" for none; a trailing slash is dropped. The value is never repeated: it may hold a password."""
    if not value:
        return value
    _only(_URL, value, "this URL", "Write such characters percent-encoded (`%20` for a space); queries and fragments are not used here.")
    try:
        parts = urlsplit(value)
        port_ok = parts.port is None or parts.port > 0
    except ValueError as exc:
        reason = "its port is not a number from 1 to 65535" if "ort" in str(exc) else "its host is malformed"
        raise Bad(f"is not a URL: {reason}", "Write `https://host[:port]/path`.") from None
    if parts.scheme not in ("http", "https"):
        raise Bad("must be an http or https URL", "Begin it with `https://` or `http://`.")
    host = parts.hostname or ""
    if not host or not port_ok or not (re.fullmatch(_HOST, host) or _address(host)):
        raise Bad("is not a URL: its host or port is missing or malformed", "Write `https://host[:port]/path`.")
    if "@" in parts.path or "[" in parts.path or ".." in parts.path.split("/"):
        raise Bad("has a path that holds `@`, `[` or `..`",
                  "Write special characters in a user name or password percent-encoded (`/` is `%2F`, `@` is `%40`).")
    return value.rstrip("/")


def proxy_url(value: str) -> str:
    """A proxy: a URL without a path."""
    clean = url(value)
    if clean and urlsplit(clean).path:
        raise Bad("must end with the host and port: a proxy has no path",
                  "Write `http://host:3128`; special characters in a password percent-encoded.")
    return clean


def registry_mirror(value: str) -> str:
    """A registry mirror: a URL without credentials, which Docker does not take there."""
    clean = url(value)
    if not clean:
        raise Bad("holds an empty entry", "Write `https://host[:port]`.")
    if "@" in clean:
        raise Bad("holds a URL with credentials, which Docker refuses", "Write it without user and password.")
    return clean


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _network(value: str) -> bool:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return True


def registry_host(value: str) -> str:
    """A registry as `host[:port]`, or a network in CIDR form."""
    if "://" in value:
        raise Bad("takes hosts, not URLs", "Write `registry.example:5000`, without `http://`.")
    found = _HOST_PORT.fullmatch(value)
    if _network(value) or (found and 0 < int(found.group(2) or 1) < 65536):
        return value
    raise Bad(f"holds `{show(value)}`, which is not a `host[:port]`",
              "Write `registry.example:5000` or a network such as `10.0.0.0/8`.")


def no_proxy(value: str) -> str:
    """A host, `.domain`, `*.domain`, `*`, an address or a network that is reached directly."""
    if "," in value or " " in value:
        raise Bad("holds an entry with a comma or a space", "Write one host per list entry: `[localhost, .example.com]`.")
    plain = value[2:] if value.startswith("*.") else value[1:] if value.startswith(".") else value
    if value == "*" or _network(value) or _HOST_PORT.fullmatch(plain):
        return value
    raise Bad(f"holds `{show(value)}`, which is not a host, `.domain`, address or network",
              "Write for example `[localhost, .example.com, 10.0.0.0/8]`.")


def user(value: str) -> str:
    """A user's login name as useradd takes it."""
    if len(value) > 32 or not _USER.fullmatch(value):
        raise Bad(f"holds `{show(value)}`, which is not a user name",
                  "User names are at most 32 of `a-z`, `0-9`, `_`, `-`, beginning with a letter or `_`.")
    return value


def version(value: str) -> str:
    """A version or a prefix of one, or "" for the newest."""
    if not value:
        return value
    if value.endswith("*"):
        raise Bad(f"is `{show(value)}`: a prefix is written without a star", f'Write "{show(value).rstrip(".*")}".')
    if len(value) > 64 or not _VERSION.fullmatch(value):
        raise Bad(f"is `{show(value)}`, which is not a version",
                  'Write for example "29.7.2", or a prefix such as "29.7", in quotes.')
    return value


def branch(value: str) -> str:
    """A driver branch: `auto` or three digits."""
    if value == "auto" or re.fullmatch(r"[1-9][0-9]{2}", value):
        return value
    fix = 'Write `auto`, or three digits in quotes such as "580".'
    if re.match(r"[0-9]{3}\.", value):
        fix = f'Write "{value[:3]}"; an exact driver version cannot be asked for, the oldest good one goes to `driver.minimum`.'
    raise Bad(f"is `{show(value)}`, which is not a driver branch", fix)


def size(value: str) -> str:
    """A size with its unit, lower case; "" for none."""
    if not value:
        return value
    clean = value.strip().lower()
    if not _SIZE.fullmatch(clean):
        raise Bad(f"is `{show(value)}`, which is not a size", "Write a whole number and one of k, m, g, t, for example `50m` or `8g`.")
    return clean


def limit(value: str) -> str:
    """`unlimited` or a whole number as text."""
    if value == "unlimited" or re.fullmatch(r"0|[1-9][0-9]{0,18}", value):
        return value
    raise Bad(f"is `{show(value)}`, which is not a limit", "Write `unlimited` or a whole number.")


def fingerprint(value: str) -> str:
    """A full OpenPGP fingerprint, 40 hex digits, upper case; spaces are dropped. "" for none."""
    clean = value.replace(" ", "").upper()
    clean = clean[2:] if clean.startswith("0X") else clean
    if not clean or re.fullmatch(r"[0-9A-F]{40}", clean):
        return clean
    if re.fullmatch(r"[0-9A-F]{8}|[0-9A-F]{16}", clean):
        raise Bad("is a short key id, which anybody can forge a key for",
                  "Give the full fingerprint: 40 hex digits, as `gpg --show-keys` prints it.")
    raise Bad(f"is not a fingerprint: `{show(value)}`", "Give all 40 hex digits, as `gpg --show-keys` prints them.")


def image(value: str) -> str:
    """`embedded`, or an image reference: [registry[:port]/]name[:tag][@sha256:…]."""
    if value == "embedded":
        return value
    rest, at, digest = value.partition("@")
    if at and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise Bad("has a digest that is not `sha256:` and 64 hex digits",
                  "Copy it from `docker image inspect` or the registry's page.")
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, "latest"
    if len(name) > 255 or not _TAG.fullmatch(tag) or not _IMAGE_NAME.fullmatch(name):
        fix = "Repository names are lower case." if name != name.lower() else "Write `embedded`, or `[registry[:port]/]name[:tag][@sha256:…]`."
        raise Bad(f"is `{show(value)}`, which is not an image reference", fix)
    return value


def disk(value: str) -> str:
    """`instance-store`, a device path, or "" for none."""
    if value in ("", "instance-store"):
        return value
    clean = path(value) if value.startswith("/") else ""
    if not clean.startswith("/dev/"):
        raise Bad(f"is `{show(value)}`, which is not a disk",
                  "Write `instance-store` or a device path such as `/dev/disk/by-id/…` (those names survive a reboot).")
    return clean


def beside(value: str) -> str:
    """Another Docker that may stay."""
    if value not in ("snap", "rootless"):
        raise Bad(f"holds `{show(value)}`", "Only `snap` and `rootless` can stay beside the engine.")
    return value


def filled(value: str) -> str:
    """A text that says something."""
    if not value.strip():
        raise Bad("holds an empty text", "Leave the entry out.")
    return text(value)


def count(lowest: int, highest: int) -> Callable[[int], int]:
    """A whole number within bounds."""
    def check(value: int) -> int:
        if not lowest <= value <= highest:
            raise Bad(f"is {value}", f"Write a whole number from {lowest} to {highest}.")
        return value
    return check
