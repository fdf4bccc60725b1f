"""The small values that reports are made of. They are part of the model (`provision.model` gives them too); nothing here refers to a plan."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What became of one item in a run: ok, changed, failed, skipped; `detail` names what failed."""

    id: str
    state: str
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Timing:
    """How long a part took, in seconds."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Check:
    """One thing verify looked at: state ok, failed or skipped, with its evidence, and what to do where it failed."""

    id: str
    state: str
    evidence: str
    fix: str = ""


@dataclass(frozen=True)
class LastRun:
    """What mlhost did last on a host: `state` running, done, failed, lost or reboot; `since` its beginning (UTC, ISO 8601); `version` mlhost's and
    `playbook` the desired state's name, both "" where the run did not say."""

    id: str
    state: str
    since: str = ""
    owner: str = ""
    version: str = ""
    playbook: str = ""
    rc: int | None = None


@dataclass(frozen=True)
class About:
    """What results are of: the command, when it ended (UTC, ISO 8601), and mlhost's version."""

    command: str = ""
    made: str = ""
    version: str = ""


NOTHING = About()
"""Nothing is known of where results come from."""
