"""Proving a host without changing it, and telling what runs or ran on it."""

from __future__ import annotations

import time

from provision import render
from provision.actions import Smoke
from provision.catalog import Catalog
from provision.errors import Error
from provision.follow import follow_active
from provision.look import RunOptions, observe
from provision.model import Check, HostReport, Plan
from provision.plan import plan
from provision.playbook import Loaded
from provision.progress import Progress
from provision.run import Clock
from provision.spec import Spec
from provision.steps.smoke import STEP as SMOKE
from provision.transport import Transport
from provision.transport.errors import SudoPasswordNeeded

STATUS_OF_EXIT = {4: "unreachable", 5: "unsupported"}


def verify(transport: Transport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress) -> HostReport:
    """Prove without changing: nothing is missing or forbidden, and the smoke container runs now. Exit code 7 where that does not hold."""
    clock = Clock()
    try:
        began = time.monotonic()
        progress.stage(transport.name, "looking")
        _, facts = observe(transport, loaded.spec, options.steps)
        clock.add("look", began)
        decided = plan(facts, loaded.spec, catalog, options.steps)
        report = _judged(transport, decided, progress, clock)
    except SudoPasswordNeeded:
        raise
    except Error as error:
        report = HostReport(
            transport.name,
            STATUS_OF_EXIT.get(error.exit_code, "failed"),
            error.exit_code,
            timings=clock.timings(),
            message=error.message,
            fix=error.fix,
        )
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
    result = transport.run(render.smoke_script(item.action), sudo=True, timeout=900)
    checks = []
    for line in result.out.decode(errors="replace").splitlines():
        words = line.split("\t")
        if len(words) >= 4 and words[0] == "check":
            checks.append(Check(words[1], words[2], words[3]))
    if not checks or (result.rc and not any(c.state == "failed" for c in checks)):
        said = result.err.decode(errors="replace").strip().splitlines()
        checks.append(Check("smoke", "failed", said[-1][:300] if said else f"the smoke script ended with exit code {result.rc}"))
    return checks


def status(transport: Transport, follow: bool, progress: Progress) -> HostReport:
    """What runs or ran last on the host; with `follow`, until it has ended. Changes nothing."""
    clock = Clock()
    try:
        began = time.monotonic()
        _, facts = observe(transport, Spec())
        clock.add("look", began)
        active = facts.run if facts.run is not None and facts.run.state == "running" else None
        if active is not None and follow:
            followed = follow_active(transport, active.id, progress, None)
            state = "converged" if followed.rc == 0 else "failed"
            return HostReport(
                transport.name,
                state,
                0 if followed.rc == 0 else 1,
                outcomes=tuple(followed.outcomes),
                timings=clock.timings(),
                message=f"run {active.id} ended with exit code {followed.rc}",
                run_ids=(active.id,),
                log=followed.log,
            )
        if active is not None:
            message, state, code = (
                f"run {active.id} of {active.owner or '?'} is going on since {active.since or '?'}",
                "running",
                0,
            )
        elif facts.last_run is not None:
            last = facts.last_run
            state, code = ("converged", 0) if last.state == "done" else (last.state, 1)
            message = f"the last run, {last.id}, ended: {last.state}" + (f" (exit code {last.rc})" if last.rc is not None else "")
        else:
            message, state, code = "mlhost has not run on this host", "unknown", 0
        proof = facts.proof
        if proof:
            message += (
                f"; proved {proof.get('time', '?')} with Docker {proof.get('docker', '?')} and {proof.get('gpus', '0') or 0} GPUs"
            )
        return HostReport(transport.name, state, code, timings=clock.timings(), message=message)
    except SudoPasswordNeeded:
        raise
    except Error as error:
        return HostReport(
            transport.name,
            {4: "unreachable"}.get(error.exit_code, "failed"),
            error.exit_code,
            message=error.message,
            fix=error.fix,
        )
