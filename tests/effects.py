"""What a plan's changes would make of a host, on paper: the facts after it. A double of a run, in which everything goes well.

It stands beside the scripts' own tests (they show that a change does what it says); here the question is only whether the planner is content
with what it has asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from provision import actions
from provision.model import CHANGE, Facts, Package, PathFact, Plan, Unit
from provision.steps import smoke
from provision.steps.engine import ENGINE_PACKAGES, upstream
from tests.machines import KEY, with_source, working

NEWEST = {"docker-ce": "5:29.8.1-1~x", "docker-ce-cli": "5:29.8.1-1~x", "docker.io": "28.2.2+dfsg1-1"}
RPM_NEWEST = {"amzn": "25.0.18-1.amzn2023", "azurelinux": "25.0.3-9.azl3", "fedora": "29.1.0-1", "suse": "28.5.1_ce-1"}
# What the frozen repositories of old systems have; elsewhere the newest is what comes.
FROZEN = {"16.04": {"docker-ce": "5:20.10.7~3-0~ubuntu-xenial", "docker-ce-cli": "5:20.10.7~3-0~ubuntu-xenial", "nvidia-container-toolkit": "1.12.0-1"}}
DRIVER = ("nvidia-compute-utils-G", "cuda-open", "cuda","nvidia-driver-cuda", "nvidia-utils-", "nvidia-smi", "nvidia-tesla-470-smi", "libnvidia-compute", "nvidia-headless")


def after(plan: Plan, facts: Facts) -> Facts:
    """The facts once the plan's stage has run, up to and including its first reboot."""
    for item in plan.items:
        if item.state != CHANGE or item.action is None:
            continue
        action = item.action
        if isinstance(action, actions.Packages):
            # What the preferences say too, apt is not told again; the plan expects it all the same.
            globs = {name: str(glob).replace("any", "") for name, glob in item.expected.items()}
            asked = tuple(replace(p, version=p.version or globs.get(p.name, "").replace("*ubuntu1", "*")) for p in action.install)
            action = replace(action, install=asked)
        facts = _BY_KIND[type(action)](facts, action)
        if isinstance(item.action, actions.Reboot):
            return facts
    return facts


def _repository(facts: Facts, action: actions.AptRepository) -> Facts:
    gone = (*action.obsolete, *(path for path, _ in action.edits))
    facts = replace(
        facts,
        apt_sources=tuple(s for s in facts.apt_sources if s.path not in gone),
        apt_source_texts={p: t for p, t in facts.apt_source_texts.items() if p not in gone},
    )
    for path, text in (*action.edits, (action.path, action.text)):
        facts = with_source(facts, path, text)
    return replace(facts, keyrings={**facts.keyrings, action.key.path: KEY}) if action.key else facts


def _rpm_repository(facts: Facts, action: actions.RpmRepository) -> Facts:
    gone = (*action.obsolete, *(path for path, _ in action.edits))
    facts = replace(
        facts,
        rpm_sources=tuple(s for s in facts.rpm_sources if s.path not in gone),
        rpm_source_texts={p: t for p, t in facts.rpm_source_texts.items() if p not in gone},
    )
    for path, text in (*action.edits, (action.path, action.text)):
        facts = with_source(facts, path, text)
    return replace(facts, keyrings={**facts.keyrings, action.key.path: KEY}) if action.key else facts


def _hold(facts: Facts, action: actions.Hold) -> Facts:
    known = facts.packages or {}
    assert all(known[name].installed for name in action.packages), "only what is installed can be held at its version"
    return replace(facts, packages={**known, **{name: replace(known[name], held=True) for name in action.packages}})


