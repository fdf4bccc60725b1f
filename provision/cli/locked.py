"""`--locked` and `--bundle`: what hosts are held to, read before any host is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from provision.cli.options import group
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.bundled import Bundle
    from provision.lockfile import Lock
    from provision.lockplan import Pinned

_LOCKED = "Hold every host to this lock (`mlhost lock`): exactly its versions, or a refusal that says why not."
F = TypeVar("F", bound=Callable[..., Any])


class Held(NamedTuple):
    """A lock as read from a file; `where` is what it is called in messages."""

    lock: Lock
    where: str

    @property
    def names(self) -> tuple[str, ...]:
        """Packages that hosts are asked about."""
        return tuple(sorted({name for kind in self.lock.classes.values() for name in kind.packages}))

    def pinned(self, playbook: str) -> Pinned:
        """What a host whose desired state has this digest is held to."""
        from provision.lockplan import Pinned

        return Pinned(self.lock, playbook, self.where)


def locked_option(function: F) -> F:
    """`--locked FILE`, as `locked: str | None`."""
    return click.option("--locked", metavar="FILE", help=_LOCKED)(function)


class Chosen(NamedTuple):
    """What `setup` and `plan` hold hosts to, as given on the command line."""

    locked: str | None
    bundle: str | None
    bundle_sha256: str | None
    verify_key: str | None

    def open(self) -> Held | Bundle | None:
        """The lock or the bundle, None for neither. Raises UsageError for what is none, Refused for a bundle that is not proved."""
        if self.bundle is None:
            if self.bundle_sha256 or self.verify_key:
                raise UsageError("--bundle-sha256 and --verify-key belong to --bundle.", "Name the bundle: --bundle FILE.")
            return read_lock(self.locked)
        if self.locked is not None:
            raise UsageError("--locked and --bundle exclude each other.", "A bundle holds its lock; leave out --locked.")
        from provision.bundled import open_bundle

        return open_bundle(self.bundle, self.bundle_sha256, self.verify_key)

    def bringing(self, held: Held | Bundle | None) -> Bundle | None:
        """What `open` gave, where it is a bundle."""
        return held if self.bundle is not None and not isinstance(held, Held) else None

    def words(self) -> list[str]:
        """The options again, with absolute paths."""
        named = [("--locked", self.locked), ("--bundle", self.bundle), ("--verify-key", self.verify_key)]
        words = [word for option, path in named if path is not None for word in (option, os.path.abspath(path))]
        return words + (["--bundle-sha256", self.bundle_sha256] if self.bundle_sha256 else [])


def held_options(function: F) -> F:
    """`--locked`, `--bundle` and how a bundle is proved, as `chosen: Chosen`."""
    return group(function, "chosen", Chosen, [
        click.option("--locked", metavar="FILE", help=_LOCKED),
        click.option("--bundle", metavar="FILE", help="Install from this file (`mlhost bundle`), without any network on the host."),
        click.option("--bundle-sha256", metavar="HASH", help="The bundle's SHA-256, as `mlhost bundle` printed it."),
        click.option("--verify-key", metavar="FILE", help="The SSH public key (or allowed signers file) of who signed the bundle."),
    ])


def read_lock(path: str | None, option: str = "--locked") -> Held | None:
    """The lock in a file, None for None. Raises UsageError for what cannot be read or is none."""
    if path is None:
        return None
    from provision.lockfile import MAX_BYTES, load

    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be read: {error.strerror}.", "Name a file that `mlhost lock` wrote.") from None
    return Held(load(content, path), path)
