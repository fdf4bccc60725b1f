"""Results that were printed as JSON, read back into values: what `provision.report.jsonout` writes for reports, plans, and hosts that gave none.

What an action is (its `Action`) is not in the JSON, so the items of a plan read back have none; all else is there again. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional, TypeVar

from provision.errors import UsageError
from provision.model import (
    Check,
    Decision,
    GpuRow,
    HostReport,
    Item,
    LastRun,
    Notice,
    Outcome,
    Plan,
    PlatformRow,
    Problem,
    Timing,
)
from provision.report.jsonout import SCHEMA
from provision.report.verdict import STATUS_OF_EXIT, report_of_plan
from provision.results import About

T = TypeVar("T")
MAX_BYTES = 1 << 30
_FIX = "Give files that `mlhost setup`, `verify`, `plan`, `apply` or `status` wrote with --format json or --report FILE.json."


class _Wrong(Exception):
    """What is not as it must be, and where."""


def read(text: str, name: str) -> tuple[About, tuple[HostReport, ...]]:
    """The results in a JSON text; `name` is what its file is called in errors. Raises UsageError for what holds none."""
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise _Wrong("it is no object")
        if document.get("schema") != SCHEMA:
            raise _Wrong(f"its `schema` is {document.get('schema')!r}, and {SCHEMA} is what can be read")
        about = About(*(_text(document, key, "") for key in ("command", "made", "version")))
        if "hosts" not in document:
            return replace(about, command=about.command or "plan"), (_host(document, ""),)
        reports = tuple(_host(part, f"hosts[{number}]: ") for number, part in enumerate(_objects(document, "hosts")))
        plans = bool(reports) and not about.command and "items" in document["hosts"][0]
        return replace(about, command="plan") if plans else about, reports
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{name} is no JSON: {error}.", _FIX) from None
    except _Wrong as wrong:
        raise UsageError(f"{name} holds no results of mlhost's: {wrong}.", _FIX) from None


def merged(parts: Sequence[tuple[About, Sequence[HostReport]]]) -> tuple[About, tuple[HostReport, ...]]:
    """Several files' results as one: a host that is in more than one has what the last of them says, at its first place."""
    hosts: dict[str, HostReport] = {}
    for _, reports in parts:
        hosts.update({report.target: report for report in reports})
    commands = dict.fromkeys(about.command for about, _ in parts if about.command)
    versions = dict.fromkeys(about.version for about, _ in parts if about.version)
    made = max((about.made for about, _ in parts), default="")
    return About(", ".join(commands), made, ", ".join(versions)), tuple(hosts.values())


def _host(part: Mapping[str, Any], where: str) -> HostReport:
    try:
        if "error" in part:
            return _error(part)
        if "items" in part:
            plan = _plan(part)
            return report_of_plan(_text(part, "target", "") or plan.host, plan)
        return _report(part)
    except _Wrong as wrong:
        raise _Wrong(f"{where}{wrong}") from None


def _error(part: Mapping[str, Any]) -> HostReport:
    error = _object(part, "error")
    code = _whole(error, "exit_code")
    return HostReport(
        _text(part, "target"), STATUS_OF_EXIT.get(code, "failed"), code, message=_text(error, "message"), fix=_text(error, "fix", "")
    )


def _report(part: Mapping[str, Any]) -> HostReport:
    return HostReport(
        target=_text(part, "target"),
        status=_text(part, "status"),
        exit_code=_whole(part, "exit_code"),
        before=_maybe(part, "before", _plan),
        after=_maybe(part, "after", _plan),
        outcomes=tuple(
            Outcome(_text(o, "id"), _text(o, "state"), _number(o, "seconds"), _text(o, "detail", "")) for o in _objects(part, "outcomes")
        ),
        checks=tuple(Check(_text(c, "id"), _text(c, "state"), _text(c, "evidence", ""), _text(c, "fix", "")) for c in _objects(part, "checks")),
        timings=tuple(Timing(_text(t, "name"), _number(t, "seconds")) for t in _objects(part, "timings")),
        message=_text(part, "message", ""),
        fix=_text(part, "fix", ""),
        run_ids=_texts(part, "run_ids"),
        log=_text(part, "log", ""),
        versions={key: _text(_object(part, "versions"), key) for key in _object(part, "versions")} if part.get("versions") else {},
        last_run=_maybe(part, "last_run", _last_run),
        drift=_texts(part, "drift"),
    )


def _last_run(part: Mapping[str, Any]) -> LastRun:
    rc = part.get("rc")
    texts = {key: _text(part, key, "") for key in ("since", "owner", "version", "playbook")}
    return LastRun(_text(part, "id"), _text(part, "state"), rc=None if rc is None else _whole(part, "rc"), **texts)


def _plan(part: Mapping[str, Any]) -> Plan:
    platform, consequences = _object(part, "platform"), _object(part, "consequences")
    megabytes = consequences.get("download_mb")
    return Plan(
        host=_text(part, "host"),
        platform=PlatformRow(
            **{key: _text(platform, key) for key in ("id", "version", "codename", "family", "arch")}, cloud=_text(platform, "cloud", "") or None
        ),
        gpus=tuple(GpuRow("", _text(g, "pci_id"), _text(g, "name"), _text(g, "architecture")) for g in _objects(part, "gpus")),
        decisions={
            key: Decision(_text(value, "action"), _text(value, "why"), {k: v for k, v in value.items() if k not in ("action", "why")})
            for key, value in ((key, _object(_object(part, "decisions"), key)) for key in _object(part, "decisions"))
        },
        items=tuple(
            Item(
                _text(i, "id"), _text(i, "step"), _text(i, "kind"), _text(i, "state"), _text(i, "why"), _object(i, "expected"), _object(i, "actual")
            )
            for i in _objects(part, "items")
        ),
        problems=tuple(
            Problem(_text(p, "id"), _text(p, "message"), _text(p, "fix", ""), _text(p, "id").startswith("system/")) for p in _objects(part, "problems")
        ),
        notices=tuple(Notice(_text(n, "id"), _text(n, "message")) for n in _objects(part, "notices")) if "notices" in part else (),
        reboot=_text(consequences, "reboot"),
        restarts=_texts(consequences, "restarts"),
        download_mb=None if megabytes is None else _whole(consequences, "download_mb"),
    )


# ---------------------------------------------------------------- one value of an object, of the kind it must be


def _maybe(part: Mapping[str, Any], key: str, make: Callable[[Mapping[str, Any]], T]) -> Optional[T]:
    return None if part.get(key) is None else make(_object(part, key))


def _text(part: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = part.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise _Wrong(f"`{key}` is no text")
    return value


def _whole(part: Mapping[str, Any], key: str) -> int:
    value = part.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Wrong(f"`{key}` is no whole number")
    return value


def _number(part: Mapping[str, Any], key: str) -> float:
    value = part.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
        raise _Wrong(f"`{key}` is no number of seconds")
    return float(value)


def _object(part: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = part.get(key)
    if not isinstance(value, dict):
        raise _Wrong(f"`{key}` is no object")
    return value


def _objects(part: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = part.get(key)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _Wrong(f"`{key}` is no list of objects")
    return value


def _texts(part: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = part.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise _Wrong(f"`{key}` is no list of texts")
    return tuple(value)