def _version(facts: Facts, package: actions.Package) -> str:
    if package.version.startswith("@"):
        return re.split("[_-]", facts.installed(package.version[1:]))[0] + "-1"
    stream = facts.modules.get("nvidia-driver", "")
    if not package.version and stream and package.name.startswith(("nvidia-driver", "nvidia-persistenced", "kmod-nvidia")):
        return f"3:{stream[:3]}.178.04-1.el9"
    if not package.version and package.name == "docker" and (facts.os.id, facts.os.version_id) == ("amzn", "2"):
        return "25.0.16-1.amzn2.0.1"
    if not package.version and package.name in ("docker", "moby-engine", "docker-cli", "moby-cli"):
        return RPM_NEWEST.get(facts.os.id, RPM_NEWEST["suse"])
    if package.name in ("cuda", "cuda-open"):
        return "580.178.04-1_6.6.104.2.4.azl3"
    if not package.version:
        have = facts.installed(package.name)
        name = package.name
        frozen = FROZEN.get(facts.os.version_id, {}).get(name.replace("nvidia-container-toolkit-base", "nvidia-container-toolkit"))
        if frozen:
            return frozen
        if name.startswith("libnvidia-container") and facts.os.version_id in FROZEN:
            return FROZEN[facts.os.version_id]["nvidia-container-toolkit"]
        if "container" in name and "nvidia" in name:
            return "1.20.1-1"
        if name.startswith(("libnvidia-", "nvidia-")):
            branch = next((part for part in name.split("-") if part.isdigit() and len(part) == 3), "550")
            return f"{branch}.163.01-2"
        return have or NEWEST.get(name, "1.0-1")
    text = package.version
    if not text.endswith("*"):
        return text
    stem = text[:-1]
    if stem.endswith("."):
        return f"{stem}178.04-1ubuntu1" if stem[:-1].isdigit() and len(stem) == 4 else f"{stem}3-1"
    return f"{stem}1ubuntu1" if stem[-1] in "-~" else f"{stem}+x-1"


def _packages(facts: Facts, action: actions.Packages) -> Facts:
    facts = replace(facts, modules={**facts.modules, **dict(m.split(":") for m in action.modules)})
    found = dict(facts.packages or {})
    for name in action.remove:
        found[name] = replace(found[name], status="config-files")
    for package in action.install:
        found[package.name] = Package(package.name, _version(facts, package))
        named = re.match(r"(kernel.*?)-\d+\.\d", package.name)
        if named:
            found.setdefault(named[1], Package(named[1], facts.kernel.rpartition(".")[0]))  # its own name has no release
    facts = replace(facts, packages=found)
    docker = facts.docker
    engine = next((name for name in (*ENGINE_PACKAGES, "docker") if facts.installed(name)), "")
    if engine and docker:
        version = upstream(facts.installed(engine))
        facts = replace(facts, docker=replace(docker, cli=version, dockerd=version, server=version, podman_docker=False))
        facts = _started(facts, "docker.service")
    if any(p.name == "nvidia-container-toolkit" for p in action.install):
        version = upstream(facts.installed("nvidia-container-toolkit"))
        tool = replace(facts.toolkit, ctk="/usr/bin/nvidia-ctk", hook="/usr/bin/nvidia-container-runtime-hook", version=version)
        facts = replace(facts, toolkit=tool)
    made = next((facts.installed(p.name) for p in action.install if p.name.startswith(DRIVER) and "container" not in p.name), "")
    if made and facts.nvidia:
        facts = replace(facts, nvidia=replace(facts.nvidia, on_disk=re.split("[-_+~]", made.partition(":")[2] or made)[0]))
    return facts


def _started(facts: Facts, name: str) -> Facts:
    return replace(facts, units={**facts.units, name: Unit(name, "loaded", "active", "enabled")})


def _service(facts: Facts, action: actions.Service) -> Facts:
    unit = facts.units.get(action.name)
    if action.optional and (unit is None or unit.load == "not-found"):
        return facts
    facts = _started(facts, action.name)
    if action.name == "docker.service" and facts.docker:
        text = json.loads(facts.daemon_json or "{}")
        facts = replace(
            facts,
            docker=replace(
                facts.docker,
                server=facts.docker.dockerd,
                started_before=(),
                root_dir=text.get("data-root", "/var/lib/docker"),
                error="",
            ),
        )
    return facts


def _enable(facts: Facts, action: actions.Enable) -> Facts:
    return replace(facts, units={**facts.units, action.unit: Unit(action.unit, "loaded", "", "enabled")})


def _module(facts: Facts, action: actions.KernelModule) -> Facts:
    assert facts.nvidia is not None
    installed = facts.packages or {}
    is_open = any("open" in name for name, p in installed.items() if p.installed and ("nvidia" in name or name == "cuda-open"))
    by_runfile = facts.nvidia.installed_by_runfile
    is_open = facts.nvidia.on_disk_license == LICENSES["open"] if by_runfile else is_open
    return working(facts, facts.nvidia.on_disk or "550.163.01", is_open, installed_by_runfile=by_runfile)


