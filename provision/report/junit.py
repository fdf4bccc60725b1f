"""Reports as JUnit XML, which CI servers read: one testsuite per host, one testcase per item that a run touched or a plan wants, and per check."""

from __future__ import annotations

import xml.etree.ElementTree as ET  # only writes; nothing is parsed here
from collections.abc import Sequence

from provision.model import HostReport, Item
from provision.report.sanitize import line, xml

_Case = tuple[str, str, float, str, str]  # group, name, seconds, verdict ("", failure, error, skipped), text


def junit_xml(reports: Sequence[HostReport]) -> str:
    """The XML document. An item that is not right is a failure, a host that could not be worked on an error."""
    root = ET.Element("testsuites", name="mlhost")
    for report in reports:
        _suite(root, report)
    ET.indent(root) if hasattr(ET, "indent") else None
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, report: HostReport) -> None:
    cases = [*_items(report), *_checks(report)]
    if not any(verdict in ("failure", "error") for *_, verdict, _text in cases) and report.exit_code:
        cases.append(("host", report.status, 0.0, "error", f"{report.message}\n{report.fix}".strip() or report.status))
    elif not cases:
        cases.append(("host", report.status, 0.0, "", report.message))
    kinds = [verdict for *_, verdict, _text in cases]
    suite = ET.SubElement(
        root,
        "testsuite",
        name=line(report.target),
        tests=str(len(cases)),
        failures=str(kinds.count("failure")),
        errors=str(kinds.count("error")),
        skipped=str(kinds.count("skipped")),
        time=f"{sum(timing.seconds for timing in report.timings):.3f}",
    )
    if report.versions:
        seen = ET.SubElement(suite, "properties")
        for key, version in report.versions.items():
            ET.SubElement(seen, "property", name=line(key), value=line(version) or "none")
    for group, name, seconds, verdict, text in cases:
        case = ET.SubElement(suite, "testcase", classname=f"{line(report.target)}.{group}", name=line(name), time=f"{seconds:.3f}")
        if verdict:
            ET.SubElement(case, verdict, message=line(text)).text = xml(text)
        elif text:
            ET.SubElement(case, "system-out").text = xml(text)


def _items(report: HostReport) -> list[_Case]:
    outcomes = {outcome.id: outcome for outcome in report.outcomes}
    plan = report.after or report.before
    items: dict[str, Item] = {item.id: item for item in plan.items} if plan else {}
    cases: list[_Case] = []
    for identifier in dict.fromkeys([*items, *outcomes]):
        outcome, item = outcomes.get(identifier), items.get(identifier)
        why = item.why if item else ""
        if outcome and outcome.state == "failed":
            cases.append(("items", identifier, outcome.seconds, "failure", outcome.detail or why or "failed"))
        elif outcome and outcome.state == "skipped":
            cases.append(("items", identifier, outcome.seconds, "skipped", outcome.detail or why or "skipped"))
        elif item and item.state != "ok":
            state = "drifted" if identifier in report.drift else item.state
            cases.append(("items", identifier, outcome.seconds if outcome else 0.0, "failure", f"{state}: {why}"))
        else:
            cases.append(("items", identifier, outcome.seconds if outcome else 0.0, "", why))
    return cases


def _checks(report: HostReport) -> list[_Case]:
    verdicts = {"failed": "failure", "skipped": "skipped"}
    return [("checks", check.id, 0.0, verdicts.get(check.state, ""), check.evidence) for check in report.checks]
