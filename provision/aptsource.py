"""Finding the apt sources that already name a repository, and writing the one that should. Pure.

Two entries for the same repository with different `Signed-By` stop every apt command on the machine ("Conflicting values set for option
Signed-By"), so an existing entry is adopted or replaced, never doubled.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from provision.facts.text import lines
from provision.model import AptSource

_WRITTEN_BY = "# Written by mlhost; changes made here are replaced by its next run."
# What apt takes for a no in `Enabled` (apt-pkg StringToBool).
_OFF = ("no", "false", "without", "off", "disable", "0")


def normal(uri: str) -> str:
    """Host and path of a repository URI, for comparison: the scheme, credentials, default ports and doubled or trailing slashes do not matter."""
    try:
        parts = urlsplit(uri)
        port = f":{parts.port}" if parts.port and parts.port not in (80, 443) else ""
    except ValueError:
        return uri
    path = re.sub(r"/+", "/", parts.path).rstrip("/")
    return f"{(parts.hostname or '').lower()}{port}{path}"


def naming(sources: Iterable[AptSource], uris: Iterable[str]) -> tuple[AptSource, ...]:
    """The enabled entries that name one of the repositories `uris`."""
    wanted = {normal(uri) for uri in uris}
    return tuple(s for s in sources if s.enabled and any(normal(uri) in wanted for uri in s.uris))


def clash(sources: Iterable[AptSource], deb_arch: str) -> tuple[str, ...]:
    """The files that name one repository and suite with different keys, upon which apt refuses to work at all; () if none do."""
    keys: dict[tuple[str, str], dict[str, list[str]]] = {}
    for source in sources:
        for uri in source.uris if source.enabled else ():
            place = uri.replace("$(ARCH)", deb_arch).rstrip("/")
            for suite in source.suites:
                keys.setdefault((place, suite), {}).setdefault(source.signed_by, []).append(source.path)
    for by_key in keys.values():
        if len(by_key) > 1:
            return tuple(dict.fromkeys(path for paths in by_key.values() for path in paths))
    return ()


@dataclass(frozen=True)
class Takeover:
    """What happens to files that name a repository besides the one mlhost writes: moved aside whole, or rewritten without it."""

    obsolete: tuple[str, ...]
    edits: tuple[tuple[str, str], ...]


def own_path(path: str, uris: Iterable[str], sources: Iterable[AptSource]) -> str:
    """`path`, or a name beside it where the file of that name also names repositories that are not `uris`."""
    wanted = {normal(uri) for uri in uris}
    shared = any(s.path == path and s.enabled and any(normal(u) not in wanted for u in s.uris) for s in sources)
    folder, _, name = path.rpartition("/")
    return f"{folder}/mlhost-{name}" if shared else path


def takeover(
    path: str,
    uris: Iterable[str],
    sources: Iterable[AptSource],
    texts: Mapping[str, str],
    legacy: Iterable[str] = (),
    hosts: Iterable[str] = (),
) -> Takeover:
    """Clear every other enabled entry for `uris` out of the files that hold them (all but `path`).

    A file that names nothing else is obsolete; of another only the entries in question are taken out. Obsolete is also a file whose name is
    among the patterns `legacy` and that names nothing but `hosts`: an older form of the same repository.
    """
    wanted = {normal(uri) for uri in uris}
    enabled = [s for s in sources if s.enabled and s.path != path]
    patterns, known = tuple(legacy), set(hosts)
    obsolete: list[str] = []
    edits: list[tuple[str, str]] = []
    for file in dict.fromkeys(s.path for s in enabled):
        entries = [s for s in enabled if s.path == file]
        named = [uri for s in entries for uri in s.uris]
        rest = [uri for uri in named if normal(uri) not in wanted]
        name = file.rpartition("/")[2]
        older = any(fnmatch.fnmatchcase(name, p) for p in patterns) and all(_host(uri) in known for uri in named)
        if not rest or older:
            obsolete.append(file)
        elif len(rest) < len(named):
            edits.append((file, without(texts.get(file, ""), wanted, entries[0].deb822)))
    return Takeover(tuple(obsolete), tuple(edits))


def _host(uri: str) -> str:
    return normal(uri).partition("/")[0]


def without(text: str, repositories: set[str], deb822_form: bool) -> str:
    """A source file's text with the entries for `repositories` (as `normal` gives them) commented out, and everything else as it was."""
    rows = lines(text)
    if deb822_form:
        return "".join(line for paragraph in _paragraphs(rows) for line in _paragraph_without(paragraph, repositories))
    return "".join(f"# {line}" if _names(line, repositories) else line for line in rows)


def _names(line: str, repositories: set[str]) -> bool:
    return not line.lstrip().startswith("#") and any(normal(word) in repositories for word in line.split() if "://" in word)


def _paragraphs(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines in groups: each paragraph, and each blank line by itself."""
    group: list[str] = []
    for line in lines:
        if line.strip():
            group.append(line)
            continue
        yield group
        yield [line]
        group = []
    yield group


def _paragraph_without(lines: list[str], repositories: set[str]) -> list[str]:
    fields: dict[str, str] = {}
    owner: list[str] = []  # the field that each line belongs to; "" for a comment
    name = ""
    for line in lines:
        if line.startswith("#"):
            owner.append("")
            continue
        if line[0] not in " \t":
            name = line.partition(":")[0].strip().lower()
        owner.append(name)
        value = line if line[0] in " \t" else line.partition(":")[2]
        fields[name] = f"{fields.get(name, '')} {value.strip()}"
    named = fields.get("uris", "").split()
    rest = [uri for uri in named if normal(uri) not in repositories]
    if len(rest) == len(named) or fields.get("enabled", "yes").strip().lower() in _OFF:
        return lines
    if not rest:
        return [line if line.startswith("#") else f"# {line}" for line in lines]
    first = owner.index("uris")
    kept = [line for at, line in enumerate(lines) if owner[at] != "uris" or at == first]
    kept[kept.index(lines[first])] = f"URIs: {' '.join(rest)}\n"
    return kept


def deb822(uri: str, suite: str, components: Iterable[str], signed_by: str, architecture: str = "") -> str:
    """The text of a deb822 source file for one repository; a flat repository has the suite `/` and no components."""
    lines = [_WRITTEN_BY, "Types: deb", f"URIs: {uri}", f"Suites: {suite}"]
    parts = tuple(components)
    if parts:
        lines.append("Components: " + " ".join(parts))
    if architecture:
        lines.append(f"Architectures: {architecture}")
    if signed_by:
        lines.append(f"Signed-By: {signed_by}")
    return "\n".join(lines) + "\n"


def one_line(uri: str, suite: str, components: Iterable[str], signed_by: str, architecture: str = "") -> str:
    """The same for releases whose apt reads only the one-line form."""
    options = [f"arch={architecture}"] if architecture else []
    if signed_by:
        options.append(f"signed-by={signed_by.replace(' ', ',')}")
    bracket = f"[{' '.join(options)}] " if options else ""
    return f"{_WRITTEN_BY}\ndeb {bracket}{uri} {' '.join((suite, *components))}\n"
