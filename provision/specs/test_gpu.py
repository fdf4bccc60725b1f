"""Every GPU on the bus is usable on the host and in containers, and stays so."""

from __future__ import annotations

import os
import re
import uuid
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("gpus")

WAYS = {"device": "--device nvidia.com/gpu=all", "gpus": "--gpus all", "runtime": "--runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=all"}
ASK = "nvidia-smi --query-gpu=uuid --format=csv,noheader"


def _usable(way: str, docker_info: dict[str, Any]) -> None:
    """Skip a way that this engine does not have: CDI since Docker 25, where it is switched on."""
    if way == "device" and not docker_info.get("CDISpecDirs"):
        pytest.skip("this engine does not use CDI")


def test_the_driver_sees_every_gpu_on_the_bus(gpus: list[str], uuids: list[str]) -> None:
    assert len(uuids) == len(gpus)


def test_the_module_and_its_programs_are_of_one_version(host: Any) -> None:
    module = host.file("/sys/module/nvidia/version")
    if not module.exists:
        pytest.skip("the module's version cannot be seen here")
    versions = set(host.check_output("nvidia-smi --query-gpu=driver_version --format=csv,noheader").split())
    assert versions == {module.content_string.strip()}


def test_no_other_driver_is_in_the_way(host: Any) -> None:
    assert not host.file("/sys/module/nouveau").exists


@pytest.mark.parametrize("node", ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"])
def test_the_device_nodes_are_there(host: Any, node: str) -> None:
    assert host.run("test -c %s", node).rc == 0


def test_docker_knows_the_nvidia_runtime(docker_info: dict[str, Any]) -> None:
    assert "nvidia" in docker_info["Runtimes"]


def test_the_gpus_are_described_for_cdi(host: Any, uuids: list[str]) -> None:
    listed = host.run("nvidia-ctk cdi list").stdout.split()
    assert "nvidia.com/gpu=all" in listed
    assert {f"nvidia.com/gpu={name}" for name in uuids} <= set(listed) or len(listed) > len(uuids)


@pytest.mark.parametrize("way", WAYS)
def test_a_container_sees_exactly_the_hosts_gpus(host: Any, image: str, uuids: list[str], docker_info: dict[str, Any], way: str) -> None:
    _usable(way, docker_info)
    done = host.run(f"docker run --rm --network=none {WAYS[way]} %s {ASK}", image)
    assert done.rc == 0, done.stdout + done.stderr
    assert sorted(done.stdout.split()) == uuids


@pytest.mark.parametrize("way", WAYS)
def test_a_running_container_keeps_its_gpus_when_systemd_is_reloaded(
    host: Any, image: str, uuids: list[str], docker_info: dict[str, Any], way: str
) -> None:
    if os.environ.get("MLHOST_SPEC_RELOAD") != "1":
        pytest.skip("asked for by MLHOST_SPEC_RELOAD=1")
    _usable(way, docker_info)
    name = f"mlhost-spec-{uuid.uuid4().hex[:12]}"
    try:
        assert host.run(f"docker run -d -i --rm --network=none --name {name} {WAYS[way]} %s sh", image).rc == 0
        assert sorted(host.check_output(f"docker exec {name} {ASK}").split()) == uuids
        assert host.run("systemctl daemon-reload").rc == 0
        after = host.run(f"docker exec {name} {ASK}")
        assert (after.rc, sorted(after.stdout.split())) == (0, uuids)
    finally:
        host.run(f"docker rm -f {name}")


def test_the_persistence_daemon_runs_where_there_is_one(host: Any) -> None:
    if host.run("systemctl cat nvidia-persistenced.service").rc != 0:
        pytest.skip("there is none")
    assert host.service("nvidia-persistenced").is_running


def test_a_fabric_manager_of_the_drivers_version_runs_beside_nvswitches(host: Any) -> None:
    look = 'cd /sys/bus/pci/devices && for d in *; do echo "$(cat $d/vendor) $(cat $d/class)"; done'
    if not any(row.startswith("0x10de 0x0680") for row in host.check_output(look).splitlines()):
        pytest.skip("there is no NVSwitch")
    assert host.service("nvidia-fabricmanager").is_running
    driver = host.check_output("nvidia-smi --query-gpu=driver_version --format=csv,noheader").split()[0]
    assert driver in host.check_output("nv-fabricmanager --version")


def test_the_next_kernel_has_a_module_too(host: Any) -> None:
    listed = host.run("ls /lib/modules/*/modules.dep").stdout.split()
    kernels = [path.split("/")[3] for path in listed if host.run("test -e /boot/vmlinuz-%s", path.split("/")[3]).rc == 0]
    if not kernels:
        pytest.skip("no kernel is installed here")
    newest = max(kernels, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    assert host.run("grep -Eq '(^|/)nvidia(-current)?[.]ko' /lib/modules/%s/modules.dep", newest).rc == 0, newest
