"""Finding the apt sources that already name a repository, and writing the one that should. Pure.

Two entries for the same repository with different `Signed-By` stop every apt command on the machine ("Conflicting values set for option
Signed-By"), so an existing entry is adopted or replaced, never doubled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from provision.model import AptSource


def normal(uri: str) -> str:
    """Host and path of a repository URI, for comparison: the scheme, credentials, default ports and trailing slashes do not matter."""
    parts = urlsplit(uri)
    try:
        port = f":{parts.port}" if parts.port and parts.port not in (80, 443) else ""
    except ValueError:
        port = ""
    path = re.sub(r"/+", "/", parts.path).rstrip("/")
    return f"{(parts.hostname or '').lower()}{port}{path}"


def naming(sources: Iterable[AptSource], uris: Iterable[str]) -> tuple[AptSource, ...]:
    """The enabled entries that name one of the repositories `uris`."""
    wanted = {normal(uri) for uri in uris}
    return tuple(s for s in sources if s.enabled and any(normal(uri) in wanted for uri in s.uris))


@dataclass(frozen=True)
class Takeover:
    """What happens to files that name a repository besides the one mlhost writes: moved aside whole, or rewritten without it."""

    obsolete: tuple[str, ...]
    edits: tuple[tuple[str, str], ...]


def takeover(path: str, uris: Iterable[str], sources: Iterable[AptSource], texts: Mapping[str, str]) -> Takeover:
    """Clear every other enabled entry for `uris` out of the files that hold them (all but `path`).

    A file that names nothing else is obsolete; of another only the entries in question are commented out.
    """
    all_sources = tuple(sources)
    uris = tuple(uris)
    hits = [s for s in naming(all_sources, uris) if s.path != path]
    obsolete: list[str] = []
    edits: list[tuple[str, str]] = []
    for file in dict.fromkeys(s.path for s in hits):
        others = [s for s in all_sources if s.path == file and s.enabled and s not in hits]
        if not others:
            obsolete.append(file)
        else:
            edits.append((file, _without(texts.get(file, ""), {normal(u) for u in uris}, hits[0].deb822)))
    return Takeover(tuple(obsolete), tuple(edits))


def _without(text: str, repositories: set[str], deb822: bool) -> str:
    if deb822:
        paragraphs = re.split(r"(\n[ \t]*\n)", text)
        return "".join(re.sub(r"(?m)^(?=\S)", "# ", part, count=0) if _names(part, repositories) else part for part in paragraphs)
    lines = text.splitlines(keepends=True)
    return "".join("# " + line if _names(line, repositories) and not line.lstrip().startswith("#") else line for line in lines)


def _names(text: str, repositories: set[str]) -> bool:
    return any(normal(word) in repositories for word in re.findall(r"\S+://\S+", text))


def deb822(uri: str, suite: str, components: Iterable[str], signed_by: str, architecture: str = "") -> str:
    """The text of a deb822 source file for one repository; a flat repository has the suite `/` and no components."""
    lines = [
        "# Written by mlhost; changes made here are replaced by its next run.",
        "Types: deb",
        f"URIs: {uri}",
        f"Suites: {suite}",
    ]
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
        options.append(f"signed-by={signed_by}")
    bracket = f"[{' '.join(options)}] " if options else ""
    tail = " ".join((suite, *components))
    return f"# Written by mlhost; changes made here are replaced by its next run.\ndeb {bracket}{uri} {tail}\n"
