"""known_hosts: reading it, judging a host's key by it, adding to it. Pure but for the two file functions.

The format is that of sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: hashed names, wildcards, negation, `[host]:port`, @cert-authority, @revoked.
Keys are compared as bytes, so no key needs to be parsed. paramiko's own reader knows neither wildcards nor markers.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, Optional

from provision.transport import errors


class KnownKey(NamedTuple):
    """One line of known_hosts that applies to a host. `marker` is ``, `cert-authority` or `revoked`."""

    marker: str
    kind: str
    blob: bytes
    where: str


def kind_of(blob: bytes) -> str:
    """The key type named inside an SSH public key blob."""
    length = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + length].decode("ascii", "replace")


def fingerprint(blob: bytes) -> str:
    """As `ssh-keygen -l` shows it: `SHA256:` and unpadded base64."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def label(kind: str) -> str:
    """`ED25519`, `ECDSA`, `RSA`: as ssh prints a key type."""
    return kind.partition("@")[0].replace("ssh-", "").replace("sk-", "").partition("-")[0].upper()


def read_known_hosts(paths: Iterable[str]) -> list[tuple[str, str]]:
    """All lines with where they stand (`path:number`). Missing files are empty; raises SshConfigError for unreadable ones."""
    lines: list[tuple[str, str]] = []
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines += [(f"{path}:{number}", line.strip()) for number, line in enumerate(file, 1)]
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as problem:
            raise errors.SshConfigError(
                f"{path} cannot be read: {problem.strerror}.", "Make it readable, or name another known_hosts."
            ) from problem
    return lines


def concerning(paths: Iterable[str], names: Iterable[str]) -> list[tuple[str, str]]:
    """Of `read_known_hosts` the lines that may be about one of these names, in lower case; a file that has not changed is read once, for many hosts ask.

    Raises SshConfigError as that does.
    """
    found: list[tuple[str, str]] = []
    wanted = tuple(names)
    for path in paths:
        try:
            at = os.stat(path)
        except OSError:
            found += read_known_hosts((path,))  # which says what is wrong with it
            continue
        plain, others = _by_name(path, (at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns))
        lines = dict([*others, *(line for name in wanted for line in plain.get(name, ()))])
        found += sorted(lines.items(), key=lambda line: int(line[0].rpartition(":")[2]))
    return found


@lru_cache(maxsize=8)
def _by_name(path: str, _stamp: tuple[int, ...]) -> tuple[dict[str, list[tuple[str, str]]], list[tuple[str, str]]]:
    """The lines of plain names, by name, and all others: markers, hashes, patterns."""
    plain: dict[str, list[tuple[str, str]]] = {}
    others = []
    for where, line in read_known_hosts((path,)):
        said = line.partition(" ")[0].lower()
        if not said or said.startswith("#"):
            continue
        if said.startswith(("@", "|")) or any(sign in said for sign in "*?!\t"):
            others.append((where, line))
        else:
            for name in said.split(","):
                plain.setdefault(name, []).append((where, line))
    return plain, others


def known_keys(lines: Iterable[tuple[str, str]], name: str) -> list[KnownKey]:
    """The entries that apply to `name` (a host, or `[host]:port`). Lines that cannot be read are skipped, as ssh does."""
    found = []
    for where, line in lines:
        words = line.split()
        marker = words.pop(0)[1:] if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or not _applies(words[0], name):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        found.append(KnownKey(marker, words[1], blob, where))
    return found


