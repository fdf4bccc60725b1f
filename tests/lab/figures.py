"""What tests have counted, for the reliability page: one small file per test in build/reliability, read by benchmarks/reliability.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Union

FOLDER = Path(__file__).resolve().parent.parent.parent / "build" / "reliability"


def count(row: str, what: str, tried: int, survived: int, note: str = "", folder: Union[Path, None] = None) -> None:
    """Write one row of the table: `what` was tried so often and survived so often. `row` names the file; a later count of the same row replaces it."""
    where = folder or FOLDER
    where.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"what": what, "tried": tried, "survived": survived, "note": note})
    fresh = where / f".{row}.new"
    fresh.write_text(text + "\n")
    fresh.replace(where / f"{row}.json")
