"""`python -m benchmarks.ten_thousand`: one run of `mlhost setup` over ten thousand simulated hosts that are as wanted.

The hosts are test doubles in this process: a transport that answers the probe with a recorded capture. Nothing connects to anything, so what is
measured is what mlhost itself does for a host: the inventory, the threads, reading the answer, planning, remembering, the report. Time is processor
time; memory is what the process holds, not its peak before. Every size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.host import mlhost_env
from benchmarks.measure import ROOT

CAPTURE = ROOT / "tests/hosts/ubuntu2404-aws-l4/probe.txt"
PLAYBOOK = "docker-host"
LINEAR, FLAT = 1.5, 64.0


class Answering:
    """A test double of a transport: every script is taken for the probe, and answered with a capture that bears the script's mark."""

    def __init__(self, name: str, answer: bytes) -> None:
        self.name, self._answer = name, answer

    def run(self, script: str, *args: str, **_: Any) -> Any:
        from provision.transport import RunResult

        head, _, _ = self._answer.partition(b" probe ")
        mark = head.rpartition(b"@@")[2]
        return RunResult(0, self._answer.replace(b"@@" + mark + b" ", b"@@" + args[0].encode() + b" "), b"", 0.0)

    def close(self) -> None:
        pass

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def converged(capture: Path) -> bytes:
    """The capture with the proof that is missing in it, so that nothing is left to do."""
    from provision import catalog, playbook
    from provision.actions import Smoke
    from provision.capture import join, split
    from provision.look import plan_from_capture
    from provision.model import Section

    wanted, world = playbook.load(PLAYBOOK), catalog.load()
    raw = capture.read_bytes()
    _, first = plan_from_capture(raw, wanted, world)
    change = next(item for item in first.changes if isinstance(item.action, Smoke))
    proof = "".join(f"{key}={value}\n" for key, value in change.expected.items())
    done = join({**split(raw), "proof": Section(0, proof)})
    _, again = plan_from_capture(done, wanted, world)
    if not again.converged:
        raise ValueError(f"{capture} is not as wanted even with a proof: {[item.id for item in again.items if item.state != 'ok']}")
    return done


