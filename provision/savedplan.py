"""A reviewed plan as a file: what was decided for which hosts, from which values, and what would tell that something has changed since.

The file is JSON: `{"mlhost_plan": 1, "version", "made", "by", "values", "steps": [{"path", "sha256"}], "hosts": [{"target", "host", "plan",
"actions": {item: hash}, "script"}], "sha256"}`. `values` are the playbook's effective values, which may hold a proxy's password, so the file is
for its owner's eyes. `sha256` is that of everything else. Pure.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from provision import __version__, playbook, render
from provision.errors import UsageError
from provision.model import CHANGE, Plan
from provision.playbook import Loaded
from provision.report.jsonout import plan_json
from provision.sh import Sh

FORMAT = 1
MAX_BYTES = 32 * 1024 * 1024
_AGAIN = "Make the plan again with `mlhost plan --out FILE`, and review that."


@dataclass(frozen=True)
class SavedHost:
    """One host's part: `target` None is this machine. `actions` and `script` are hashes."""

    target: str | None
    host: str
    plan: Mapping[str, Any]
    actions: Mapping[str, str]
    script: str


@dataclass(frozen=True)
class Saved:
    """A plan file, read and checked. `steps` are own steps' files with the hash they had."""

    loaded: Loaded
    hosts: tuple[SavedHost, ...]
    made: str
    by: str
    steps: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was reviewed."""

    id: str
    text: str


def saved_host(target: str | None, plan: Plan, ready: Plan) -> SavedHost:
    """What is kept of one host's plan. `ready` is the same plan with its keys fetched."""
    return SavedHost(target, plan.host, json.loads(json.dumps(plan_json(plan))), _actions(plan), _script(ready))


def write(hosts: Sequence[SavedHost], loaded: Loaded, *, made: str, by: str, steps: Iterable[tuple[str, str]] = ()) -> str:
    """The file's text. Raises UsageError for values that could not be read back."""
    values = dataclasses.asdict(loaded.spec)
    document: dict[str, Any] = {
        "mlhost_plan": FORMAT,
        "version": __version__,
        "made": made,
        "by": by,
        "values": values,
        "steps": [{"path": path, "sha256": digest} for path, digest in steps],
        "hosts": [dataclasses.asdict(host) for host in hosts],
    }
    if playbook.digest(replace(playbook.from_values(json.loads(json.dumps(values)), "the plan"), steps=loaded.spec.steps)) != loaded.digest:
        raise UsageError("These playbook values cannot be kept in a plan file.", "Use `mlhost setup` with the playbook itself.")
    return json.dumps({**document, "sha256": _sum(document)}, indent=2) + "\n"


def read(content: bytes, where: str) -> Saved:
    """A plan file's content, checked. Raises UsageError for what is none, is damaged or edited, or was made by another version."""
    if len(content) > MAX_BYTES:
        raise UsageError(f"{where} is too big to be a plan file ({len(content)} bytes).", _AGAIN)
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise UsageError(f"{where} is no plan file, or not all of one: it is not JSON.", _AGAIN) from None
    if not isinstance(document, dict) or "mlhost_plan" not in document:
        raise UsageError(f"{where} is no plan file of mlhost.", "Make one with `mlhost plan --out FILE` (without --format).")
    if document["mlhost_plan"] != FORMAT or document.get("version") != __version__:
        made = f"mlhost {document.get('version')}" if isinstance(document.get("version"), str) else "another mlhost"
        raise UsageError(f"{where} was made by {made}; this is {__version__}, which may decide differently.", _AGAIN)
    if document.pop("sha256", None) != _sum(document):
        raise UsageError(f"{where} has been edited or damaged since it was made: its checksum is not that of its content.", _AGAIN)
    try:
        steps = tuple((str(step["path"]), str(step["sha256"])) for step in document["steps"])
        hosts = tuple(_host(host) for host in document["hosts"])
        spec = replace(playbook.from_values(document["values"], where), steps=tuple(path for path, _ in steps))
        loaded = Loaded(spec, where, playbook.digest(spec), spec.steps)
        saved = Saved(loaded, hosts, str(document["made"]), str(document["by"]), steps)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(f"{where} lacks a part of what makes a plan file ({error}).", _AGAIN) from None
    if not hosts or len({host.target for host in hosts}) != len(hosts):
        raise UsageError(f"{where} names no host, or one twice.", _AGAIN)
    return saved


