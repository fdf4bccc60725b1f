"""What mlhost does or did on a host, read from the journal there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from provision.catalog import Catalog
from provision.errors import Error
from provision.follow import Followed, follow_active
from provision.lockplan import Pinned
from provision.lockplan import checks as skewed
from provision.look import RunOptions, made, observe
from provision.model import OK, Facts, HostReport, LastRun, Plan, Timing
from provision.plan import Step
from provision.playbook import Loaded
from provision.progress import Progress
from provision.reboot import UNIT
from provision.report.verdict import report_of_error, report_of_plan
from provision.run import values_name
from provision.spec import Spec
from provision.transport import Transport
from provision.transport.errors import SudoPasswordNeeded, WireError
from provision.versions import versions

# How long a follower waits for the run that comes after a reboot: a boot, and mlhost's own first look.
PATIENCE = 600.0
PAUSE = 2.0


@dataclass(frozen=True)
class Wanted:
    """What a host is compared with: a desired state, its own steps, and a lock that it is held to."""

    loaded: Loaded
    catalog: Catalog
    steps: Sequence[Step] = ()
    pinned: Pinned | None = None


def status(transport: Transport, follow: bool, progress: Progress, wanted: Wanted | None = None) -> HostReport:
    """What runs or ran last on the host, and how it stands: what is `wanted`, and what has drifted since the last run. Changes nothing.

    With `follow`: watch what runs to its end, over a reboot in between, and tell that alone.
    """
    began = time.monotonic()
    try:
        if follow:
            return _follow(transport, progress)
        progress.stage(transport.name, "looking")
        facts = _look(transport, wanted)
        told = replace(_told(transport, facts, began), versions=versions(facts), last_run=_last_run(facts))
        return _compared(told, facts, wanted) if wanted is not None and told.status != "running" else told
    except SudoPasswordNeeded:
        raise
    except Error as error:
        return report_of_error(transport.name, error)


def _look(transport: Transport, wanted: Wanted | None = None) -> Facts:
    if wanted is None:
        return observe(transport, Spec())[1]
    return observe(transport, wanted.loaded.spec, wanted.steps, packages=wanted.pinned.names if wanted.pinned else ())[1]


def _last_run(facts: Facts) -> LastRun | None:
    run = facts.run if facts.run is not None and facts.run.state == "running" else facts.last_run
    return None if run is None else LastRun(run.id, run.state, run.since, run.owner, run.version, run.playbook, run.rc)


def _compared(told: HostReport, facts: Facts, wanted: Wanted) -> HostReport:
    """What the host is, beside what it is to be. A run that failed or waits for a reboot counts as long as something is left to do."""
    decided = made(facts, wanted.loaded.spec, wanted.catalog, RunOptions(steps=wanted.steps, pinned=wanted.pinned))
    told = replace(told, checks=skewed(facts, wanted.pinned)) if wanted.pinned else told
    stands = report_of_plan(told.target, decided)
    if stands.exit_code in (0, 1, 5) or told.exit_code == 0:
        state, code = stands.status, stands.exit_code
    else:
        state, code = told.status, told.exit_code
    message, fix = stands.message or told.message, stands.fix
    return replace(told, status=state, exit_code=code, before=decided, message=message, fix=fix, drift=drift(facts, decided, wanted.loaded))


def drift(facts: Facts, decided: Plan, loaded: Loaded) -> tuple[str, ...]:
    """The ids of what was right after mlhost's last run and is not now. Nothing can be said where that run wanted other values."""
    last = facts.last_run
    if last is None or last.values != values_name(loaded):
        return ()
    right = {*last.right, *(last.doing if last.state == "done" else ())}
    return tuple(item.id for item in decided.items if item.state != OK and item.id in right)


def _follow(transport: Transport, progress: Progress) -> HostReport:
    began = quiet_since = time.monotonic()
    followed: Followed | None = None
    while True:
        try:
            facts = _look(transport)
        except WireError as error:
            # A host that reboots is away for a while.
            if followed is None or not error.retryable or time.monotonic() - quiet_since > PATIENCE:
                raise
            progress.wait(transport.name, error.message)
            transport.close()
            time.sleep(PAUSE)
            continue
        if facts.run is not None and facts.run.state == "running":
            progress.stage(transport.name, f"following run {facts.run.id}")
            followed = follow_active(transport, facts.run.id, progress, None)
            quiet_since = time.monotonic()
            continue
        if not _more_to_come(facts) or time.monotonic() - quiet_since > PATIENCE:
            return _told(transport, facts, began, followed)
        progress.wait(transport.name, "the run goes on after the reboot")
        time.sleep(PAUSE)


def _more_to_come(facts: Facts) -> bool:
    """Whether a run is going to follow: mlhost is at work between two, or waits for the boot that the last one asked for."""
    unit = facts.units.get(UNIT)
    at_work = unit is not None and unit.active in ("active", "activating")
    waits = unit is not None and unit.enabled == "enabled"
    return at_work or (waits and facts.last_run is not None and facts.last_run.state == "reboot")


def _told(transport: Transport, facts: Facts, began: float, followed: Followed | None = None) -> HostReport:
    if facts.run is not None and facts.run.state == "running":
        message = f"run {facts.run.id} of {facts.run.owner or '?'} is going on since {facts.run.since or '?'}"
        state, code = "running", 0
    elif facts.last_run is not None:
        last = facts.last_run
        state, code = ("converged", 0) if last.state == "done" else (last.state, 6 if last.state == "reboot" else 1)
        message = f"the last run, {last.id}, ended: {last.state}" + (f" (exit code {last.rc})" if last.rc is not None else "")
    else:
        message, state, code = "mlhost has not run on this host", "unknown", 0
    proof = facts.proof
    if proof:
        gpus = proof.get("gpus", "0") or "0"
        message += f"; proved {proof.get('time', '?')} with Docker {proof.get('docker', '?')}, {gpus} GPU{'' if gpus == '1' else 's'}"
    return HostReport(
        transport.name,
        state,
        code,
        outcomes=followed.outcomes if followed else (),
        timings=(Timing("look", time.monotonic() - began),),
        message=message,
        run_ids=(followed.run_id,) if followed else (),
        log=followed.log if followed else "",
    )