def _runfile(facts: Facts, action: actions.Runfile) -> Facts:
    assert facts.nvidia is not None
    assert ("--dkms" in action.options) == bool(facts.installed("dkms"))
    assert not action.cc or facts.installed(action.cc.rpartition("/")[2].partition("-")[0]), "the compiler has to be there first"
    assert not facts.nvidia.nouveau_loaded or facts.paths["/etc/modprobe.d/mlhost-nouveau.conf"].kind == "file", "nouveau would come back"
    flavor = "open" if "--kernel-module-type=open" in action.options else "proprietary"
    registered = PathFact("/var/lib/dkms/nvidia", "dir" if "--dkms" in action.options else "absent", "0755", "root:root")
    nvidia = replace(facts.nvidia, on_disk=action.version, on_disk_license=LICENSES[flavor], installed_by_runfile=True)
    return replace(facts, nvidia=nvidia, paths={**facts.paths, registered.path: registered})


LICENSES = {"open": "Dual MIT/GPL", "proprietary": "NVIDIA"}


def _reboot(facts: Facts, action: actions.Reboot) -> Facts:
    assert facts.nvidia is not None
    return replace(working(facts, facts.nvidia.on_disk), boot_id="8d2f4a2e-0000-4000-8000-000000000002")


def _file(facts: Facts, action: actions.File) -> Facts:
    if action.path.endswith(".repo"):
        return with_source(facts, action.path, action.content or "")
    digest = hashlib.sha256((action.content or "").encode()).hexdigest()
    return replace(facts, paths={**facts.paths, action.path: PathFact(action.path, "file", action.mode, action.owner, digest)})


def _json(facts: Facts, action: actions.JsonMerge) -> Facts:
    return replace(facts, daemon_json=action.content, daemon_json_sha256=hashlib.sha256(action.content.encode()).hexdigest())


def _member(facts: Facts, action: actions.GroupMember) -> Facts:
    return replace(facts, groups={**facts.groups, action.group: (*facts.groups.get(action.group, ()), action.user)})


def _mount(facts: Facts, action: actions.Mount) -> Facts:
    disks = tuple(
        replace(d, mounts=(action.path,)) if f"/dev/{d.name}" == action.device else d for d in facts.block_devices or ()
    )
    return replace(facts, block_devices=disks)


def _smoke(facts: Facts, action: actions.Smoke) -> Facts:
    return replace(facts, proof={**smoke.inputs(facts, action), "time": "2026-11-23T04:00:00Z", "boot_id": facts.boot_id or ""})


def _command(facts: Facts, action: actions.Command) -> Facts:
    if "amazon-linux-extras" in action.change:
        name = "amzn2extra-" + action.change.rpartition(" ")[2]
        return with_source(facts, "/etc/yum.repos.d/amzn2-extras.repo", f"[{name}]\nenabled = 1\nname = Amazon Extras\ngpgcheck = 1\n")
    if "subscription-manager" in action.change:
        name = action.change.partition("--enable=")[2]
        return replace(facts, rpm_sources=tuple(replace(s, enabled=True) if s.id == name else s for s in facts.rpm_sources))
    if "create-device-nodes" in action.change:
        nodes = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm")
        return replace(facts, nvidia=replace(facts.nvidia, device_nodes=nodes) if facts.nvidia else None)
    if "cdi" in action.change:
        driver = facts.nvidia.driver_version if facts.nvidia else ""
        return replace(facts, toolkit=replace(facts.toolkit, cdi_specs={"/var/run/cdi/nvidia.yaml": driver}))
    if action.change == "dpkg_repair":
        whole = {
            n: replace(p, status="installed") if p.status != "config-files" else p for n, p in (facts.packages or {}).items()
        }
        return replace(facts, packages=whole, dpkg_interrupted=False)
    return facts


_BY_KIND: dict[type, Callable[[Facts, Any], Facts]] = {
    actions.AptRepository: _repository,
    actions.RpmRepository: _rpm_repository,
    actions.Hold: _hold,
    actions.Packages: _packages,
    actions.Service: _service,
    actions.Enable: _enable,
    actions.Runfile: _runfile,
    actions.KernelModule: _module,
    actions.Reboot: _reboot,
    actions.File: _file,
    actions.JsonMerge: _json,
    actions.GroupMember: _member,
    actions.Mount: _mount,
    actions.Smoke: _smoke,
    actions.Command: _command,
}
