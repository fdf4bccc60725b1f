"""One host from probe to proof. Everything here talks to a host; everything it decides with is pure and lives elsewhere."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path

from provision import keys, reach, render
from provision.capture import split
from provision.catalog import Catalog
from provision.errors import Error, ProbeFailed
from provision.facts import parse
from provision.follow import Followed, apply, follow_active
from provision.model import CHANGE, Check, Facts, HostReport, Item, Outcome, Plan, Reach, Timing
from provision.plan import Step, digest, plan, watched, watched_disks
from provision.playbook import Loaded
from provision.probe import probe_args, probe_script
from provision.progress import Progress
from provision.reboot import ask as ask_reboot
from provision.reboot import continue_unit, reboot_and_wait
from provision.spec import Spec
from provision.steps.smoke import STEP as SMOKE
from provision.transport import Transport

PROBE_TIMEOUT = 180.0
# Enough for: a run of somebody else's, stage, reboot, stage, proof; more means that the host does not settle.
MAX_STAGES = 6
DOCKER_CONFLICTS = "docker/conflicts"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlhost" / "keys"


@dataclass(frozen=True)
class RunOptions:
    """What the user allows. `reboot`: ask, allow, never. `ask` puts a question to the user; None where nobody is there to answer.

    `timeout` bounds one stage, in seconds. `self_command` starts the same run again after a reboot of this machine. `offline` asks
    no source whether it can be reached.
    """

    yes: bool = False
    reboot: str = "ask"
    lock_wait: int | None = None
    offline: bool = False
    timeout: float | None = None
    ask: Callable[[str], bool] | None = None
    self_command: tuple[str, ...] = ()
    cache: Path = field(default_factory=_cache)
    steps: Sequence[Step] = ()


class _Clock:
    """How long each part took, in the order they began; parts of one name are added up."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def add(self, name: str, since: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - since

    def timings(self) -> tuple[Timing, ...]:
        return tuple(Timing(name, seconds) for name, seconds in self._seconds.items())


@lru_cache(maxsize=1)
def _reach_text() -> str:
    return (resources.files("provision") / "scripts" / "reach.sh").read_text(encoding="utf-8")


# ---------------------------------------------------------------- looking


def observe(transport: Transport, spec: Spec, steps: Sequence[Step] = ()) -> tuple[bytes, Facts]:
    """Run the probe: one connection, one command. Returns the raw capture and the facts. Raises ProbeFailed, Unreachable, SudoError kinds."""
    mark = secrets.token_hex(8)
    args = probe_args(mark, asked_at=int(time.time()), paths=watched(spec, steps), disks=watched_disks(spec))
    result = transport.run(probe_script(), *args, sudo=True, timeout=PROBE_TIMEOUT)
    try:
        return result.out, parse(split(result.out, mark))
    except ProbeFailed as error:
        said = result.err.decode(errors="replace").strip().splitlines()
        raise ProbeFailed(
            f"{transport.name}: {error.message}{' It said: ' + said[-1][:200] if said else ''}", error.fix
        ) from None


def capture_root(root: str, arch: str | None, spec: Spec) -> bytes:
    """The raw capture of an unpacked system under `root`; no command of this machine's system answers for it."""
    from provision.transport.local import LocalTransport

    mark = secrets.token_hex(8)
    args = probe_args(mark, root=root, arch=arch or os.uname().machine, paths=watched(spec), disks=watched_disks(spec))
    with LocalTransport() as here:
        return here.run(probe_script(), *args, timeout=PROBE_TIMEOUT).out


def _ask_reach(transport: Transport, spec: Spec, asked: Sequence[tuple[str, str]]) -> Mapping[str, Reach]:
    mark = secrets.token_hex(8)
    words = [word for pair in asked for word in pair]
    result = transport.run(reach.script(_reach_text(), spec.proxy), mark, *words, sudo=True, timeout=180)
    return reach.parse(result.out, asked, mark)


def plan_of(
    transport: Transport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress
) -> tuple[Facts, Plan]:
    """Look at the host and decide. Where something is to be fetched, the host is asked whether it can reach the sources, and the plan made with that."""
    progress.stage(transport.name, "looking")
    _, facts = observe(transport, loaded.spec, options.steps)
    return _decide(transport, facts, loaded.spec, catalog, options, progress)


