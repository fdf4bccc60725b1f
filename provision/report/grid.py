"""Hosts × layers, version skew, causes and times: what a report says at a glance, as values. Pure; how it looks is `provision.report.page`'s."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from provision.model import HostReport, Plan
from provision.report.text import gpus_line
from provision.versions import COMPONENTS

LAYERS = {"system": "System", "gpu": "GPU", "driver": "Driver", "docker": "Docker", "toolkit": "Toolkit", "smoke": "Smoke"}
"""The columns of the grid, in the order in which they carry each other. `own` comes after them, where a playbook has steps of its own."""

# From worst to best: what a layer is where its parts differ.
RANK = ("failed", "refused", "drift", "change", "later", "changed", "ok", "skipped", "unknown")
WORDS = {
    "failed": "failed", "refused": "refused", "drift": "drifted", "change": "pending", "later": "later", "changed": "changed", "ok": "right",
    "skipped": "not there", "unknown": "unknown",
}

_OF_STEP = {
    "preflight": "system", "system": "system", "proxy": "system", "storage": "system", "image": "system", "driver": "driver", "docker": "docker",
    "run": "docker", "toolkit": "toolkit", "smoke": "smoke",
}
_OF_CHECK = {
    "system": "system", "disk": "system", "pci": "gpu", "kernel-module": "driver", "device-nodes": "driver", "nvidia-smi": "driver",
    "persistenced": "driver", "fabric": "driver", "next-kernel": "driver", "driver": "driver", "docker": "docker", "logs": "docker",
    "shm": "docker", "runtime": "toolkit", "cdi": "toolkit", "container": "smoke", "gpus": "smoke", "proof": "smoke", "workload": "smoke",
}
_OF_ID = {"driver/no-gpu": "gpu", "driver/unknown-gpu": "gpu", "driver/too-old": "gpu"}


@dataclass(frozen=True)
class Cell:
    """A layer of a host: its state (see RANK), the version or name of what is there, and the sentence that decided, where it is not right."""

    state: str
    text: str = ""
    why: str = ""


def layer_of(identifier: str, step: str = "") -> str:
    """The layer that an item, a problem or a check belongs to; "own" for those of the user's own steps, "" for what is about no layer."""
    if identifier == "plan":
        return ""
    head = identifier.partition("/")[0]
    found = _OF_ID.get(identifier) or _OF_STEP.get(step) or _OF_CHECK.get(identifier) or _OF_STEP.get(head)
    if found:
        return found
    return "smoke" if identifier.startswith(("container-", "reload")) else "own" if step else ""


def plan_of(report: HostReport) -> Plan | None:
    """The plan that says how the host is now."""
    return report.after or report.before


def cells(report: HostReport) -> dict[str, Cell]:
    """Every layer of one host, and `own` where there is something in it."""
    worst: dict[str, tuple[int, str]] = {}

    def say(layer: str, state: str, why: str) -> None:
        rank = RANK.index(state) if state in RANK else RANK.index("unknown")
        if layer and rank < worst.get(layer, (len(RANK), ""))[0]:
            worst[layer] = (rank, why)

    plan, steps = plan_of(report), {}
    for item in plan.items if plan else ():
        steps[item.id] = item.step
        state = "drift" if item.id in report.drift and item.state != "ok" else item.state
        say(layer_of(item.id, item.step), state, f"{item.id}: {item.why}" if item.state != "ok" else "")
    for problem in plan.problems if plan else ():
        say(layer_of(problem.id), "refused", problem.message)
    for outcome in report.outcomes:
        if outcome.state in ("failed", "changed"):
            say(layer_of(outcome.id, steps.get(outcome.id, "")), outcome.state, f"{outcome.id}: {outcome.detail}" if outcome.state == "failed" else "")
    for check in report.checks:
        say(layer_of(check.id), check.state, f"{check.id}: {check.evidence}" if check.state == "failed" else "")
    texts = _texts(report, plan)
    if plan:
        say("system", "ok", "")
        say("gpu", "ok" if plan.gpus else "skipped", "")
        for layer in ("driver", "toolkit"):
            decision = plan.decisions.get(layer)
            say(layer, {"skip": "skipped", "keep": "ok"}.get(decision.action, "unknown") if decision is not None else "unknown", "")
    found = {layer: Cell(*_named(worst.get(layer), texts.get(layer, ""))) for layer in LAYERS}
    if found["smoke"].state in ("ok", "changed"):
        found["smoke"] = Cell(found["smoke"].state, "proved")
    return {**found, "own": Cell(*_named(worst["own"], ""))} if "own" in worst else found


def _named(rank: tuple[int, str] | None, text: str) -> tuple[str, str, str]:
    return ("unknown", text, "") if rank is None else (RANK[rank[0]], text, rank[1])


def _texts(report: HostReport, plan: Plan | None) -> dict[str, str]:
    seen = report.versions
    system = seen.get("system") or (f"{plan.platform.id} {plan.platform.version}".strip() if plan else "")
    return {
        "system": re.sub(r" GNU/Linux| \([^)]*\)$", "", system),
        "gpu": re.sub(r"NVIDIA | \([a-z]+\)", "", gpus_line(plan.gpus)) if plan and plan.gpus else "",
        **{layer: seen.get(layer, "") for layer in ("driver", "docker", "toolkit")},
    }


