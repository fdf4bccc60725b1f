"""The lab's SSH keys: one client key and one stable host key for every host it makes, kept in the cache folder."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cache import built_once
from tests.lab.need import tool


@dataclass(frozen=True)
class Keys:
    """Paths of private keys; the public half has .pub appended."""

    client: Path
    stranger: Path
    host: Path

    def known_hosts(self, host: str, port: int) -> str:
        """The known_hosts line of a lab host reached at host:port."""
        kind, text = self.host.with_suffix(".pub").read_text().split()[:2]
        name = host if port == 22 else f"[{host}]:{port}"
        return f"{name} {kind} {text}\n"


def lab_keys() -> Keys:
    """Return the keys, made on first use. `stranger` is a key that no host lets in."""
    folder = built_once("keys", "v1", _generate)
    return Keys(folder / "client", folder / "stranger", folder / "host")


def _generate(folder: Path) -> None:
    keygen = tool("ssh-keygen", "openssh-client")
    for name in ("client", "stranger", "host"):
        command = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", f"mlhost lab {name}", "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
