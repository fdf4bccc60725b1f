"""What the specs share: the GPUs on the bus, Docker's own account of itself, an image."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest


@pytest.fixture(scope="module")
def gpus(host: Any) -> list[str]:
    """The PCI addresses of NVIDIA's GPUs, from sysfs."""
    look = 'cd /sys/bus/pci/devices && for d in *; do echo "$d $(cat $d/vendor) $(cat $d/class)"; done'
    rows = [row.split() for row in host.check_output(look).splitlines()]
    found = [address for address, vendor, kind in rows if vendor == "0x10de" and kind[:6] in ("0x0300", "0x0302")]
    wanted = os.environ.get("MLHOST_SPEC_GPUS")
    if wanted is not None:
        assert len(found) == int(wanted), f"{len(found)} GPUs are on the PCI bus, {wanted} are expected"
    if not found:
        pytest.skip("there is no NVIDIA GPU on the PCI bus")
    return found


@pytest.fixture(scope="module")
def docker_info(host: Any) -> dict[str, Any]:
    """What `docker info` says."""
    told: dict[str, Any] = json.loads(host.check_output("docker info --format '{{json .}}'"))
    return told


@pytest.fixture(scope="module")
def image(host: Any) -> str:
    """An image with a shell, that is on the host or can be pulled."""
    named = os.environ.get("MLHOST_SPEC_IMAGE")
    if named:
        assert host.run("docker image inspect %s >/dev/null 2>&1 || docker pull -q %s", named, named).rc == 0, f"{named} cannot be pulled"
        return named
    made = str(host.check_output("docker images -q --filter label=mlhost.smoke")).split()
    assert made, "there is no image of mlhost's own on this host; name one in MLHOST_SPEC_IMAGE"
    return made[0]


@pytest.fixture(scope="module")
def uuids(host: Any) -> list[str]:
    """The GPUs as the host's driver names them."""
    return sorted(str(host.check_output("nvidia-smi --query-gpu=uuid --format=csv,noheader")).split())
