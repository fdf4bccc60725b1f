"""Package sources as they were found on a host: entries of apt's source files, repositories of dnf's and zypper's `.repo` files."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AptSource:
    """One entry of one apt source file (a deb822 paragraph or a one-line entry), enabled or not."""

    path: str
    deb822: bool
    types: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    architectures: tuple[str, ...] = ()
    enabled: bool = True


@dataclass(frozen=True)
class RpmSource:
    """One repository of a `.repo` file. `gpgcheck` and `repo_gpgcheck` are None where the file leaves them to the manager's own configuration."""

    path: str
    id: str
    name: str = ""
    enabled: bool = True
    baseurl: tuple[str, ...] = ()
    mirrorlist: str = ""
    metalink: str = ""
    gpgcheck: bool | None = None
    repo_gpgcheck: bool | None = None
    gpgkey: tuple[str, ...] = ()
    module_hotfixes: bool = False
    exclude: tuple[str, ...] = ()
