"""One host from probe to proof: look, carry out, reboot, look again, until nothing is left to do. What it decides with is pure and lives elsewhere.

What a run that finds nothing to do does not need, or needs only once the host has answered, is imported where it is used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from provision import __version__
from provision.errors import Error
from provision.look import RunOptions, capture_root, decide, facts_of, observe, plan_from_capture, plan_of, with_keys
from provision.report.verdict import STATUS_OF_EXIT
from provision.transport.errors import SudoPasswordNeeded
from provision.versions import versions as seen_versions

if TYPE_CHECKING:
    from provision.catalog import Catalog
    from provision.follow import Followed
    from provision.model import Check, Facts, HostReport, Outcome, Plan, Timing
    from provision.playbook import Loaded
    from provision.progress import Progress
    from provision.spec import Spec
    from provision.transport import Transport

# Enough for: a run of somebody else's, stage, reboot, stage, proof; more means that the host does not settle.
MAX_STAGES = 6
# The environment variable by which a unit that goes on after a reboot of this machine names the setup it belongs to.
CONTINUES = "MLHOST_CONTINUES"
DRIFTED = "The host is not as it was when the plan was made. Nothing was changed."
# Problems that are only a consent away: packages that what is wanted replaces.
CONSENTS = ("docker/conflicts", "toolkit/conflicts")


class Clock:
    """How long each part took, in the order they began; parts of one name are added up."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def add(self, name: str, since: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - since

    def timings(self) -> tuple[Timing, ...]:
        from provision.model import Timing

        return tuple(Timing(name, seconds) for name, seconds in self._seconds.items())


def script_of(decided: Plan, loaded: Loaded, options: RunOptions, transport: Transport | None = None) -> str:
    """The very script that would run for the plan's next stage. Keys come from the cache, the network, or (with a transport) from the host."""
    from provision import render

    return render.stage(
        with_keys(decided, loaded.spec, options, transport), run_id=new_run_id(), lock_wait=lock_wait(loaded.spec, options)
    )


def lock_wait(spec: Spec, options: RunOptions) -> int:
    """How long a script waits for other package work, in seconds."""
    return spec.preflight.lock_wait if options.lock_wait is None else options.lock_wait


def new_run_id() -> str:
    """A name that sorts by time and that nobody else has."""
    import secrets

    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)


def stage_id(setup: str, number: int) -> str:
    """The name of a stage's run: those after the first add their number, so that a rollback knows what belongs together."""
    if setup == os.environ.get(CONTINUES):
        return f"{setup}.{new_run_id()}"
    return f"{setup}.{number + 1}" if number else setup


def owner() -> str:
    """Who works here, for people: user@machine."""
    import getpass
    import socket

    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"uid {os.getuid()}@{socket.gethostname()}"


def about(decided: Plan, loaded: Loaded) -> dict[str, str]:
    """What a run writes down of itself, so that a later look can tell what has drifted since: `provision.facts.journal` reads it."""
    return {
        "version": __version__,
        "playbook": loaded.spec.name,
        "values": values_name(loaded),
        "right": " ".join(item.id for item in decided.items if item.state == "ok"),
        "doing": " ".join(item.id for item in decided.items if item.state == "change"),
    }


def values_name(loaded: Loaded) -> str:
    """A short name for the values of a desired state: where it is the same, so was what was wanted."""
    return loaded.digest[:16]


def setup(transport: Transport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress) -> HostReport:
    """Make the host what the playbook says and prove it. Never raises an `Error` for what the host is or does: the report tells."""
    clock = Clock()
    work = Work(transport, loaded, catalog, options, progress, clock)
    try:
        report = work.until_settled()
    except SudoPasswordNeeded:
        # Whoever called may ask for it and try again.
        raise
    except Error as error:
        report = work.failed(error)
    progress.done(transport.name, report)
    return report


