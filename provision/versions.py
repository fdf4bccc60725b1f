"""The versions of what runs on a host, as one look saw them. Pure.

The keys are those of a report's `versions`. What is not there is "", what could not be seen has no key: unknown is not absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provision.model import Facts

COMPONENTS = {
    "system": "System",
    "kernel": "Kernel",
    "gpus": "GPUs",
    "driver": "Driver",
    "docker": "Docker Engine",
    "toolkit": "Container Toolkit",
}
"""What is compared across a fleet, and its names for people. `gpus` is told by the plan, which knows their models."""


def versions(facts: Facts) -> Mapping[str, str]:
    """Texts such as `{"kernel": "6.1.0-50-cloud-amd64", "driver": "580.95.05 open", "docker": "29.7.2", …}`."""
    seen = {"system": facts.os.pretty_name or f"{facts.os.id} {facts.os.version_id}".strip()}
    if facts.kernel is not None:
        seen["kernel"] = facts.kernel
    if facts.nvidia is not None:
        flavour = {True: " open", False: " proprietary", None: ""}[facts.nvidia.loaded_open]
        seen["driver"] = facts.nvidia.loaded + flavour if facts.nvidia.loaded else ""
    if facts.docker is not None and facts.docker.server is not None:
        docker = facts.docker
        seen["docker"] = docker.server or (f"{docker.dockerd}, not running" if docker.dockerd else "")
    seen["toolkit"] = facts.toolkit.version
    return seen
