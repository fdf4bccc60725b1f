"""Asking an apt that has a root of its own what a system would install: the script that asks, and the reading of its answer. Pure.

The script (scripts/aptroot.sh) runs on the system itself or on any machine that has apt. Signatures and hashes are checked by apt, with the
keys that the host has or that the catalog pins.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from provision.actions import AptRepository, Packages
from provision.capture import split
from provision.errors import Failed
from provision.facts import apt
from provision.model import CHANGE, AptSource, Facts, Plan, Section
from provision.sh import Sh, join
from provision.shipped import shipped

_URI = re.compile(r"^'([^']+)' (\S+) (\d+) SHA256:([0-9a-f]{64})$", re.MULTILINE)
_DEB = re.compile(r"^([a-z0-9][a-z0-9+.-]*)_([^_]+)_([a-z0-9-]+)\.deb$")
_PATH = re.compile(r"/[A-Za-z0-9_.+@/-]+")
TRUSTED = "/etc/apt/trusted.gpg.d/"
RECORDED = "dpkg_status"
"""The section of a capture that holds dpkg's own record; `mlhost facts --format raw --packages` asks for it."""


@dataclass(frozen=True)
class Offered:
    """A package's file as a source offers it. `stanza` is its paragraph in the source's list."""

    name: str
    version: str
    arch: str
    sha256: str
    size: int
    uri: str = ""
    stanza: str = ""


@dataclass(frozen=True)
class Wish:
    """What one transaction is to install: apt's words (`name`, `name=version`, `name=29.*`, `name-` to remove)."""

    words: tuple[str, ...]
    recommends: bool = False


def wishes(plan: Plan) -> tuple[Wish, ...]:
    """What a plan's package items ask of apt, by whether recommended packages come along."""
    found: dict[bool, list[str]] = {}
    for item in plan.items:
        if item.state != CHANGE or not isinstance(item.action, Packages):
            continue
        words = found.setdefault(item.action.recommends, [])
        words += [f"{p.name}={p.version}" if p.version else p.name for p in item.action.install]
        words += [f"{name}-" for name in item.action.remove]
    return tuple(Wish(tuple(dict.fromkeys(words)), recommends) for recommends, words in found.items() if words)


def sources(facts: Facts, plan: Plan) -> tuple[tuple[AptSource, ...], Mapping[str, bytes]]:
    """The sources that the host's apt will have once the plan is carried out, and the keys by the paths that they name. `plan` has its keys."""
    files: dict[str, tuple[AptSource, ...]] = {}
    for source in facts.apt_sources:
        files[source.path] = (*files.get(source.path, ()), source)
    keys = dict(facts.keyrings)
    for item in plan.items:
        action = item.action
        if item.state != CHANGE or not isinstance(action, AptRepository):
            continue
        for path in action.obsolete:
            files.pop(path, None)
        for path, text in ((action.path, action.text), *action.edits):
            files[path] = apt.deb822(path, text) if path.endswith(".sources") else apt.one_line(path, text)
        if action.key is not None:
            keys[action.key.path] = action.key.text
    found = [s for of in files.values() for s in of if s.enabled and "deb" in s.types and s.uris]
    return tuple(found), keys


def script(
    facts: Facts, plan: Plan, deb_arch: str, mark: str, calls: Iterable[Sh], *, status: str | None = None, folder: str = "", here: bool = False
) -> Sh:
    """The whole text: `calls` are calls of aptroot.sh's functions after the lists are there.

    `status` is dpkg's record of the system; None is that of the machine it runs on. `here`: it runs on the host itself, whose key files are
    where its sources say. `folder` is an empty folder to use, "" makes one that goes at the end. Raises Failed for a source whose key is not known.
    """
    entries, keys = sources(facts, plan)
    lines = [Sh(f"aptroot_begin {join([mark, folder, deb_arch, '' if status is not None else '/var/lib/dpkg/status'])} || exit 0")]
    if status is not None:
        lines.append(_file("status", status.encode("utf-8", "surrogateescape")))
    texts: list[str] = []
    used: dict[str, bytes] = {}
    for source in entries:
        signed = source.signed_by
        if signed.startswith("-----BEGIN"):
            used[f"{len(used)}.asc"] = signed.encode()
            named = [f"{len(used) - 1}.asc"]
        elif here and all(path not in keys or keys[path] == facts.keyrings.get(path) for path in signed.split()):
            named = [path for path in signed.split() if _PATH.fullmatch(path)]
        else:
            named = []
            for path in signed.split():
                if path not in keys:
                    raise Failed(
                        f"{facts.host}: {source.path} names the key {path}, which the capture does not hold.",
                        "Make it with `mlhost facts --format raw --packages` on the host, as root.",
                    )
                name = f"{len(used)}{'.asc' if keys[path].startswith(b'-----BEGIN') else '.gpg'}"
                used[name] = keys[path]
                named.append(name)
        texts.append(_entries(source, deb_arch, named))
    for name, content in used.items():
        lines.append(_file(f"keys/{name}", content))
    if here:
        lines.append(Sh('cp -R /etc/apt/preferences /etc/apt/preferences.d "$APTROOT/etc/apt/" 2>/dev/null'))
        lines.append(Sh('[ ! -d /etc/apt/trusted.gpg.d ] || cp /etc/apt/trusted.gpg.d/* "$APTROOT/etc/apt/trusted.gpg.d/" 2>/dev/null'))
    else:
        for path, content in facts.keyrings.items():
            if path.startswith(TRUSTED) and _PATH.fullmatch(path):
                lines.append(_file(f"etc/apt/trusted.gpg.d/{path[len(TRUSTED):]}", content))
    # the keys' folder is only known there
    lines.append(Sh(f"printf '%s' {join([''.join(texts)])} | sed \"s,@KEYS@,$APTROOT/keys,g\" >\"$APTROOT/etc/apt/sources.list\" || exit 1"))
    lines.append(Sh("if aptroot_update; then"))
    lines += [Sh(f"    {call}") for call in calls]
    lines += [Sh("fi"), Sh("aptroot_end")]
    return Sh("\n".join([shipped("scripts/aptroot.sh"), *lines, ""]))


