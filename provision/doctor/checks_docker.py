"""Predicates over Docker, the container toolkit and CDI. Each says what it found, False, or None for unknown."""

from __future__ import annotations

import json
import re
from typing import Union

from provision.doctor.checks_gpu import driver_installed
from provision.doctor.seen import Seen
from provision.facts.text import get, rows
from provision.model import Docker, Unit
from provision.rows import version_key

Answer = Union[str, bool, None]

HOOKS = ("/usr/bin/nvidia-cdi-hook", "/usr/bin/nvidia-container-runtime-hook", "/usr/bin/nvidia-container-runtime")


def _docker(seen: Seen) -> Docker:
    return seen.facts.docker or Docker()


def _unit(seen: Seen, name: str) -> Unit | None:
    unit = seen.facts.units.get(name)
    return unit if unit and unit.load not in ("", "not-found") else None


def _configuration(seen: Seen) -> dict[str, object] | None:
    """daemon.json where it is a JSON object; {} where there is none; None where it is not one or is unknown."""
    text = seen.facts.daemon_json
    if text is None:
        return None
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# ---------------------------------------------------------------- the daemon


def docker_installed(seen: Seen) -> Answer:
    return bool(_docker(seen).dockerd) and f"dockerd is installed ({_docker(seen).dockerd})"


def docker_not_installed(seen: Seen) -> Answer:
    docker = _docker(seen)
    return not (docker.dockerd or docker.snap or docker.podman_docker or docker.server) and "there is no dockerd"


def docker_runs(seen: Seen) -> Answer:
    docker = _docker(seen)
    return None if docker.server is None else bool(docker.server) and f"Docker {docker.server} answers"


def docker_stopped(seen: Seen) -> Answer:
    """Installed, and not running though it could be asked. A socket that waits starts it at the first use."""
    docker, unit = _docker(seen), _unit(seen, "docker.service")
    if docker.server is None or not seen.facts.live or docker.snap:
        return None
    if docker.server or not docker.dockerd:
        return False
    socket = _unit(seen, "docker.socket")
    if unit and unit.active == "inactive" and socket and socket.active == "active":
        return False
    return f"docker.service is {unit.active}" if unit else "dockerd does not run"


def docker_failed(seen: Seen) -> Answer:
    unit = _unit(seen, "docker.service")
    # Between two attempts systemd calls it activating (auto-restart).
    return unit is not None and (unit.active == "failed" or unit.sub == "auto-restart") and f"docker.service is {unit.active} ({unit.sub})"


def docker_not_failed(seen: Seen) -> Answer:
    unit = _unit(seen, "docker.service")
    return unit is not None and unit.active == "inactive" and unit.load == "loaded"


def docker_masked(seen: Seen) -> Answer:
    for name in ("docker.service", "docker.socket", "containerd.service"):
        unit = seen.facts.units.get(name)
        if unit and unit.load == "masked" and docker_stopped(seen) is not False:
            return f"{name} is masked"
    return False


def docker_socket_down(seen: Seen) -> Answer:
    unit = seen.facts.units.get("docker.socket")
    return unit is not None and (unit.load in ("not-found", "masked") or unit.active in ("inactive", "failed")) and f"docker.socket is {unit.load}, {unit.active}"


def docker_not_enabled(seen: Seen) -> Answer:
    """It runs and will not after the next boot."""
    unit, socket = _unit(seen, "docker.service"), _unit(seen, "docker.socket")
    waits = socket is not None and socket.enabled == "enabled"
    return unit is not None and unit.active == "active" and unit.enabled == "disabled" and not waits and "docker.service is active and disabled"


def containerd_down(seen: Seen) -> Answer:
    unit = _unit(seen, "containerd.service")
    return unit is not None and unit.active in ("failed", "inactive") and f"containerd.service is {unit.active}"


def daemon_json_malformed(seen: Seen) -> Answer:
    text = seen.facts.daemon_json
    if text is None:
        return None
    if not text.strip():
        return False
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"/etc/docker/daemon.json: {error}"
    except RecursionError:
        return "/etc/docker/daemon.json is nested too deeply"
    return not isinstance(value, dict) and "/etc/docker/daemon.json is no JSON object"