def _decide(
    transport: Transport, facts: Facts, spec: Spec, catalog: Catalog, options: RunOptions, progress: Progress
) -> tuple[Facts, Plan]:
    decided = plan(facts, spec, catalog, options.steps)
    # Twice at most: a source that cannot be reached may make way for another.
    for _ in range(2):
        unasked = [url for url in decided.urls if url not in facts.reach]
        if not unasked or options.offline:
            break
        progress.stage(transport.name, "asking for the package sources")
        answers = _ask_reach(transport, spec, [("head", url) for url in unasked])
        facts = replace(facts, reach={**facts.reach, **answers})
        decided = plan(facts, spec, catalog, options.steps)
    return facts, decided


def plan_from_capture(raw: bytes, loaded: Loaded, catalog: Catalog, steps: Sequence[Step] = ()) -> tuple[Facts, Plan]:
    """Decide from a capture alone; no host is asked anything."""
    facts = parse(split(raw))
    return facts, plan(facts, loaded.spec, catalog, steps)


def facts_of(transport: Transport, spec: Spec, catalog: Catalog) -> tuple[bytes, Facts]:
    """The raw capture of a host and its facts."""
    return observe(transport, spec)


# ---------------------------------------------------------------- doing


def script_of(decided: Plan, loaded: Loaded, options: RunOptions, transport: Transport | None = None) -> str:
    """The very script that would run for the plan's next stage. Keys come from the cache, the network, or (with a transport) from the host."""
    return render.stage(
        _with_keys(decided, loaded.spec, options, transport), run_id=_run_id(), lock_wait=_lock_wait(loaded.spec, options)
    )


def _lock_wait(spec: Spec, options: RunOptions) -> int:
    return spec.preflight.lock_wait if options.lock_wait is None else options.lock_wait


def _run_id() -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)


def _owner() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"uid {os.getuid()}@{socket.gethostname()}"


def _with_keys(decided: Plan, spec: Spec, options: RunOptions, transport: Transport | None) -> Plan:
    def host(urls: tuple[str, ...]) -> Mapping[str, bytes]:
        if transport is None:
            return {}
        return {
            url: answer.content
            for url, answer in _ask_reach(transport, spec, [("get", url) for url in urls]).items()
            if answer.ok
        }

    return keys.gather(decided, options.cache, host)


def setup(transport: Transport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress) -> HostReport:
    """Make the host what the playbook says and prove it. Never raises an `Error` for what the host is or does: the report tells."""
    clock = _Clock()
    work = _Work(transport, loaded, catalog, options, progress, clock)
    try:
        report = work.until_settled()
    except Error as error:
        report = work.failed(error)
    progress.done(transport.name, report)
    return report


@dataclass
class _Work:
    """One setup under way: what was seen first, what was done so far."""

    transport: Transport
    loaded: Loaded
    catalog: Catalog
    options: RunOptions
    progress: Progress
    clock: _Clock
    spec: Spec = field(init=False)
    before: Plan | None = None
    after: Plan | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)
    log: str = ""
    proof: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spec = self.loaded.spec
        if self.options.yes and not self.spec.docker.remove_conflicts:
            self.spec = replace(self.spec, docker=replace(self.spec.docker, remove_conflicts=True))

    def until_settled(self) -> HostReport:
        for _ in range(MAX_STAGES):
            facts, decided = self.look()
            self.after = decided
            self.before = self.before or decided
            self.proof = facts.proof
            if decided.problems and not self.consent(decided):
                return self.report("unsupported" if any(p.unsupported for p in decided.problems) else "refused")
            if decided.problems:
                self.before = None
                continue
            if not decided.changes:
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
        _, facts = observe(self.transport, self.spec, self.options.steps)
        self.clock.add("look", began)
        while facts.run is not None and facts.run.state == "running":
            began = time.monotonic()
            owner = f"{facts.run.owner or 'somebody'} since {facts.run.since or 'a while'}"
            self.progress.stage(self.transport.name, f"following the run that {owner} has going here")
            followed = follow_active(self.transport, facts.run.id, self.progress, self.options.timeout)
            self.keep(followed)
            self.clock.add("follow", began)
            _, facts = observe(self.transport, self.spec, self.options.steps)
        began = time.monotonic()
        answer = _decide(self.transport, facts, self.spec, self.catalog, self.options, self.progress)
        self.clock.add("plan", began)
        return answer

    def consent(self, decided: Plan) -> bool:
        """Whether the only thing in the way was a consent, and the user gives it."""
        asked = [p for p in decided.problems if p.id == DOCKER_CONFLICTS]
        if len(asked) != len(decided.problems) or self.options.ask is None or self.spec.docker.remove_conflicts:
            return False
        if not self.options.ask(f"{asked[0].message} Remove them?"):
            return False
        self.spec = replace(self.spec, docker=replace(self.spec.docker, remove_conflicts=True))
        return True

    def stage(self, facts: Facts, decided: Plan) -> HostReport | None:
        """Carry out one stage; None where the next look is to decide how it goes on."""
        began = time.monotonic()
        ready = _with_keys(decided, self.spec, self.options, self.transport)
        self.clock.add("keys", began)
        run_id = _run_id()
        script = render.stage(ready, run_id=run_id, lock_wait=_lock_wait(self.spec, self.options))
        self.progress.stage(self.transport.name, "working")
        began = time.monotonic()
        titles = {item.id: item.why for item in ready.items}
        followed = apply(self.transport, script, run_id, _owner(), digest(decided), titles, self.progress, self.options.timeout)
        self.keep(followed)
        self.clock.add("work", began)
        if followed.rc == 0:
            return None
        if followed.rc in (render.REBOOT_NOW, render.REBOOT_NEEDED):
            return self.reboot(facts, decided, followed)
        return self.report(
            "failed",
            followed.reason(),
            "The log on the host has the whole story: "
            f"/var/lib/mlhost/runs/{followed.run_id}/log. "
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
            ask_reboot(self.transport, continue_unit(self.options.self_command, str(Path.cwd())))
            return self.report(
                "rebooting",
                f"This machine reboots now: {why}. mlhost goes on by itself afterwards.",
                "Follow it then with `mlhost status --follow`.",
            )
        reboot_and_wait(self.transport, facts.boot_id or "", lambda text: self.progress.wait(self.transport.name, text))
        self.outcomes.append(Outcome("reboot", "changed", time.monotonic() - began, "the boot id has changed"))
        self.clock.add("reboot", began)
        return None

    def keep(self, followed: Followed) -> None:
        self.run_ids.append(followed.run_id)
        self.outcomes += followed.outcomes
        self.log = followed.log or self.log

    def report(self, status: str, message: str = "", fix: str = "") -> HostReport:
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
        )

    def failed(self, error: Error) -> HostReport:
        status = {4: "unreachable", 5: "unsupported", 6: "reboot"}.get(error.exit_code, "failed")
        return replace(self.report(status, error.message, error.fix), exit_code=error.exit_code)


