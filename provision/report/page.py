"""Results as one self-contained HTML page: no outside request, no style or script but its own two, readable without the script.

Every text of a host's passes `sanitize` and is escaped by the template; the page's policy (Content-Security-Policy) lets nothing else run.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from provision.model import HostReport, Item, Plan
from provision.report import grid
from provision.report.describe import describe
from provision.report.layout import count, duration
from provision.report.sanitize import block, line
from provision.report.text import HEADLINES, difference, gpus_line, platform_line, sentence
from provision.report.verdict import fleet_exit_code
from provision.results import NOTHING, About, Outcome
from provision.shipped import shipped

if TYPE_CHECKING:
    import jinja2

FULL = 300
"""So many hosts have everything folded in; of more, those that are not fine."""
MOST_FOLDED = 1000
LOG, SHORT_LOG = 20_000, 4_000  # characters of a log's end
MOST_CAUSES, MOST_VERSIONS = 30, 8

_TICKS = re.compile("`([^`]{1,300})`")
_NAMES = {"setup": "Setup", "apply": "Carrying out a plan", "verify": "Verification", "plan": "Plan", "status": "State"}
_WORDS = {
    "converged": "right", "changed": "set up and proved", "verified": "proved", "pending": "pending", "unreachable": "unreachable",
    "refused": "refused", "drifted": "not as reviewed", "drift": "drifted", "reboot": "needs a reboot", "unverified": "not proved",
    "unsupported": "not supported",
}


def page(reports: Sequence[HostReport], about: About = NOTHING) -> str:
    """The page. Takes about a millisecond a host."""
    return "".join(pieces(reports, about))


def pieces(reports: Sequence[HostReport], about: About = NOTHING) -> Iterable[str]:
    """The page in pieces, for a fleet whose page is large."""
    clean = lru_cache(maxsize=50_000)(line)
    folded = _folded(reports)
    columns = dict(grid.LAYERS)
    cells = [grid.cells(report) for report in reports]
    if any("own" in found for found in cells):
        columns["own"] = "Own steps"
    runs = any(report.last_run for report in reports)
    parts = grid.skew(reports)
    style, script = shipped("data/report/page.css"), shipped("data/report/page.js")
    causes = grid.causes(reports)
    rows = [_row(number, report, cells[number], columns, number in folded, len(reports) > FULL, clean) for number, report in enumerate(reports)]
    return _environment().get_template("page.html.j2").generate(
        title=_title(reports, about, clean),
        subtitle=_subtitle(reports, about, clean),
        version=clean(about.version),
        style=_trusted(style), script=_trusted(script), style_hash=_trusted(_digest(style)), script_hash=_trusted(_digest(script)),
        rows=rows, layers=columns, columns=len(columns) + 3 + runs, with_runs=runs,
        totals=[
            {"status": clean(status), "count": number, "kind": grid.kind(status), "word": word_of(status, clean)}
            for status, number in grid.totals(reports).items()
        ],
        share=_share(reports),
        causes=[
            {"kind": grid.kind(cause.status), "count": len(cause.hosts), "word": word_of(cause.status, clean), "text": clean(sentence(cause.text)),
             "fix": clean(cause.fix), "hosts": cause.hosts}
            for cause in causes[:MOST_CAUSES]
        ],
        more_causes=len(causes) - MOST_CAUSES if len(causes) > MOST_CAUSES else 0,
        skew=[_skew(part, len(reports), clean) for part in parts],
        skew_words="all alike" if all(len(part.versions) == 1 for part in parts) else "◆ differs from what most hosts have",
        spans=[
            {"name": clean(span.name), "median": duration(span.median), "most": duration(span.most), "slowest": span.slowest, "hosts": span.hosts}
            for span in grid.spans(reports)
        ],
        notes=_notes(reports, folded),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: shipped(f"data/report/{name}")), autoescape=True, undefined=jinja2.StrictUndefined
    )
    found.filters["ticks"] = _ticks
    return found


def _ticks(text: str) -> Any:
    """`commands` in their own type; the text is escaped first."""
    from markupsafe import Markup, escape

    return Markup(_TICKS.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped above


def _trusted(text: str) -> Any:
    """Our own style and script, which are not to be escaped."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - shipped with the program


