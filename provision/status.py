"""What mlhost does or did on a host, read from the journal there."""

from __future__ import annotations

import time

from provision.errors import Error
from provision.follow import Followed, follow_active
from provision.look import observe
from provision.model import Facts, HostReport, Timing
from provision.progress import Progress
from provision.reboot import UNIT
from provision.report.verdict import report_of_error
from provision.spec import Spec
from provision.transport import Transport
from provision.transport.errors import SudoPasswordNeeded, WireError

# How long a follower waits for the run that comes after a reboot: a boot, and mlhost's own first look.
PATIENCE = 600.0
PAUSE = 2.0


def status(transport: Transport, follow: bool, progress: Progress) -> HostReport:
    """What runs or ran last on the host. With `follow`: watch it to its end, over a reboot in between. Changes nothing."""
    began = time.monotonic()
    try:
        return _follow(transport, progress) if follow else _told(transport, _look(transport), began)
    except SudoPasswordNeeded:
        raise
    except Error as error:
        return report_of_error(transport.name, error)


def _look(transport: Transport) -> Facts:
    return observe(transport, Spec())[1]


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
