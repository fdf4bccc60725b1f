"""The daemon's configuration and its service: one merged daemon.json, at most one restart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from provision import daemonjson
from provision.actions import JsonMerge, Service
from provision.model import CHANGE, LATER, Facts, Item, Notice, Problem
from provision.steps import BEFORE_PACKAGES, FILES, SERVICES, Context, Result, becomes_image, refused, settled
from provision.steps.engine import Engine, fate, restarts
from provision.watched import PROXY_DROP_IN, PROXY_ENVIRONMENT

STEP = "docker"
# Docker looks for these two only when it starts; it finds an upgraded one by itself.
HOOKS = ("/usr/bin/nvidia-cdi-hook", "/usr/bin/nvidia-container-runtime-hook")
# Read when Docker starts; newer than its start means that it runs with something older.
CONFIGURATION = (daemonjson.PATH, PROXY_DROP_IN, PROXY_ENVIRONMENT)
PID_FILE = "/run/docker.pid"
LOADED_STAMP = "/run/mlhost/docker.loaded"
# What `systemctl is-enabled` and `is-active` call a success, as the script's own check asks them. Source: systemctl(1).
ENABLED = ("enabled", "enabled-runtime", "static", "indirect", "generated", "alias")
ACTIVE = ("active", "reloading")


def wanted(ctx: Context, engine: Engine) -> dict[str, Any]:
    """The keys the playbook wants in daemon.json."""
    spec = ctx.spec.docker
    keys: dict[str, Any] = {}
    if spec.log.max_size:
        # Docker's `local` driver rotates by the same two options; it stays where the user has it.
        keys["log-driver"] = "local" if there(ctx.facts).get("log-driver") == "local" else "json-file"
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
        features = there(ctx.facts).get("features")
        if (engine.fresh and engine.at_least(29)) or (isinstance(features, dict) and "containerd-snapshotter" in features):
            keys["features"] = {"containerd-snapshotter": False}
    merged: dict[str, Any] = daemonjson.overlay(keys, spec.daemon)
    return merged


def _limit(value: str) -> int:
    return -1 if value == "unlimited" else int(value)


def there(facts: Facts) -> dict[str, Any]:
    """What daemon.json says now; {} where it cannot be read, which `decide` refuses."""
    try:
        return daemonjson.parse(facts.daemon_json or "")
    except daemonjson.Malformed:
        return {}


def decide(ctx: Context, engine: Engine | None, keys: Mapping[str, Any], restart: str = "") -> Result:
    """The items `docker/daemon.json` and `docker/service`. `restart` says what else Docker only sees when it is started anew."""
    facts = ctx.facts
    if facts.daemon_json is None:
        message = f"{daemonjson.PATH} is there but could not be read."
        return _refusal(Problem("docker/daemon.json", message, "Run mlhost as root or with sudo rights on the host."))
    try:
        merge = daemonjson.merge(facts.daemon_json, keys)
    except daemonjson.Malformed as error:
        fix = "Correct it (`sudo dockerd --validate` shows whether Docker takes it); mlhost does not touch a file it cannot read."
        return _refusal(Problem("docker/daemon.json", f"{daemonjson.PATH} is not what Docker accepts: {error}.", fix))
    if engine is None:
        return Result()
    items = [_file(facts, engine, merge, keys)] if keys else []
    problem = _unwilling(facts, keys)
    if problem:
        return Result((*items, refused(STEP, "service", problem, SERVICES)), problems=(problem,))
    items.append(_service(ctx, engine, merge, bool(keys), restart))
    return Result(tuple(items), notices=_moved(facts, engine, merge, keys))


def _refusal(problem: Problem) -> Result:
    return Result((refused(STEP, "json-merge", problem, FILES),), problems=(problem,))


def _file(facts: Facts, engine: Engine, merge: daemonjson.Merge, keys: Mapping[str, Any]) -> Item:
    identifier = "docker/daemon.json"
    if not merge.changed:
        return settled(STEP, identifier, "json-merge", "it already says all that is wanted", dict(keys), FILES)
    shown = ", ".join(merge.changed)
    why = f"{shown} {'is' if len(merge.changed) == 1 else 'are'} to be set; everything else in the file stays"
    old = daemonjson.parse(facts.daemon_json or "")
    new = daemonjson.parse(merge.text)
    return Item(
        identifier,
        STEP,
        "json-merge",
        CHANGE,
        why,
        {k: new.get(k) for k in merge.changed},
        {k: old.get(k) for k in merge.changed},
        JsonMerge(daemonjson.PATH, facts.daemon_json_sha256, merge.text),
        # A fresh engine is to find it at its very first start: data directory, image store and addresses are settled then.
        phase=BEFORE_PACKAGES if engine.fresh else FILES,
    )


def _unwilling(facts: Facts, keys: Mapping[str, Any]) -> Problem | None:
    """What keeps the service from being as it should, and is somebody's decision."""
    for name in ("docker.service", "docker.socket"):
        unit = facts.units.get(name)
        if unit and unit.load == "masked":
            fix = f"Allow it again with `sudo systemctl unmask {name}`."
            return Problem("docker/service", f"Somebody has masked {name} on this host, so that it cannot be started.", fix)
    if keys.get("live-restore") is True and facts.docker and facts.docker.swarm:
        message = "This host is in a Docker swarm, with which live-restore does not work: Docker would not start."
        return Problem("docker/service", message, "Drop `docker.live_restore: yes`, or take the host out of its swarm.")
    return None


