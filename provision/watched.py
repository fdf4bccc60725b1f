"""What the probe must look at for a playbook, beyond what it always looks at. Here, and not with the steps that want it, because it is
needed to send the probe, and the steps only when it has answered."""

from __future__ import annotations

from collections.abc import Sequence

from provision.spec import RunSpec, Spec

# provision.steps.driver_install
BLACKLIST = "/etc/modprobe.d/mlhost-nouveau.conf"
PREFERENCES = "/etc/apt/preferences.d/mlhost-nvidia"
# provision.steps.nodes; those of others are Azure's on its images, and NVIDIA's advice taken by hand
DEVICE_RULE = "/etc/udev/rules.d/71-mlhost-nvidia.rules"
DEVICE_RULES_OF_OTHERS = ("/etc/udev/rules.d/71-nvidia-dev-char.rules", "/lib/udev/rules.d/71-nvidia-dev-char.rules")
# provision.steps.driver: where DKMS keeps what NVIDIA's .run installer registered with it.
DKMS = "/var/lib/dkms/nvidia"
PERSISTENCED = "/etc/systemd/system/nvidia-persistenced.service"
# provision.steps.network
PROXY_APT = "/etc/apt/apt.conf.d/95mlhost-proxy"
PROXY_DROP_IN = "/etc/systemd/system/docker.service.d/mlhost-proxy.conf"
PROXY_ENVIRONMENT = "/etc/mlhost/docker-proxy.env"
# provision.steps.rundefaults
RUN_DEFAULTS = "/etc/mlhost/run.toml"


# provision.steps.preflight: what official GPU images are recognised by; the same as `Catalog.image_paths`, which is not read that early.
IMAGES = (
    "/opt/dlami",
    "/opt/aws/dlami",
    "/etc/ecs/nvidia-kmod-load.sh",
    "/etc/eks/nvidia-kmod-load.sh",
    "/etc/eks",
    "/opt/azurehpc/component_versions.txt",
    "/opt/azurehpc",
    "/opt/deeplearning/install-driver.sh",
    "/opt/deeplearning",
    "/etc/dgx-release",
    "/etc/apt/sources.list.d/lambda-repository.list",
)


def watched(spec: Spec, steps: Sequence[object] = ()) -> tuple[str, ...]:
    """The paths whose state the probe must report for this spec; a user's own step names further ones in its `watch`."""
    paths = [BLACKLIST, PREFERENCES, DEVICE_RULE, *DEVICE_RULES_OF_OTHERS, DKMS, PERSISTENCED, *IMAGES]
    if spec.proxy.http or spec.proxy.https:
        paths += [PROXY_APT, PROXY_DROP_IN, PROXY_ENVIRONMENT]
    if spec.run != RunSpec():
        paths.append(RUN_DEFAULTS)
    for step in steps:
        paths += getattr(step, "watch", ())
    return tuple(dict.fromkeys(paths))


def watched_disks(spec: Spec) -> tuple[str, ...]:
    """The directories whose free space the probe must report."""
    return ("/", spec.docker.data_root or "/var/lib/docker")