def _status_mb(key: str) -> float:
    """What this process holds of memory now (VmRSS) or held at most (VmHWM), in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def run(count: int, parallel: int, folder: Path) -> dict[str, Any]:
    """One `mlhost setup` over so many doubles, in this process: CPU seconds and MB at each tenth of the way, at the end, and of the report."""
    import provision.transport
    from provision import run as runs
    from provision.cli import main

    answer = converged(CAPTURE)
    provision.transport.open_transport = lambda target, *_: Answering(str(target), answer)  # type: ignore[assignment,misc]
    inventory = folder / "fleet.yaml"
    inventory.write_text("hosts: {" + ", ".join(f"gpu-{number}: {{}}" for number in range(count)) + "}\n")
    marks: list[tuple[int, float, float]] = []
    real, done = runs.setup, 0

    def setup(*arguments: Any) -> Any:
        nonlocal done
        report = real(*arguments)
        done += 1  # near enough: it only says when to look
        if done % (count // 10) == 0:
            marks.append((done, time.process_time(), _status_mb("VmRSS")))
        return report

    runs.setup = setup
    out = folder / "report.json"
    began = time.process_time()
    sys.stderr = open(folder / "progress", "w")  # noqa: SIM115 - for the process's life
    code = main(["setup", "-i", str(inventory), "-p", PLAYBOOK, "--parallel", str(parallel), "--format", "json", "--out", str(out)])
    ended = time.process_time()
    sys.stderr = sys.__stderr__
    peak = _status_mb("VmHWM")
    report = json.loads(out.read_text())
    began_page = time.process_time()
    main(["report", str(out), "-o", str(folder / "page.html")])
    page_cpu = time.process_time() - began_page
    return {
        "hosts": count,
        "exit_code": code,
        "converged": sum(host["status"] == "converged" for host in report["hosts"]),
        "before_cpu": marks[0][1] - began,
        "marks": marks,
        "cpu": ended - began,
        "report_mb": out.stat().st_size / 1e6,
        "page_mb": (folder / "page.html").stat().st_size / 1e6,
        "page_cpu": page_cpu,
        "peak_mb": peak,
    }


def measured(count: int, parallel: int, browse: bool = False) -> dict[str, Any]:
    """`run` in a process of its own; with `browse` a browser opens the page."""
    with tempfile.TemporaryDirectory(prefix="mlhost-bench-") as name:
        command = [sys.executable, "-m", "benchmarks.ten_thousand", "--one", name, "--hosts", str(count), "--parallel", str(parallel)]
        done = subprocess.run(command, env={**dict(mlhost_env()), "PATH": "/usr/bin:/bin", "HOME": name}, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise measure.Broken(f"{' '.join(command)}\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return {**found, "browser": opened(Path(name) / "page.html") if browse else None}


def opened(page: Path) -> dict[str, float] | None:
    """Seconds until a headless Chromium has the page ready, and the hosts that it then shows; None where there is no browser."""
    try:
        from tests.browser import browser

        with browser() as window:
            began = time.monotonic()
            window.open(page)
            shown = window.js("return document.querySelectorAll('#grid > tbody').length")
            return {"seconds": time.monotonic() - began, "hosts": float(shown)}
    except BaseException as problem:  # pytest's skip is no Exception; a browser that is missing or does not start is no finding here
        if isinstance(problem, (KeyboardInterrupt, SystemExit)):
            raise
        measure.progress(f"no browser: {problem}")
    return None


def growth(result: dict[str, Any]) -> dict[str, float]:
    """CPU milliseconds and kilobytes a host in the first and in the second half of the hosts, and the ratio of the former."""
    marks = result["marks"]
    first, middle, last = marks[0], marks[len(marks) // 2 - 1], marks[-1]
    early = (middle[1] - first[1]) / (middle[0] - first[0]) * 1000
    late = (last[1] - middle[1]) / (last[0] - middle[0]) * 1000
    return {"early_ms": early, "late_ms": late, "ratio": late / early, "kb": (last[2] - first[2]) / (last[0] - first[0]) * 1024}




def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--parallel", type=int, default=50)
    parser.add_argument("--one", metavar="FOLDER", help="run one size in this process and print what was measured as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(run(arguments.hosts[0], arguments.parallel, Path(arguments.one))))
        return 0
    before = measure.machine()
    results = []
    for count in sorted(arguments.hosts):
        measure.progress(f"{count} simulated hosts")
        found = measured(count, arguments.parallel, browse=count == max(arguments.hosts))
        results.append({**found, **growth(found)})
    head = ["hosts", "CPU s", "CPU ms a host", "early", "late", "KB a host", "peak MB", "report MB", "page MB", "page CPU s"]
    rows = [
        [
            str(one["hosts"]),
            f"{one['cpu']:.1f}",
            *(f"{value:.2f}" for value in (one["cpu"] / one["hosts"] * 1000, one["early_ms"], one["late_ms"])),
            *(f"{value:.0f}" for value in (one["kb"], one["peak_mb"], one["report_mb"])),
            *(f"{value:.1f}" for value in (one["page_mb"], one["page_cpu"])),
        ]
        for one in results
    ]
    bars = [bar for one in results for bar in _bars(one)]
    if len(results) > 1:
        few, many = results[0], results[-1]
        ratio = (many["cpu"] / many["hosts"]) / (few["cpu"] / few["hosts"])
        bars.append(measure.bar(f"CPU time a host, {many['hosts']} hosts in units of {few['hosts']}", ratio, at_most=LINEAR))
    document = {"machine": before, "parallel": arguments.parallel, "results": results, "bars": bars}
    return measure.publish("ten_thousand", document, f"{measure.table(head, rows)}\n\n{measure.bars_table(bars)}")


def _bars(one: dict[str, Any]) -> list[dict[str, Any]]:
    what = f"{one['hosts']} hosts"
    window = one["browser"]
    if window:
        measure.progress(f"Chromium had the page ready after {window['seconds']:.1f} s")
    return [
        *([measure.bar(f"{what}: shown by Chromium", window["hosts"], at_least=one["hosts"])] if window else []),
        measure.bar(f"{what}: of them as wanted, and in the report", one["converged"], at_least=one["hosts"]),
        measure.bar(f"{what}: CPU time of a late host in units of an early one", one["ratio"], at_most=LINEAR),
        measure.bar(f"{what}: KB kept for each", one["kb"], at_most=FLAT),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