def _host(value: Mapping[str, Any]) -> SavedHost:
    target, plan = value["target"], value["plan"]
    if not (target is None or (isinstance(target, str) and target)) or not isinstance(plan["items"], list) or not isinstance(plan["decisions"], dict):
        raise ValueError("a host's plan")
    return SavedHost(target, str(value["host"]), plan, dict(value["actions"]), str(value["script"]))


def differences(saved: SavedHost, plan: Plan, ready: Plan | None) -> list[Difference]:
    """What is not as it was reviewed, in words; empty if the plan may be carried out. `ready` has its keys; None leaves the script alone."""
    now = json.loads(json.dumps(plan_json(plan)))
    found: list[Difference] = []
    if plan.host != saved.host:
        found.append(Difference("host", f"the plan is for {saved.host}, and this is {plan.host}"))
    for name in ("id", "version", "codename", "arch", "cloud"):
        if now["platform"][name] != saved.plan.get("platform", {}).get(name):
            found.append(Difference(f"platform.{name}", f"was {_show(saved.plan.get('platform', {}).get(name))}, is {_show(now['platform'][name])}"))
    if now["gpus"] != saved.plan.get("gpus"):
        found.append(Difference("gpus", f"were {_gpus(saved.plan.get('gpus'))}, are {_gpus(now['gpus'])}"))
    found += [Difference(f"problem {p['id']}", p["message"]) for p in now["problems"] if p not in saved.plan.get("problems", [])]
    found += _items(saved, plan, now)
    found += _decisions(saved.plan["decisions"], now["decisions"])
    for name, value in now["consequences"].items():
        before = saved.plan.get("consequences", {}).get(name)
        if value != before:
            found.append(Difference(f"consequence {name}", f"was {_show(before)}, is {_show(value)}"))
    if not found and ready is not None and _script(ready) != saved.script:
        found.append(Difference("script", "the script is another one although the plan is the same: mlhost itself or a signing key has changed"))
    return found


def _items(saved: SavedHost, plan: Plan, now: Mapping[str, Any]) -> list[Difference]:
    before = {item["id"]: item for item in saved.plan["items"]}
    after = {item["id"]: item for item in now["items"]}
    actions = _actions(plan)
    found = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            text = f"is new ({new['state']}: {new['why']})" if new else f"is not in the plan any more (was {old['state'] if old else '?'})"
        elif old["state"] != new["state"]:
            text = f"was {old['state']}, is {new['state']}: {new['why']}"
        elif new["state"] != CHANGE:
            continue
        else:
            parts = [f"{side} {_changed(old[side], new[side])}" for side in ("expected", "actual") if old[side] != new[side]]
            if not parts and actions.get(name) != saved.actions.get(name):
                parts = ["what would be done for it is something else now, because what it starts from has changed"]
            if not parts:
                continue
            text = "; ".join(parts)
        found.append(Difference(name, text))
    return found


def _decisions(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    found = []
    for name in dict.fromkeys([*before, *after]):
        old, new = dict(before.get(name) or {}), dict(after.get(name) or {})
        # the reason is in words, and says the same in others
        old.pop("why", None)
        new.pop("why", None)
        if old != new:
            found.append(Difference(f"decision {name}", _changed(old, new)))
    return found


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: was {_show(old.get(key))}, is {_show(new.get(key))}" for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key))


def _show(value: object) -> str:
    text = "nothing" if value in (None, "", [], {}) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _gpus(value: object) -> str:
    return ", ".join(str(gpu.get("name") or gpu.get("pci_id")) for gpu in value) if isinstance(value, list) and value else "none"


def _actions(plan: Plan) -> dict[str, str]:
    return {item.id: _hash(repr(item.action)) for item in plan.changes}


def _script(ready: Plan) -> str:
    """The hash of the script, but for the run's name, and the reasons, which are for people."""
    items = tuple(replace(item, why="") for item in ready.items)
    text: Sh = render.stage(replace(ready, items=items), run_id="reviewed") if any(i.state == CHANGE for i in items) else Sh("")
    return _hash(text)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _sum(document: Mapping[str, Any]) -> str:
    return _hash(json.dumps(document, sort_keys=True, separators=(",", ":")))