def _moved(facts: Facts, engine: Engine, merge: daemonjson.Merge, keys: Mapping[str, Any]) -> tuple[Notice, ...]:
    if engine.fresh or "data-root" not in merge.changed:
        return ()
    old = facts.docker.root_dir if facts.docker and facts.docker.root_dir else "/var/lib/docker"
    text = f"Docker starts empty in {keys['data-root']}: images, containers and volumes in {old} stay there and are not moved."
    return (Notice("docker/data-root", text),)


def _stale(facts: Facts) -> tuple[str, ...]:
    """What Docker has not read since it changed. A GPU proof on record says that Docker had found the toolkit's hooks already."""
    newer = facts.docker.started_before if facts.docker else ()
    proved = facts.proof.get("gpus", "0") not in ("", "0")
    return tuple(p for p in newer if p != "/usr/bin/nvidia-container-runtime" and not (proved and p in HOOKS))


def _state(facts: Facts) -> tuple[dict[str, object], dict[str, object]]:
    """(expected, actual) of the service."""
    server = facts.docker.server if facts.docker else ""
    stale = " ".join(_stale(facts))
    if facts.systemd is False:
        return {"running": "active", "stale": ""}, {"running": "active" if server else "", "stale": stale}
    unit = facts.units.get("docker.service")
    running = ("active" if unit.active in ACTIVE else unit.active) if unit else ""
    if running == "active" and server == "":
        running = "not answering"
    enabled = "enabled" if unit and unit.enabled in ENABLED else unit.enabled if unit else ""
    return {"enabled": "enabled", "running": "active", "stale": ""}, {"enabled": enabled, "running": running, "stale": stale}


def _service(ctx: Context, engine: Engine, merge: daemonjson.Merge, configured: bool, restart: str) -> Item:
    facts, identifier = ctx.facts, "docker/service"
    expected, actual = _state(facts)
    stale = _stale(facts)
    up = {**actual, "stale": ""} == expected
    if up and not (stale or merge.changed or restart or engine.changes):
        why = "the service is enabled, runs, and has read its configuration" if facts.systemd is not False else "the daemon runs"
        return settled(STEP, identifier, "service", why, expected, SERVICES)
    again = engine.fresh or not up or bool(stale) or bool(restart) or merge.needs_restart
    action = Service(
        "docker.service",
        act="restart" if again else "reload",
        newer_than=tuple(dict.fromkeys((*CONFIGURATION, *stale, *(HOOKS if restart else ())))),
        stamps=(PID_FILE, LOADED_STAMP),
        restore=daemonjson.PATH if configured else "",
        probe="docker info",
    )
    if not engine.changes and not facts.live:
        why = "whether it runs is known only on the running system"
        return Item(identifier, STEP, "service", LATER, why, expected, {}, action if becomes_image(facts) else None, phase=SERVICES)
    why = _why(facts, engine, actual, restart)
    told: tuple[str, ...] = ()
    if again and up and not engine.changes:
        told = restarts(facts)
        why += f"; {fate(facts)}" if fate(facts) else ""
    return Item(identifier, STEP, "service", CHANGE, why, expected, actual, action, told, SERVICES)


def _why(facts: Facts, engine: Engine, actual: Mapping[str, object], restart: str) -> str:
    stale = _stale(facts)
    if engine.fresh:
        return "a service is only there once it runs now and after a boot"
    if actual["running"] != "active" or actual.get("enabled", "enabled") != "enabled":
        if "units" in facts.unknown and facts.systemd:
            return "systemd did not tell its state, so it is looked at again"
        said = facts.docker.error.splitlines()[0] if facts.docker and facts.docker.error else ""
        state = f"{actual['running'] or 'absent'}" + (f" and {actual['enabled'] or 'not enabled'}" if "enabled" in actual else "")
        return f"the service is {state}" + (f" ({said})" if said else "")
    if restart:
        return f"Docker has to be started again: {restart}"
    if engine.changes:
        return "it has to run again once its packages are replaced"
    if stale:
        return f"Docker was started before {', '.join(stale)} changed"
    return f"Docker has to read the changed {daemonjson.PATH}"
