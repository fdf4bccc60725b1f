"""What mlhost itself left on the host: a run that goes on, the last run, the proof."""

from __future__ import annotations

from provision.facts.text import Sections, get, number, pairs
from provision.model import Run

STATES = ("running", "done", "failed", "lost", "reboot")


def runs(sections: Sections, boot_id: str | None) -> tuple[Run | None, Run | None]:
    """The run that holds the host's lock, and the newest run there is.

    A lock counts only while its process lives: same pid, same start time (field 22 of /proc/PID/stat, proc(5)), same boot. A dead
    holder without a result is a lost run; with one the lock is merely left over.
    """
    lock = pairs(get(sections, "journal_lock").text) if get(sections, "journal_lock").rc == 0 else {}
    last_id = next((name.split(":")[1] for name in sections if name.startswith("run:") and name.count(":") == 2), "")
    last = _run(sections, last_id, {}, "") if last_id else None
    identifier = lock.get("run", "")
    if not identifier:
        return None, last
    alive = _alive(get(sections, "journal_holder").text, lock, boot_id)
    held = _run(sections, identifier, lock, "running" if alive else "")
    if last is not None and last.id == identifier:
        last = held
    return (held if alive or held.state == "lost" else None), last


def _alive(stat_text: str, lock: dict[str, str], boot_id: str | None) -> bool:
    if lock.get("boot") and boot_id and lock["boot"] != boot_id:
        return False
    pid, _, _ = stat_text.partition(" ")
    fields = stat_text.rpartition(")")[2].split()
    return bool(pid) and pid == lock.get("pid") and len(fields) > 19 and lock.get("start", fields[19]) == fields[19]


def _run(sections: Sections, identifier: str, lock: dict[str, str], state: str) -> Run:
    meta = pairs(get(sections, f"run:{identifier}:meta").text)
    result = get(sections, f"run:{identifier}:result")
    told = pairs(result.text)
    code = number(told.get("rc")) if told else number(result.text.partition("\n")[0])
    if not state:
        if result.rc != 0:
            state = "lost"
        elif told.get("state") in STATES:
            state = told["state"]
        else:
            state = "done" if code == 0 else "failed"
    return Run(
        id=identifier,
        state=state,
        owner=lock.get("owner") or meta.get("owner", ""),
        since=lock.get("since") or meta.get("since") or meta.get("started", ""),
        pid=number(lock.get("pid") or meta.get("pid")) or 0,
        rc=code,
        digest=meta.get("digest", ""),
    )
