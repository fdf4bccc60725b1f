"""Starting a run on a host and following it to its end, over a connection that may break and come back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from provision import journal
from provision.errors import Failed
from provision.journal import Ended, Event, Locked, LogLine, Reader, Refusal
from provision.model import Outcome, Run
from provision.progress import Progress
from provision.remedies import remedy
from provision.sh import Sh
from provision.transport import Transport
from provision.transport.errors import AuthFailed, TimedOut, WireError

# How long a connection that broke during a run is tried again, in seconds; the run itself goes on meanwhile.
PATIENCE = 900.0
# The same for a login that fails although an earlier one worked.
LOGIN_PATIENCE = 60.0
# How long somebody else's run is waited for, in seconds, where nobody says how long.
OTHERS = 7200.0
KEEP_LINES, KEEP_WIDTH = 200, 4000


class HostBusy(Failed):
    """Somebody else's run holds the host. `run` is its id."""

    def __init__(self, message: str, fix: str, run: str) -> None:
        super().__init__(message, fix)
        self.run = run


class RunLost(Failed):
    """The run's process is gone and did not say how it ended."""


@dataclass
class Followed:
    """What is known of a run so far; `rc` None while it has not ended."""

    run_id: str
    rc: int | None = None
    events: list[Event] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    reboot_reason: str = ""

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return journal.outcomes(self.events)

    @property
    def log(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.lines)

    def reason(self) -> str:
        """What failed, in a sentence."""
        failed = next((o for o in self.outcomes if o.state == "failed"), None)
        if failed:
            return f"{failed.id} failed: {failed.detail}" if failed.detail else f"{failed.id} failed."
        return f"The script ended with exit code {self.rc}."


@dataclass
class _Listener:
    """Turns the host's words into progress and remembers them."""

    transport: Transport
    reader: Reader
    followed: Followed
    progress: Progress
    titles: Mapping[str, str]
    locked: Locked | None = None
    refusal: str = ""
    ended: bool = False
    heard: float = 0.0

    def __call__(self, data: bytes) -> None:
        self.heard = time.monotonic()
        for frame in self.reader.feed(data):
            if isinstance(frame, Event):
                self.event(frame)
            elif isinstance(frame, LogLine):
                self.followed.lines = [*self.followed.lines[-KEEP_LINES + 1 :], frame.text[:KEEP_WIDTH]]
                self.progress.line(self.transport.name, frame.text)
            elif isinstance(frame, Locked):
                self.locked = frame
            elif isinstance(frame, Refusal):
                self.refusal = frame.message
            elif isinstance(frame, Ended):
                self.ended, self.followed.rc = True, frame.rc

    def event(self, event: Event) -> None:
        self.followed.events.append(event)
        name = self.transport.name
        if event.kind == "wait":
            self.progress.wait(name, event.detail)
        elif event.kind == "start":
            self.progress.item(name, event.item, self.titles.get(event.item, event.detail), "running")
        elif event.kind in ("ok", "changed", "failed", "skipped"):
            self.progress.item(name, event.item, self.titles.get(event.item, ""), event.kind)
        elif event.kind == "reboot":
            self.followed.reboot_reason = event.detail
        elif event.kind == "note":
            self.progress.line(name, event.detail)


def apply(
    transport: Transport,
    script: Sh,
    run_id: str,
    owner: str,
    digest: str,
    titles: Mapping[str, str],
    progress: Progress,
    timeout: float | None,
    about: Mapping[str, str] | None = None,
) -> Followed:
    """Start `script` on the host as run `run_id`, detached, and follow it to its end.

    `timeout` (seconds) bounds the following, not the run; `about` is what `provision.journal.launch` writes down. Raises HostBusy where somebody else's run is under way, RunLost, Failed where the
    host refused, and Unreachable where the connection broke and stayed broken (the run goes on; the same command later finds it).
    """
    text = journal.launch(script, run_id=run_id, owner=owner, digest=digest, about=about)
    return _listen(transport, run_id, text, titles, progress, timeout)


def follow_active(transport: Transport, run_id: str, progress: Progress, timeout: float | None) -> Followed:
    """Follow a run that is under way already, from its beginning, to its end."""
    return _listen(transport, run_id, journal.follow(run_id), {}, progress, timeout)


def follow_others(transport: Transport, run: Run, progress: Progress, timeout: float | None) -> Followed:
    """Follow somebody else's run to its end, telling whose it is, since when, and how to see it; at most `timeout` seconds, by default OTHERS.

    Raises HostBusy when it takes longer than that.
    """
    holder = f"{run.owner or 'somebody'} since {run.since or 'a while ago'}"
    progress.stage(transport.name, f"following the run that {holder} has going here ({run.id}; `mlhost status --follow` shows it too)")
    bound = OTHERS if timeout is None else timeout
    try:
        return follow_active(transport, run.id, progress, bound)
    except TimedOut:
        raise HostBusy(
            f"{transport.name}: after {bound:g} s the run {run.id} of {holder} still goes on there.",
            "Wait for it, or see it with `mlhost status --follow`; then run this again.",
            run.id,
        ) from None


def _listen(
    transport: Transport, run_id: str, text: Sh, titles: Mapping[str, str], progress: Progress, timeout: float | None
) -> Followed:
    followed = Followed(run_id)
    reader = Reader(run_id)
    listener = _Listener(transport, reader, followed, progress, titles)
    began = last_heard = time.monotonic()
    while True:
        left = None if timeout is None else max(1.0, timeout - (time.monotonic() - began))
        try:
            result = transport.run(text, sudo=True, timeout=left, on_output=listener)
        except WireError as error:
            # who was let in a moment ago, to look, and is hung up on during a later login has most likely lost the line once more
            patience = PATIENCE if error.retryable else LOGIN_PATIENCE if isinstance(error, AuthFailed) else 0.0
            if time.monotonic() - max(last_heard, listener.heard) > patience:
                raise
            progress.wait(transport.name, f"the connection broke ({error.message}); the run goes on, connecting again")
            transport.close()
            time.sleep(2.0)
            # What was half heard is said again from the last offsets that were heard whole.
            listener.reader = reader = Reader(run_id, reader.events, reader.log)
            text = journal.follow(run_id, events=reader.events, log=reader.log) if _started(followed, reader) else text
            continue
        last_heard = time.monotonic()
        if listener.refusal:
            known = remedy(listener.refusal)
            fix = f"The {known.layer}: {known.fix}" if known else "Put that right on the host, then run the same command again."
            raise Failed(f"{transport.name}: {listener.refusal}", fix)
        if listener.locked is not None and not listener.ended:
            raise _busy(transport, listener.locked)
        if listener.ended and followed.rc is not None:
            return followed
        if listener.ended:
            raise RunLost(
                f"{transport.name}: run {run_id} is gone without having said how it ended (killed, or the machine went down).",
                "Run the same command again: it finds what is half done and repairs it.",
            )
        said = result.last_words
        raise Failed(
            f"{transport.name}: the run could not be started or followed (exit code {result.rc}){': ' + said if said else ''}.",
            "Run the same command again; a run that was started is found and followed.",
        )


def _started(followed: Followed, reader: Reader) -> bool:
    return bool(followed.events or reader.events)


def _busy(transport: Transport, lock: Locked) -> HostBusy:
    owner, since, run = lock["owner"] or "somebody", lock["since"] or "a while ago", lock["run"]
    return HostBusy(
        f"{transport.name}: another run of mlhost is under way there, started by {owner} at {since}.",
        "Wait for it, or see it with `mlhost status --follow`.",
        run,
    )
