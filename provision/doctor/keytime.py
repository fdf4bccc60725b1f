"""When the keys of a keyring end. Pure; nothing is verified, and what is damaged says nothing.

Only what is needed is read: a key's creation time (RFC 9580 section 5.5.2) and the expiration time in its own signatures (section 5.2.3.13).
"""

from __future__ import annotations

from provision.openpgp import dearmor, packets

_PUBLIC, _SIGNATURE, _SUBKEY = 6, 2, 14
_EXPIRES = 9
_SELF = (0x10, 0x11, 0x12, 0x13, 0x1F)  # certifications of a user id, and a direct-key signature


def expiries(keyring: bytes) -> tuple[int, ...]:
    """For every primary key the second (since 1970) at which it ends, 0 for never. Empty for what is no keyring."""
    found: list[int] = []
    created, latest = 0, -1
    on_subkey = False
    try:
        for tag, body in packets(dearmor(keyring)):
            if tag == _PUBLIC:
                created, latest, on_subkey = int.from_bytes(body[1:5], "big"), -1, False
                found.append(0)
            elif tag == _SUBKEY:
                on_subkey = True
            elif tag == _SIGNATURE and found and not on_subkey and body[:1] == b"\x04" and body[1] in _SELF:
                made, lasts = _times(body)
                if made > latest:
                    latest = made
                    found[-1] = created + lasts if lasts else 0
    except (ValueError, IndexError):
        return ()
    return tuple(found)


def _times(body: bytes) -> tuple[int, int]:
    """When a version 4 signature was made, and the seconds a key lasts by it (0: for ever)."""
    length = int.from_bytes(body[4:6], "big")
    at, end = 6, 6 + length
    made = lasts = 0
    while at < end:
        size, at = _size(body, at)
        kind, value = body[at] & 0x7F, body[at + 1 : at + size]
        if kind == 2:
            made = int.from_bytes(value, "big")
        elif kind == _EXPIRES:
            lasts = int.from_bytes(value, "big")
        at += max(size, 1)
    return made, lasts


def _size(body: bytes, at: int) -> tuple[int, int]:
    first = body[at]
    if first < 192:
        return first, at + 1
    if first < 255:
        return ((first - 192) << 8) + body[at + 1] + 192, at + 2
    return int.from_bytes(body[at + 1 : at + 5], "big"), at + 5
