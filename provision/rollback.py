"""One host's way back: look, plan, ask, carry out in the host's journal, look again. What it decides with is pure and lives in `backplan`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from provision import render, render_back
from provision.actions import TakeBack
from provision.backplan import Wish, packages_words, plan_back
from provision.capture import split
from provision.errors import Error, Failed, Unsupported, UsageError
from provision.follow import Followed, HostBusy, apply, follow_others
from provision.look import RunOptions, observe
from provision.model import CHANGE, Facts, HostReport, Outcome, Plan, PlatformRow, Problem
from provision.plan import digest
from provision.report.describe import describe
from provision.report.verdict import STATUS_OF_EXIT
from provision.run import Clock, new_run_id, owner
from provision.spec import Spec
from provision.traces import Traces, parse
from provision.transport.errors import SudoPasswordNeeded

if TYPE_CHECKING:
    from provision.catalog import Catalog
    from provision.progress import Progress
    from provision.transport import Transport

LOOK_TIMEOUT = 600.0
# Somebody else's run may be in the way several times; more means that the host does not come to rest.
MAX_TRIES = 6
STATE = "/var/lib/mlhost"
LEFT_BEHIND = (
    STATE,
    "/etc/systemd/system/mlhost-continue.service",
    "/etc/systemd/system/multi-user.target.wants/mlhost-continue.service",
    "/etc/systemd/system/mlhost-pull.service",
    "/etc/systemd/system/multi-user.target.wants/mlhost-pull.service",
    "/run/mlhost",
    "/etc/mlhost",
    "/usr/local/lib/mlhost",
)


@dataclass(frozen=True)
class Asked:
    """What the user wants taken back: `run` by its id, `everything` since before mlhost, or (neither) the last run that changed something.

    `uninstall` removes mlhost's own state as well, `purge` Docker's data.
    """

    run: str = ""
    everything: bool = False
    uninstall: bool = False
    purge: bool = False


def look_back(transport: Transport) -> Traces:
    """What runs have left on the host and how it stands. One command, read-only. Raises Failed, ProbeFailed, Unreachable kinds."""
    mark = secrets.token_hex(8)
    result = transport.run(render_back.lookback(), mark, sudo=True, timeout=LOOK_TIMEOUT)
    return parse(split(result.out, mark))


def chosen(traces: Traces, asked: Asked) -> tuple[str, ...]:
    """The runs to be taken back; empty where that is done already or there are none. Raises UsageError for a run that is not known."""
    if asked.everything:
        return traces.runs
    if not asked.run:
        return (traces.last,) if traces.last else ()
    run = asked.run.partition(".")[0]
    if run in traces.runs:
        return (run,)
    if run in traces.undone:
        return ()
    known = ", ".join(traces.runs) or "none"
    raise UsageError(f"Run {asked.run} has changed nothing on this host that could be taken back.", f"Runs that have: {known}.")


def plan_rollback(transport: Transport, asked: Asked, catalog: Catalog, progress: Progress) -> Plan:
    """What the way back would be; changes nothing."""
    progress.stage(transport.name, "looking")
    _, facts = observe(transport, Spec())
    return _decide(transport, facts, asked, catalog)[0]


def _decide(transport: Transport, facts: Facts, asked: Asked, catalog: Catalog, wish: Wish | None = None) -> tuple[Plan, Wish, Traces]:
    traces = look_back(transport)
    wish = wish or Wish(chosen(traces, asked), asked.purge)
    platform, update = _platform(facts, catalog)
    decided = plan_back(facts, traces, wish, platform, update)
    words = next((i.action.words for i in decided.changes if isinstance(i.action, TakeBack) and i.action.what == "packages"), ())
    problem = _in_the_way(transport, packages_words(words)) if words else None
    return (replace(decided, problems=(*decided.problems, problem)) if problem else decided), wish, traces


def _in_the_way(transport: Transport, words: Sequence[str]) -> Problem | None:
    """What the host's package manager would have to remove besides, or why it cannot do it at all."""
    mark = secrets.token_hex(8)
    sections = split(transport.run(render_back.lookback(), mark, *words, sudo=True, timeout=LOOK_TIMEOUT).out, mark)
    said = sections["in-the-way"].text.strip() if "in-the-way" in sections else ""
    if said.startswith("!"):
        return Problem("back/packages", f"The packages cannot be taken back: {said[1:].strip()}", "Put that right (`sudo apt-get -f install`), then run this again.")
    names = said.split()
    if not names:
        return None
    message = f"Somebody has installed packages since that need what would be removed: {', '.join(names)}."
    return Problem("back/packages", message, f"Remove them first: sudo apt-get remove {' '.join(names)}")


