"""A build context that depends on its files' names, contents and x bits alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator

from provision.errors import UsageError
from provision.images.ignore import ignored, may_hold_kept, rules


def files(folder: str, dockerfile: str = "Dockerfile") -> Iterator[tuple[str, str]]:
    """The files, links and folders of a context, as (path below it, full path), sorted, without what its .dockerignore names. Raises UsageError."""
    specific = os.path.join(folder, f"{dockerfile}.dockerignore")
    text = ""
    for name in (specific, os.path.join(folder, ".dockerignore")):
        try:
            with open(name, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
            break
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UsageError(f"{name} cannot be read: {error.strerror}.", "Make it readable.") from None
    all_rules = rules(text)

    def walk(below: str) -> Iterator[tuple[str, str]]:
        try:
            entries = sorted(os.scandir(os.path.join(folder, below)), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            raise UsageError(f"{os.path.join(folder, below)} cannot be read: {error.strerror}.", "Name it in .dockerignore, or make it readable.") from None
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            out = ignored(path, all_rules)
            if entry.is_dir(follow_symlinks=False):
                inside = walk(path) if not out or may_hold_kept(path, all_rules) else iter(())
                if out:
                    yield from inside
                else:
                    yield path, entry.path
                    yield from inside
            elif not out:
                yield path, entry.path

    yield from walk("")


_DOCKERFILE = ".mlhost.Dockerfile"


@contextlib.contextmanager
def staged(folder: str, dockerfile: str, into: str) -> Iterator[tuple[str, str]]:
    """A copy of a context without what is ignored, with modes that no umask has a part in; gives its folder, and a file with this Dockerfile in it.

    Times are left to the rewriting of the layers. Raises UsageError where something cannot be read, or where there is no room in `into`.
    """
    with tempfile.TemporaryDirectory(prefix="mlhost-context-", dir=into) as top:
        target = os.path.join(top, "context")
        os.mkdir(target)
        for path, full in files(folder):
            if path == ".dockerignore":
                continue
            try:
                _copy(full, os.path.join(target, path))
            except OSError as error:
                raise UsageError(f"{full} cannot be copied to {into}: {error.strerror}.", "Name it in .dockerignore, make it readable, or make room.") from None
        # Within the context, and ignored there: for a Dockerfile outside, Docker's classic client adds a name made up anew each time to the .dockerignore,
        # which then is in the image.
        written = os.path.join(target, _DOCKERFILE)
        with open(os.path.join(target, ".dockerignore"), "w", encoding="ascii") as file:
            file.write(f".dockerignore\n{_DOCKERFILE}\n")
        with open(written, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(dockerfile)
        yield target, written


def _copy(full: str, target: str) -> None:
    """One file, link or folder. A checkout's group bits are those of whoever made it; git keeps the x bit alone."""
    found = os.lstat(full)
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    if stat.S_ISDIR(found.st_mode):
        os.makedirs(target, exist_ok=True)
        os.chmod(target, 0o755)  # noqa: S103 - what a checkout has
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(full), target)
    elif stat.S_ISREG(found.st_mode):
        shutil.copyfile(full, target)
        os.chmod(target, 0o755 if found.st_mode & 0o100 else 0o644)
