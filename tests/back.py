"""The way back on a test's host: its own look back, the plan made of it, and that plan's script. Nothing in it is a double."""

from __future__ import annotations

from collections.abc import Callable

from provision import render, render_back
from provision.actions import TakeBack
from provision.backplan import Wish, packages_words, plan_back
from provision.capture import split
from provision.model import Facts, OsRelease, Plan, PlatformRow
from provision.sh import Sh, join
from provision.traces import Traces, parse

MARK = "abc"


def traces(run: Callable[[str], bytes]) -> Traces:
    """What there is to be taken back. `run` runs a script on the host and gives its output."""
    script = render_back.lookback().replace('lookback "$@" </dev/null', f"lookback {MARK} </dev/null")
    return parse(split(run(script), MARK))


def way_back(found: Traces, *runs: str, facts: Facts | None = None, purge: bool = False, family: str = "debian") -> Plan:
    """The plan for these runs, for all without any."""
    known = facts or Facts("a-host", "x86_64", OsRelease("debian", "12"))
    return plan_back(known, found, Wish(runs or found.runs, purge), PlatformRow("debian", "12", "", family, "x86_64", None))


def script(plan: Plan, run_id: str = "back-1") -> Sh:
    """Its script."""
    return render.stage(plan, run_id=run_id, lock_wait=100)


def in_the_way(plan: Plan, run: Callable[[str], bytes]) -> list[str]:
    """What the host says would go besides, were the plan's packages changed."""
    words = next(item.action.words for item in plan.items if isinstance(item.action, TakeBack) and item.action.what == "packages")
    script = render_back.lookback().replace('lookback "$@" </dev/null', f"lookback {MARK} {join(packages_words(words))} </dev/null")
    return split(run(script), MARK)["in-the-way"].text.split()