def _applies(names: str, name: str) -> bool:
    if names.startswith("|1|"):
        parts = names.split("|")
        try:
            salt, digest = base64.b64decode(parts[2]), base64.b64decode(parts[3])
        except (IndexError, binascii.Error, ValueError):
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
    applies = False
    for pattern in names.lower().split(","):
        # Brackets are literal here: `[host]:port`.
        if fnmatch.fnmatchcase(name, pattern.lstrip("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            applies = True
    return applies


def preferred(known: Iterable[KnownKey], supported: Iterable[str]) -> tuple[str, ...]:
    """The host key algorithms to offer, those already known for the host first: a host that also has a newer kind of key would else
    show that one, and look like a stranger. Certificates are asked for only where an authority is known."""
    known, plain = list(known), [name for name in supported if "-cert-" not in name]
    certificates = [name for name in supported if "-cert-" in name]
    kinds = {key.kind for key in known if not key.marker}
    familiar = [name for name in plain if (("ssh-rsa" if name.startswith("rsa-sha2") else name) in kinds)]
    first = certificates if any(key.marker == "cert-authority" for key in known) else []
    return tuple(dict.fromkeys([*first, *familiar, *plain]))


def check(blob: bytes, known: list[KnownKey], bare: list[KnownKey]) -> Optional[str]:
    """How `blob` (a plain key) stands: `known`, `unknown`, `changed`, `revoked`.

    `bare` are the entries for the host name without its port: OpenSSH lets those vouch for a key, but not contradict it.
    """
    if any(key.marker == "revoked" and key.blob == blob for key in [*known, *bare]):
        return "revoked"
    plain = [key for key in known if not key.marker]
    if any(key.blob == blob for key in plain):
        return "known"
    if plain:
        return "changed"
    return "known" if any(key.blob == blob for key in bare if not key.marker) else "unknown"


def unknown_error(address: str, name: str, blob: bytes, ssh_command: str) -> errors.HostKeyUnknown:
    """What to say of a key that is in no known_hosts."""
    kind = kind_of(blob)
    return errors.HostKeyUnknown(
        f"{address}: the host's {label(kind)} key {fingerprint(blob)} is not in known_hosts.",
        f"Compare it with what the host shows (on its console: ssh-keygen -lf /etc/ssh/ssh_host_{label(kind).lower()}_key.pub), then "
        f"connect once with '{ssh_command}' and answer yes; or pass --host-keys accept-new to trust and store it.",
    )


def unvouched_error(address: str, name: str, blob: bytes, shown: frozenset[str]) -> errors.HostKeyError:
    """What to say of a key that the host's console does not show; `shown` are the fingerprints it does."""
    what = f"{address}: the host's {label(kind_of(blob))} key {fingerprint(blob)} is not"
    if shown:
        return errors.HostKeyChanged(
            f"{what} one of those that the console of {name} shows ({', '.join(sorted(shown))}). Someone may be listening in, or its keys were made "
            "anew since its first boot. Nothing was sent to it.",
            "If its keys were made anew on purpose: compare them by another way (the cloud's serial console or session manager) and put the key into known_hosts.",
        )
    return errors.HostKeyUnknown(
        f"{what} known, and the console of {name} shows no host keys.",
        "cloud-init prints them once, at the first boot, and a console keeps its last 64 KB. Compare the key by another way (the cloud's serial console or "
        "session manager) and put it into known_hosts.",
    )


def changed_error(address: str, name: str, blob: bytes, known: list[KnownKey]) -> errors.HostKeyChanged:
    """What to say of a key that contradicts known_hosts."""
    old = next(key for key in known if not key.marker)
    return errors.HostKeyChanged(
        f"{address}: THE HOST KEY HAS CHANGED. Someone may be listening in, or the host was installed anew. It shows {label(kind_of(blob))} "
        f"{fingerprint(blob)}; {old.where} has {label(old.kind)} {fingerprint(old.blob)}. Nothing was sent to it.",
        f"If the change is expected: ssh-keygen -R '{name}' -f {old.where.rpartition(':')[0]} and connect again.",
    )


def revoked_error(address: str, blob: bytes, known: list[KnownKey]) -> errors.HostKeyRevoked:
    """What to say of a key that known_hosts revokes."""
    where = next((key.where for key in known if key.marker == "revoked"), "known_hosts")
    return errors.HostKeyRevoked(
        f"{address}: THE HOST KEY IS REVOKED ({label(kind_of(blob))} {fingerprint(blob)}, {where}). Nothing was sent to it.",
        "Give the host a new key, and find out who holds the old one.",
    )


def remember(path: str, name: str, blob: bytes, hashed: bool) -> None:
    """Add a key to known_hosts. Raises SshConfigError where the file cannot be written."""
    if path == os.devnull:
        return
    if hashed:
        salt = os.urandom(20)
        digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
        name = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    line = f"{name} {kind_of(blob)} {base64.b64encode(blob).decode()}\n".encode()
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        with open(path, "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # many hosts at once may be written by several threads or processes
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
    except OSError as problem:
        raise errors.SshConfigError(
            f"The host key cannot be stored in {path}: {problem.strerror}.", "Make it writable, or name another known_hosts."
        ) from problem
