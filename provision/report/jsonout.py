"""Plans, facts and reports for programs: plain JSON values, versioned by `schema`. The schemas are in `provision/data/schema`.

Texts stay as the host gave them (JSON escapes what a terminal could trip over; print with `ensure_ascii`), except that passwords in URLs
are replaced and bytes are summarised.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from provision import openpgp
from provision.errors import Error
from provision.model import Decision, Facts, HostReport, Item, Plan
from provision.report.sanitize import redact
from provision.report.verdict import fleet_exit_code
from provision.results import NOTHING, About

SCHEMA = 1


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as the outside contract has it, plus `notices`."""
    return {
        "schema": SCHEMA,
        "host": _value(plan.host),
        "platform": {key: _value(getattr(plan.platform, key)) for key in ("id", "version", "codename", "family", "arch", "cloud")},
        "gpus": [{"pci_id": gpu.pci_id, "name": gpu.name, "architecture": gpu.architecture} for gpu in plan.gpus],
        "decisions": {name: _decision(decision) for name, decision in plan.decisions.items()},
        "items": [_item(item) for item in plan.items],
        "consequences": {"reboot": plan.reboot, "restarts": list(plan.restarts), "download_mb": plan.download_mb},
        "problems": [{"id": p.id, "message": _value(p.message), "fix": _value(p.fix)} for p in plan.problems],
        "notices": [{"id": n.id, "message": _value(n.message)} for n in plan.notices],
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {"action": decision.action, **_value(decision.details), "why": _value(decision.why)}


def _item(item: Item) -> dict[str, Any]:
    return {key: _value(getattr(item, key)) for key in ("id", "step", "kind", "state", "expected", "actual", "why")}


def facts_json(facts: Facts) -> dict[str, Any]:
    """All facts; null is unknown. Keyrings become the fingerprints of their keys, other bytes a hash and a length."""
    values = _value(facts)
    values["keyrings"] = {path: _keyring(content) for path, content in facts.keyrings.items()}
    return {"schema": SCHEMA, **values}


def _keyring(content: bytes) -> dict[str, Any]:
    summary = _summary(content)
    try:
        return {"fingerprints": list(openpgp.fingerprints(content)), **summary}
    except ValueError:
        return {"fingerprints": [], **summary}


def _summary(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def report_json(reports: Sequence[HostReport], about: About = NOTHING) -> dict[str, Any]:
    """What a command did on its hosts, in the order given, with the exit code it ends with. `provision.report.saved` reads it again."""
    return {
        "schema": SCHEMA,
        **_value(about),
        "exit_code": fleet_exit_code(reports),
        "hosts": [host_report_json(report) for report in reports],
    }


def report_json_text(reports: Sequence[HostReport], about: About = NOTHING) -> Iterator[str]:
    """`report_json` as text in ASCII, piece by piece: a host's values are made when they are written, so that ten thousand need no more room than one."""
    head = json.dumps({"schema": SCHEMA, **_value(about), "exit_code": fleet_exit_code(reports)}, indent=2, ensure_ascii=True)
    yield head[:-2] + ',\n  "hosts": ['
    for number, report in enumerate(reports):
        text = json.dumps(host_report_json(report), indent=2, ensure_ascii=True)
        yield f"{',' if number else ''}\n{text}".replace("\n", "\n    ")
    yield "\n  ]\n}\n" if reports else "]\n}\n"


def host_report_json(report: HostReport) -> dict[str, Any]:
    """One host's part of `report_json`; `before` and `after` are plans (or null), `log` is where the full log is or how it ended."""
    before = plan_json(report.before) if report.before else None
    return {
        "target": _value(report.target),
        "status": report.status,
        "exit_code": report.exit_code,
        "message": _value(report.message),
        "fix": _value(report.fix),
        "before": before,
        "after": before if report.after is report.before else plan_json(report.after) if report.after else None,
        "outcomes": _value(report.outcomes),
        "checks": _value(report.checks),
        "timings": _value(report.timings),
        "run_ids": list(report.run_ids),
        "log": _value(report.log),
        "versions": _value(report.versions),
        "last_run": _value(report.last_run),
        "drift": _value(report.drift),
    }


def error_json(target: str, error: Exception | None) -> dict[str, Any]:
    """A host that gave no plan or facts, among several: what went wrong there."""
    known = error if isinstance(error, Error) else None
    return {
        "schema": SCHEMA,
        "target": _value(target),
        "error": {
            "message": _value(known.message if known else f"{type(error).__name__}: {error}"),
            "fix": _value(known.fix) if known else "",
            "exit_code": known.exit_code if known else 1,
        },
    }


def many_json(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several hosts' plans or facts in one document."""
    return {"schema": SCHEMA, "hosts": [dict(part) for part in parts]}


@lru_cache(maxsize=256)
def _fields(kind: type[Any]) -> tuple[str, ...] | None:
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def _value(value: object) -> Any:
    """Any of the model's values as JSON: dataclasses and mappings become objects, tuples lists, texts lose URL passwords, bytes are summarised."""
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, bytes):
        return _summary(value)
    kind: Any = type(value)
    names = _fields(kind)
    if names is not None:
        return {name: _value(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {redact(str(key)): _value(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(part) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_value(part) for part in value), key=str)
    return redact(str(value))
