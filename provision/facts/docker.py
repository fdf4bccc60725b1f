"""Docker: the client, the daemon, and what stands in its place."""

from __future__ import annotations

import re
from collections.abc import Mapping

from provision.facts.text import NOT_RUNNING, UNREADABLE, Sections, get, json_object, mapping, number, rows, string, strings
from provision.model import Docker, Package, Unit

_CLIENTS = ("docker-ce-cli", "docker-cli", "docker.io", "moby-cli")
_ENGINES = ("docker-ce", "docker.io", "moby-engine")


def upstream(version: str) -> str:
    """The upstream part of a package's version: `5:28.0.1-1~debian.12~bookworm` is 28.0.1, `20.10.24+dfsg1-1` is 20.10.24."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return found.group(1) if found else ""


def _packaged(packages: Mapping[str, Package] | None, names: tuple[str, ...]) -> str:
    found = ((packages or {}).get(name) for name in names)
    return next((upstream(package.version) for package in found if package and package.installed), "")


def docker(
    sections: Sections,
    *,
    present: frozenset[str],
    programs: Mapping[str, str],
    packages: Mapping[str, Package] | None,
    units: Mapping[str, Unit],
    users: Mapping[str, str],
    live: bool,
) -> Docker:
    """What is known of Docker. `cli` and `dockerd` are versions, or the program's path where its version is unknown; `users` are names by uid."""
    section = get(sections, "docker_info")
    info = json_object(section.text) if "docker_info" in sections else None
    podman = bool((packages or {}).get("podman-docker", Package("", "", "not-installed")).installed) or section.rc == 22
    info = info or {}
    server, error = _server(sections, info, bool(programs.get("dockerd")), live)
    client = "" if podman else programs.get("docker", "")
    dockerd = programs.get("dockerd", "")
    if client:
        client = string(mapping(info.get("ClientInfo")).get("Version")) or _packaged(packages, _CLIENTS) or client
    version = server or (_packaged(packages, _ENGINES) if dockerd else "")
    major = number(version.split(".", 1)[0]) if version else None
    snap_unit = units.get("snap.docker.dockerd.service")
    swarm = string(mapping(info.get("Swarm")).get("LocalNodeState"))
    newer = get(sections, "newer")
    return Docker(
        cli=client,
        dockerd=(version or dockerd) if dockerd else "",
        server=server,
        error=error,
        root_dir=string(info.get("DockerRootDir")),
        storage_driver=string(info.get("Driver")),
        runtimes=strings(info.get("Runtimes")),
        default_runtime=string(info.get("DefaultRuntime")),
        cdi_spec_dirs=strings(info.get("CDISpecDirs")),
        cgroup_driver=string(info.get("CgroupDriver")),
        security_options=strings(info.get("SecurityOptions")),
        running_containers=_count(info.get("ContainersRunning")),
        live_restore=info.get("LiveRestoreEnabled") is True,
        swarm=swarm not in ("", "inactive"),
        started_before=tuple(rows(newer.text)) if newer.rc == 0 else (),
        snap=bool(present & {"/var/snap/docker", "/snap/bin/docker"}) or bool(snap_unit and snap_unit.load == "loaded"),
        podman_docker=podman,
        rootless_users=_rootless(sections, users),
        supports_validate=None if major is None else major >= 23,
    )


def _server(sections: Sections, info: Mapping[str, object], dockerd: bool, live: bool) -> tuple[str | None, str]:
    """The server's version ("" if it does not run, None if it could not be asked) and what it said instead of answering."""
    if not live:
        return (None if dockerd else ""), ""
    if "docker_info" not in sections:
        return "", ""
    section = get(sections, "docker_info")
    version = string(info.get("ServerVersion"))
    if section.rc == 0 and version:
        return version, ""
    said = "\n".join(strings(info.get("ServerErrors"))) or "\n".join(row for row in rows(section.text) if not row.lstrip().startswith("{"))
    if section.rc in (22, NOT_RUNNING):
        return "", said
    if section.rc == UNREADABLE or "permission denied" in said.lower():
        return None, said
    if section.rc == 124:
        return None, "the Docker daemon did not answer in time"
    refused = ("cannot connect to the docker daemon", "connection refused", "is the docker daemon running")
    return ("" if any(words in said.lower() for words in refused) else None), said


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _rootless(sections: Sections, users: Mapping[str, str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for row in rows(get(sections, "rootless").text):
        parts = row.split("/")
        if row.startswith("/run/user/") and len(parts) > 3:
            found[users.get(parts[3], parts[3])] = None
        elif row.startswith("/home/") and len(parts) > 2:
            found[parts[2]] = None
    return tuple(found)
