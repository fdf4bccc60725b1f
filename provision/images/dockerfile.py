"""Dockerfiles as values: instructions with their lines, stages, and where each stage comes from.

The grammar: docs.docker.com/reference/dockerfile (instructions, parser directives, line continuation, here-documents, ARG before FROM).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provision.errors import UsageError

_DIRECTIVE = re.compile(r"#\s*(syntax|escape|check)\s*=\s*(\S+)\s*$", re.IGNORECASE)
_HEREDOC = re.compile(r"(?<!<)<<-?\s*([\"']?)([A-Za-z_][A-Za-z0-9_]*)\1")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::([-+])([^}]*))?\}|([A-Za-z_]\w*))")
_WITH_HEREDOC = ("RUN", "COPY", "ADD")


class BadDockerfile(UsageError):
    """A Dockerfile that cannot be read."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: its keyword in capitals, the rest on one line (here-documents after it), and its first and last line, counted from 1."""

    keyword: str
    value: str
    first: int
    last: int


@dataclass(frozen=True)
class Stage:
    """One stage: its FROM instruction, its name ("" for none), what it is built on as written and with ARGs filled in, and its instructions after FROM."""

    start: Instruction
    name: str
    written: str
    base: str
    instructions: tuple[Instruction, ...]


def instructions(text: str) -> tuple[Instruction, ...]:
    """The instructions of a Dockerfile, comments and directives left out. Raises BadDockerfile."""
    lines = text.splitlines()
    escape, number = "\\", 0
    while number < len(lines) and (found := _DIRECTIVE.match(lines[number])):
        escape = found[2] if found[1].lower() == "escape" else escape
        number += 1
    read = []
    while number < len(lines):
        first = number
        words = lines[number].strip()
        number += 1
        if not words or words.startswith("#"):
            continue
        while words.endswith(escape):
            words = words[: -len(escape)].rstrip()
            while number < len(lines) and (not lines[number].strip() or lines[number].lstrip().startswith("#")):
                number += 1  # comments and empty lines inside do not end it
            if number >= len(lines):
                break
            words += " " + lines[number].strip()
            number += 1
        keyword, _, value = words.partition(" ")
        keyword, value = keyword.upper(), value.strip()
        if keyword in _WITH_HEREDOC:
            for _, word in _HEREDOC.findall(value):
                body = []
                while number < len(lines) and lines[number].strip("\t") != word:
                    body.append(lines[number])
                    number += 1
                if number >= len(lines):
                    raise BadDockerfile(f"The Dockerfile's line {first + 1}: the here-document {word} has no end.", f"End it with a line {word}.")
                number += 1
                value += "\n" + "\n".join(body)
        if not re.fullmatch(r"[A-Z]+", keyword):
            raise BadDockerfile(f"The Dockerfile's line {first + 1} begins with {keyword[:40]!r}, which is no instruction.", "See docs.docker.com/reference/dockerfile.")
        read.append(Instruction(keyword, value, first + 1, number))
    return tuple(read)


def stages(text: str, arguments: Mapping[str, str] | None = None) -> tuple[Stage, ...]:
    """The stages of a Dockerfile; `arguments` are those of `--build-arg`. Raises BadDockerfile where there is none."""
    known: dict[str, str] = {}
    found: list[tuple[Instruction, list[Instruction]]] = []
    for one in instructions(text):
        if one.keyword == "FROM":
            found.append((one, []))
        elif found:
            found[-1][1].append(one)
        elif one.keyword == "ARG":
            for word in one.value.split():
                name, _, default = word.partition("=")
                known[name] = (arguments or {}).get(name, filled(default.strip("\"'"), known))
    if not found:
        raise BadDockerfile("The Dockerfile has no FROM.", "Name the image that it builds on.")
    return tuple(_stage(start, inside, known) for start, inside in found)


def _stage(start: Instruction, inside: Sequence[Instruction], known: Mapping[str, str]) -> Stage:
    words = [word for word in start.value.split() if not word.startswith("--")]
    if not words:
        raise BadDockerfile(f"The Dockerfile's line {start.first}: FROM names no image.", "Name the image that it builds on.")
    name = words[2] if len(words) > 2 and words[1].lower() == "as" else ""
    return Stage(start, name.lower(), words[0], filled(words[0], known), tuple(inside))


def filled(text: str, known: Mapping[str, str]) -> str:
    """`$NAME`, `${NAME}` and `${NAME:-default}` replaced by what is known; what is not is empty."""

    def value(match: re.Match[str]) -> str:
        content = known.get(match[1] or match[4], "")
        if match[2] == "-":
            return content or match[3]
        return (match[3] if content else "") if match[2] == "+" else content

    return _VARIABLE.sub(value, text)


def outside(all_stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages that begin with an image from elsewhere: not `scratch`, and no stage before them."""
    found, names = [], set[str]()
    for stage in all_stages:
        if stage.base.lower() not in names and stage.base != "scratch":
            found.append(stage)
        names.add(stage.name)
    return tuple(found)


def moving(all_stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Those of them whose image is named by a tag, which may mean another image tomorrow."""
    return tuple(stage for stage in outside(all_stages) if not re.search(r"@sha256:[0-9a-f]{64}$", stage.base))


def copied_from(all_stages: Sequence[Stage]) -> tuple[Instruction, ...]:
    """COPY instructions that take from an image by a moving name: neither a stage nor a digest."""
    names = {stage.name for stage in all_stages} | {str(number) for number in range(len(all_stages))}
    found = []
    for one in (one for stage in all_stages for one in stage.instructions if one.keyword in ("COPY", "RUN")):
        for source in re.findall(r"(?:^|[\s,])(?:--from=|from=)([^\s,]+)", one.value.split("\n")[0]):
            if source.lower() not in names and "@sha256:" not in source and "$" not in source:
                found.append(one)
    return tuple(found)


def pinned(text: str, digests: Mapping[str, str]) -> str:
    """The Dockerfile with `@sha256:…` after each FROM's image that `digests` has, by its name with ARGs filled in.

    A name that comes from an ARG gets its digest in the ARG's default. Raises BadDockerfile where that cannot be done.
    """
    while stage := next((stage for stage in moving(stages(text)) if stage.base in digests), None):
        lines = text.splitlines(keepends=True)
        rows = range(stage.start.first - 1, stage.start.last)
        wanted = stage.written
        if "$" in wanted:
            rows, wanted = range(stage.start.first - 1), stage.base
        place = next((row for row in rows if wanted in lines[row] and f"{wanted}@" not in lines[row]), None)
        if place is None:
            raise BadDockerfile(f"The Dockerfile's line {stage.start.first}: {stage.base} is put together from several ARGs.", "Write its digest there by hand.")
        lines[place] = lines[place].replace(wanted, f"{wanted}@{digests[stage.base]}", 1)
        text = "".join(lines)
    return text


def with_stage_from(text: str, name: str, image: str) -> str:
    """The Dockerfile with the stage `name` replaced by a ready image, line numbers kept."""
    lines = text.splitlines()
    for stage in stages(text):
        if stage.name == name:
            last = stage.instructions[-1].last if stage.instructions else stage.start.last
            lines[stage.start.first - 1] = f"FROM {image} AS {name}"
            for row in range(stage.start.first, last):
                lines[row] = ""
    return "\n".join(lines) + "\n"
