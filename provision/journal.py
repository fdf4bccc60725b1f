"""The journal of runs on a host: the texts that start and follow a run there, and the reading of what they print.

A run lives in `/var/lib/mlhost/runs/<id>/` (mode 0700): `script.sh`, `meta`, `runner` and `script` (key=value: pid, start, boot …), `events`,
`log`, and in the end `result` (the script's exit code). `/var/lib/mlhost/lock` (key=value: run, pid, start, boot, owner, since, host) exists
while a run is under way. Pure: texts out, bytes in.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Union

from provision.errors import Failed
from provision.model import Outcome
from provision.sh import Sh, template
from provision.shipped import shipped

STATE = "/var/lib/mlhost"
"""Where a host keeps mlhost's state."""

LOCKED = 73
"""Exit code of a launch that found another run under way."""

HEARTBEAT = 10.0
"""Seconds after which a quiet follower says that it is still there. Much more silence than that is a dead wire."""

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_LONGEST = 1 << 20
_SOMETHING_ELSE = "Is something else writing to the connection?"
# What one batch of the host's can hold is an eighth of this; more without an "up to here" is no follower of ours.
_MOST_WAITING = 1 << 20
_MOST_LOCK_LINES = 100
_MOST_EVENTS = 20_000
_WIDEST = 2000  # characters of an event that are read; the scripts write no more than a thousand


class JournalError(Failed):
    """The host's side of the journal refused or broke; `message` is its own sentence."""


@dataclass(frozen=True)
class Event:
    """One step of a run. `time` in seconds since the epoch by the host's clock; `kind` begin, start, ok, changed, failed, skipped, wait, note,
    reboot or end; `item` the item's id or "-"."""

    time: float
    kind: str
    item: str
    detail: str


@dataclass(frozen=True)
class LogLine:
    """One line of the run's log, without control characters."""

    text: str


@dataclass(frozen=True)
class Started:
    """The run is there and is being followed."""

    run: str


@dataclass(frozen=True)
class Locked:
    """Another run is under way: the lock's keys (run, pid, owner, since, host, …)."""

    holder: tuple[tuple[str, str], ...]

    def __getitem__(self, key: str) -> str:
        return dict(self.holder).get(key, "")


@dataclass(frozen=True)
class Refusal:
    """The host's side could not do it, with its reason."""

    message: str


@dataclass(frozen=True)
class Heartbeat:
    """Nothing new, still there."""


@dataclass(frozen=True)
class Ended:
    """The run is over with the script's exit code; `rc` None: its process is gone without having said how it ended."""

    rc: int | None


Frame = Union[Event, LogLine, Started, Locked, Refusal, Heartbeat, Ended]


