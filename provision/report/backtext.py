"""The way back for a person: what is taken back, what stays, and why."""

from __future__ import annotations

from provision.model import Plan
from provision.report.describe import describe
from provision.report.layout import PLAIN, Look, count, hang, labelled, wrap
from provision.report.sanitize import line


def back_text(plan: Plan, look: Look = PLAIN, *, verbose: bool = False, target: str = "", uninstall: bool = False) -> str:
    """The plan of a way back. `verbose` adds what is back already. Ends without a newline."""
    name = line(target or plan.host)
    changes = [item for item in plan.items if item.state in ("change", "refused")]
    if not changes and not plan.problems:
        own = " but mlhost's own state" if uninstall else ""
        return f"{look.paint(name, 'bold')}: nothing to take back{own}"
    out = [look.paint(name, "bold"), ""]
    shown = [item for item in plan.items if verbose or item in changes]
    width = max((len(line(item.id)) for item in shown), default=0)
    for item in shown:
        label = f"{line(item.id):<{width}}"
        plain = f"  {'xx' if look.ascii and len(look.mark(item.state)) > 1 else 'x'} {label}  "
        out += hang(f"  {look.mark(item.state)} {label}  ", plain, describe(item.action) if item.action else item.why, look)
        if item.action:
            out += wrap(item.why, look, len(plain), "dim")
    for problem in plan.problems:
        out += ["", *hang(f"  {look.mark('refused')} ", "  xx " if look.ascii else "  x ", problem.message, look, "red")]
        out += wrap(problem.fix, look, 4)
    if plan.notices:
        out.append("")
        for notice in plan.notices:
            out += labelled("Stays", notice.message, look)
    for stopped in plan.restarts:
        out += labelled("Stops", stopped, look)
    if uninstall:
        out += labelled("Then", "mlhost's own state goes: its journal, receipts, backups and environment in /var/lib/mlhost.", look)
    out += ["", "Refused." if plan.problems else f"{count(len(changes), 'thing')} would be taken back. Nothing has been changed."]
    return "\n".join(out)
