"""plan(facts, spec, catalog) -> Plan: pure, no I/O, the whole decision for one host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from provision.catalog import Catalog
from provision.errors import Unsupported
from provision.model import CHANGE, LATER, REFUSED, Decision, Facts, GpuRow, Item, Plan, PlatformRow, Problem
from provision.rows import Platform
from provision.spec import Spec
from provision.steps import Context, Result, daemon, docker, driver, network, preflight, smoke, storage, toolkit


class Step(Protocol):
    """A user's own step."""

    name: str

    def __call__(self, facts: Facts, spec: Spec, platform: Platform) -> Iterable[Item]: ...


def watched(spec: Spec, steps: Sequence[Step] = ()) -> tuple[str, ...]:
    """The paths whose state the probe must report for this spec."""
    paths = [*driver.WATCHED]
    if spec.proxy.http or spec.proxy.https:
        paths += network.WATCHED
    for step in steps:
        paths += getattr(step, "watch", ())
    return tuple(dict.fromkeys(paths))


def watched_disks(spec: Spec) -> tuple[str, ...]:
    """The directories whose free space the probe must report."""
    return ("/", spec.docker.data_root or "/var/lib/docker")


def plan(facts: Facts, spec: Spec, catalog: Catalog, steps: Sequence[Step] = ()) -> Plan:
    """Decide everything for one host. An unsupported system still gives a plan, with the refusal among its problems."""
    cloud = catalog.cloud(facts.dmi)
    problems = list(preflight.system(facts, spec.preflight.allow_container))
    try:
        platform = catalog.platform(facts.os, facts.arch)
    except Unsupported as error:
        row = PlatformRow(facts.os.id, facts.os.version_id, facts.os.codename, "", facts.arch, cloud, facts.os.pretty_name)
        problems.append(Problem("system/unsupported", error.message, error.fix, unsupported=True))
        return _unsupported(facts, catalog, row, problems)
    row = PlatformRow(platform.id, platform.version, platform.codename, platform.family, facts.arch, cloud, facts.os.pretty_name)
    if problems:
        return _unsupported(facts, catalog, row, problems)
    ctx = Context(facts, spec, platform, catalog)
    before = preflight.decide(ctx)
    net, disk = network.decide(ctx), storage.decide(ctx)
    engine_result, engine = docker.decide(ctx)
    driver_result, state = driver.decide(ctx)
    tool = toolkit.decide(ctx, engine, state)
    wanted: dict[str, Any] = daemon.wanted(ctx, engine) if engine else {}
    for key, value in tool.daemon.items():
        wanted[key] = {**wanted[key], **value} if isinstance(wanted.get(key), dict) and isinstance(value, dict) else value
    configured = daemon.decide(ctx, engine, wanted, early=not tool.daemon)
    people = docker.access(ctx) if engine else Result()
    toolkit_there = tool.decisions[toolkit.STEP].action in ("install", "keep") or bool(tool.daemon)
    proof = smoke.decide(ctx, engine, state, toolkit_there)
    results = [before, net, disk, engine_result, driver_result, tool, configured, people, proof]
    own = [item for step in steps for item in step(facts, spec, platform)]
    items = sorted([i for r in results for i in r.items] + own, key=lambda item: item.phase)
    items = _later(items)
    decisions: dict[str, Decision] = {}
    for result in results:
        decisions.update(result.decisions)
        problems += result.problems
    changes = any(i.state == CHANGE for i in items)
    urls = tuple(dict.fromkeys(url for r in results for url in r.urls)) if changes else ()
    installs = {i.id for i in items if i.state == CHANGE and i.kind == "packages"}
    problems += preflight.space(
        ctx, "docker/packages" in installs, "driver/packages" in installs, "toolkit/packages" in installs, bool(installs)
    )
    problems += preflight.reachable(urls, dict(facts.reach))
    if problems:
        items = [replace(i, state=REFUSED) if i.state == CHANGE else i for i in items]
    kinds = {i.kind for i in items if i.state == CHANGE}
    return Plan(
        host=facts.host,
        platform=row,
        gpus=_gpus(ctx.facts, catalog),
        decisions=decisions,
        items=tuple(items),
        problems=tuple(problems),
        notices=tuple(n for r in results for n in r.notices),
        reboot="needed" if "reboot" in kinds else "possible" if "kernel-module" in kinds else "no",
        restarts=tuple(r for i in items if i.state == CHANGE for r in i.restarts),
        urls=urls,
    )


def _later(items: list[Item]) -> list[Item]:
    """What comes after a reboot is decided after it; the plan says so instead of promising it."""
    out: list[Item] = []
    after = False
    for item in items:
        out.append(
            replace(item, state=LATER, action=None, why=f"after the reboot: {item.why}")
            if after and item.state == CHANGE
            else item
        )
        after = after or (item.kind == "reboot" and item.state == CHANGE)
    return out


def _gpus(facts: Facts, catalog: Catalog) -> tuple[GpuRow, ...]:
    rows = []
    for device in facts.gpus:
        model = catalog.gpu(device.device, device.subsystem or None)
        rows.append(GpuRow(device.address, f"{device.vendor}:{device.device}", model.name, model.generation))
    return tuple(rows)


def _unsupported(facts: Facts, catalog: Catalog, row: PlatformRow, problems: list[Problem]) -> Plan:
    refusal = Decision("refuse", problems[0].message)
    decisions = dict.fromkeys(("docker", "driver", "toolkit", "fabricmanager", "smoke"), refusal)
    item = Item("system", "preflight", "system", REFUSED, problems[0].message)
    return Plan(facts.host, row, _gpus(facts, catalog), decisions, (item,), tuple(problems))


def digest(plan: Plan) -> str:
    """A short name for what the plan does: the same changes by the same actions give the same digest."""
    text = "\n".join(f"{i.id} {i.state} {i.action!r}" for i in plan.items)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
