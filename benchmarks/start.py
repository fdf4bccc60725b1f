"""`python -m benchmarks.start`: what mlhost costs where nothing is done: its start, a plan from a capture, its memory.

CPU time is compared, not wall time: it is what the machine's other work disturbs least. Memory is the largest process's peak.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.host import mlhost_env
from benchmarks.measure import ROOT, Case
from tests.sshd import Sshd, running_sshd

CAPTURES = ROOT / "tests" / "hosts"
VERSION, HELP, CAPTURED = "mlhost --version", "mlhost plan --help", "mlhost plan --capture"
HERE, OVER_SSH = "mlhost plan (this machine)", "mlhost plan (over SSH)"


def program(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "provision", *words)


def library(repeats: int) -> dict[str, Any]:
    """Milliseconds for capture -> facts -> plan, for every captured host of the tests, in this process, after a first time."""
    sys.path.insert(0, str(ROOT))
    from provision import catalog, playbook
    from provision.look import plan_from_capture

    wanted, facts_of_the_world = playbook.load("gpu-host", ()), catalog.load()
    found: dict[str, Any] = {}
    for file in sorted(CAPTURES.glob("*/probe.txt")):
        raw = file.read_bytes()
        plan_from_capture(raw, wanted, facts_of_the_world)
        gc.collect()
        times = []
        for _ in range(repeats):
            began = time.process_time()
            plan_from_capture(raw, wanted, facts_of_the_world)
            times.append((time.process_time() - began) * 1000)
        found[file.parent.name] = measure.spread(times)
    return found


@contextlib.contextmanager
def loopback() -> Iterator[Sshd]:
    """A real sshd on this machine, for the memory of a run over SSH."""
    with tempfile.TemporaryDirectory(prefix="mlhost-bench-") as name, running_sshd(Path(name) / "sshd") as server:
        yield server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    before = measure.machine()
    capture = sorted(CAPTURES.glob("debian13*/probe.txt"))[0]
    # What a plan's exit code says of the machine it finds does not matter here.
    any_plan = (0, 1, 3, 5)
    with loopback() as server:
        way = ("-F", "none", "--identity", str(server.user_key), "--known-hosts", str(server.known_hosts()))
        cases = [
            Case("python -c pass", (sys.executable, "-c", "pass")),
            Case(VERSION, program("--version"), mlhost_env()),
            Case(HELP, program("plan", "--help"), mlhost_env()),
            Case(CAPTURED, program("plan", "--capture", str(capture)), mlhost_env(), any_plan),
            Case(HERE, program("plan", "-p", "docker-host"), mlhost_env(), any_plan),
            Case(OVER_SSH, program("plan", "-p", "docker-host", server.target, *way), mlhost_env(), any_plan),
        ]
        samples = measure.rounds(cases, repeats)
    found = measure.summary(samples)
    plans = library(repeats)
    slowest = max(plans, key=lambda name: plans[name]["median"])
    memory = {name: found[name]["peak_mb"]["max"] for name in (HERE, OVER_SSH)}
    bars = [
        measure.bar("`mlhost --version`: CPU ms", found[VERSION]["cpu"]["median"] * 1000, at_most=120),
        measure.bar(
            f"capture -> plan, slowest of {len(plans)} captured hosts ({slowest}): CPU ms", plans[slowest]["median"], at_most=10
        ),
        *(measure.bar(f"{name}: peak MB", value, at_most=80) for name, value in memory.items()),
    ]
    rows = [[name, *(f"{one[key]:.2f}" for key in ("median", "min", "max"))] for name, one in plans.items()]
    text = "\n\n".join(
        [
            measure.seconds_table(found),
            measure.table(["capture -> plan, CPU ms", "median", "min", "max"], rows),
            measure.bars_table(bars),
        ]
    )
    document = {"machine": before, "repeats": repeats, "cases": found, "plans_ms": plans, "bars": bars, "euid": os.geteuid()}
    return measure.publish("start", document, text)


if __name__ == "__main__":
    raise SystemExit(main())
