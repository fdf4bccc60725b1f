"""Docker is there, comes back after a boot, and runs containers."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_the_machine_runs_systemd_or_has_no_need_of_it(host: Any) -> None:
    if not host.file("/run/systemd/system").exists:
        pytest.skip("no systemd here")
    assert host.run("systemctl is-system-running").stdout.strip() not in ("maintenance", "stopping", "offline")


def test_docker_runs_and_will_run_after_a_boot(host: Any) -> None:
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_docker_answers_and_has_no_complaint_about_its_storage(docker_info: dict[str, Any]) -> None:
    assert docker_info["ServerVersion"]
    assert docker_info["Driver"] not in ("vfs", "devicemapper", "aufs"), "slow, or no longer looked after"


def test_daemon_json_is_json_with_one_object(host: Any) -> None:
    file = host.file("/etc/docker/daemon.json")
    if not file.exists:
        pytest.skip("Docker has no daemon.json")
    assert isinstance(json.loads(file.content_string), dict)


def test_a_container_runs_to_its_end(host: Any, image: str) -> None:
    done = host.run("docker run --rm --network=none %s sh -c 'exit 7'", image)
    assert done.rc == 7, done.stderr


def test_docker_has_room_for_images(host: Any, docker_info: dict[str, Any]) -> None:
    free = int(host.check_output("df -Pk %s | tail -n 1 | tr -s ' ' | cut -d' ' -f4", docker_info["DockerRootDir"]))
    assert free > 1_000_000, f"{free} KiB are free in {docker_info['DockerRootDir']}"


def test_no_package_is_left_half_installed(host: Any) -> None:
    if not host.exists("dpkg"):
        pytest.skip("no dpkg here")
    assert host.check_output("dpkg --audit") == ""
