"""Test doubles of Docker's own packages. They say that they are doubles; a real engine comes from the distribution."""

from __future__ import annotations

from collections.abc import Mapping

from tests.lab.debs import DOUBLE, Deb

SUITES: Mapping[str, str] = {"trixie": "debian.13~trixie", "bookworm": "debian.12~bookworm"}
ENGINE = ("28.5.2", "29.6.1", "29.7.2")
CONTAINERD = ("1.7.29", "2.3.6")
BUILDX = ("0.33.0", "0.35.0")
COMPOSE = ("5.5.0", "5.6.0")

CLIENT = """#!/bin/sh
# {double}
case "$1" in
--version|-v) echo "Docker version {version}, build 0000000 (test double)" ;;
*) echo "docker: this is a test double: there is no engine behind it" >&2; exit 1 ;;
esac
"""
DAEMON = """#!/bin/sh
# {double}
case "$1" in
--version|-v) echo "Docker version {version}, build 0000000 (test double)" ;;
--validate) echo "configuration OK" ;;
*) exec sleep infinity ;;
esac
"""
UNIT = """# {double}
[Unit]
Description=test double of the Docker daemon
[Service]
ExecStart=/usr/bin/dockerd
[Install]
WantedBy=multi-user.target
"""
PLUGIN = """#!/bin/sh
# {double}
if [ "$1" = docker-cli-plugin-metadata ]; then
    printf '%s\\n' '{{"SchemaVersion":"0.1.0","Vendor":"test double","Version":"v{version}","ShortDescription":"test double of {name}"}}'
    exit 0
fi
echo "docker {name}: this is a test double, version v{version}" >&2
exit 1
"""
START = """getent group docker >/dev/null || groupadd --system docker
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable --now docker.service
fi"""


def docker_debs(suite: str, wrapping_docker_io: bool) -> list[Deb]:
    """Return all versions of Docker's packages for one suite.

    With `wrapping_docker_io` they hold no programs and depend on the distribution's docker.io, so that a real engine
    comes with them. The vendor's own conflict with docker.io; a double that wraps it cannot.
    """
    tail = SUITES[suite]
    debs: list[Deb] = []
    for number in ENGINE:
        version = f"5:{number}-1~{tail}"
        debs += _engine(version, number, wrapping_docker_io)
    for number in CONTAINERD:
        conflicts = "" if wrapping_docker_io else "containerd, runc"
        debs.append(
            Deb("containerd.io", f"{number}-1~{tail}", conflicts=conflicts, provides=conflicts, section="devel")
        )
    for name, numbers in (("buildx", BUILDX), ("compose", COMPOSE)):
        for number in numbers:
            script = PLUGIN.format(double=DOUBLE, version=number, name=name)
            files = {f"usr/libexec/docker/cli-plugins/docker-{name}": script}
            debs.append(Deb(f"docker-{name}-plugin", f"{number}-1~{tail}", files=files))
    return debs


def _engine(version: str, number: str, wrapping: bool) -> list[Deb]:
    texts = {"double": DOUBLE, "version": number}
    daemon_files: dict[str, str] = {}
    client_files: dict[str, str] = {}
    if not wrapping:
        daemon_files = {
            "usr/bin/dockerd": DAEMON.format(**texts),
            "usr/lib/systemd/system/docker.service": UNIT.format(**texts),
        }
        client_files = {"usr/bin/docker": CLIENT.format(**texts)}
    # bookworm's docker.io holds the client too; later suites have it in docker-cli.
    return [
        Deb(
            "docker-ce",
            version,
            depends="containerd.io (>= 1.7.27), docker-ce-cli" + (", docker.io" if wrapping else ""),
            recommends="docker-ce-rootless-extras, docker-buildx-plugin, docker-compose-plugin",
            conflicts="" if wrapping else "docker.io, docker-engine",
            files=daemon_files,
            postinst="" if wrapping else START,
        ),
        Deb(
            "docker-ce-cli",
            version,
            depends="docker-cli | docker.io" if wrapping else "",
            recommends="docker-buildx-plugin, docker-compose-plugin",
            conflicts="" if wrapping else "docker.io, docker-cli",
            files=client_files,
        ),
        Deb("docker-ce-rootless-extras", version, depends="docker-ce"),
    ]