@dataclass
class Work:
    """One setup under way: what was seen first, what was done so far."""

    transport: Transport
    loaded: Loaded
    catalog: Catalog
    options: RunOptions
    progress: Progress
    clock: Clock
    spec: Spec = field(init=False)
    before: Plan | None = None
    after: Plan | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)
    setup_id: str = ""
    stages: int = 0
    carried: bool = False
    log: str = ""
    proof: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spec = self.loaded.spec
        if self.options.yes and not self.spec.docker.remove_conflicts:
            self.spec = replace(self.spec, docker=replace(self.spec.docker, remove_conflicts=True))

    def until_settled(self) -> HostReport:
        for _ in range(MAX_STAGES):
            facts, decided = self.look()
            self.after = decided
            self.before = self.before or decided
            self.proof, self.versions = facts.proof, seen_versions(facts)
            if self.options.agreed is not None and not self.carried and not decided.converged:
                broken = self.options.agreed(self.transport, decided)
                if broken:
                    return replace(self.report("drifted", DRIFTED, "Review a new plan: `mlhost plan --out FILE`."), checks=broken)
            if decided.problems and not self.consent(decided):
                return self.report("unsupported" if any(p.unsupported for p in decided.problems) else "refused")
            if decided.problems:
                self.before = None
                continue
            if not decided.changes:
                if self.options.bundle and self.carried:
                    self.options.bundle.clear(self.transport)
                return self.report("changed" if any(o.state == "changed" for o in self.outcomes) else "converged")
            if self.run_ids and not any(o.state in ("changed", "ok") for o in self.outcomes):
                break
            end = self.stage(facts, decided)
            if end is not None:
                return end
        still = ", ".join(i.id for i in self.after.changes) if self.after else ""
        return self.report(
            "failed",
            f"The host does not settle: after {len(self.run_ids)} stages there is still something to change ({still}).",
            "Look at the log above; `mlhost plan` shows what is missing.",
        )

    def look(self) -> tuple[Facts, Plan]:
        began = time.monotonic()
        self.progress.stage(self.transport.name, "looking" if not self.run_ids else "looking again")
        _, facts = observe(self.transport, self.spec, self.options.steps, self.options.first, self.options.names)
        self.clock.add("look", began)
        while facts.run is not None and facts.run.state == "running":
            began = time.monotonic()
            from provision.follow import follow_others

            followed = follow_others(self.transport, facts.run, self.progress, self.options.timeout)
            self.keep(followed)
            self.clock.add("follow", began)
            _, facts = observe(self.transport, self.spec, self.options.steps, packages=self.options.names)
        began = time.monotonic()
        answer = decide(self.transport, facts, self.spec, self.catalog, self.options, self.progress)
        self.clock.add("plan", began)
        return answer

    def consent(self, decided: Plan) -> bool:
        """Whether the only thing in the way was a consent, and the user gives it."""
        asked = [p for p in decided.problems if p.id in CONSENTS]
        if len(asked) != len(decided.problems) or self.options.ask is None or self.spec.docker.remove_conflicts:
            return False
        if not self.options.ask(" ".join(p.message for p in asked) + " Remove them?"):
            return False
        self.spec = replace(self.spec, docker=replace(self.spec.docker, remove_conflicts=True))
        return True

    def stage(self, facts: Facts, decided: Plan) -> HostReport | None:
        """Carry out one stage; None where the next look is to decide how it goes on."""
        from provision import render
        from provision.follow import HostBusy, apply
        from provision.plan import digest
        from provision.report.describe import describe

        began = time.monotonic()
        ready = with_keys(decided, self.spec, self.options, self.transport)
        self.clock.add("keys", began)
        if self.options.bundle:
            began = time.monotonic()
            self.options.bundle.lay(self.transport, ready, lambda text: self.progress.stage(self.transport.name, text))
            self.clock.add("bundle", began)
        self.setup_id = self.setup_id or os.environ.get(CONTINUES, "") or new_run_id()
        run_id = stage_id(self.setup_id, self.stages)
        self.stages += 1
        script = render.stage(ready, run_id=run_id, lock_wait=lock_wait(self.spec, self.options))
        self.progress.stage(self.transport.name, "working")
        began = time.monotonic()
        titles = {item.id: describe(item.action) for item in ready.items if item.action is not None}
        try:
            followed = apply(
                self.transport, script, run_id, owner(), digest(decided), titles, self.progress, self.options.timeout, about(decided, self.loaded)
            )
        except HostBusy as busy:
            # Somebody was quicker between the look and the start: the next look follows that run.
            self.progress.wait(self.transport.name, busy.message)
            time.sleep(1.0)
            return None
        self.keep(followed)
        self.carried = True
        self.clock.add("work", began)
        if followed.rc == 0:
            return None
        if followed.rc in (render.REBOOT_NOW, render.REBOOT_NEEDED):
            return self.reboot(facts, decided, followed)
        from provision.remedies import remedy

        known = remedy(followed.reason())
        return self.report(
            "failed",
            followed.reason(),
            (f"The {known.layer}: {known.fix} " if known else "")
            + f"The log on the host has the whole story: /var/lib/mlhost/runs/{followed.run_id}/log. "
            "Put it right and run the same command again; what was done stays done.",
        )

    def reboot(self, facts: Facts, decided: Plan, followed: Followed) -> HostReport | None:
        why = followed.reboot_reason or "the driver's module can only be loaded after one"
        allowed = self.options.reboot
        if allowed == "ask":
            question = f"{self.transport.name} needs a reboot: {why}. Reboot it now?"
            allowed = "allow" if self.options.yes or (self.options.ask is not None and self.options.ask(question)) else "never"
        if allowed != "allow":
            return self.report(
                "reboot",
                f"The rest needs a reboot: {why}.",
                "Allow it with `--reboot`, or reboot the host yourself and run the same command again.",
            )
        self.progress.stage(self.transport.name, "rebooting")
        began = time.monotonic()
        if _is_here(self.transport):
            if not self.options.self_command:
                return self.report(
                    "reboot", f"The rest needs a reboot: {why}.", "Reboot this machine and run the same command again."
                )
            from provision.reboot import ask, continue_record, continue_unit

            command = ("/usr/bin/env", f"{CONTINUES}={self.setup_id}", *self.options.self_command)
            ask(self.transport, continue_unit(command), continue_record(command, str(Path.cwd())))
            return self.report(
                "rebooting",
                f"This machine reboots now: {why}. mlhost goes on by itself afterwards.",
                "Follow it then with `mlhost status --follow`.",
            )
        from provision.model import Outcome
        from provision.reboot import reboot_and_wait

        with self.options.reboots:
            reboot_and_wait(self.transport, facts.boot_id or "", lambda text: self.progress.wait(self.transport.name, text))
        self.outcomes.append(Outcome("reboot", "changed", time.monotonic() - began, "the boot id has changed"))
        self.clock.add("reboot", began)
        return None

    def keep(self, followed: Followed) -> None:
        self.run_ids.append(followed.run_id)
        self.outcomes += followed.outcomes
        self.log = followed.log or self.log

    def report(self, status: str, message: str = "", fix: str = "") -> HostReport:
        from provision.model import HostReport

        code = {"converged": 0, "changed": 0, "rebooting": 0, "unsupported": 5, "reboot": 6}.get(status, 1)
        return HostReport(
            self.transport.name,
            status,
            code,
            self.before,
            self.after,
            tuple(self.outcomes),
            _proof_checks(self.after, self.proof),
            self.clock.timings(),
            message,
            fix,
            tuple(self.run_ids),
            self.log,
            self.versions,
        )

    def failed(self, error: Error) -> HostReport:
        status = STATUS_OF_EXIT.get(error.exit_code, "failed")
        return replace(self.report(status, error.message, error.fix), exit_code=error.exit_code)


def _is_here(transport: Transport) -> bool:
    from provision.transport.local import LocalTransport

    return isinstance(transport, LocalTransport)


def _proof_checks(decided: Plan | None, proof: Mapping[str, str]) -> tuple[Check, ...]:
    """The proof on the host as checks for the report."""
    from provision.model import Check
    from provision.steps.smoke import STEP as SMOKE

    item = next((i for i in decided.items if i.step == SMOKE and i.state == "ok"), None) if decided else None
    if item is None:
        return ()
    checks = [
        Check(
            "container",
            "ok",
            f"a container of {proof.get('image', '?')} ran on Docker {proof.get('docker', '?')} at {proof.get('time', '?')}",
        )
    ]
    if proof.get("gpus", "0") not in ("", "0"):
        checks.append(Check("gpus", "ok", f"PCI, host and container agree on {proof['gpus']}: {proof.get('uuids', '')}"))
    else:
        checks.append(Check("gpus", "skipped", "there is no NVIDIA GPU on this machine"))
    return tuple(checks)


__all__ = [
    "Clock",
    "RunOptions",
    "capture_root",
    "facts_of",
    "observe",
    "plan_from_capture",
    "plan_of",
    "script_of",
    "setup",
    "with_keys",
]
