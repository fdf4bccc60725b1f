"""The probe: the read-only script that asks a host what it is, and its arguments."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from provision.errors import UsageError
from provision.sh import Sh
from provision.shipped import shipped


@lru_cache(maxsize=1)
def probe_script() -> Sh:
    """The script, for `sh -s -- ARGS` on standard input. It is package data; nothing is filled in."""
    return Sh(shipped("scripts/probe.sh"))


def probe_args(
    mark: str,
    *,
    root: str = "",
    image: bool = False,
    arch: str = "",
    asked_at: int | None = None,
    paths: Iterable[str] = (),
    disks: Iterable[str] = (),
    packages: Iterable[str] = (),
    record: bool = False,
    deep: bool = False,
    metadata: bool = True,
) -> tuple[str, ...]:
    """The positional parameters of the script.

    `mark` is a random word that no text on the host can know; `root` an unpacked system to read instead of the live one, whose
    architecture `arch` states as `uname -m` does; `image` that the script runs inside such a system; `asked_at` the controller's clock in seconds; `paths`, `disks` and `packages` are
    those the plan will ask about; `record` adds dpkg's whole record and the keys of all package sources; `deep` adds logs for a diagnosis; without `metadata` no cloud's
    metadata service is asked. Raises UsageError for a path that is not absolute or holds a newline,
    ValueError for a mark that is not a word.
    """
    if not mark.isalnum() or not mark.isascii() or len(mark) > 64:
        raise ValueError(f"{mark!r} is no mark")
    args = [mark]
    if root:
        args += ["--root", root]
    if image:
        args.append("--image")
    if arch:
        args += ["--arch", arch]
    if asked_at is not None:
        args += ["--asked-at", str(asked_at)]
    for option, values in (("--path", paths), ("--disk", disks)):
        for path in values:
            if not path.startswith("/") or "\n" in path or "\0" in path:
                raise UsageError(f"{path!r} is not an absolute path.", "Paths on a host are written in full, like /data/docker.")
            args += [option, path]
    for name in packages:
        args += ["--package", name]
    if record:
        args.append("--packages")
    if deep:
        args.append("--deep")
    if not metadata:
        args.append("--no-metadata")
    return tuple(args)
