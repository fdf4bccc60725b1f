"""How to reach a host over SSH, as the user said it on the command line. What is not said is for ssh_config to decide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

HOST_KEY_POLICIES = ("enforce", "accept-new", "ignore")


@dataclass(frozen=True)
class SshOptions:
    """Command-line choices; each wins over ssh_config.

    `config_file` replaces the user's and the system's ssh_config (`none` reads no file), as `ssh -F` does. `host_keys` is one of
    HOST_KEY_POLICIES. `connect_timeout` is in seconds. `known_hosts_file` replaces all known_hosts files. The three secrets never show in
    a repr: `sudo_password` for sudo, `password` for logging in, `key_passphrase` for encrypted key files.
    """

    config_file: Optional[str] = None
    identity_files: tuple[str, ...] = ()
    host_keys: Optional[str] = None
    known_hosts_file: Optional[str] = None
    connect_timeout: Optional[float] = None
    keepalive_seconds: Optional[float] = None
    keepalive_count: Optional[int] = None
    sudo_password: Optional[str] = field(default=None, repr=False)
    password: Optional[str] = field(default=None, repr=False)
    key_passphrase: Optional[str] = field(default=None, repr=False)
