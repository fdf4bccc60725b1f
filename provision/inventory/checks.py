"""What every source asks of a host's values. Pure."""

from __future__ import annotations

import re
from typing import Optional

from provision.errors import UsageError
from provision.transport.target import Target, parse_target

_NAME = re.compile(r"[^\s,!&*?'\"`$\\;<>|(){}\x00-\x1f\x7f/]+")
NAME_FIX = "A name has no blanks, commas, slashes or signs that shells and patterns use."


def name(text: str, where: str, what: str = "host") -> str:
    """A host's or group's name. Raises UsageError for one that patterns or terminals would stumble over."""
    if not _NAME.fullmatch(text) or text.startswith("-") or not text.isprintable() or len(text) > 253:
        raise UsageError(f"{where}: {text[:80]!r} is no name for a {what}.", NAME_FIX)
    return text


def address(text: str, where: str) -> str:
    """A host name or an IP address alone. Raises UsageError for anything else."""
    found = _target(f"[{text}]" if ":" in text else text, where)
    if found.user is not None or found.port is not None:
        raise UsageError(f"{where}: {text!r} is not a host name or an IP address alone.", "User and port have keys of their own.")
    return found.host


def user(text: str, where: str) -> str:
    """A login name. Raises UsageError for one that cannot be."""
    if not text or "@" in text or ":" in text:
        raise UsageError(f"{where}: {text!r} is no user name.", "Give the login name alone.")
    _target(f"{text}@host", where)
    return text


def port(text: str, where: str) -> int:
    """A TCP port. Raises UsageError for anything else."""
    if re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) < 65536:
        return int(text)
    raise UsageError(f"{where}: {text!r} is no port.", "A port is a number from 1 to 65535.")


def whole(text: str, where: str) -> Target:
    """`[user@]host[:port]`. Raises UsageError for anything else."""
    return _target(text, where)


def _target(text: str, where: str) -> Target:
    try:
        return parse_target(text)
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.fix) from None


def optional(text: Optional[str]) -> Optional[str]:
    """None for nothing or blanks."""
    return text.strip() or None if text else None