def _platform(facts: Facts, catalog: Catalog) -> tuple[PlatformRow, str]:
    """The platform's row for the plan, and its command for the boot ramdisk. What is not supported can still be left."""
    os = facts.os
    row = PlatformRow(os.id, os.version_id, os.codename, "", facts.arch, catalog.cloud(facts.dmi), os.pretty_name)
    try:
        found = catalog.platform(os, facts.arch)
    except Unsupported:
        return row, ""
    return replace(row, id=found.id, version=found.version, codename=found.codename, family=found.family), found.initramfs_update


def roll_back(transport: Transport, asked: Asked, catalog: Catalog, options: RunOptions, progress: Progress) -> HostReport:
    """Take back what was asked for. Never raises an `Error` for what the host is or does, but UsageError for a run that it does not know."""
    work = _Back(transport, asked, catalog, options, progress)
    try:
        report = work.until_done()
    except (SudoPasswordNeeded, UsageError):
        raise
    except Error as error:
        report = replace(work.report(STATUS_OF_EXIT.get(error.exit_code, "failed"), error.message, error.fix), exit_code=error.exit_code)
    progress.done(transport.name, report)
    return report


@dataclass
class _Back:
    """One way back under way."""

    transport: Transport
    asked: Asked
    catalog: Catalog
    options: RunOptions
    progress: Progress
    clock: Clock = field(default_factory=Clock)
    wish: Wish | None = None
    before: Plan | None = None
    after: Plan | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)
    log: str = ""

    def until_done(self) -> HostReport:
        for _ in range(MAX_TRIES):
            decided, traces = self.look()
            if decided.problems:
                return self.report("refused")
            if not decided.changes:
                return self.end(traces)
            question = self.question(decided)
            if question and not self.options.yes and (self.options.ask is None or not self.options.ask(question)):
                return self.report("refused", question, "Answer with yes, or give --yes.")
            failed = self.carry_out(decided)
            if failed is not None:
                return failed
        still = ", ".join(i.id for i in self.after.changes) if self.after else ""
        return self.report("failed", f"Not everything could be taken back ({still}).", "Look at the log above.")

    def look(self) -> tuple[Plan, Traces]:
        began = time.monotonic()
        self.progress.stage(self.transport.name, "looking again" if self.run_ids else "looking")
        _, facts = observe(self.transport, Spec())
        while facts.run is not None and facts.run.state == "running":
            follow_others(self.transport, facts.run, self.progress, self.options.timeout)
            _, facts = observe(self.transport, Spec())
        # What was shown and agreed to is what is taken back, whatever has come since.
        decided, wish, traces = _decide(self.transport, facts, self.asked, self.catalog, self.wish)
        self.after = decided
        self.before, self.wish = self.before or decided, self.wish or wish
        self.clock.add("look", began)
        return decided, traces

    def question(self, decided: Plan) -> str:
        """What has to be agreed to; "" where nothing of it is worth a question."""
        parts = [f"{describe(i.action)}" for i in decided.changes if isinstance(i.action, TakeBack) and i.action.what in ("packages", "data")]
        if not parts:
            return ""
        told = f" Services that stop: {', '.join(decided.restarts)}." if decided.restarts else ""
        return f"{self.transport.name}: this is going to {' and '.join(parts)}.{told} Go on?"

    def carry_out(self, decided: Plan) -> HostReport | None:
        """Run the plan's script in the host's journal; None where the next look decides how it goes on."""
        run_id = new_run_id()
        script = render.stage(decided, run_id=run_id, lock_wait=render.LOCK_WAIT if self.options.lock_wait is None else self.options.lock_wait)
        titles = {item.id: describe(item.action) for item in decided.items if item.action is not None}
        self.progress.stage(self.transport.name, "taking back")
        began = time.monotonic()
        try:
            followed = apply(self.transport, script, run_id, owner(), digest(decided), titles, self.progress, self.options.timeout)
        except HostBusy as busy:
            self.progress.wait(self.transport.name, busy.message)
            time.sleep(1.0)
            return None
        self.clock.add("work", began)
        self.keep(followed)
        if followed.rc == 0:
            return None
        where = f"/var/lib/mlhost/runs/{followed.run_id}/log"
        fix = f"The log on the host has the whole story: {where}. Put it right and run the same command again; it goes on where this ended."
        return self.report("failed", followed.reason(), fix)

    def keep(self, followed: Followed) -> None:
        self.run_ids.append(followed.run_id)
        self.outcomes += followed.outcomes
        self.log = followed.log or self.log

    def end(self, traces: Traces) -> HostReport:
        """Nothing is left to be taken back."""
        took = any(o.state == "changed" for o in self.outcomes)
        if self.asked.uninstall:
            return self.tidy(traces)
        if took:
            return self.report("taken back")
        if self.asked.run or not traces.runs:
            return self.report("nothing to take back", "what mlhost has changed here is taken back already" if traces.undone else "mlhost has changed nothing on this host")
        return self.report(
            "nothing to take back",
            f"what was changed last is taken back already; earlier runs that are not: {', '.join(traces.runs)} (`--run ID`, or `--all`)",
        )

    def tidy(self, traces: Traces) -> HostReport:
        """Remove mlhost's own state. The backups of files that stayed as somebody changed them stay too."""
        if not (traces.state or traces.left or self.outcomes):
            return self.report("nothing to take back", "there is nothing of mlhost on this host")
        # For this machine it is the very environment that this program may run from: what is still to be printed is read now.
        import provision.report.jsonout
        import provision.report.junit
        import provision.report.text  # noqa: F401

        began = time.monotonic()
        keep = any(n.id.startswith("back/file") for n in (self.before.notices if self.before else ()))
        self.progress.stage(self.transport.name, "removing mlhost's own state")
        result = self.transport.run(render_back.tidy(LEFT_BEHIND, keep_backups=keep), sudo=True, timeout=LOOK_TIMEOUT)
        self.clock.add("tidy", began)
        if result.rc:
            said = result.err.decode(errors="replace").strip().splitlines()
            raise Failed(
                f"{self.transport.name}: mlhost's own state could not be removed: {said[-1][:300] if said else f'exit code {result.rc}'}.",
                "Run the same command again.",
            )
        kept = f"; {STATE}/backup stays, for files that stayed as somebody had changed them" if keep else ""
        self.outcomes.append(Outcome("uninstall/state", "changed", time.monotonic() - began, f"remove mlhost's journal, receipts and environment{kept}"))
        return self.report("taken back", "" if not self.asked.uninstall else "mlhost is no longer on this host.")

    def report(self, status: str, message: str = "", fix: str = "") -> HostReport:
        code = {"taken back": 0, "nothing to take back": 0}.get(status, 1)
        return HostReport(
            self.transport.name,
            status,
            code,
            self.before,
            self.after,
            tuple(self.outcomes),
            (),
            self.clock.timings(),
            message,
            fix,
            # After an uninstall there is no journal to look into.
            () if any(o.id == "uninstall/state" for o in self.outcomes) else tuple(self.run_ids),
            self.log,
        )


def changes(plan: Plan) -> bool:
    """Whether there is anything to be taken back."""
    return any(item.state == CHANGE for item in plan.items)