def _is_here(transport: Transport) -> bool:
    from provision.transport.local import LocalTransport

    return isinstance(transport, LocalTransport)


def _proof_checks(decided: Plan | None, proof: Mapping[str, str]) -> tuple[Check, ...]:
    """The proof on the host as checks for the report."""
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


# ---------------------------------------------------------------- proving


def verify(transport: Transport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress) -> HostReport:
    """Prove without changing: the plan is empty, and the smoke container runs now. Exit code 7 where it does not."""
    clock = _Clock()
    work = _Work(transport, loaded, catalog, options, progress, clock)
    try:
        began = time.monotonic()
        progress.stage(transport.name, "looking")
        _, facts = observe(transport, loaded.spec, options.steps)
        clock.add("look", began)
        decided = plan(facts, loaded.spec, catalog, options.steps)
        work.before = work.after = decided
        if decided.problems:
            report = work.report("unsupported" if any(p.unsupported for p in decided.problems) else "refused")
        else:
            progress.stage(transport.name, "proving")
            began = time.monotonic()
            checks = [_settled(decided), *_smoke_checks(transport, decided)]
            clock.add("prove", began)
            broken = next((c for c in checks if c.state == "failed"), None)
            report = replace(
                work.report(
                    "verified" if broken is None else "unverified",
                    "" if broken is None else f"{broken.id}: {broken.evidence}",
                    "" if broken is None else "Run `mlhost setup` to put it right, or `mlhost plan` to see what is missing.",
                ),
                checks=tuple(checks),
                exit_code=0 if broken is None else 7,
            )
    except Error as error:
        report = work.failed(error)
    progress.done(transport.name, report)
    return report


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
    item: Item | None = next((i for i in decided.items if i.step == SMOKE), None)
    if item is None:
        return [Check("smoke", "skipped", "the playbook asks for no proof")]
    from provision.actions import Smoke

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


# ---------------------------------------------------------------- asking


def status(transport: Transport, follow: bool, progress: Progress) -> HostReport:
    """What runs or ran last on the host; with `follow`, until it has ended. Changes nothing."""
    clock = _Clock()
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
    except Error as error:
        return HostReport(
            transport.name,
            {4: "unreachable"}.get(error.exit_code, "failed"),
            error.exit_code,
            message=error.message,
            fix=error.fix,
        )


__all__ = [
    "CHANGE",
    "RunOptions",
    "capture_root",
    "facts_of",
    "observe",
    "plan_from_capture",
    "plan_of",
    "script_of",
    "setup",
    "status",
    "verify",
]
