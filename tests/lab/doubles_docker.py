"""Test doubles of Docker's own packages. They say that they are doubles and hold no engine."""

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


def docker_debs(suite: str) -> list[Deb]:
    """Return all versions of Docker's packages for one suite: shells without an engine, in conflict with the
    distribution's packages as the vendor's are. `engine` has those with one."""
    tail = SUITES[suite]
    debs: list[Deb] = []
    for number in ENGINE:
        debs += _engine(f"5:{number}-1~{tail}", number)
    for number in CONTAINERD:
        debs.append(Deb("containerd.io", f"{number}-1~{tail}", conflicts="containerd, runc", provides="containerd, runc"))
    for name, numbers in (("buildx", BUILDX), ("compose", COMPOSE)):
        for number in numbers:
            script = PLUGIN.format(double=DOUBLE, version=number, name=name)
            files = {f"usr/libexec/docker/cli-plugins/docker-{name}": script}
            debs.append(Deb(f"docker-{name}-plugin", f"{number}-1~{tail}", files=files))
    return debs


def _engine(version: str, number: str) -> list[Deb]:
    texts = {"double": DOUBLE, "version": number}
    return [
        Deb(
            "docker-ce",
            version,
            depends="containerd.io (>= 1.7.27), docker-ce-cli",
            recommends="docker-ce-rootless-extras, docker-buildx-plugin, docker-compose-plugin",
            conflicts="docker.io, docker-engine",
            files={
                "usr/bin/dockerd": DAEMON.format(**texts),
                "usr/lib/systemd/system/docker.service": UNIT.format(**texts),
            },
            postinst=START,
        ),
        Deb(
            "docker-ce-cli",
            version,
            recommends="docker-buildx-plugin, docker-compose-plugin",
            conflicts="docker.io, docker-cli",
            files={"usr/bin/docker": CLIENT.format(**texts)},
        ),
        Deb("docker-ce-rootless-extras", version, depends="docker-ce"),
    ]
