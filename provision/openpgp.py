"""Fingerprints of OpenPGP public keys, computed here so that a fetched signing key can be compared with a pinned one before anything trusts it.

Only the framing of packets is read (RFC 9580 sections 4.2, 4.3, 5.5 and 6): no signature is checked and no cryptography is done except hashing.
A key file may hold several keys, and a program that is given the file trusts all of them: compare *every* fingerprint returned here, not one of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

MAX_BYTES = 1 << 20
"""The largest key file that is read. Docker's, NVIDIA's and the distributions' key files are below 100 KiB."""

_BEGIN = re.compile(rb"^-----BEGIN PGP ([A-Z ]+)-----[ \t]*$", re.MULTILINE)
_PUBLIC, _SECRET, _SUBKEY, _MARKER = 6, 5, 14, 10


def fingerprints(key: bytes) -> tuple[str, ...]:
    """The fingerprint of every primary public key in `key` (armoured or binary), in file order: upper-case hex, no spaces.

    40 digits for version 4 keys, 64 for versions 5 and 6. Subkeys have fingerprints of their own, which are not listed.
    Raises ValueError, with a sentence for the user, for anything that is not one or more whole public keys.
    """
    found: list[str] = []
    for tag, body in packets(dearmor(key)):
        if tag == _PUBLIC:
            found.append(_fingerprint(body))
        elif tag == _SECRET:
            raise ValueError("it holds a secret key, not a public one")
        elif not found and tag != _MARKER:
            raise ValueError(f"it does not begin with a public key (found OpenPGP packet type {tag})")
    if not found:
        raise ValueError("it holds no public key")
    return tuple(found)


def dearmor(key: bytes) -> bytes:
    """The binary form of a key file: every armoured public key block decoded and joined; binary input is returned as it is.

    The armour's checksum is optional and is checked where there is one. Raises ValueError for input that is neither, or larger than MAX_BYTES.
    """
    if len(key) > MAX_BYTES:
        raise ValueError(f"it has {len(key)} bytes, more than any signing key ({MAX_BYTES})")
    if not key:
        raise ValueError("it is empty")
    if key[0] & 0x80:
        return key
    text = key.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    blocks = list(_BEGIN.finditer(text))
    if not blocks:
        looks = "it looks like a web page" if text.lstrip()[:1] == b"<" else "no armoured block begins in it"
        raise ValueError(f"it is not an OpenPGP key: {looks}")
    ends = [block.start() for block in blocks[1:]] + [len(text)]
    return b"".join(_block(block[1], text[block.end() : end]) for block, end in zip(blocks, ends))


def _block(kind: bytes, text: bytes) -> bytes:
    if kind != b"PUBLIC KEY BLOCK":
        raise ValueError(f"it is a PGP {kind.decode('ascii').lower()}, not a public key block")
    content, end, _ = text.partition(b"\n-----END PGP PUBLIC KEY BLOCK-----")
    if not end:
        raise ValueError("the armoured block has no end: the file is cut short")
    lines = [line.strip() for line in content.split(b"\n")[1:]]
    # Headers ("Version: ...") end at the first blank line; a block without headers may lack it.
    start = 0
    while start < len(lines) and b":" in lines[start]:
        start += 1
    body = [line for line in lines[start:] if line]
    checksum = body.pop() if body and body[-1].startswith(b"=") and len(body[-1]) == 5 else b""
    try:
        data = base64.b64decode(b"".join(body), validate=True)
        expected = base64.b64decode(checksum[1:], validate=True)
    except binascii.Error as error:
        raise ValueError("the armoured block is damaged: it is not base64") from error
    if checksum and _crc24(data).to_bytes(3, "big") != expected:
        raise ValueError("the armoured block is damaged: its checksum does not match")
    return data


def _crc24(data: bytes) -> int:
    """The armour's checksum (RFC 9580 section 6.1.1), four bits at a time."""
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        crc = ((crc << 4) ^ _CRC24[crc >> 20]) & 0xFFFFFF
        crc = ((crc << 4) ^ _CRC24[crc >> 20]) & 0xFFFFFF
    return crc


def _crc24_table() -> tuple[int, ...]:
    table = []
    for nibble in range(16):
        crc = nibble << 20
        for _ in range(4):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
        table.append(crc)
    return tuple(table)


_CRC24 = _crc24_table()


def packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of every packet. Every step moves forward, and no length is believed beyond the end of the data."""
    at = 0
    while at < len(data):
        tag, start, length = _header(data, at)
        if start + length > len(data):
            raise ValueError("it is cut short in the middle of a packet")
        yield tag, data[start : start + length]
        at = start + length


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """(type, where the body starts, its length) of the packet at `at`."""
    first = data[at]
    if not first & 0x80:
        raise ValueError("it is not a sequence of OpenPGP packets")
    octets = data[at + 1 : at + 6]
    if first & 0x40:
        tag = first & 0x3F
        if not octets:
            raise ValueError("it is cut short in a packet header")
        if 224 <= octets[0] < 255:
            raise ValueError("it has a packet of partial lengths, which no key has")
        size = 1 if octets[0] < 192 else 2 if octets[0] < 224 else 5
    else:
        tag = (first >> 2) & 0x0F
        if first & 3 == 3:
            raise ValueError("it has a packet of unknown length, which no key has")
        size = (1, 2, 4)[first & 3]
    octets = octets[:size]
    if len(octets) < size:
        raise ValueError("it is cut short in a packet header")
    if tag == 0:
        raise ValueError("it has a packet of the reserved type 0")
    if not first & 0x40 or size == 1:
        length = int.from_bytes(octets, "big")
    elif size == 2:
        length = ((octets[0] - 192) << 8) + octets[1] + 192
    else:
        length = int.from_bytes(octets[1:], "big")
    return tag, at + 1 + size, length


def _fingerprint(body: bytes) -> str:
    version = body[0] if body else 0
    # Version, creation time and algorithm (and, from version 5 on, the length of the key material) come before the material itself.
    if len(body) <= (6 if version <= 4 else 10):
        raise ValueError("it has a public key packet without a key in it")
    if version == 4:
        if len(body) > 0xFFFF:
            raise ValueError("it has a public key packet that is too long")
        # SHA-1 is what the format prescribes; a pinned key also has to be the right length and to sign what it signs.
        digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False)
    elif version in (5, 6):
        prefix = b"\x9a" if version == 5 else b"\x9b"
        digest = hashlib.sha256(prefix + len(body).to_bytes(4, "big") + body)
    else:
        raise ValueError(f"it has a key of version {version}, which is not supported")
    return digest.hexdigest().upper()
