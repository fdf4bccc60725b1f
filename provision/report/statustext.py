"""How hosts stand, for people: one host in a few lines, several in a line each, and how their versions differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from provision.model import HostReport, Item
from provision.report import grid
from provision.report.layout import PLAIN, Look, count, hang, labelled
from provision.report.sanitize import line
from provision.report.text import HEADLINES, host_report_text, sentence
from provision.versions import COMPONENTS

_WORDS = {"converged": "as the playbook wants", "drift": "has drifted", "running": "a run is going on", "refused": "setup would be refused", "unknown": "unknown"}
_SIGNS = {"fine": ("ok", "green"), "waiting": ("change", "yellow"), "trouble": ("failed", "red")}
_SHORT = ("driver", "docker", "toolkit")


def status_text(reports: Sequence[HostReport], look: Look = PLAIN, *, verbose: bool = False) -> str:
    """One host: what it is, its last run, what drifted and what is pending. Several: a line each (with `verbose` as for one), and a summary."""
    if len(reports) == 1:
        return "\n".join(_one(reports[0], look, verbose))
    if verbose:
        return "\n\n".join(["\n".join(_one(report, look, verbose)) for report in reports] + ["\n".join(_summary(reports, look))])
    return "\n".join([*_table(reports, look), "", *_summary(reports, look)])


def _word(status: str) -> str:
    return _WORDS.get(status) or HEADLINES.get(status, (line(status), ""))[0]


def _one(report: HostReport, look: Look, verbose: bool) -> list[str]:
    if report.before is None:
        return [host_report_text(report, look, verbose=verbose)]
    status = grid.shown(report)
    _, style = _SIGNS[grid.kind(status)]
    out = hang(look.paint(f"{line(report.target)}: ", "bold"), f"{line(report.target)}: ", f"{_word(status)}{':' if report.before.problems else ';'} {report.message}", look, style)
    out += [*labelled("Do", report.fix, look)] if report.fix and report.exit_code else []
    drifted = [item for item in report.before.items if item.id in report.drift]
    out += _items("Drifted", drifted, "change", look)
    out += _items("Pending", [item for item in report.before.items if item.state != "ok" and item not in drifted], "", look)
    for check in report.checks:
        if check.id == "lock" or (check.id == "lock/dependencies" and verbose):
            out += labelled("Lock" if check.id == "lock" else "Beside it", f"{look_sign('ok' if check.state == 'ok' else 'change', look)} {line(check.evidence, 2000)}", look)
    if verbose:
        out += _items("Right", [item for item in report.before.items if item.state == "ok"], "ok", look)
    if verbose or report.exit_code:
        run = report.last_run
        if run:
            parts = [run.id, run.state, f"since {run.since}" if run.since else "", f"by {run.owner}" if run.owner else ""]
            parts += [f"mlhost {run.version}" if run.version else "", f"playbook {run.playbook}" if run.playbook else ""]
            out += labelled("Last run", ", ".join(part for part in parts if part), look)
        seen = [f"{name} {report.versions[key] or 'none'}" for key, name in COMPONENTS.items() if key in report.versions]
        out += labelled("Versions", f"{look.dot} ".join(line(part) for part in seen), look)
    if report.exit_code == 3:
        out += labelled("Do", f"`mlhost setup {line(report.target)}`" if " " not in report.target else "`mlhost setup`", look)
    return out


def _items(label: str, items: Sequence[Item], sign: str, look: Look) -> list[str]:
    out: list[str] = []
    for number, item in enumerate(items):
        out += labelled("" if number else label, f"{look_sign(sign or item.state, look)} {item.id}: {sentence(item.why)}", look)
    return out


def look_sign(state: str, look: Look) -> str:
    """A state's sign without colour, for the middle of a paragraph."""
    return Look(ascii=look.ascii).mark(state)


def _table(reports: Sequence[HostReport], look: Look) -> Iterable[str]:
    rows = [("HOST", "STATE", "LAST RUN", *(COMPONENTS[key].upper().replace("CONTAINER ", "").replace(" ENGINE", "") for key in _SHORT), "")]
    rows += [_cells(report) for report in reports]
    widths = [min(32, max(len(row[column]) for row in rows)) for column in range(len(rows[0]) - 1)]
    yield look.paint("    " + "  ".join(f"{text:<{width}}" for text, width in zip(rows[0], widths)).rstrip(), "dim")
    for report, row in zip(reports, rows[1:]):
        sign, style = _SIGNS[grid.kind(grid.shown(report))]
        plain = Look(ascii=look.ascii).mark(sign)
        cells = [f"{text[:width]:<{width}}" for text, width in zip(row, widths)]
        cells[1] = look.paint(cells[1], style)
        lead = f"{look.mark(sign)}{' ' * (2 - len(plain))}  " + "  ".join(cells)
        room = max(24, look.width - 6 - sum(widths) - 2 * len(widths))
        yield (lead + "  " + (row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…")).rstrip()


def _cells(report: HostReport) -> tuple[str, ...]:
    status, run = grid.shown(report), report.last_run
    word = {"converged": "right", "drift": "drifted"}.get(status, status)
    ran = f"{run.since.replace('T', ' ').replace('Z', '')[:16]} {run.state}" if run else "" if report.exit_code == 4 else "none"
    what = "" if status == "converged" else ", ".join(report.drift) or _pending(report)
    seen = tuple(report.versions.get(key, "?") or "none" for key in _SHORT)
    return tuple(line(text) for text in (report.target, word, ran.strip(), *seen, what))


def _pending(report: HostReport) -> str:
    if report.status == "pending" and report.before:
        return ", ".join(item.id for item in report.before.items if item.state != "ok")
    return report.message


def _summary(reports: Sequence[HostReport], look: Look) -> list[str]:
    out: list[str] = []
    for part in grid.skew(reports):
        if len(part.versions) > 1:
            told = [f"{version.text or 'none'} on {len(version.hosts)}{_who(version, reports)}" for version in part.versions[:6]]
            out += labelled(part.name.replace("Container ", "").replace(" Engine", ""), f"{look.dot} ".join(told), look)
    totals = ", ".join(f"{number} {_total(status)}" for status, number in grid.totals(reports).items())
    return [*out, look.paint(f"{count(len(reports), 'host')}: {totals}", "bold")]


def _total(status: str) -> str:
    return {"converged": "right", "drift": "drifted"}.get(status, line(status))


def _who(version: grid.Version, reports: Sequence[HostReport]) -> str:
    if not version.odd or len(version.hosts) > 4:
        return ""
    return f" ({', '.join(line(reports[number].target) for number in version.hosts)})"


