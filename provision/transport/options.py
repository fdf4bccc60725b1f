"""How to reach a host over SSH, as the user said it on the command line. What is not said is for ssh_config to decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Optional, Protocol

HOST_KEY_POLICIES = ("enforce", "accept-new", "ignore", "cloud")


class Voucher(Protocol):
    """Somebody who knows a host's keys by another way than the connection itself."""

    @property
    def name(self) -> str:
        """What the host's keys are remembered by; never that of another host."""

    @property
    def file(self) -> str:
        """Where they are remembered, in the form of known_hosts."""

    def await_keys(self, heard: Callable[[str], None]) -> None:
        """Wait, for minutes at most, until `ask` has an answer for a host that has only just been made. `heard` is told of the wait."""

    def ask(self) -> frozenset[str]:
        """The fingerprints (`SHA256:…`) of the host's keys; empty where none are to be had."""


@dataclass(frozen=True)
class SshOptions:
    """Command-line choices; each wins over ssh_config.

    `config_file` replaces the user's and the system's ssh_config (`none` reads no file), as `ssh -F` does. `host_keys` is one of
    HOST_KEY_POLICIES; `cloud` is `enforce` where there is no `voucher`. `connect_timeout` is in seconds. `known_hosts_file` replaces all known_hosts files. The three secrets never show in
    a repr: `sudo_password` for sudo, `password` for logging in, `key_passphrase` for encrypted key files.
    """

    config_file: Optional[str] = None
    identity_files: tuple[str, ...] = ()
    host_keys: Optional[str] = None
    voucher: Optional[Voucher] = None
    known_hosts_file: Optional[str] = None
    connect_timeout: Optional[float] = None
    keepalive_seconds: Optional[float] = None
    keepalive_count: Optional[int] = None
    sudo_password: Optional[str] = field(default=None, repr=False)
    password: Optional[str] = field(default=None, repr=False)
    key_passphrase: Optional[str] = field(default=None, repr=False)
