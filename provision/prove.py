"""Proving a host without changing it."""

from __future__ import annotations

import time

from provision import render
from provision.actions import Smoke
from provision.catalog import Catalog
from provision.errors import Error
from provision.look import RunOptions, ask_image, observe
from provision.model import Check, HostReport, Plan
from provision.plan import plan
from provision.playbook import Loaded
from provision.progress import Progress
from provision.report.verdict import report_of_error
from provision.run import Clock
from provision.steps.smoke import STEP as SMOKE
from provision.transport import Transport
from provision.transport.errors import SudoPasswordNeeded


def verify(transport: Transport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress) -> HostReport:
    """Prove without changing: nothing is missing or forbidden, and the smoke container runs now. Exit code 7 where that does not hold."""
    clock = Clock()
    try:
        began = time.monotonic()
        progress.stage(transport.name, "looking")
        _, facts = observe(transport, loaded.spec, options.steps, options.first)
        clock.add("look", began)
        decided = plan(facts, loaded.spec, catalog, options.steps)
        image = ask_image(transport, facts, loaded.spec, decided, progress)
        decided = plan(facts, loaded.spec, catalog, options.steps, image) if image else decided
        report = _judged(transport, decided, progress, clock)
    except SudoPasswordNeeded:
        raise
    except Error as error:
        report = report_of_error(transport.name, error, clock.timings())
    progress.done(transport.name, report)
    return report


def _judged(transport: Transport, decided: Plan, progress: Progress, clock: Clock) -> HostReport:
    unsupported = next((p for p in decided.problems if p.unsupported), None)
    if unsupported:
        return HostReport(transport.name, "unsupported", 5, decided, decided, message=unsupported.message, fix=unsupported.fix)
    checks = [Check(p.id, "failed", p.message) for p in decided.problems]
    if not checks:
        progress.stage(transport.name, "proving")
        began = time.monotonic()
        checks = [_settled(decided), *_smoke_checks(transport, decided)]
        clock.add("prove", began)
    broken = next((c for c in checks if c.state == "failed"), None)
    return HostReport(
        transport.name,
        "verified" if broken is None else "unverified",
        0 if broken is None else 7,
        decided,
        decided,
        checks=tuple(checks),
        timings=clock.timings(),
        message="" if broken is None else f"{broken.id}: {broken.evidence}",
        fix="" if broken is None else "Run `mlhost setup` to put it right, or `mlhost plan` to see what is missing.",
    )


def _settled(decided: Plan) -> Check:
    # The proof itself is what is being made now.
    pending = [i for i in decided.items if i.state != "ok" and i.step != SMOKE]
    if pending:
        return Check(
            "plan",
            "failed",
            f"{len(pending)} thing{'s are' if len(pending) > 1 else ' is'} not as the playbook wants: "
            + ", ".join(i.id for i in pending),
        )
    return Check("plan", "ok", f"all {len(decided.items)} things are as the playbook wants")


def _smoke_checks(transport: Transport, decided: Plan) -> list[Check]:
    item = next((i for i in decided.items if i.step == SMOKE), None)
    if item is None:
        return [Check("smoke", "skipped", "the playbook asks for no proof")]
    if not isinstance(item.action, Smoke):
        return [Check("smoke", "failed", item.why)]
    result = transport.run(render.smoke_script(item.action), sudo=True, timeout=900, max_output=1 << 20)
    checks = []
    for line in result.out.decode(errors="replace").splitlines():
        words = line.split("\t")
        if len(words) >= 4 and words[0] == "check":
            checks.append(Check(words[1], words[2], words[3]))
    if not checks or (result.rc and not any(c.state == "failed" for c in checks)):
        checks.append(Check("smoke", "failed", result.last_words or f"the smoke script ended with exit code {result.rc}"))
    return checks
