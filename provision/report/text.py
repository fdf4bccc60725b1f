"""Plans and reports for a person who reads over a colleague's shoulder: what is so, what changes, why, and what proves it.

Every function takes values and returns text that ends without a newline. All words that come from a host pass `sanitize`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from provision.errors import Error
from provision.model import Decision, GpuRow, HostReport, Item, Plan, PlatformRow
from provision.report.describe import describe
from provision.report.layout import LABEL, PLAIN, Look, count, duration, hang, labelled, listing, wrap
from provision.report.sanitize import line
from provision.report.verdict import plan_exit_code

_ACTION_STYLE = {"install": "yellow", "upgrade": "yellow", "replace": "yellow", "keep": "green", "refuse": "red", "skip": "dim"}


# ---------------------------------------------------------------- plan


def plan_text(plan: Plan, look: Look = PLAIN, *, verbose: bool = False, target: str = "") -> str:
    """The plan. `target` is how the user named the host (default: the host's own name); `verbose` adds values and what is already right."""
    out = [*_heading(target or plan.host, f"{platform_line(plan.platform)}{look.dot} {gpus_line(plan.gpus, look)}", look), ""]
    out += _decisions(plan.decisions, look, details=verbose)
    out += _items(plan, look, verbose)
    out += _consequences(plan, look)
    out += _problems(plan, look)
    out += _notices(plan, look)
    out += ["", *_verdict(plan, look)]
    return "\n".join(out)


def platform_line(platform: PlatformRow) -> str:
    """`Debian GNU/Linux 13 (trixie), x86_64, aws`."""
    name = platform.name or f"{platform.id} {platform.version}".strip()
    if platform.codename and platform.codename.lower() not in name.lower():
        name += f" ({platform.codename})"
    return ", ".join(line(part) for part in (name, platform.arch, platform.cloud or "") if part)


def gpus_line(gpus: Sequence[GpuRow], look: Look = PLAIN) -> str:
    """`NVIDIA H100 80GB HBM3 (hopper)` with how many there are; several models are joined; says so where there is none."""
    if not gpus:
        return "no NVIDIA GPU"
    models: dict[tuple[str, str], int] = {}
    for gpu in gpus:
        key = (gpu.name or f"PCI {gpu.pci_id}", gpu.architecture)
        models[key] = models.get(key, 0) + 1
    return ", ".join(
        (f"{number} {look.times} " if number > 1 else "") + line(name) + (f" ({line(architecture)})" if architecture else "")
        for (name, architecture), number in models.items()
    )


def _heading(name: str, rest: str, look: Look) -> list[str]:
    shown = f"{line(name)}  "
    return hang(look.paint(shown, "bold"), shown, rest, look)


def _decisions(decisions: Mapping[str, Decision], look: Look, details: bool) -> list[str]:
    if len({(d.action, d.why) for d in decisions.values()}) == 1 < len(decisions):
        # One reason for all, such as a system that is not supported.
        decisions = {"all": next(iter(decisions.values()))}
    out = []
    name_width = max((len(line(name)) for name in decisions), default=0)
    action_width = max((len(line(d.action)) for d in decisions.values()), default=0)
    for name, decision in decisions.items():
        label, action = f"  {line(name):<{name_width}}  ", f"{line(decision.action):<{action_width}}"
        plain = f"{label}{action}  "
        head = label + look.paint(action, _ACTION_STYLE.get(decision.action, "cyan")) + "  "
        out += hang(head, plain, sentence(decision.why), look)
        if details:
            for key, value in decision.details.items():
                if value not in (None, "", [], (), {}):
                    out += wrap(f"{key}: {_value(value)}", look, len(plain), "dim")
    return out


def _items(plan: Plan, look: Look, verbose: bool) -> list[str]:
    """Everything that is not right yet with what will be done about it; what is right in one line, or with `verbose` one by one."""
    out: list[str] = []
    shown = [item for item in plan.items if verbose or item.state != "ok"]
    width = max((len(line(item.id)) for item in shown), default=0)
    for item in shown:
        label = f"{line(item.id):<{width}}"
        mark = look.mark(item.state)
        plain = f"  {'xx' if look.ascii and len(mark) > 1 else 'x'} {label}  "
        does = describe(item.action) if item.action else ""
        out += hang(f"  {mark} {look.paint(label, 'bold') if item.state == 'change' else label}  ", plain, does or sentence(item.why), look)
        if does and item.why and not _told(item, plan):
            out += wrap(sentence(item.why), look, len(plain), "dim")
        if verbose and item.state != "ok":
            out += [part for pair in difference(item, look) for part in wrap(pair, look, len(plain), "dim")]
    right = [item for item in plan.items if item.state == "ok"]
    if right and not verbose:
        text = f"{'already right' if shown else f'all {len(right)} already right'}: {listing(item.id for item in right)}"
        out += hang(f"  {look.mark('ok')} ", f"  {'ok' if look.ascii else 'x'} ", text, look, "dim")
    return ["", *out] if out else []


def _told(item: Item, plan: Plan) -> bool:
    """Whether the step's decision, printed above, already gives the item's reason."""
    return item.step in plan.decisions and plan.decisions[item.step].why == item.why


def difference(item: Item, look: Look = PLAIN) -> list[str]:
    """One `key: actual -> expected` for every key in which an item's actual state is not the expected one."""
    arrow = "->" if look.ascii else "→"
    keys = dict.fromkeys([*item.expected, *item.actual])
    return [
        f"{line(key)}: {_value(item.actual.get(key), 'none')} {arrow} {_value(item.expected.get(key), 'none')}"
        for key in keys
        if item.expected.get(key) != item.actual.get(key)
    ]


def _consequences(plan: Plan, look: Look) -> list[str]:
    parts = []
    if plan.restarts:
        parts.append(f"restarts {listing(plan.restarts)}")
    if plan.reboot != "no":
        parts.append("needs a reboot" if plan.reboot == "needed" else "may need a reboot")
    if plan.download_mb:
        parts.append(f"fetches about {plan.download_mb} MB")
    return ["", *wrap(f"It {listing(parts)}.", look, 2)] if parts and not plan.problems else []


def _problems(plan: Plan, look: Look) -> list[str]:
    out: list[str] = []
    for problem in plan.problems:
        mark = look.mark("refused")
        indent = 5 if look.ascii else 4
        out += ["", *hang(f"  {mark} ", " " * indent, f"{line(problem.id)}: {problem.message}", look)]
        out += wrap(problem.fix, look, indent, "dim") if problem.fix else []
    return out


def _notices(plan: Plan, look: Look) -> list[str]:
    out: list[str] = []
    for notice in plan.notices:
        out += hang(f"  {look.mark('note')} ", "    ", f"note: {notice.message}", look)
    return ["", *out] if out else []


def _verdict(plan: Plan, look: Look) -> list[str]:
    code = plan_exit_code(plan)
    if code == 5:
        return wrap("Unsupported: mlhost does not set up this system, and nothing will be changed.", look, 0, "red")
    if code == 1:
        return wrap(f"Refused: {count(len(plan.problems), 'problem')} above; nothing will be changed before that is settled.", look, 0, "red")
    if code == 0:
        return wrap("Nothing to change.", look, 0, "green")
    later = sum(item.state == "later" for item in plan.items)
    words = count(len(plan.changes), "change") if plan.changes else "no change now"
    after = "after the reboot" if plan.reboot != "no" else "at the first boot"
    words += f", {later} more {after}" if later else ""
    return wrap(f"{words[0].upper()}{words[1:]}. Nothing was changed; `mlhost setup` carries this out.", look, 0, "yellow")


def sentence(text: str) -> str:
    """The text with a capital first letter and a full stop; a first word that is a name, path or number stays as it is."""
    text = line(text, 4000)
    first = text.split(" ", 1)[0]
    if first.isalpha() and first.islower() and first.isascii():
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".!?…" else text + "."


def _value(value: object, empty: str = "") -> str:
    if value is None or value == "":
        return empty
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{line(key)} {_value(part)}" for key, part in value.items() if part not in (None, "", [], ()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return " ".join(_value(part) for part in value) or empty
    return line(value, 200)


# ---------------------------------------------------------------- report

HEADLINES = {
    "converged": ("already right", "green"),
    "changed": ("set up and proved", "green"),
    "baked": ("ready to be booted", "green"),
    "verified": ("proved", "green"),
    "rebooting": ("rebooting, then goes on by itself", "yellow"),
    "running": ("a run is going on", "cyan"),
    "not started": ("was not started", "yellow"),
    "pending": ("changes are pending", "yellow"),
    "failed": ("failed", "red"),
    "unreachable": ("cannot be reached", "red"),
    "unsupported": ("not supported", "red"),
    "refused": ("refused, nothing was changed", "red"),
    "drifted": ("not as reviewed, nothing was changed", "red"),
    "reboot": ("needs a reboot that was not allowed", "yellow"),
    "unverified": ("not proved", "red"),
    "taken back": ("taken back", "green"),
    "nothing to take back": ("nothing to take back", "green"),
}


def host_report_text(report: HostReport, look: Look = PLAIN, *, verbose: bool = False) -> str:
    """The account of one host after a command: found, decided, done, already right, proved, time taken.

    A host where nothing was to be changed is one line, with its proof, unless `verbose`. Trouble comes first, with its remedy.
    """
    plan = report.after or report.before
    if report.status == "converged" and plan and not any(o.state in ("changed", "failed") for o in report.outcomes) and not verbose:
        return _nothing_to_change(report, look)
    out, inner = _headline(report, look), replace(look, width=look.width - LABEL)
    first = report.before or report.after
    if plan and first:
        out += _problems(plan, look)
        found = labelled("Found", f"{platform_line(first.platform)}{look.dot} {gpus_line(first.gpus, look)}", look)
        # a way back decides nothing about the machine
        out += ["", *(found if first.decisions else [])]
        out += _blocked("Decided", _decisions(first.decisions, inner, details=False), look)
    out += _blocked("Done", _done(report, inner), look)
    out += _right(report, look)
    out += _blocked("Checked" if any(c.state == "failed" for c in report.checks) else "Proved", _proof(report, inner), look)
    for notice in plan.notices if plan else ():
        out += labelled("Note", notice.message, look)
    if plan and report.timings:
        out += labelled("Took", f"{look.dot} ".join(f"{line(t.name)} {duration(t.seconds)}" for t in report.timings if t.seconds >= 0.05), look, style="dim")
    out += _where(report, look)
    return "\n".join(out)


def _headline(report: HostReport, look: Look) -> list[str]:
    headline, style = HEADLINES.get(report.status, (line(report.status), "cyan"))
    target = f"{line(report.target)}: "
    painted = look.paint(target, "bold")
    fix = wrap(report.fix, look, 2) if report.fix else []
    if not (report.before or report.after):
        # Nothing was planned: what there is to say is the message.
        return [*hang(painted, target, report.message or headline, look, "red" if report.exit_code else ""), *fix]
    total = sum(timing.seconds for timing in report.timings)
    took = f" in {duration(total)}" if total and report.status in ("changed", "baked") else ""
    return [painted + look.paint(headline + took, style), *(wrap(report.message, look, 2) if report.message else []), *fix]


def _nothing_to_change(report: HostReport, look: Look) -> str:
    proof = "; ".join(line(check.evidence) for check in report.checks if check.state != "failed" and check.evidence)
    total = sum(timing.seconds for timing in report.timings)
    head = f"{line(report.target)}: nothing to change"
    painted = f"{look.paint(line(report.target), 'bold')}: {look.paint('nothing to change', 'green')}"
    tail = f" {look.dash} {proof}" if proof else f" {look.dash} {line(report.message)}" if report.message else ""
    return painted + f"{head}{tail}"[len(head) :] + (look.paint(f" ({duration(total)})", "dim") if total else "")


def _blocked(label: str, lines: list[str], look: Look) -> list[str]:
    """Lines under a label in the first column, indented to the text column."""
    if not lines:
        return []
    first, *rest = lines
    return [look.paint(f"  {label:<{LABEL}}", "dim") + first[2:], *(" " * LABEL + text for text in rest)]


def _done(report: HostReport, look: Look) -> list[str]:
    rows = [outcome for outcome in report.outcomes if outcome.state != "ok"]
    width = max((len(line(outcome.id)) for outcome in rows), default=0)
    out: list[str] = []
    for outcome in rows:
        item = next((i for i in (report.before.items if report.before else ()) if i.id == outcome.id and i.action), None)
        if outcome.state == "changed":
            text = describe(item.action) if item and item.action else outcome.detail or "done"
        else:
            text = f"{outcome.state}: {outcome.detail}" if outcome.detail else outcome.state
        seconds = f" ({duration(outcome.seconds)})" if outcome.seconds >= 0.05 else ""
        label = f"{line(outcome.id):<{width}}"
        plain = f"  {'xx' if look.ascii and outcome.state != 'skipped' else 'x'} {label}  "
        out += hang(f"  {look.mark(outcome.state)} {look.paint(label, 'bold')}  ", plain, text + seconds, look)
        if outcome.state == "changed" and item and item.why and report.before and not _told(item, report.before):
            out += wrap(sentence(item.why), look, len(plain), "dim")
    return out


def _right(report: HostReport, look: Look) -> list[str]:
    touched = {outcome.id for outcome in report.outcomes if outcome.state != "ok"}
    names = [item.id for item in report.before.items if item.state == "ok" and item.id not in touched] if report.before else []
    return labelled("Right", f"{listing(names)} {'was' if len(names) == 1 else 'were'} already so.", look) if names else []


def _proof(report: HostReport, look: Look) -> list[str]:
    out: list[str] = []
    width = max((len(line(check.id)) for check in report.checks), default=0)
    for check in report.checks:
        label = f"{line(check.id):<{width}}"
        plain = f"  {'xx' if look.ascii and check.state != 'skipped' else 'x'} {label}  "
        out += hang(f"  {look.mark(check.state)} {label}  ", plain, check.evidence or check.state, look)
    return out


def _where(report: HostReport, look: Look) -> list[str]:
    out: list[str] = []
    lines = [text for text in report.log.splitlines() if text.strip()] if report.exit_code else []
    if len(lines) > 1:
        out += ["  " + look.paint("Log, its end:", "dim"), *("    " + look.paint(line(text, 160), "dim") for text in lines[-12:])]
    elif lines:
        out += labelled("Log", lines[0], look, style="dim")
    elif report.run_ids and report.status != "converged":
        out += labelled("Log", f"/var/lib/mlhost/runs/{line(report.run_ids[-1])}/ on the host", look, style="dim")
    return out


# ---------------------------------------------------------------- fleet


def error_text(target: str, error: Exception, look: Look = PLAIN) -> str:
    """A host that gave no plan or facts, among several."""
    message, fix = (error.message, error.fix) if isinstance(error, Error) else (f"a bug: {type(error).__name__}: {error}", "")
    shown = f"{line(target)}: "
    return "\n".join([*hang(look.paint(shown, "bold"), shown, message, look, "red"), *(wrap(fix, look, len(shown)) if fix else [])])


def fleet_text(reports: Sequence[HostReport], look: Look = PLAIN, *, verbose: bool = False) -> str:
    """The account of every host, and of several a line each and their number in the end."""
    texts = [host_report_text(report, look, verbose=verbose) for report in reports]
    summary = fleet_summary_text(reports, look)
    short = all("\n" not in text for text in texts)
    parts = texts if short or not summary else [text + "\n" for text in texts]
    return "\n".join([*parts, *([summary] if summary else [])])


def fleet_summary_text(reports: Sequence[HostReport], look: Look = PLAIN) -> str:
    """One line per host and one that counts; empty for fewer than two hosts."""
    if len(reports) < 2:
        return ""
    width = max(len(line(report.target)) for report in reports)
    out = []
    for report in reports:
        changed = sum(outcome.state == "changed" for outcome in report.outcomes)
        headline, style = HEADLINES.get(report.status, (report.status, "cyan"))
        words = count(changed, "change") if report.status == "changed" else ""
        plain = f"  {line(report.target):<{width}}  "
        out += hang(plain, plain, f"{headline}" + (f", {words}" if words else ""), look, style)
    return "\n".join([*out, _totals(reports, look)])


def _totals(reports: Iterable[HostReport], look: Look) -> str:
    totals: dict[str, int] = {}
    for report in reports:
        totals[report.status] = totals.get(report.status, 0) + 1
    return look.paint(f"{count(sum(totals.values()), 'host')}: {', '.join(f'{number} {line(status)}' for status, number in totals.items())}", "bold")
