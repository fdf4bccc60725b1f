"""Running programs again and again, in turns, and saying what came of it.

Everything that is compared runs in one process, in rounds: each round runs every case once, so that whatever else the machine does
meets all of them. Ratios are made within a round and then summed up; ratios of medians from different times are worth little.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
QUIET_LOAD = 1.5


class Broken(Exception):
    """A program that was to be measured failed; the text holds what it said."""


@dataclass(frozen=True)
class Case:
    """A program to measure. `fresh` makes environment variables anew for every run (a folder of its own, say)."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    exit_codes: tuple[int, ...] = (0,)
    fresh: Callable[[], Mapping[str, str]] = dict


@dataclass(frozen=True)
class Sample:
    """One run: seconds on the clock, seconds of processor time (of it and the children it waited for), peak memory of the largest process in MB."""

    wall: float
    cpu: float
    peak_mb: float


def run_once(case: Case) -> Sample:
    """Run a case to its end. Raises Broken where the exit code is another than expected."""
    env = {**os.environ, **case.env, **case.fresh()}
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(case.argv, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in case.exit_codes:
            said.seek(0)
            text = said.read().decode("utf-8", "replace")[-3000:]
            raise Broken(f"{case.name}: exit code {process.returncode}: {' '.join(case.argv)}\n{text}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def rounds(cases: Sequence[Case], repeats: int, warmups: int = 1, quiet: bool = True) -> dict[str, list[Sample]]:
    """Run every case once a round, `repeats` rounds after `warmups` that do not count; the order turns by one each round."""
    found: dict[str, list[Sample]] = {case.name: [] for case in cases}
    for number in range(-warmups, repeats):
        if quiet:
            wait_for_quiet()
        turn = number % len(cases)
        for case in [*cases[turn:], *cases[:turn]]:
            sample = run_once(case)
            if number >= 0:
                found[case.name].append(sample)
    return found


def wait_for_quiet(patience: float = 10.0) -> None:
    """Wait a while for the machine to have nothing else to do; go on anyway afterwards (the load is part of the result)."""
    end = time.monotonic() + patience
    while others_busy() > QUIET_LOAD and time.monotonic() < end:
        time.sleep(1.0)


def real_time() -> None:
    """Give this process, and all that it has started or will start, priority over all else on this machine (SCHED_RR; needs root).

    For a machine that is never idle: everything compared gets the same, so that ratios are those of an idle machine.
    """
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    for task in (task for pid in ours for task in Path(f"/proc/{pid}/task").glob("*")):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setscheduler(int(task.name), os.SCHED_RR, os.sched_param(1))


def others_busy() -> float:
    """How many processes want a processor now, this one not counted (the load average remembers a minute and would count us, too)."""
    counts = []
    for _ in range(5):
        counts.append(int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) - 1)
        time.sleep(0.02)
    return statistics.mean(counts)


# ---------------------------------------------------------------- summing up


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(samples: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """For each case: wall and cpu seconds and peak memory, as `spread`."""
    return {
        name: {part: spread([getattr(sample, part) for sample in of_case]) for part in ("wall", "cpu", "peak_mb")}
        for name, of_case in samples.items()
    }


def ratio(samples: Mapping[str, Sequence[Sample]], of: str, to: str, part: str = "wall") -> dict[str, float]:
    """Wall time (or another part of a sample) of one case in units of another's, round by round, as `spread`."""
    return spread([getattr(a, part) / getattr(b, part) for a, b in zip(samples[of], samples[to])])


def limit_ratio(
    samples: Mapping[str, Sequence[Sample]], of: str, limit: Callable[[Mapping[str, Sample]], float]
) -> dict[str, float]:
    """Wall time of one case in units of what `limit` makes of the same round's samples, as `spread`."""
    count = len(samples[of])
    each = [{name: found[number] for name, found in samples.items()} for number in range(count)]
    return spread([now[of].wall / limit(now) for now in each])


def bar(text: str, value: float, at_most: float | None = None, at_least: float | None = None) -> dict[str, Any]:
    """A bar and whether it was met."""
    met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
    return {"bar": text, "value": round(value, 4), "at_most": at_most, "at_least": at_least, "met": met}


def machine() -> dict[str, Any]:
    """What was measured on, without names or addresses."""
    model = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1048576, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)


def seconds_table(found: Mapping[str, Any]) -> str:
    """The summary's wall and cpu times and memory as a table."""
    rows = [
        [
            name,
            *(f"{part['wall'][key]:.3f}" for key in ("median", "min", "max")),
            f"{part['cpu']['median']:.3f}",
            f"{part['peak_mb']['max']:.0f}",
        ]
        for name, part in found.items()
    ]
    return table(["case", "median s", "min s", "max s", "cpu s", "peak MB"], rows)


def bars_table(bars: Sequence[Mapping[str, Any]]) -> str:
    rows = [[b["bar"], f"{b['value']:.3g}", "met" if b["met"] else "**missed**"] for b in bars]
    return table(["bar", "measured", "result"], rows)


def publish(name: str, document: Mapping[str, Any], text: str) -> int:
    """Print the tables, keep the JSON in build/benchmarks/ (or $MLHOST_BENCH_OUT), and return the exit code: 0 if all bars are met, else 1."""
    folder = Path(os.environ.get("MLHOST_BENCH_OUT") or ROOT / "build" / "benchmarks")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(text, flush=True)
    print(f"\n{path}", file=sys.stderr)
    return 0 if all(one["met"] for one in document.get("bars", [])) else 1


def progress(text: str) -> None:
    """A line on standard error."""
    print(f"-- {text}", file=sys.stderr, flush=True)