# ---------------------------------------------------------------- across the fleet


@dataclass(frozen=True)
class Version:
    """One version of a component ("" where it is not there) and the numbers of the hosts that have it."""

    text: str
    hosts: tuple[int, ...]
    odd: bool = False


@dataclass(frozen=True)
class Skew:
    """A component across the fleet: its versions, the most common first, and how many hosts did not tell."""

    name: str
    versions: tuple[Version, ...]
    unknown: int = 0


def skew(reports: Sequence[HostReport]) -> tuple[Skew, ...]:
    """Every component that any host told of. `odd` are the versions that are not the most common one."""
    out = []
    for key, name in COMPONENTS.items():
        hosts: dict[str, list[int]] = {}
        for number, report in enumerate(reports):
            told = _component(report, key)
            if told is not None:
                hosts.setdefault(told, []).append(number)
        if hosts:
            ordered = sorted(hosts.items(), key=lambda pair: (-len(pair[1]), pair[0]))
            versions = tuple(Version(text, tuple(numbers), place > 0) for place, (text, numbers) in enumerate(ordered))
            out.append(Skew(name, versions, len(reports) - sum(len(numbers) for numbers in hosts.values())))
    return tuple(out)


def _component(report: HostReport, key: str) -> str | None:
    plan = plan_of(report)
    if key == "gpus":
        return (gpus_line(plan.gpus) if plan.gpus else "") if plan else None
    if key == "system" and "system" not in report.versions and plan:
        return plan.platform.name or f"{plan.platform.id} {plan.platform.version}".strip()
    return report.versions.get(key)


@dataclass
class Cause:
    """One thing that is wrong, and the numbers of the hosts where it is."""

    text: str
    fix: str
    status: str
    hosts: list[int] = field(default_factory=list)


def causes(reports: Sequence[HostReport]) -> tuple[Cause, ...]:
    """What is wrong or pending, the same on several hosts told once: the worst first, then the most common."""
    found: dict[tuple[str, str, str], Cause] = {}
    for number, report in enumerate(reports):
        if not report.exit_code:
            continue
        text, fix = (_nameless(part, report) for part in (cause_of(report), report.fix))
        cause = found.setdefault((text, fix, shown(report)), Cause(text, fix, shown(report)))
        cause.hosts.append(number)
    return tuple(sorted(found.values(), key=lambda cause: (severity(cause.status), -len(cause.hosts), cause.hosts[0])))


def shown(report: HostReport) -> str:
    """The status for people: a host that was right and is not any more is another matter than one that is not set up yet."""
    return "drift" if report.drift and report.status == "pending" else report.status


def severity(status: str) -> int:
    """0 for trouble, 1 for what waits, 2 for what is fine."""
    return {"trouble": 0, "waiting": 1, "fine": 2}[kind(status)]


def kind(status: str) -> str:
    """`fine`, `waiting` (for a run, a reboot, somebody's consent to changes) or `trouble`."""
    if status in ("converged", "changed", "verified", "taken back", "nothing to take back"):
        return "fine"
    return "waiting" if status in ("pending", "drift", "running", "rebooting", "reboot", "not started") else "trouble"


def cause_of(report: HostReport) -> str:
    """What is wrong with a host, in a sentence; what else it says where nothing is."""
    plan = plan_of(report)
    if report.drift:
        return f"No longer as mlhost left it: {_listed(report.drift)}"
    if report.message and report.status != "pending":
        return report.message
    if plan and plan.problems:
        return plan.problems[0].message
    return f"Not as the playbook wants: {_listed(i.id for i in plan.items if i.state != 'ok')}" if plan else report.message or report.status


def _listed(ids: Iterable[str]) -> str:
    names = list(ids)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _nameless(text: str, report: HostReport) -> str:
    plan = plan_of(report)
    names = {report.target, report.target.rpartition("@")[2], report.target.rpartition("@")[2].partition(":")[0], plan.host if plan else ""}
    for name in sorted((name for name in names if len(name) > 2), key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "…", text)
    return text.removeprefix("…: ").replace(" on ….", ".")


@dataclass(frozen=True)
class Span:
    """A part of the work across the fleet, in seconds; `slowest` is a host's number."""

    name: str
    median: float
    most: float
    slowest: int
    hosts: int


def spans(reports: Sequence[HostReport]) -> tuple[Span, ...]:
    """How long each part took, in the order in which parts first come."""
    parts: dict[str, list[tuple[float, int]]] = {}
    for number, report in enumerate(reports):
        for timing in report.timings:
            parts.setdefault(timing.name, []).append((timing.seconds, number))
    out = []
    for name, pairs in parts.items():
        most, slowest = max(pairs, key=lambda pair: (pair[0], -pair[1]))
        out.append(Span(name, median(seconds for seconds, _ in pairs), most, slowest, len(pairs)))
    return tuple(out)


def totals(reports: Iterable[HostReport]) -> Mapping[str, int]:
    """How many hosts have each status, trouble first."""
    found: dict[str, int] = {}
    for report in reports:
        found[shown(report)] = found.get(shown(report), 0) + 1
    return dict(sorted(found.items(), key=lambda pair: (severity(pair[0]), -pair[1], pair[0])))
