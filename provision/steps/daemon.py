"""The daemon's configuration and its service: one merged daemon.json, at most one restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provision import daemonjson
from provision.actions import JsonMerge, Service
from provision.model import CHANGE, OK, REFUSED, Item, Problem
from provision.steps import BEFORE_PACKAGES, FILES, SERVICES, Context, Result
from provision.steps.docker import Engine

STEP = "docker"
# Docker reads these when it starts; newer than its start means that it runs with something older.
WATCHED = (
    daemonjson.PATH,
    "/usr/bin/nvidia-cdi-hook",
    "/usr/bin/nvidia-container-runtime-hook",
    "/usr/bin/nvidia-container-runtime",
    "/etc/systemd/system/docker.service.d/mlhost-proxy.conf",
    "/etc/mlhost/docker-proxy.env",
)
PID_FILE = "/run/docker.pid"
LOADED_STAMP = "/run/mlhost/docker.loaded"


def wanted(ctx: Context, engine: Engine) -> dict[str, Any]:
    """The keys the playbook wants in daemon.json."""
    spec = ctx.spec.docker
    keys: dict[str, Any] = {}
    if spec.log.max_size:
        keys["log-driver"] = "json-file"
        keys["log-opts"] = {"max-size": spec.log.max_size, "max-file": str(spec.log.max_file)}
    if spec.live_restore:
        keys["live-restore"] = spec.live_restore == "yes"
    if spec.shm_size:
        keys["default-shm-size"] = spec.shm_size
    if spec.ulimits:
        keys["default-ulimits"] = {
            name: {"Name": name, "Hard": _limit(value), "Soft": _limit(value)} for name, value in spec.ulimits.items()
        }
    if spec.insecure_registries:
        keys["insecure-registries"] = list(spec.insecure_registries)
    if ctx.spec.mirrors.registry:
        keys["registry-mirrors"] = list(ctx.spec.mirrors.registry)
    if spec.data_root:
        keys["data-root"] = spec.data_root
        # From 29.0 a fresh engine keeps images in containerd's own directory, which data-root does not move.
        if engine.fresh and engine.at_least(29):
            keys.setdefault("features", {})["containerd-snapshotter"] = False
    for key, value in spec.daemon.items():
        keys[key] = {**keys[key], **value} if isinstance(value, Mapping) and isinstance(keys.get(key), Mapping) else value
    return keys


def _limit(value: str) -> int:
    return -1 if value == "unlimited" else int(value)


def decide(ctx: Context, engine: Engine | None, keys: Mapping[str, Any], early: bool) -> Result:
    """The items `docker/daemon.json` and `docker/service`. `early`: nothing in `keys` needs a program that the packages bring."""
    facts = ctx.facts
    if facts.daemon_json is None:
        problem = Problem(
            "docker/daemon.json",
            f"{daemonjson.PATH} is there but could not be read.",
            "Run mlhost as root or with sudo rights on the host.",
        )
        return Result(
            (Item("docker/daemon.json", STEP, "json-merge", REFUSED, problem.message, phase=FILES),), problems=(problem,)
        )
    try:
        merge = daemonjson.merge(facts.daemon_json, keys)
    except daemonjson.Malformed as error:
        problem = Problem(
            "docker/daemon.json",
            f"{daemonjson.PATH} is not what Docker accepts: {error}.",
            "Correct it (`sudo dockerd --validate` shows whether Docker takes it); mlhost does not touch a file it cannot read.",
        )
        return Result(
            (Item("docker/daemon.json", STEP, "json-merge", REFUSED, problem.message, phase=FILES),), problems=(problem,)
        )
    if engine is None:
        return Result()
    items = []
    if merge.changed:
        shown = ", ".join(merge.changed)
        why = f"{shown} {'is' if len(merge.changed) == 1 else 'are'} to be set; everything else in the file stays"
        old = daemonjson.parse(facts.daemon_json)
        items.append(
            Item(
                "docker/daemon.json",
                STEP,
                "json-merge",
                CHANGE,
                why,
                {k: keys.get(k) for k in merge.changed},
                {k: old.get(k) for k in merge.changed},
                JsonMerge(daemonjson.PATH, facts.daemon_json_sha256, merge.text),
                phase=BEFORE_PACKAGES if early and engine.fresh else FILES,
            )
        )
    elif keys:
        state = dict(keys)
        items.append(
            Item(
                "docker/daemon.json",
                STEP,
                "json-merge",
                OK,
                "it already says all that the playbook wants",
                state,
                state,
                phase=FILES,
            )
        )
    items.append(_service(ctx, engine, merge, bool(keys)))
    return Result(tuple(items))


def _service(ctx: Context, engine: Engine, merge: daemonjson.Merge, configured: bool) -> Item:
    facts = ctx.facts
    unit = facts.units.get("docker.service")
    docker = facts.docker
    expected = {"enabled": "enabled", "running": "active", "stale": ""}
    stale = docker.started_before if docker else ()
    actual = {"enabled": unit.enabled if unit else "", "running": unit.active if unit else "", "stale": " ".join(stale)}
    if facts.systemd is False:
        expected, actual = (
            {"running": "active", "stale": ""},
            {"running": "active" if docker and docker.server else "", "stale": " ".join(stale)},
        )
        up = bool(docker and docker.server)
    else:
        up = bool(unit and unit.active == "active" and unit.enabled == "enabled" and docker and docker.server != "")
    restart = engine.fresh or not up or bool(stale) or merge.needs_restart
    action = Service(
        "docker.service",
        act="restart" if restart else "reload",
        newer_than=WATCHED,
        stamps=(PID_FILE, LOADED_STAMP),
        restore=daemonjson.PATH if configured else "",
        probe="docker info",
    )
    if up and not stale and not merge.changed:
        return Item(
            "docker/service",
            STEP,
            "service",
            OK,
            "the service is enabled, runs, and has read its configuration",
            expected,
            actual,
            phase=SERVICES,
        )
    if engine.fresh:
        why = "a service is only there once it runs now and after a boot"
    elif not up:
        why = f"the service is {actual['running'] or 'absent'} and {actual['enabled'] or 'not enabled'}"
        why = docker.error.splitlines()[0] if docker and docker.error and unit is None else why
    elif stale:
        why = f"Docker was started before {', '.join(stale)} changed"
    else:
        why = f"Docker has to read the changed {daemonjson.PATH}"
    running = docker.running_containers if docker else 0
    restarts: tuple[str, ...] = ()
    if restart and not engine.fresh and up:
        fate = (
            "they keep running (live-restore)"
            if docker and docker.live_restore
            else "they stop; those with a restart policy come back"
        )
        restarts = (
            f"docker.service ({running} containers are running: {fate})"
            if running
            else "docker.service (no container is running)",
        )
        if running:
            why += f"; {running} containers are running: {fate}"
    return Item("docker/service", STEP, "service", CHANGE, why, expected, actual, action, restarts, SERVICES)
