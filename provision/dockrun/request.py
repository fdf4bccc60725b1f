"""What was asked: the image, the command, and the settings from files and the command line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from provision.errors import UsageError

HOST, TREE = "host", "tree"
IPC = ("", "host", "private", "shareable", "none")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_SIZE = re.compile(r"\d+[bkmgBKMG]?")


@dataclass(frozen=True)
class Volume:
    """A folder or file besides the tree. `target` "" puts it under /host like everything else."""

    source: str
    target: str = ""
    read_only: bool = False


@dataclass(frozen=True)
class Settings:
    """What a playbook's `run:` or a run.toml may say; see `provision.spec.RunSpec` for what each means."""

    mount: str = HOST
    gpus: str = ""
    shm_size: str = ""
    ipc: str = ""
    network: str = ""
    volumes: tuple[str, ...] = ()
    env: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """One call. `env` are names whose values the caller's environment has; `values` are names with values from the command line, which go the same
    way; `file_names` are the names that env files set. `cwd` is the physical working directory. `terminal`: input and output are both one."""

    image: str
    command: tuple[str, ...]
    cwd: str
    settings: Settings = Settings()
    env: tuple[str, ...] = ()
    values: Mapping[str, str] | None = None
    env_files: tuple[str, ...] = ()
    file_names: frozenset[str] = frozenset()
    volumes: tuple[Volume, ...] = ()
    translate: bool = True
    terminal: bool = False
    input: bool = True
    entrypoint: str | None = None
    publish: tuple[str, ...] = ()
    docker: tuple[str, ...] = ()
    platform: str = ""
    name: str = "mlhost-run"
    environment: Mapping[str, str] | None = None


def settings(layers: Sequence[tuple[str, Mapping[str, Any]]]) -> Settings:
    """Settings of files, later ones over earlier; each with the place it comes from. Raises UsageError for what no such file may hold."""
    found = Settings()
    known = {field.name for field in fields(Settings)}
    for where, values in layers:
        for key, value in values.items():
            if key not in known:
                raise UsageError(f"{where}: there is no setting {key!r}.", f"Settings are: {', '.join(sorted(known))}.")
            wanted: Any = value
            if key in ("volumes", "env"):
                if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
                    raise UsageError(f"{where}: {key} is no list of texts.", f'For example {key} = ["/data:/data:ro"].')
                wanted = tuple(value)
            elif not isinstance(value, str):
                raise UsageError(f"{where}: {key} is no text.", "Put its value into quotes.")
            found = replace(found, **{key: wanted})
            check(found, where)
    return found


def check(found: Settings, where: str) -> None:
    """Raise UsageError for a value that means nothing. `where` names its place."""
    if found.mount not in (HOST, TREE):
        raise UsageError(f"{where}: mount is {found.mount!r}.", "It is `host` (the whole machine at /host) or `tree` (the working directory alone).")
    if found.shm_size and not _SIZE.fullmatch(found.shm_size):
        raise UsageError(f"{where}: {found.shm_size!r} is no size.", "Write a number with k, m or g, like 8g.")
    if found.ipc not in IPC and not found.ipc.startswith("container:"):
        raise UsageError(f"{where}: ipc is {found.ipc!r}.", "It is `host`, `private`, `shareable`, `none` or container:NAME.")
    for name in found.env:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{where}: {name!r} is no name of an environment variable.", "A file names variables; their values are the caller's.")


def volume(text: str, where: str = "--volume") -> Volume:
    """`HOST[:CONTAINER][:ro|rw]`. Raises UsageError for anything else."""
    parts = text.split(":")
    read_only = False
    if len(parts) > 1 and parts[-1] in ("ro", "rw"):
        read_only = parts.pop() == "ro"
    if not 1 <= len(parts) <= 2 or not all(part.startswith("/") for part in parts):
        raise UsageError(f"{where} {text!r} is not HOST[:CONTAINER][:ro] with absolute paths.", "For example /data:ro, which is /host/data inside.")
    return Volume(parts[0].rstrip("/") or "/", parts[1] if len(parts) == 2 else "", read_only)


def variable(text: str) -> tuple[str, str | None]:
    """`NAME` or `NAME=VALUE`, as the name and the value (None: the caller's). Raises UsageError for what is neither; never shows the value."""
    name, equals, value = text.partition("=")
    if not _NAME.fullmatch(name):
        raise UsageError(f"-e {name!r} is no name of an environment variable.", "Write -e NAME to pass yours on, or -e NAME=VALUE.")
    return name, value if equals else None


def env_file(text: str, path: str) -> dict[str, str | None]:
    """The names in an env file as Docker reads it: `NAME=VALUE`, `NAME` (None: the caller's), `#` comments, nothing quoted.

    Source: docker/cli, opts/file.go and docs.docker.com/reference/cli/docker/container/run. Raises UsageError with the line's number; never shows a value.
    """
    found: dict[str, str | None] = {}
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        row = raw.lstrip()
        if not row or row.startswith("#"):
            continue
        name, equals, value = row.partition("=")
        if not name or re.search(r"\s", name):
            raise UsageError(f"{path}, line {number}: there is no variable's name before the `=`.", "Each line is NAME=VALUE, without `export` and quotes.")
        found[name] = value if equals else None
    return found
