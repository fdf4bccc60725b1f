"""plan(facts, spec, catalog) -> Plan: pure, no I/O, the whole decision for one host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from provision import daemonjson
from provision.catalog import Catalog
from provision.cudafit import ImageConfig
from provision.errors import Unsupported
from provision.model import CHANGE, LATER, REFUSED, Decision, Facts, GpuRow, Item, Plan, PlatformRow, Problem
from provision.rows import Platform
from provision.spec import Spec
from provision.steps import (
    Context,
    Result,
    access,
    daemon,
    docker,
    driver,
    network,
    preflight,
    repository,
    rundefaults,
    smoke,
    storage,
    toolkit,
)

# What a proof depends on; a service that is only started again is the same as before.
PROVED_KINDS = ("packages", "json-merge", "runfile", "kernel-module", "reboot")


class Step(Protocol):
    """A user's own step."""

    name: str

    def __call__(self, facts: Facts, spec: Spec, platform: Platform) -> Iterable[Item]: ...


def plan(facts: Facts, spec: Spec, catalog: Catalog, steps: Sequence[Step] = (), image: ImageConfig | None = None) -> Plan:
    """Decide everything for one host. An unsupported system still gives a plan, with the refusal among its problems.

    `image` is what a registry says of the image that the plan would run (see `smoke.unasked`), None where nobody has asked.
    """
    row = PlatformRow(
        facts.os.id, facts.os.version_id, facts.os.codename, "", facts.arch, catalog.cloud(facts.dmi), facts.os.pretty_name
    )
    surroundings = preflight.system(facts, spec.preflight.allow_container)
    try:
        platform = catalog.platform(facts.os, facts.arch)
    except Unsupported as error:
        problem = Problem("system/unsupported", error.message, error.fix, unsupported=True)
        return _unsupported(facts, catalog, row, (*surroundings, problem))
    row = replace(row, id=platform.id, version=platform.version, codename=platform.codename, family=platform.family)
    ctx = Context(facts, spec, platform, catalog, image)
    results = _results(ctx)
    own = [item for step in steps for item in step(facts, spec, platform)]
    items = _later(sorted([*_distinct(results), *own], key=lambda item: item.phase))
    decisions = {name: decision for result in results for name, decision in result.decisions.items()}
    urls = _urls(results) if any(i.state == CHANGE for i in items) else ()
    if any(i.state == CHANGE and i.kind == "packages" for i in items):
        urls = tuple(dict.fromkeys((*urls, *repository.own_index(ctx))))
    problems = (*surroundings, *(p for r in results for p in r.problems), *preflight.before(ctx, items, urls))
    if problems:
        items = [replace(i, state=REFUSED) if i.state == CHANGE else i for i in items]
    if surroundings:
        decisions = {name: _refused(decision, surroundings[0]) for name, decision in decisions.items()}
    kinds = {i.kind for i in items if i.state == CHANGE}
    return Plan(
        host=facts.host,
        platform=row,
        gpus=_gpus(facts, catalog),
        decisions=decisions,
        items=tuple(items),
        problems=problems,
        notices=tuple(dict.fromkeys(n for r in results for n in r.notices)),
        reboot="needed" if "reboot" in kinds else "possible" if "kernel-module" in kinds else "no",
        restarts=tuple(dict.fromkeys(r for i in items if i.state == CHANGE for r in i.restarts)),
        urls=urls,
    )


def _results(ctx: Context) -> list[Result]:
    """What each step decides. Later ones see what earlier ones will have made of the host."""
    net, disk = network.decide(ctx), storage.decide(ctx)
    engine_result, engine = docker.decide(ctx)
    driver_result, state = driver.decide(ctx)
    tool = toolkit.decide(ctx, engine, state)
    keys = daemonjson.overlay(dict(tool.daemon), daemon.wanted(ctx, engine)) if engine else {}
    restart = "; ".join(r.restart for r in (tool, net) if r.restart)
    configured = daemon.decide(ctx, engine, keys, restart)
    people = access.decide(ctx) if engine else Result()
    before = [preflight.decide(ctx), net, disk, engine_result, driver_result, tool, configured, people, rundefaults.decide(ctx)]
    changing = tuple(i.id for r in before for i in r.items if i.state == CHANGE and i.kind in PROVED_KINDS)
    there = tool.decisions[toolkit.STEP].action in ("install", "keep") or bool(tool.daemon)
    return [*before, smoke.decide(ctx, engine, state, there, changing)]


def _distinct(results: Iterable[Result]) -> list[Item]:
    """All items, each id once: the driver and its fabric manager may want the same source."""
    return list({item.id: item for result in results for item in result.items}.values())


def _urls(results: Iterable[Result]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(url for result in results for url in result.urls))


def _later(items: list[Item]) -> list[Item]:
    """What comes after a reboot is decided after it; the plan says so instead of promising it."""
    out: list[Item] = []
    after = False
    for item in items:
        waits = after and item.state == CHANGE
        out.append(replace(item, state=LATER, action=None, why=f"after the reboot: {item.why}") if waits else item)
        after = after or (item.kind == "reboot" and item.state == CHANGE)
    return out


def _gpus(facts: Facts, catalog: Catalog) -> tuple[GpuRow, ...]:
    rows = []
    for device in facts.gpus:
        model = catalog.gpu(device.device, device.subsystem or None)
        rows.append(GpuRow(device.address, f"{device.vendor}:{device.device}", model.name, model.generation))
    return tuple(rows)


def _refused(decision: Decision, problem: Problem) -> Decision:
    return replace(decision, action="refuse", why=problem.message)


def _unsupported(facts: Facts, catalog: Catalog, row: PlatformRow, problems: tuple[Problem, ...]) -> Plan:
    """A plan that decides nothing, for a system of which nothing is known."""
    details: Mapping[str, Mapping[str, object]] = {
        docker.STEP: docker.nothing(),
        driver.STEP: driver.nothing(),
        toolkit.STEP: {"version": None, "packages": [], "repository": None},
        "fabricmanager": {"packages": []},
        smoke.STEP: {"image": None},
    }
    decisions = {name: Decision("refuse", problems[0].message, values) for name, values in details.items()}
    item = Item("system", "preflight", "system", REFUSED, problems[0].message)
    return Plan(facts.host, row, _gpus(facts, catalog), decisions, (item,), problems)


# What forbids any work on a host, whatever it is.
ALWAYS = ("system/", "preflight/root", "preflight/dpkg", "preflight/clock", "preflight/lock")


def restricted(whole: Plan, ids: Sequence[str]) -> Plan:
    """The part of a plan that these items are. What stands in the way of others does not stand in the way of these."""
    problems = tuple(p for p in whole.problems if p.id in ids or p.id.startswith(ALWAYS))
    chosen = [i for i in whole.items if i.id in ids]
    if not problems:
        chosen = [replace(i, state=CHANGE) if i.state == REFUSED and i.action is not None else i for i in chosen]
    changing = {i.kind for i in chosen if i.state == CHANGE}
    return replace(
        whole, items=tuple(chosen), problems=problems, notices=(), urls=(),
        reboot="needed" if "reboot" in changing else "no",
        restarts=tuple(dict.fromkeys(r for i in chosen if i.state == CHANGE for r in i.restarts)),
    )


def digest(plan: Plan) -> str:
    """A short name for what the plan does: the same changes by the same actions give the same digest."""
    text = "\n".join(f"{i.id} {i.state} {i.action!r}" for i in plan.items)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