def daemon_json_sound(seen: Seen) -> Answer:
    bad = daemon_json_malformed(seen)
    return None if bad is None else bad is False


def daemon_json_refused(seen: Seen) -> Answer:
    """dockerd itself says that it will not start with this file."""
    section = get(seen.sections, "deep_validate")
    if "deep_validate" not in seen.sections or section.rc == 124 or "unknown flag" in section.text:
        return None
    last = list(rows(section.text))[-1:] or [""]
    return section.rc != 0 and f"dockerd --validate: {' '.join(last[0].split())[:300]}"


def hosts_in_daemon_json(seen: Seen) -> Answer:
    configuration = _configuration(seen)
    if configuration is None:
        return None
    unit = seen.said("deep_docker_unit") or ""
    if "hosts" not in configuration or (unit and "-H " not in unit and "--host" not in unit):
        return False
    return "/etc/docker/daemon.json sets hosts, and so does docker.service"


def storage_driver_forced(seen: Seen) -> Answer:
    configuration = _configuration(seen)
    return None if configuration is None else "storage-driver" in configuration and f"daemon.json sets storage-driver {configuration['storage-driver']}"


def storage_is_vfs(seen: Seen) -> Answer:
    return _docker(seen).storage_driver == "vfs" and "Docker's storage driver is vfs"


def docker_older_than_its_files(seen: Seen) -> Answer:
    changed = [path for path in _docker(seen).started_before if path not in HOOKS]
    return bool(changed) and bool(_docker(seen).server) and f"{changed[0]} is newer than the running dockerd"


def docker_older_than_toolkit(seen: Seen) -> Answer:
    changed = [path for path in _docker(seen).started_before if path in HOOKS]
    return bool(changed) and bool(_docker(seen).server) and f"{changed[0]} is newer than the running dockerd"


def docker_newer_than_toolkit(seen: Seen) -> Answer:
    if not _docker(seen).server or "newer" not in seen.sections:
        return None
    return not docker_older_than_toolkit(seen)


def docker_29(seen: Seen) -> Answer:
    version = _docker(seen).server or ""
    return None if not version else version_key(version) >= version_key("29") and f"Docker is {version}"


def snap_docker(seen: Seen) -> Answer:
    docker = _docker(seen)
    return docker.snap and "Docker is there as a snap (/var/snap/docker)"


def not_snap(seen: Seen) -> Answer:
    return not _docker(seen).snap


def podman_in_its_place(seen: Seen) -> Answer:
    return _docker(seen).podman_docker and "docker is podman's stand-in (podman-docker)"


def rootless(seen: Seen) -> Answer:
    docker = _docker(seen)
    if any("rootless" in option for option in docker.security_options):
        return "docker info: rootless"
    return bool(docker.rootless_users) and f"user {docker.rootless_users[0]} runs a rootless daemon"


def rootful(seen: Seen) -> Answer:
    docker = _docker(seen)
    return bool(docker.server) and not rootless(seen) and "the daemon runs as root"


def user_not_in_group(seen: Seen) -> Answer:
    if seen.settings is None:
        return None
    user = seen.settings.get("user", "")
    members = seen.facts.groups.get("docker")
    if not user or user == "root" or members is None:
        return None if members is not None or not user else "there is no group docker"
    return user not in members and f"{user} is not in the group docker (members: {', '.join(members) or 'none'})"


def user_in_group(seen: Seen) -> Answer:
    outside = user_not_in_group(seen)
    if outside is None:
        return None
    return outside is False and f"{(seen.settings or {}).get('user')} is in the group docker"


def apparmor_parser_missing(seen: Seen) -> Answer:
    settings = seen.settings
    if settings is None or "apparmor" not in settings:
        return None if settings is None else False
    return settings["apparmor"].startswith("Y") and "apparmor_parser" not in settings and "AppArmor is enabled in the kernel, and there is no apparmor_parser"


def forwarding_off(seen: Seen) -> Answer:
    value = (seen.settings or {}).get("net/ipv4/ip_forward")
    return None if value is None else value == "0" and "net.ipv4.ip_forward is 0"


def iptables_missing(seen: Seen) -> Answer:
    return None if seen.settings is None else "iptables" not in seen.settings and "there is no program iptables"