def _file(path: str, content: bytes) -> Sh:
    return Sh(f"aptroot_file {join([path, base64.b64encode(content).decode(), 'base64'])} || exit 1")


def _entries(source: AptSource, deb_arch: str, keys: Sequence[str]) -> str:
    """The source as one-line entries, which every apt reads."""
    arches = [a for a in source.architectures if a == deb_arch]
    if source.architectures and not arches:
        return ""
    options = [f"arch={deb_arch}"]
    if keys:
        options.append("signed-by=" + ",".join(key if key.startswith("/") else f"@KEYS@/{key}" for key in keys))
    lines = []
    for uri in source.uris:
        for suite in source.suites:
            lines.append(f"deb [{' '.join(options)}] {' '.join((uri, suite, *source.components))}\n")
    return "".join(lines)


def transaction(number: int, wish: Wish) -> Sh:
    """The call that asks for one transaction; its answer is the section `uris:NUMBER`."""
    return Sh(f"aptroot_transaction {join([f'uris:{number}', 'yes' if wish.recommends else 'no', *wish.words])}")


def show(names: Iterable[str]) -> Sh:
    """The call that asks for everything that the sources offer of these packages."""
    return Sh(f"aptroot_show {join(sorted(set(names)))}")


def answer(out: bytes, mark: str, where: str) -> Mapping[str, Section]:
    """The sections of the script's answer. Raises Failed where there is no apt or the lists could not be had; `where` names the machine that was asked."""
    sections = split(out, mark)
    if "apt" in sections:
        raise Failed(f"{where} has no apt-get, which has to be asked what would be installed.", "Run this on a Debian or Ubuntu machine.")
    update = sections.get("update")
    if update is None or update.rc:
        said = _telling(update.text if update else "")
        raise Failed(f"{where} cannot read the package sources{': ' + said if said else ''}.", "Check that these sources can be reached from there.")
    return sections


def transactions(sections: Mapping[str, Section], host: str) -> tuple[Offered, ...]:
    """The packages that the asked transactions would fetch, in apt's order. Raises Failed, in apt's words, for one that is not possible."""
    found: dict[str, Offered] = {}
    for name, section in sections.items():
        if not name.startswith("uris:"):
            continue
        if section.rc:
            raise Failed(f"apt cannot install this on {host}: {_telling(section.text)}.", "Correct the playbook's versions, or the host's package sources.")
        for uri, file, size, sha256 in _URI.findall(section.text):
            deb = _DEB.match(unquote(file))
            if deb is None:
                raise Failed(f"apt names a package file that is not understood: {file[:200]}.", "Please report it.")
            found[deb[1]] = Offered(deb[1], deb[2], deb[3], sha256, int(size), uri)
    return tuple(found.values())


def offers(sections: Mapping[str, Section]) -> tuple[Offered, ...]:
    """Every version of the packages asked for with `show`."""
    text = sections["show"].text if "show" in sections else ""
    found = []
    for stanza in text.split("\n\n"):
        fields = next(apt.paragraphs(stanza), {}) if stanza.strip() else {}
        if {"package", "version", "sha256"} <= set(fields):
            size = fields.get("size", "")
            found.append(
                Offered(
                    fields["package"], fields["version"], fields.get("architecture", ""), fields["sha256"].lower(),
                    int(size) if size.isdigit() else 0, fields.get("filename", ""), stanza.strip("\n") + "\n",
                )
            )
    return tuple(found)


def _telling(text: str) -> str:
    """apt's own first complaint."""
    rows = text.splitlines()
    for pattern in (r"^E: (?!Sub-process|Some index)", r"^ *\S+ : (Pre-)?Depends: ", r"^(Err:|W: (GPG|Failed|An error))", r"^E: "):
        said = next((row.strip() for row in rows if re.match(pattern, row)), "")
        if said:
            return re.sub(r"\s+", " ", said)[:300].rstrip(".")
    return rows[-1].strip()[:300] if rows else "it said nothing"
