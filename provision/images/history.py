"""How an image came about, from what `docker history` prints: readable, whole, and beside the Dockerfile's lines."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from provision.errors import Failed
from provision.images.dockerfile import Instruction, stages


@dataclass(frozen=True)
class Step:
    """One step, oldest first: when (RFC 3339), what was done as a Dockerfile would say it, bytes it added, its layer ("" for none or unknown), the
    Dockerfile's lines ("12" or "12-18", "" for unknown), and the builder's comment."""

    number: int
    created: str
    command: str
    size: int
    layer: str = ""
    lines: str = ""
    comment: str = ""


def steps(text: str, diff_ids: Sequence[str]) -> tuple[Step, ...]:
    """The steps in the output of `docker history --no-trunc --human=false --format '{{json .}}'`. Raises Failed where that cannot be read.

    A layer's digest is told only where the steps that added bytes are as many as the layers, so that none can be taken for another's.
    """
    try:
        rows = [json.loads(row) for row in text.splitlines() if row.strip()]
        found = [
            Step(0, str(row.get("CreatedAt", "")), instruction(str(row.get("CreatedBy", ""))), _size(row.get("Size")), "", "", str(row.get("Comment") or ""))
            for row in reversed(rows)
        ]
    except (ValueError, AttributeError):
        raise Failed("What `docker history` printed cannot be read.", "Check that `docker` is Docker's own client.") from None
    with_bytes = [number for number, step in enumerate(found) if step.size]
    layer_of = dict(zip(with_bytes, diff_ids)) if len(with_bytes) == len(diff_ids) else {}
    return tuple(replace(step, number=number + 1, layer=layer_of.get(number, "")) for number, step in enumerate(found))


def _size(value: object) -> int:
    found = re.fullmatch(r"(\d+)(?:\.\d+)?B?", str(value))
    return int(found[1]) if found else 0


def instruction(created_by: str) -> str:
    """What a builder has written down, as a Dockerfile would say it."""
    text = created_by.strip()
    text = re.sub(r"\s*# buildkit$", "", text)
    nop = re.match(r"/bin/sh -c #\(nop\)\s+(.*)$", text, re.DOTALL)
    if nop:
        return nop[1].strip()
    # "|2 A=1 B=2 /bin/sh -c x" and "RUN |2 A=1 B=2 /bin/sh -c x": so many build arguments were given.
    text = re.sub(r"^(RUN )?\|\d+ (?:\S+?=(?:(?!/bin/sh -c ).)*?)?(?=/bin/sh -c )", "RUN ", text, flags=re.DOTALL)
    return re.sub(r"^(?:RUN )?/bin/(?:ba)?sh -c ", "RUN ", text)


def placed(all_steps: Sequence[Step], dockerfile: str) -> tuple[Step, ...]:
    """The steps with their lines in a Dockerfile, from the last one back for as long as they fit; those of the base have none. Raises BadDockerfile."""
    every = {stage.name: stage for stage in stages(dockerfile) if stage.name}
    stage = stages(dockerfile)[-1]
    wanted: list[Instruction] = [*stage.instructions]
    while stage.base.lower() in every and every[stage.base.lower()] is not stage:
        stage = every[stage.base.lower()]
        wanted = [*stage.instructions, *wanted]
    left = [one for one in wanted if one.keyword not in ("ONBUILD",)]
    found = list(all_steps)
    for number in range(len(found) - 1, -1, -1):
        if not left:
            break
        while left and not _fits(found[number].command, left[-1]):
            if left[-1].keyword not in ("ARG", "SHELL", "MAINTAINER", "STOPSIGNAL", "USER", "WORKDIR", "LABEL"):
                return tuple(found)
            left.pop()
        if left:
            one = left.pop()
            found[number] = replace(found[number], lines=str(one.first) if one.first == one.last else f"{one.first}-{one.last}")
    return tuple(found)


def _fits(command: str, one: Instruction) -> bool:
    if command.partition(" ")[0].upper() != one.keyword:
        return False
    if one.keyword != "RUN":
        return True
    return _bare(one.value)[:60] in _bare(command) or _bare(command.partition(" ")[2])[:60] in _bare(one.value)


def _bare(text: str) -> str:
    return re.sub(r"--(?:mount|network|security)=\S+|<<-?\S+|\s+|\\", "", text)


def text(head: str, all_steps: Sequence[Step], dockerfile: str, columns: int, verbose: bool, megabytes: Callable[[float], str]) -> str:
    """The steps for people: one paragraph each, commands wrapped and whole."""
    rows = [head]
    for step in all_steps:
        size = megabytes(step.size) if step.size else "-"
        where = f"{dockerfile}:{step.lines}" if step.lines else ""
        digest = step.layer if verbose else step.layer[:19]
        rows.append("")
        rows.append("  ".join(part for part in (f"{step.number:>3}", f"{size:>9}", step.created[:19].replace("T", " "), digest, where) if part).rstrip())
        for piece in readable(step.command):
            rows += textwrap.wrap(piece, max(40, columns - 6), initial_indent="      ", subsequent_indent="        ", break_long_words=False, break_on_hyphens=False)
        if verbose and step.comment:
            rows.append(f"      ({step.comment})")
    return "\n".join(rows)


def readable(command: str) -> list[str]:
    """A command with a line for each part that && or ; joins, as it was probably written."""
    pieces = re.split(r"(?<=&&)\s+|(?<=;)\s+|\n", re.sub(r"\t+", " ", command))
    return [piece.strip() for piece in pieces if piece.strip()]