def cgroups_by_systemd(seen: Seen) -> Answer:
    return _docker(seen).cgroup_driver == "systemd" and "Docker's cgroup driver is systemd"


def selinux_enforcing(seen: Seen) -> Answer:
    return None if seen.facts.selinux is None else seen.facts.selinux in ("enforcing", "1") and "SELinux enforces"


# ---------------------------------------------------------------- the toolkit


def toolkit_installed(seen: Seen) -> Answer:
    toolkit = seen.facts.toolkit
    return bool(toolkit.ctk or toolkit.hook or toolkit.runtime or toolkit.version) and f"the NVIDIA Container Toolkit {toolkit.version or ''} is installed".replace("  ", " ")


def toolkit_not_installed(seen: Seen) -> Answer:
    return not toolkit_installed(seen) and seen.facts.packages is not None and "no program or package of the NVIDIA Container Toolkit is there"


def hook_missing(seen: Seen) -> Answer:
    """The package is there, and not its program in the path. JetPack lays its toolkit out in a way of its own."""
    if seen.facts.tegra:
        return None
    if not seen.facts.installed("nvidia-container-toolkit") or seen.said("programs") is None:
        return False
    toolkit = seen.facts.toolkit
    gone = [name for name, path in (("nvidia-container-runtime-hook", toolkit.hook), ("nvidia-ctk", toolkit.ctk)) if not path]
    return bool(gone) and f"nvidia-container-toolkit is installed, and there is no program {gone[0]}"


def hook_there(seen: Seen) -> Answer:
    return bool(seen.facts.toolkit.hook) and f"{seen.facts.toolkit.hook} is there"


def _named_runtime(seen: Seen) -> str:
    runtimes = (_configuration(seen) or {}).get("runtimes")
    nvidia = runtimes.get("nvidia") if isinstance(runtimes, dict) else None
    return str(nvidia.get("path", "")) if isinstance(nvidia, dict) else ""


def runtime_program_missing(seen: Seen) -> Answer:
    if _configuration(seen) is None or seen.said("programs") is None:
        return None
    named = _named_runtime(seen)
    gone = named.rpartition("/")[2] == "nvidia-container-runtime" and not seen.facts.toolkit.runtime
    return gone and f"daemon.json names the runtime {named}, which is not there"


def runtime_not_registered(seen: Seen) -> Answer:
    """Docker does not know the runtime though the toolkit is there to serve it."""
    docker = _docker(seen)
    if not docker.server or not seen.facts.toolkit.runtime:
        return None
    return "nvidia" not in docker.runtimes and f"docker info: Runtimes: {' '.join(docker.runtimes)}"


def runtime_not_in_daemon_json(seen: Seen) -> Answer:
    configuration = _configuration(seen)
    return None if configuration is None else not _named_runtime(seen) and "/etc/docker/daemon.json registers no runtime nvidia"


def runtime_in_daemon_json(seen: Seen) -> Answer:
    return bool(_named_runtime(seen)) and f"/etc/docker/daemon.json registers nvidia as {_named_runtime(seen)}"


def default_runtime_nvidia(seen: Seen) -> Answer:
    configuration = _configuration(seen)
    named = configuration.get("default-runtime") if configuration else _docker(seen).default_runtime
    return named == "nvidia" and "Docker's default runtime is nvidia"


def no_cgroups_set(seen: Seen) -> Answer:
    return seen.facts.toolkit.no_cgroups and "/etc/nvidia-container-runtime/config.toml: no-cgroups = true"


def no_cgroups_not_set(seen: Seen) -> Answer:
    return not seen.facts.toolkit.no_cgroups and "no-cgroups is not set in /etc/nvidia-container-runtime/config.toml"


def toolkit_root_set(seen: Seen) -> Answer:
    found = re.search(r'^\s*root\s*=\s*"([^"]*)"', seen.said("toolkit_config") or "", re.MULTILINE)
    return bool(found) and (found.group(1) if found else "/") not in ("", "/") and f"/etc/nvidia-container-runtime/config.toml: {found.group(0).strip() if found else ''}"


