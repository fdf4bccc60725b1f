"""A diagnosis for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from provision.report.layout import PLAIN, Look, count, hang, labelled
from provision.report.sanitize import line

if TYPE_CHECKING:
    from provision.doctor.diagnose import Diagnosis, Finding

SCHEMA = 1
_MARKS = {"ok": "ok", "broken": "failed", "absent": "skipped", "unknown": "note"}


def diagnosis_text(diagnosis: Diagnosis, look: Look = PLAIN, *, verbose: bool = False) -> str:
    """The findings, the first to begin with; where none explains what was asked, or with `verbose`, how every layer is."""
    found = diagnosis.findings
    certain = [f for f in found if f.certainty == "confirmed"]
    if not found and diagnosis.asked:
        summary = "no known failure has this text" + ("" if not diagnosis.looked else ", and nothing here is known to be broken")
    elif not found:
        summary = "nothing here is known to be broken"
    elif not certain:
        summary = f"{count(len(found), 'possible cause')}; which one it is, the machine itself would tell" if not diagnosis.looked else count(len(found), "possible cause")
    else:
        summary = count(len(found), "finding")
        if diagnosis.asked and not diagnosis.explained:
            summary += ", none of which explains the text"
    name = line(diagnosis.host) or "the text"
    out = [f"{look.paint(name, 'bold')}: {summary}"]
    for finding in found:
        out += _finding(finding, look, short=not diagnosis.looked and len(found) > 3 and not verbose)
    if diagnosis.layers and (verbose or not found or (diagnosis.asked and not diagnosis.explained)):
        out += ["", look.paint("Layers", "bold"), *_layers(diagnosis, look)]
    if diagnosis.unknown and (verbose or not found):
        out += labelled("Unknown", ", ".join(diagnosis.unknown), look)
    return "\n".join(out)


def _finding(finding: Finding, look: Look, short: bool) -> Iterable[str]:
    failure = finding.failure
    state = "failed" if finding.certainty == "confirmed" else "note"
    plain = f"  {Look(ascii=look.ascii).mark(state)} "
    head = f"  {look.mark(state)} "
    title = f"{failure.layer}: {failure.title}" + ("" if finding.certainty == "confirmed" else " (possible)")
    if short:
        return [*hang(head, plain, title, look), *labelled("", failure.remedy[0], look, "dim")]
    rows = ["", *hang(head, plain, title, look, "bold"), *labelled("Cause", failure.cause, look)]
    for number, text in enumerate(finding.evidence):
        rows += labelled("" if number else "Evidence", text, look)
    for number, text in enumerate(failure.remedy):
        rows += labelled("" if number else "Remedy", text, look)
    if failure.fix and finding.certainty == "confirmed":
        rows += labelled("", "mlhost doctor --fix does what of this is safe", look, "dim")
    rows += labelled("Source", failure.source, look, "dim")
    return rows


def _layers(diagnosis: Diagnosis, look: Look) -> Iterable[str]:
    rows: list[str] = []
    for state in diagnosis.layers:
        sign = _MARKS[state.state]
        rows += hang(f"  {look.mark(sign)} {state.layer:<15}", f"  {Look(ascii=look.ascii).mark(sign)} {state.layer:<15}", state.detail, look)
    return rows


def diagnosis_json(diagnosis: Diagnosis, *, target: str = "", fixed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The document that `provision/data/schema/doctor.json` describes."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "host": diagnosis.host,
        "target": target,
        "healthy": not diagnosis.findings,
        "looked": diagnosis.looked,
        "error": {"given": diagnosis.asked, "explained": diagnosis.explained},
        "findings": [
            {
                "id": f.failure.id, "layer": f.failure.layer, "title": f.failure.title, "certainty": f.certainty, "explains_error": f.explains,
                "cause": f.failure.cause, "evidence": list(f.evidence), "remedy": list(f.failure.remedy), "fix": list(f.failure.fix),
                "source": f.failure.source,
            }
            for f in diagnosis.findings
        ],
        "layers": [{"layer": s.layer, "state": s.state, "detail": s.detail} for s in diagnosis.layers],
        "unknown": list(diagnosis.unknown),
    }
    if fixed is not None:
        document["fixed"] = dict(fixed)
    return document