def _digest(text: str) -> str:
    """A hash as a Content-Security-Policy names a source (W3C CSP Level 3, "hash-source")."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def word_of(status: str, clean: Callable[[str], str] = line) -> str:
    """A status for people, in a word or three."""
    return _WORDS.get(status) or HEADLINES.get(status, (clean(status), ""))[0]


def _title(reports: Sequence[HostReport], about: About, clean: Callable[[str], str]) -> str:
    name = _NAMES.get(about.command, "Results")
    return f"{name} of {clean(reports[0].target)}" if len(reports) == 1 else f"{name} of {count(len(reports), 'host')}"


def _subtitle(reports: Sequence[HostReport], about: About, clean: Callable[[str], str]) -> str:
    made = clean(about.made).replace("T", " ").replace("Z", " UTC")
    parts = [made, f"mlhost {clean(about.command)}".strip() if about.command else "", f"version {clean(about.version)}" if about.version else ""]
    return " · ".join([*(part for part in parts if part), f"exit code {fleet_exit_code(reports)}"])


def _folded(reports: Sequence[HostReport]) -> set[int]:
    if len(reports) <= FULL:
        return set(range(len(reports)))
    return set([number for number, report in enumerate(reports) if grid.kind(report.status) != "fine"][:MOST_FOLDED])


def _notes(reports: Sequence[HostReport], folded: set[int]) -> list[str]:
    notes = []
    if len(folded) < len(reports):
        bad = sum(grid.kind(report.status) != "fine" for report in reports)
        told = f"the {len(folded)} hosts" if bad <= len(folded) else f"the first {len(folded)} of the {bad} hosts"
        notes.append(f"Of more than {FULL} hosts, plan, checks and log are folded in for {told} that are not fine. The JSON report has them for all.")
    notes.append("Texts of hosts are shown without control characters, and without the passwords in URLs. This page asks nothing of the network.")
    return notes


def _share(reports: Sequence[HostReport]) -> list[dict[str, str]]:
    out, at = [], 0.0
    kinds = [grid.kind(report.status) for report in reports]
    for name in ("fine", "waiting", "trouble"):
        width = 100 * kinds.count(name) / max(1, len(kinds))
        if width:
            out.append({"kind": name, "x": f"{at:.3f}", "width": f"{max(width, 0.4):.3f}"})
        at += width
    return out


def _skew(part: grid.Skew, total: int, clean: Callable[[str], str]) -> dict[str, Any]:
    versions = part.versions
    if total == 1:
        words = ""
    elif len(versions) == 1:
        words = "all alike" if not part.unknown else ""
    else:
        words = f"{len(versions)} versions"
    return {
        "name": part.name,
        "words": words,
        "unknown": part.unknown,
        "more": max(0, len(versions) - MOST_VERSIONS),
        "versions": [
            {"text": clean(v.text) or "none", "hosts": v.hosts, "odd": v.odd, "width": f"{100 * len(v.hosts) / total:.2f}"} for v in versions[:MOST_VERSIONS]
        ],
    }


# ---------------------------------------------------------------- one host


def _row(
    number: int, report: HostReport, cells: Mapping[str, grid.Cell], columns: Mapping[str, str], folded: bool, many: bool, clean: Callable[[str], str]
) -> dict[str, Any]:
    seconds = sum(timing.seconds for timing in report.timings)
    status = grid.shown(report)
    name = grid.kind(status)
    return {
        "number": number,
        "name": clean(report.target),
        "status": clean(status),
        "kind": name,
        "sort": f"{grid.severity(status)} {clean(status)}",
        "word": word_of(status, clean),
        "cells": [_cell(cells.get(layer, grid.Cell("skipped")), clean) for layer in columns],
        "run": _run(report, clean),
        "seconds": f"{seconds:.3f}",
        "took": duration(seconds) if report.timings else "",
        "summary": _summary(report, name, folded, clean),
        "inside": _inside(report, clean, SHORT_LOG if many else LOG) if folded else None,
    }


def _summary(report: HostReport, name: str, folded: bool, clean: Callable[[str], str]) -> str:
    if name == "fine":
        return "Plan, checks and log" if folded else ""
    cause = grid.cause_of(report)
    return clean(sentence(cause))


def _cell(cell: grid.Cell, clean: Callable[[str], str]) -> dict[str, str]:
    text = clean(cell.text)
    word = grid.WORDS[cell.state]
    if cell.state in ("ok", "changed", "skipped"):
        return {"state": cell.state, "text": text or word, "note": ""}
    if cell.state == "unknown":
        return {"state": "none" if text else cell.state, "text": text, "note": ""}  # a version alone is no judgement
    return {"state": cell.state, "text": text or word, "note": word if text else ""}


def _run(report: HostReport, clean: Callable[[str], str]) -> dict[str, str]:
    run = report.last_run
    if run is None:
        return {"since": "", "when": "none" if report.exit_code != 4 else "", "note": ""}
    day, _, clock = clean(run.since).partition("T")
    return {"since": clean(run.since), "when": day or clean(run.id), "note": f"{clock[:5]} {clean(run.state)}".strip()}


def _inside(report: HostReport, clean: Callable[[str], str], most: int) -> dict[str, Any]:
    plan = grid.plan_of(report)
    before = {item.id: item for item in report.before.items} if report.before else {}
    return {
        "facts": _facts(report, plan, clean),
        "checks": [_said(check.state, check.id, sentence(check.evidence), check.fix, clean=clean) for check in report.checks],
        "outcomes": [_done(outcome, before.get(outcome.id), clean) for outcome in report.outcomes if outcome.state != "ok"],
        "plan": _items(plan, report, clean) if plan else [],
        "decisions": [_said("none", f"{name}: {d.action}", sentence(d.why), clean=clean) for name, d in plan.decisions.items()] if plan else [],
        "log": block(report.log[-most:], most).strip("\n") if report.exit_code or report.outcomes else "",
    }


def _facts(report: HostReport, plan: Plan | None, clean: Callable[[str], str]) -> list[tuple[str, str]]:
    rows = [("System", platform_line(plan.platform) if plan else ""), ("GPUs", gpus_line(plan.gpus) if plan else "")]
    rows += [("Kernel", report.versions.get("kernel", ""))]
    if report.last_run:
        run = report.last_run
        parts = [run.id, run.state, f"since {run.since}" if run.since else "", f"by {run.owner}" if run.owner else ""]
        parts += [f"mlhost {run.version}" if run.version else "", f"playbook {run.playbook}" if run.playbook else ""]
        rows.append(("Last run", ", ".join(part for part in parts if part)))
    rows += [("Runs", ", ".join(report.run_ids)), ("What to do", report.fix if report.exit_code else "")]
    rows += [("Time", " · ".join(f"{timing.name} {duration(timing.seconds)}" for timing in report.timings))]
    rows += [("Note", notice.message) for notice in (plan.notices if plan else ())]
    return [(name, clean(text)) for name, text in rows if text]


def _items(plan: Plan, report: HostReport, clean: Callable[[str], str]) -> list[dict[str, Any]]:
    rows = [_said("refused", p.id, p.message, p.fix, clean=clean) for p in plan.problems]
    for item in plan.items:
        state = "drift" if item.state != "ok" and item.id in report.drift else item.state
        does = f"{describe(item.action)}: " if item.action else ""
        lines = [clean(text) for text in difference(item)] if item.state != "ok" else []
        rows.append(_said(state, item.id, does + (item.why if does else sentence(item.why)), lines=lines, clean=clean))
    return rows


def _done(outcome: Outcome, item: Item | None, clean: Callable[[str], str]) -> dict[str, Any]:
    text = describe(item.action) if outcome.state == "changed" and item and item.action else outcome.detail or outcome.state
    return _said(outcome.state, outcome.id, text, took=duration(outcome.seconds) if outcome.seconds >= 0.05 else "", clean=clean)


def _said(
    state: str, name: str, text: str, fix: str = "", *, lines: Sequence[str] = (), took: str = "", clean: Callable[[str], str]
) -> dict[str, Any]:
    known = state if state in grid.RANK or state == "none" else "unknown"
    return {"state": known, "word": grid.WORDS.get(known, ""), "name": clean(name), "text": clean(text), "fix": clean(fix), "lines": lines, "took": took}
