"""`python -m tests.fuzz`: a long run with fresh inputs, and its figures in a file. Exit code 1 where anything was found.

With `--atheris HARNESS` the same harness is driven by coverage instead, for as long as it is let (`pip install atheris`; libFuzzer's own options follow `--`).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from pathlib import Path

from tests.fuzz.bounds import Hang
from tests.fuzz.harnesses import HARNESSES, by_name
from tests.fuzz.run import Count, fuzz

RESULT = Path("build/reliability/fuzz.json")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz everything that reads what others wrote.")
    parser.add_argument("names", nargs="*", metavar="HARNESS", help=f"of: {', '.join(h.name for h in HARNESSES)} (default: all)")
    parser.add_argument("--examples", type=int, default=2000, help="inputs for the slowest harness; the others get a multiple of it")
    parser.add_argument("--seconds", type=float, default=0, help="start no further harness after so long (0: no bound)")
    parser.add_argument("--seed", type=int, default=None, help="the seed of a run that is to be repeated")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the figures go")
    parser.add_argument("--atheris", action="store_true", help="drive the one harness that is named by coverage, with atheris")
    options = parser.parse_args(arguments)
    chosen = by_name(tuple(options.names))
    if not chosen:
        parser.error("there is no such harness")
    if options.atheris:
        from tests.fuzz.guided import guided

        guided(chosen[0])
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    failures, ran, total, began = 0, 0, Count(), time.monotonic()
    for harness in chosen:
        if options.seconds and time.monotonic() - began > options.seconds:
            print(f"{harness.name}: not begun, the time is over")
            continue
        count = Count()
        ran += 1
        try:
            fuzz(harness, options.examples * harness.weight, count, seed)
        except (Exception, Hang):
            failures += 1
            traceback.print_exc()
        total.inputs += count.inputs
        print(f"{harness.name}: {count.inputs} inputs", flush=True)
    figures = {"inputs": total.inputs, "harnesses": ran, "failures": failures}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**figures, "seconds": round(time.monotonic() - began), "seed": seed}) + "\n", encoding="utf-8")
    print(figures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