def _toolkit_version(seen: Seen, *bad: str) -> Answer:
    version = seen.facts.toolkit.version
    return None if not version else version in bad and f"the NVIDIA Container Toolkit is {version}"


def toolkit_1_17_7(seen: Seen) -> Answer:
    return _toolkit_version(seen, "1.17.7")


def toolkit_rootless_regression(seen: Seen) -> Answer:
    return _toolkit_version(seen, "1.14.0", "1.18.0")


def library_missing(seen: Seen) -> Answer:
    """No libnvidia-ml where the linker looks; other folders do not help the toolkit."""
    told = get(seen.sections, "deep_libraries")
    if "deep_libraries" not in seen.sections or told.rc == 127:
        return None
    return "libnvidia-ml.so" not in told.text and "ldconfig -p names no libnvidia-ml.so"


# ---------------------------------------------------------------- CDI


def cdi_stale(seen: Seen) -> Answer:
    loaded = seen.facts.nvidia.loaded if seen.facts.nvidia else ""
    if not loaded:
        return None
    old = [(path, made) for path, made in seen.facts.toolkit.cdi_specs.items() if made and made != loaded and "nvidia" in path]
    return bool(old) and f"{old[0][0]} was made for driver {old[0][1]}, and {loaded} is loaded"


def cdi_twice(seen: Seen) -> Answer:
    specs = [path for path in seen.facts.toolkit.cdi_specs if "nvidia" in path]
    return len(specs) > 1 and f"{' and '.join(specs)} describe the same devices"


def cdi_none(seen: Seen) -> Answer:
    return not any("nvidia" in path for path in seen.facts.toolkit.cdi_specs) and "there is no specification of NVIDIA's in /etc/cdi or /var/run/cdi"


def cdi_refresh_there(seen: Seen) -> Answer:
    """The toolkit brought the unit that keeps the specification up to date, so one is meant to be there."""
    return _unit(seen, "nvidia-cdi-refresh.service") is not None and "nvidia-cdi-refresh.service is installed"


def cdi_refresh_failed(seen: Seen) -> Answer:
    unit = _unit(seen, "nvidia-cdi-refresh.service")
    return unit is not None and unit.active == "failed" and "nvidia-cdi-refresh.service is failed"


def cdi_off(seen: Seen) -> Answer:
    docker = _docker(seen)
    return None if not docker.server else not docker.cdi_spec_dirs and "docker info names no CDI folders: CDI is off"


def cdi_turned_off(seen: Seen) -> Answer:
    features = (_configuration(seen) or {}).get("features")
    return isinstance(features, dict) and features.get("cdi") is False and "/etc/docker/daemon.json: features.cdi is false"


def gpu_host(seen: Seen) -> Answer:
    """The driver works, so containers are meant to get GPUs."""
    nvidia = seen.facts.nvidia
    return bool(seen.facts.gpus and nvidia and nvidia.loaded and nvidia.smi_rc == 0 and nvidia.gpus) and driver_installed(seen)


CHECKS = {function.__name__.replace("_", "-"): function for function in (
    docker_installed, docker_not_installed, docker_runs, docker_stopped, docker_failed, docker_not_failed, docker_masked, docker_socket_down,
    docker_not_enabled, containerd_down, daemon_json_malformed, daemon_json_sound, daemon_json_refused, hosts_in_daemon_json, storage_driver_forced,
    storage_is_vfs, docker_older_than_its_files, docker_older_than_toolkit, docker_newer_than_toolkit, docker_29,
    snap_docker, not_snap, podman_in_its_place, rootless, rootful, user_not_in_group, user_in_group, apparmor_parser_missing, forwarding_off,
    iptables_missing, cgroups_by_systemd, selinux_enforcing, toolkit_installed,
    toolkit_not_installed, hook_missing, hook_there, runtime_program_missing, runtime_not_registered, runtime_not_in_daemon_json, runtime_in_daemon_json,
    default_runtime_nvidia, no_cgroups_set, no_cgroups_not_set, toolkit_root_set, toolkit_1_17_7,
    toolkit_rootless_regression, library_missing, cdi_stale, cdi_twice, cdi_none, cdi_refresh_there, cdi_refresh_failed, cdi_off, cdi_turned_off, gpu_host,
)}
