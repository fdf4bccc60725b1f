"""Finding the sections of .repo files that already name a repository, and clearing them out for the one that should. Pure.

A section whose id is in two files, or a repository in two sections with different checks, is a matter of chance for dnf and zypper, so what is there
is adopted or replaced, never doubled.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from provision.aptsource import normal
from provision.facts.text import lines
from provision.model import RpmSource

_HEADER = re.compile(r"^\[(?P<id>[^\]]+)\]")
_ARCH = re.compile(r"\$\{?(?:basearch|arch)\}?")
# Several in a row are one: each by itself they could be told apart in more ways than anybody can wait for.
_VARIABLE = re.compile(r"(?:\\\$(?:\\\{)?\w+(?:\\\})?)+")
_MOST_VARIABLES = 6


def names(url: str, uris: Iterable[str], arch: str) -> bool:
    """Whether a baseurl, with whatever `$releasever` may stand for, is one of `uris`."""
    text = normal(_ARCH.sub(arch, url))
    if "$" not in text:
        return text in {normal(uri) for uri in uris}
    if text.count("$") > _MOST_VARIABLES:
        return False
    pattern = _VARIABLE.sub("[^/]+", re.escape(text))
    return any(re.fullmatch(pattern, normal(uri)) for uri in uris)


def naming(sources: Iterable[RpmSource], uris: Iterable[str], arch: str) -> tuple[RpmSource, ...]:
    """The enabled sections that name one of the repositories `uris`."""
    wanted = tuple(uris)
    return tuple(s for s in sources if s.enabled and any(names(url, wanted, arch) for url in s.baseurl))


@dataclass(frozen=True)
class Takeover:
    """What becomes of .repo files: what else stays in the file that mlhost writes, files moved aside whole, and files rewritten without a section."""

    rest: str
    obsolete: tuple[str, ...]
    edits: tuple[tuple[str, str], ...]


def takeover(
    path: str,
    section: str,
    hits: Iterable[RpmSource],
    sources: Iterable[RpmSource],
    texts: Mapping[str, str],
    legacy: Iterable[str] = (),
    hosts: Iterable[str] = (),
) -> Takeover:
    """Clear the sections `hits`, and every other one with the id `section`, out of all files.

    Of the file at `path` only what else it holds is kept, to be written below the new section. A file with nothing else is obsolete, and so is one
    whose name is among the patterns `legacy` and whose enabled sections are all of `hosts`; of another the sections in question are commented out.
    """
    every, patterns, known = tuple(sources), tuple(legacy), set(hosts)
    drop = {(s.path, s.id) for s in hits} | {(s.path, s.id) for s in every if s.id == section}
    obsolete: list[str] = []
    edits: list[tuple[str, str]] = []
    for file in dict.fromkeys(s.path for s in every if s.path != path):
        inside = [s for s in every if s.path == file]
        gone = [s for s in inside if (s.path, s.id) in drop]
        older = any(fnmatch.fnmatchcase(file.rpartition("/")[2], p) for p in patterns) and all(
            normal(url).partition("/")[0] in known for s in inside if s.enabled for url in s.baseurl
        )
        if gone and (len(gone) == len(inside) or older):
            obsolete.append(file)
        elif gone:
            edits.append((file, commented(texts.get(file, ""), {s.id for s in gone})))
    rest = without(texts.get(path, ""), {i for p, i in drop if p == path}) if any(s.path == path for s in every) else ""
    return Takeover(rest, tuple(obsolete), tuple(edits))


def without(text: str, sections: set[str]) -> str:
    """The sections of a .repo text that are not among `sections`; what stands before the first one goes too."""
    return "".join(line for line, here in _lines(text) if here and here not in sections).strip("\n")


def commented(text: str, sections: set[str]) -> str:
    """The text with these sections commented out."""
    return "".join(f"# {line}" if here in sections and line.strip() else line for line, here in _lines(text))


def switched_on(text: str, section: str) -> str:
    """The text with `enabled=1` in this section, and everything else as it was."""
    said = any(here == section and re.match(r"enabled\s*=", line) for line, here in _lines(text))

    def line_on(line: str, here: str) -> str:
        if here != section or not (re.match(r"enabled\s*=", line) if said else _HEADER.match(line)):
            return line
        return "enabled=1\n" if said else f"{line.rstrip()}\nenabled=1\n"

    return "".join(line_on(line, here) for line, here in _lines(text))


def _lines(text: str) -> Iterable[tuple[str, str]]:
    """Each line with the section that it stands in; a header stands in its own."""
    here = ""
    for line in lines(text):
        header = _HEADER.match(line)
        if header:
            here = header["id"]
        yield line, here