def launch(
    script: Sh, *, run_id: str, owner: str, digest: str = "", known_run: str = "", state: str = STATE, about: Mapping[str, str] | None = None
) -> Sh:
    """The text that starts `script` as run `run_id` and follows it from its beginning; to be run by root's `sh` with the text as its input.

    A run of that id that exists already is followed, not started again. While another run holds the host's lock the text tells who, follows
    that run if it is `known_run`, and exits LOCKED. `owner` is a word for people (user@machine); `digest` names the plan; `about` is what else the run's `meta` is to say.
    """
    meta = [f"run={_checked(run_id)}", f"owner={_line(owner)}", f"digest={_line(digest)}"]
    meta += [f"{key}={_line(value)}" for key, value in (about or {}).items()]
    end = "MLHOST_" + hashlib.sha256(script.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return template(
        "journal/launch.sh.j2",
        functions=_functions("lock", "follow", "launch"),
        runner=_functions("lock", "runner"),
        script=script if script.endswith("\n") else Sh(script + "\n"),
        end=Sh(end),
        meta=meta,
        run=run_id,
        owner=_line(owner),
        state=state,
        known=_checked(known_run) if known_run else "",
        mark=_mark(run_id),
    )


def follow(run_id: str, *, events: int = 0, log: int = 0, state: str = STATE) -> Sh:
    """The text that tells how a run goes on, from these byte offsets of its events and its log (`Reader.events`, `Reader.log`)."""
    functions = _functions("lock", "follow")
    return template(
        "journal/follow.sh.j2",
        functions=functions,
        run=_checked(run_id),
        state=state,
        events=int(events),
        log=int(log),
        mark=_mark(run_id),
    )


@dataclass
class Reader:
    """Reads what `launch` and `follow` print, in pieces of any size.

    Lines before the run's own mark (a login message, a sudo lecture) are no frames. Events and log lines are handed out only when the host has
    said how far they go, so that `events` and `log` are the offsets to go on from, and nothing comes twice when a lost connection is resumed.
    """

    run_id: str
    events: int = 0
    log: int = 0
    _rest: bytes = b""
    _begun: bool = False
    _waiting: list[Frame] = field(default_factory=list)
    _waiting_bytes: int = 0
    _told: int = 0
    _lock: list[tuple[str, str]] = field(default_factory=list)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames completed by this piece of output."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _LONGEST:
            raise JournalError(
                f"The host sent a line of more than {_LONGEST} bytes.", _SOMETHING_ELSE
            )
        for line in lines:
            yield from self._line(line)

    def _line(self, line: bytes) -> Iterator[Frame]:
        if not self._begun:
            self._begun = line == _mark(self.run_id).encode()
            return
        letter, _, rest = line.decode("utf-8", "replace").partition("\t")
        if letter in ("E", "L"):
            # an empty line costs as much as a short one
            self._waiting_bytes += len(line) + 8
            if self._waiting_bytes > _MOST_WAITING:
                raise JournalError("The host sent more at once than a run can have to tell.", _SOMETHING_ELSE)
        if letter == "E":
            event = parse_event(rest)
            if event is not None:
                self._told += 1
                if self._told > _MOST_EVENTS:
                    raise JournalError(f"The host told of more than {_MOST_EVENTS} events in one run.", _SOMETHING_ELSE)
                self._waiting.append(event)
        elif letter == "L":
            self._waiting.append(LogLine(plain(rest)))
        elif letter == "O":
            self.events, self.log = _offsets(rest)
            yield from self._waiting
            self._waiting.clear()
            self._waiting_bytes = 0
        elif letter == "K":
            if rest:
                key, _, value = rest.partition("=")
                if len(self._lock) < _MOST_LOCK_LINES:
                    self._lock.append((key, plain(value)[:1000]))
            else:
                yield Locked(tuple(self._lock))
        elif letter == "R":
            yield Ended(int(rest) if re.fullmatch(r"[0-9]{1,3}", rest) else None)
        elif letter == "S":
            yield Started(rest)
        elif letter == "F":
            yield Refusal(plain(rest))
        elif letter == "H":
            yield Heartbeat()


def _offsets(text: str) -> tuple[int, int]:
    events, _, log = text.partition("\t")
    if not all(re.fullmatch(r"[0-9]{1,18}", offset) for offset in (events, log)):
        raise JournalError(
            f"The host's answer is not understood: {plain(text)!r}.", _SOMETHING_ELSE
        )
    return int(events), int(log)


def parse_event(line: str) -> Event | None:
    """An event from its line in the journal; None for a line that is none (cut short by a full disk)."""
    parts = line.split("\t")
    if len(parts) != 4:
        return None
    if not re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", parts[0]):
        return None
    kind, item, detail = (plain(part[:_WIDEST]) for part in parts[1:])
    return Event(float(parts[0]), kind, item, detail)


def outcomes(events: Iterable[Event]) -> tuple[Outcome, ...]:
    """What became of each item, in the order in which they were taken up. An item that was begun and never finished has the state "running"."""
    found: dict[str, Outcome] = {}
    begun: dict[str, float] = {}
    for event in events:
        if event.item == "-":
            continue
        if event.kind == "start":
            begun[event.item] = event.time
            found[event.item] = Outcome(event.item, "running")
        elif event.kind in ("ok", "changed", "failed", "skipped", "reboot"):
            seconds = max(0.0, event.time - begun.get(event.item, event.time))
            found[event.item] = Outcome(event.item, event.kind, seconds, event.detail)
    return tuple(found.values())


def plain(text: str) -> str:
    """Text of a host that is safe to print on a terminal: no escape sequences, no control characters but the tab."""
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def _checked(run_id: str) -> str:
    if not _RUN.fullmatch(run_id):
        raise JournalError(f"{run_id!r} is not a run id.", "Use letters, digits, dots, dashes and underscores.")
    return run_id


def _mark(run_id: str) -> str:
    return f"@@mlhost journal {run_id}"


def _line(text: str) -> str:
    return _CONTROL.sub(" ", text.replace("\n", " ").replace("\t", " ")).strip()


def _functions(*names: str) -> Sh:
    return Sh("\n".join(shipped(f"scripts/journal/{name}.sh") for name in names))
