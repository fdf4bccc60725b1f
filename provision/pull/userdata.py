"""User-data: the texts that a cloud hands to cloud-init, and whether a cloud takes as much. Pure but for reading the package's own data.

Facts of the platforms are rows of `data/userdata.toml`. What cloud-init understands: docs.cloud-init.io, "User-data formats".
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from provision.errors import Failed, UsageError
from provision.pull.model import STATE, UNIT, Pull
from provision.pull.render import UNIT_TEXT, files, installer
from provision.shipped import shipped_toml

# By their first words, as cloud-init itself tells them (cloudinit/handlers: INCLUSION_TYPES_MAP).
PARTS = (
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config", "text/cloud-config"),
    ("#cloud-boothook", "text/cloud-boothook"),
    ("#include-once", "text/x-include-once-url"),
    ("#include", "text/x-include-url"),
    ("## template: jinja", "text/jinja2"),
    ("#!", "text/x-shellscript"),
)


class TooBig(Failed):
    """A platform does not take as much user-data."""


@dataclass(frozen=True)
class Platform:
    """What a platform takes: `limit` bytes (0: no limit of its own); `gzip` says in which form compressed user-data may come (raw, base64)."""

    id: str
    name: str
    limit: int
    gzip: str
    use: str
    use_base64: str
    note: str


@dataclass(frozen=True)
class UserData:
    """User-data as it is handed over; `compressed` says whether it is, `base64` whether it had to become text again."""

    content: bytes
    compressed: bool
    base64: bool


def platforms() -> dict[str, Platform]:
    """The known platforms by their ids."""
    rows = shipped_toml("data/userdata.toml")["platform"]
    return {row["id"]: Platform(row["id"], row["name"], row["limit"], row["gzip"], row["use"], row.get("use_base64", row["use"]), row["note"]) for row in rows}


def cloud_config(pull: Pull) -> str:
    """A #cloud-config that writes the files and starts the unit without waiting for it: cloud-init is what the unit waits for."""
    lines = ["#cloud-config", "# Written by mlhost: this machine sets itself up.", "write_files:"]
    for name, text, encoded, mode in [
        *((f"{STATE}/{file.name}", file.text, file.encoded, "0600") for file in files(pull)),
        (f"/etc/systemd/system/{UNIT}", UNIT_TEXT, False, "0644"),
    ]:
        lines += [f"  - path: {name}", f"    permissions: '{mode}'", *(["    encoding: b64"] if encoded else []), "    content: |2+"]
        lines += [f"      {line}" if line else "" for line in text.splitlines()]
    lines += [
        "runcmd:",
        "  - [systemctl, daemon-reload]",
        f"  - [systemctl, enable, {UNIT}]",
        f"  - [systemctl, start, --no-block, {UNIT}]",
    ]
    return "\n".join(lines) + "\n"


def multipart(pull: Pull, more: Sequence[tuple[str, bytes]] = ()) -> str:
    """A MIME archive of other user-data (name, content) and, last, the script that installs ours: a script is in no part's way, as lists of two
    cloud-configs would be, of which cloud-init keeps one. Raises UsageError for a part that cloud-init would not know."""
    parts = [*((name, _type(name, content), content) for name, content in more)]
    own = installer(pull).encode("utf-8", "surrogateescape")
    parts.append(("mlhost.sh", "text/x-shellscript", own))
    boundary = "mlhost-" + hashlib.sha256(b"".join(content for _, _, content in parts)).hexdigest()[:24]
    lines = [f'Content-Type: multipart/mixed; boundary="{boundary}"', "MIME-Version: 1.0", ""]
    for name, kind, content in parts:
        # As it is where it is plain text; base64 costs a third, and twice that once it is compressed.
        plain = content.isascii() and content.endswith(b"\n") and b"\r" not in content
        lines += [f"--{boundary}", f'Content-Type: {kind}; charset="utf-8"', f"Content-Transfer-Encoding: {'7bit' if plain else 'base64'}"]
        lines += [f'Content-Disposition: attachment; filename="{_file_name(name)}"', ""]
        lines += content.decode("ascii").splitlines() if plain else base64.encodebytes(content).decode("ascii").splitlines()
    return "\n".join([*lines, f"--{boundary}--", ""])


def _type(name: str, content: bytes) -> str:
    text = content[:200].decode("utf-8", "replace")
    for start, kind in PARTS:
        if text.startswith(start):
            return kind
    raise UsageError(f"{name}: its first line does not say what kind of user-data it is.", f"cloud-init knows {', '.join(start for start, _ in PARTS)}.")


def _file_name(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name.rsplit("/", 1)[-1]) or "part"


def fitted(text: str, platform: Platform, compress: bool | None = None) -> UserData:
    """The text as the platform takes it. `compress` None: only where it would not fit otherwise.

    Raises TooBig with the numbers where it does not fit in any permitted form.
    """
    plain = text.encode("utf-8", "surrogateescape")
    small = gzip.compress(plain, 9, mtime=0)
    packed = base64.encodebytes(small) if platform.gzip == "base64" else small
    tries = {None: (plain, packed), False: (plain,), True: (packed,)}[compress]
    for content in tries:
        if not platform.limit or len(content) <= platform.limit:
            return UserData(content, content is packed, content is packed and platform.gzip == "base64")
    sizes = f"{len(plain):,} bytes" + (f", {len(packed):,} as gzip{' in base64' if platform.gzip == 'base64' else ''}" if compress is not False else "")
    raise TooBig(
        f"{platform.name} takes {platform.limit:,} bytes of user-data, and this is {sizes}.",
        "Have the machine fetch mlhost (--source URL --sha256 HEX): that is a few kilobytes. Or put an #include of an address where this file lies "
        "into the user-data."
        + (" Leaving --no-gzip out makes it smaller." if compress is False else ""),
    )
