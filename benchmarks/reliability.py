"""`python -m benchmarks.reliability`: makes everything happen that docs/reliability.md speaks of, counts it, and writes the table there.

Runs the tests that kill, cut, fill and spoil, and the fuzzers; each leaves its figures in build/reliability. Where one of them fails the page is left
alone and the exit code is 1. Needs root and what the lab needs (tests/lab/README.md).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "build" / "reliability"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures: python -m benchmarks.reliability -->", "<!-- end of figures -->"
TESTS = ("tests/test_kill_walk.py", "tests/test_kill_controller.py", "tests/test_weather_apt.py", "tests/test_weather_rpm.py")
VM_TESTS = ("tests/test_kill_vm.py",)


def rows(files: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """(what, tried, survived) from the parsed figure files by name; files of one kind are added up. The fuzzers' file has a form of its own."""
    found: dict[str, tuple[int, int]] = {}
    for name, figures in sorted(files.items()):
        if "inputs" in figures:
            what, tried, survived = f"inputs fuzzed ({figures['harnesses']} readers)", figures["inputs"], figures["inputs"] - figures["failures"]
        elif {"what", "tried", "survived"} <= figures.keys():
            what, tried, survived = figures["what"], figures["tried"], figures["survived"]
        else:
            raise ValueError(f"{name} holds no figures")
        before = found.get(what, (0, 0))
        found[what] = (before[0] + tried, before[1] + survived)
    return sorted((what, *counts) for what, counts in found.items())


def table(found: Sequence[tuple[str, int, int]]) -> str:
    """The figures as a Markdown table, with their sum; fuzzed inputs are counted apart."""
    lines = ["| What was made to happen | Times | Survived |", "| --- | ---: | ---: |"]
    lines += [f"| {what} | {tried} | {survived} |" for what, tried, survived in found]
    faults = [(tried, survived) for what, tried, survived in found if not what.startswith("inputs fuzzed")]
    lines.append(f"| **faults injected** | **{sum(t for t, _ in faults)}** | **{sum(s for _, s in faults)}** |")
    return "\n".join(lines)


def read() -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in FIGURES.glob("*.json")}


def write(text: str) -> None:
    """Put the table between the page's marks."""
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    fresh = PAGE.with_suffix(".new")
    fresh.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")
    fresh.replace(PAGE)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description="Make it happen, count it, write the table.")
    parser.add_argument("--all", action="store_true", help="kill at every command of the script (about an hour more)")
    parser.add_argument("--vm", action="store_true", help="also virtual machines whose power goes (ten minutes more)")
    parser.add_argument("--examples", type=int, default=500, help="inputs for the slowest fuzzer; 0: do not fuzz")
    parser.add_argument("--as-counted", action="store_true", help="run nothing; write the page from what earlier runs have counted")
    options = parser.parse_args(arguments)
    if not options.as_counted:
        shutil.rmtree(FIGURES, ignore_errors=True)
        env = {**os.environ, "MLHOST_LAB_REQUIRE": "1", **({"MLHOST_KILL_POINTS": "all"} if options.all else {})}
        commands = [[sys.executable, "-m", "pytest", "-q", *TESTS, *(VM_TESTS if options.vm else ())]]
        if options.examples and (ROOT / "tests/fuzz").is_dir():
            commands.append([sys.executable, "-m", "tests.fuzz", "--examples", str(options.examples)])
        codes = [subprocess.run(command, cwd=ROOT, env=env, check=False).returncode for command in commands]
        if any(codes):
            print("something did not survive; the page is left as it is", file=sys.stderr)
            return 1
    found = rows(read())
    print(table(found))
    write(table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
