"""What mlhost itself left on the host: a run that goes on, and the last run. The files are those of scripts/journal."""

from __future__ import annotations

import re

from provision.facts.text import Sections, get, number, pairs
from provision.model import Run

# The exit codes of a stage's script: reboot and plan again; a reboot is needed and was not allowed.
_REBOOT = (75, 76)
_END = re.compile(r"\tend\t[^\t]*\t(\d{1,3})$")


def runs(sections: Sections, boot_id: str | None) -> tuple[Run | None, Run | None]:
    """The run that holds the host's lock, and the newest run there is.

    A lock counts only while its process, or the run's own, lives: same pid, same start time (field 22 of /proc/PID/stat, proc(5)), same
    boot. A dead holder without a result is a lost run; with one the lock is merely left over.
    """
    identifier = _pairs(sections, "journal_lock").get("run", "")
    last_id = next((name.split(":")[1] for name in sections if name.startswith("run:") and name.count(":") == 2), "")
    last = _run(sections, last_id, boot_id) if last_id else None
    if not identifier:
        return None, last
    held = last if last is not None and last.id == identifier else _run(sections, identifier, boot_id)
    return (held if held.state in ("running", "lost") else None), last


def unknown(sections: Sections) -> bool:
    """Whether part of the journal could not be read."""
    names = ("journal", "journal_lock", "journal_runs")
    return "journal" not in sections or any(sections[name].rc not in (0, 2) for name in names if name in sections)


def _pairs(sections: Sections, name: str) -> dict[str, str]:
    section = get(sections, name)
    return pairs(section.text) if section.rc == 0 else {}


def _alive(sections: Sections, holder: dict[str, str], boot_id: str | None) -> bool:
    pid = holder.get("pid", "")
    if not pid or (boot_id and holder.get("boot") not in (None, boot_id)):
        return False
    stat = get(sections, f"proc:{pid}")
    fields = stat.text.rpartition(")")[2].split()
    return stat.rc == 0 and stat.text.startswith(f"{pid} ") and len(fields) > 19 and fields[19] == holder.get("start")


def _run(sections: Sections, identifier: str, boot_id: str | None) -> Run:
    meta, runner, script = (_pairs(sections, f"run:{identifier}:{name}") for name in ("meta", "runner", "script"))
    lock = _pairs(sections, "journal_lock")
    holders = [runner, script, *([lock] if lock.get("run") == identifier else [])]
    code = _code(sections, identifier)
    if code is None and any(_alive(sections, holder, boot_id) for holder in holders):
        state = "running"
    elif code is None:
        state = "lost"
    else:
        state = "reboot" if code in _REBOOT else "failed" if code else "done"
    who = runner or holders[-1]
    return Run(
        id=identifier,
        state=state,
        owner=meta.get("owner") or who.get("owner", ""),
        since=who.get("since") or meta.get("since", ""),
        pid=number(who.get("pid")) or 0,
        rc=code,
        digest=meta.get("digest", ""),
        version=meta.get("version", ""),
        playbook=meta.get("playbook", ""),
        values=meta.get("values", ""),
        right=tuple(meta.get("right", "").split()),
        doing=tuple(meta.get("doing", "").split()),
    )


def _code(sections: Sections, identifier: str) -> int | None:
    result = get(sections, f"run:{identifier}:result")
    if result.rc == 0:
        told = number(result.text.partition("\n")[0])
        return 1 if told is None else told
    ended = _END.search(get(sections, f"run:{identifier}:end").text.rstrip("\n"))
    return int(ended.group(1)) if ended else None
