"""From results to the exit code. The codes are part of the outside contract; `provision.errors` lists them.

For several hosts the exit code is that of the host that is worst off. From worst to best:
1 failed (the host may be half way), 7 set up but not proved, 2 wrong input for that host, 4 unreachable (nothing known), 5 unsupported and
6 reboot not allowed (both known and safe), 3 changes pending, 0 fine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provision.errors import Error
    from provision.model import HostReport, Plan, Timing

SEVERITY = (1, 7, 2, 4, 5, 6, 3, 0)

STATUS_OF_EXIT = {0: "converged", 1: "failed", 2: "failed", 3: "pending", 4: "unreachable", 5: "unsupported", 6: "reboot", 7: "unverified"}


def report_of_error(target: str, error: Error, timings: tuple[Timing, ...] = ()) -> HostReport:
    """The report of a host whose work ended with an error before anything was decided."""
    from provision.model import HostReport

    status = STATUS_OF_EXIT.get(error.exit_code, "failed")
    return HostReport(target, status, error.exit_code, timings=timings, message=error.message, fix=error.fix)


def worst(codes: Iterable[int]) -> int:
    """The exit code of a fleet; 0 for no host at all. A code outside the contract counts as 1."""
    known = {code if code in SEVERITY else 1 for code in codes}
    return next((code for code in SEVERITY if code in known), 0)


def plan_exit_code(plan: Plan) -> int:
    """5 for an unsupported system, 1 for a refused plan, 3 while changes are pending, 0 for a converged host."""
    if any(problem.unsupported for problem in plan.problems):
        return 5
    if plan.problems or any(item.state == "refused" for item in plan.items):
        return 1
    return 0 if plan.converged else 3


def report_of_plan(target: str, plan: Plan, versions: Mapping[str, str] | None = None, seconds: float | None = None) -> HostReport:
    """A plan alone as a report: what would be done, and nothing was. `seconds` is what looking took."""
    from provision.model import HostReport, Timing

    code = plan_exit_code(plan)
    status = {1: "refused"}.get(code) or STATUS_OF_EXIT[code]
    problem = plan.problems[0] if plan.problems else None
    return HostReport(
        target,
        status,
        code,
        before=plan,
        timings=() if seconds is None else (Timing("look", seconds),),
        message=problem.message if problem else "",
        fix=problem.fix if problem else "",
        versions=versions or {},
    )


def fleet_exit_code(reports: Iterable[HostReport]) -> int:
    """The exit code for all reports together."""
    return worst(report.exit_code for report in reports)
