"""Another machine's Docker: asked over mlhost's own transport, sent to and taken from over OpenSSH's client.

paramiko, which the transport uses, moves some tens of megabytes a second in one Python process; images are gigabytes, and go through two connections
where they are copied from host to host. The ssh program gets the same options as the transport, and never asks anything.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from provision.errors import Failed, Unreachable, UsageError
from provision.images.archive import chain_ids
from provision.report.sanitize import line
from provision.sh import join, quote
from provision.shipped import shipped
from provision.shipping import engine, pipes
from provision.transport import SshOptions, Transport, parse_target

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
_LOST = 255
"""What ssh ends with where the connection, not the command, failed."""


@dataclass(frozen=True)
class There:
    """What a host's Docker has: how it is called there, its engine, programs, free bytes (-1: unknown), the images asked for, chain ids of all layers."""

    name: str
    docker: str
    about: engine.About
    tools: frozenset[str]
    space: int
    images: tuple[engine.Image, ...]
    absent: tuple[str, ...]
    chains: frozenset[str]


def look(transport: Transport, names: Sequence[str] = ()) -> There:
    """Ask a host. Raises NoDocker, Failed, and what the transport raises."""
    for name in names:
        check(name)
    result = transport.run(shipped("scripts/images.sh"), *names, timeout=120.0)
    return parsed(transport.name, names, result.out.decode("utf-8", "replace"))


def check(name: str) -> str:
    """A reference that needs no quoting anywhere. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of an image.", "Write it as `docker images` shows it: name, name:tag or an id.")
    return name


def parsed(host: str, names: Sequence[str], text: str) -> There:
    """What the script's lines say. Raises NoDocker, Failed."""
    rows = [row.partition(" ")[::2] for row in text.splitlines()]
    docker = next((value for key, value in rows if key == "docker"), "")
    if docker == "none":
        raise engine.NoDocker(f"{host}: there is no Docker.", f"Set it up: mlhost setup {host}")
    if docker not in ("docker", "sudo -n docker"):
        raise engine.problem(("info",), docker or "nothing", host)
    values: dict[str, list[str]] = {}
    for key, value in rows:
        values.setdefault(key, []).append(value)
    space = values.get("space", ["unknown"])[0]
    try:
        layers = [json.loads(row) or [] for row in values.get("layers", [])]
        images = [json.loads(row) for row in values.get("image", [])]
    except ValueError:
        raise Failed(f"{host}: what its Docker says of its images cannot be read.", "Check that `docker` there is Docker's own client.") from None
    absent = tuple(values.get("absent", ()))
    there = [name for name in names if name not in absent]
    return There(
        name=host,
        docker=docker,
        about=engine.parsed_about(values.get("info", [""])[0]),
        tools=frozenset(values.get("tool", ())),
        space=int(space) * 1024 if space.isdigit() else -1,
        images=engine.parsed(there, json.dumps(images)),
        absent=absent,
        chains=frozenset(chain for diff_ids in layers for chain in chain_ids(diff_ids)),
    )


def ssh(target: str, options: SshOptions, script: str) -> tuple[str, ...]:
    """The command line that runs a script of one line on a host. Raises UsageError where there is no ssh, BadTarget."""
    if shutil.which("ssh") is None:
        raise UsageError("There is no `ssh` on this machine.", "Install OpenSSH's client (openssh-client).")
    to = parse_target(target)
    words = ["ssh", "-T", "-x", "-a", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=8", "-o", "EscapeChar=none"]
    words += ["-F", options.config_file] if options.config_file else []
    words += [word for file in options.identity_files for word in ("-i", file)]
    words += ["-o", f"UserKnownHostsFile={options.known_hosts_file}", "-o", "GlobalKnownHostsFile=/dev/null"] if options.known_hosts_file else []
    if options.host_keys:
        words += ["-o", f"StrictHostKeyChecking={ {'enforce': 'yes', 'accept-new': 'accept-new', 'ignore': 'no'}[options.host_keys] }"]
        words += ["-o", "UserKnownHostsFile=/dev/null"] if options.host_keys == "ignore" else []
    words += ["-o", f"ConnectTimeout={max(1, round(options.connect_timeout))}"] if options.connect_timeout else []
    words += ["-l", to.user] if to.user else []
    words += ["-p", str(to.port)] if to.port else []
    return (*words, "--", to.host, f"exec sh -c {quote(script)}")


def sending(there: There, images: Sequence[engine.Image], packing: str, without: Sequence[str], level: int = 3) -> str:
    """The script that writes an archive of images to its standard output, without the blobs in `without` (digests), packed."""
    names = join([check(image.names[0] if image.names else image.id) for image in images])
    parts = [f"{{ {there.docker} save {names} || echo 'docker save failed' >&2; }}"]
    if without:
        parts.append(f"tar --delete -f - {join('blobs/sha256/' + digest.partition(':')[2] for digest in without)}")
    pack = {"zst": f"zstd -T0 -{level} -q -c", "gz": f"{'pigz' if 'pigz' in there.tools else 'gzip'} -{min(level, 9)} -c", "tar": ""}[packing]
    return "LC_ALL=C; export LC_ALL; " + " | ".join([*parts, *([pack] if pack else [])])


def taking(there: There, packing: str) -> str:
    """The script that loads the archive on its standard input. Docker unpacks by itself what it knows."""
    unpack = {"zst": "zstd -dc -q | " if "zstd" in there.tools else "", "gz": "", "tar": ""}[packing]
    return f"LC_ALL=C; export LC_ALL; {unpack}{there.docker} load -q"


def common(source: There | None, target: There) -> str:
    """The format that both ends can deal with; None for a source means this machine."""
    mine = source.tools if source else frozenset(name for name in ("zstd", "pigz", "gzip") if shutil.which(name))
    # Docker reads zstd by itself since 23.0 (github.com/moby/moby, pkg/archive).
    reads = "zstd" in target.tools or major(target.about.version) >= 23
    if "zstd" in mine and reads:
        return "zst"
    return "gz" if mine & {"pigz", "gzip"} else "tar"


def major(version: str) -> int:
    """The first number of a version, 0 where there is none."""
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def lost(program: pipes.Program, code: int, host: str, what: str) -> Failed | Unreachable:
    """The error for an ssh that ended with `code`."""
    said = program.said().splitlines()
    text = line(said[-1], 400) if said else "nothing"
    if code == _LOST:
        return Unreachable(f"{host}: the connection was lost while {what}. ssh said: {text}", "Run the same command again: layers that are there are not sent twice.")
    return engine.problem((what,), program.said(), host) if said else Failed(f"{host}: {what} failed (exit {code}).", "Look at that host's Docker.")
