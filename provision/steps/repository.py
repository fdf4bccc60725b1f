"""One package repository: adopt what is there, converge what is wrong, write what is missing. apt's are made here, rpm's by `rpm_repository`."""

from __future__ import annotations

from collections.abc import Iterable

from provision import aptsource, openpgp
from provision.actions import AptRepository, Key
from provision.model import CHANGE, AptSource, Facts, Item
from provision.rows import Repository
from provision.spec import Mirror
from provision.steps import SOURCES, Context, rpm_repository, settled

TRUSTED = "/etc/apt/trusted.gpg.d/"


def of(ctx: Context, name: str) -> Repository | None:
    """The vendor's repository (docker, toolkit, cuda, epel, microsoft) as the playbook's mirror, if any, serves it; None where nobody serves the platform."""
    vendor = ctx.catalog.repository(name, ctx.platform)
    mirror: Mirror | None = getattr(ctx.spec.mirrors, name, None)
    return mirrored(vendor, mirror) if vendor and mirror else vendor


def mirrored(repository: Repository, mirror: Mirror) -> Repository:
    """The repository as the playbook's mirror serves it; the vendor's own where no mirror is named."""
    if not mirror.url:
        return repository
    base = mirror.url.rstrip("/")

    def moved(url: str) -> str:
        return base + url[len(repository.base) :] if url.startswith(repository.base) else url

    fingerprint = "".join(mirror.fingerprint.split()).upper()
    return repository._replace(
        uri=moved(repository.uri),
        base=base,
        index_url=moved(repository.index_url),
        key_url=mirror.key_url or moved(repository.key_url),
        fingerprints=(fingerprint,) if fingerprint else repository.fingerprints,
    )


def uris(repository: Repository) -> tuple[str, ...]:
    """The ways in which a source can name the repository: its URI at each of its hosts, the architecture spelt out or left to apt."""
    deb_arch = repository.architectures[0] if repository.architectures else ""
    named = [repository.uri]
    for host in repository.hosts:
        here = next((h for h in repository.hosts if f"//{h}/" in repository.uri), "")
        named.append(repository.uri.replace(f"//{here}/", f"//{host}/", 1) if here else repository.uri)
    if deb_arch:
        named += [uri[: -len(deb_arch)] + "$(ARCH)" for uri in named if uri.endswith("/" + deb_arch)]
    return tuple(dict.fromkeys(named))


def _fingerprints(material: bytes | None) -> tuple[str, ...]:
    try:
        return openpgp.fingerprints(material) if material else ()
    except ValueError:
        return ()


def _pinned(facts: Facts, source: AptSource, repository: Repository) -> bool:
    """Whether the source trusts a pinned key and no other, but for keys that the vendor has retired."""
    if source.signed_by.startswith("-----BEGIN"):
        found: Iterable[str] = _fingerprints(source.signed_by.encode())
    else:
        found = [f for path in source.signed_by.split() for f in _fingerprints(facts.keyrings.get(path)) or ("unknown",)]
    pinned = set(repository.fingerprints)
    return bool(pinned & set(found)) and set(found) <= pinned | set(repository.obsolete_fingerprints)


def _serves(source: AptSource, repository: Repository) -> bool:
    arches = source.architectures
    return (
        "deb" in source.types
        and repository.suite in source.suites
        and set(repository.components) <= set(source.components)
        and (not arches or set(repository.architectures) <= set(arches))
    )


def _named(ctx: Context, repository: Repository) -> tuple[str, ...]:
    """The URIs by which a source may name the repository, at the mirror or at the vendor's."""
    vendor = ctx.catalog.repository(repository.name, ctx.platform)
    return tuple(dict.fromkeys((*uris(repository), *(uris(vendor) if vendor else ()))))


def _hits(ctx: Context, repository: Repository) -> tuple[tuple[AptSource, ...], tuple[str, ...]]:
    """The enabled sources that name the repository, and all the URIs looked for."""
    named = _named(ctx, repository)
    return aptsource.naming(ctx.facts.apt_sources, named), named


def _expected(repository: Repository) -> dict[str, object]:
    return {
        "uri": repository.uri,
        "suite": repository.suite,
        "components": " ".join(repository.components),
        "key": " ".join(repository.fingerprints),
    }


def kept(ctx: Context, repository: Repository, step: str) -> Item | None:
    """The item for a repository that nothing is going to be installed from: a source that works is left alone, however it is written.

    None if no source names the repository. Only sources that keep apt from working are put right.
    """
    if ctx.platform.family != "debian":
        return rpm_repository.kept(ctx, repository, _named(ctx, repository), step)
    hits, _ = _hits(ctx, repository)
    if not hits:
        return None
    if aptsource.clash(hits, ctx.platform.deb_arch):
        return item(ctx, repository, step)
    files = ", ".join(dict.fromkeys(s.path for s in hits))
    why = f"{files} names it, and nothing is to be installed from it"
    return settled(step, f"{step}/repository", "apt-repository", why, _expected(repository), SOURCES)


def item(ctx: Context, repository: Repository, step: str) -> Item:
    """The item that makes one enabled source name `repository`, signed by a pinned key, and no other contradict it."""
    if ctx.platform.family != "debian":
        return rpm_repository.item(ctx, repository, uris(repository), _named(ctx, repository), step)
    facts, platform = ctx.facts, ctx.platform
    hits, named = _hits(ctx, repository)
    ours = aptsource.naming(hits, uris(repository))
    good = [s for s in ours if _serves(s, repository) and _pinned(facts, s, repository)]
    expected = _expected(repository)
    identifier = f"{step}/repository"
    # Others may name other suites or components of it (a test channel); with the same key they do no harm.
    if good and all(s in ours and s.signed_by == good[0].signed_by for s in hits):
        why = f"{good[0].path} names it and its key is the pinned one"
        return settled(step, identifier, "apt-repository", why, expected, SOURCES)

    path = repository.source_path if platform.deb822 else repository.source_path.replace(".sources", ".list")
    path = aptsource.own_path(path, named, facts.apt_sources)
    moved = aptsource.takeover(
        path, named, facts.apt_sources, facts.apt_source_texts, repository.legacy_sources, repository.hosts
    )
    actual: dict[str, object] = {}
    if hits:
        actual = {
            "uri": _words(u for s in hits for u in s.uris),
            "suite": _words(u for s in hits for u in s.suites),
            "components": _words(u for s in hits for u in s.components),
            "key": " ".join(repository.fingerprints) if good else "",
        }
    text = aptsource.deb822 if platform.deb822 else aptsource.one_line
    action = AptRepository(
        name=repository.title,
        path=path,
        text=text(repository.uri, repository.suite, repository.components, repository.key_path, platform.deb_arch),
        key=Key(
            repository.title, repository.key_url, repository.fingerprints, repository.key_path, _known_key(facts, repository)
        ),
        obsolete=moved.obsolete,
        edits=moved.edits,
        check_url=repository.index_url,
    )
    why = _why(repository, hits, ours)
    return Item(identifier, step, "apt-repository", CHANGE, why, expected, actual, action, phase=SOURCES)


def _words(words: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(words))


def _why(repository: Repository, hits: tuple[AptSource, ...], ours: tuple[AptSource, ...]) -> str:
    if not hits:
        return f"no apt source names {repository.uri}"
    files = ", ".join(dict.fromkeys(s.path for s in hits))
    if not ours:
        return f"{files} names {' '.join(hits[0].uris)}; the playbook's mirror stands in for it"
    if len(hits) > 1:
        return f"{len(hits)} sources name it ({files}); with different keys apt would refuse to work, so one stays"
    if not _serves(hits[0], repository):
        what = " ".join((repository.suite, *repository.components))
        return f"{files} names it, but not {what} for {' '.join(repository.architectures)}"
    if not hits[0].signed_by:
        return f"{files} names it, but accepts any key that apt knows"
    return f"{files} names it with a key that is not known to be the pinned one"


def _known_key(facts: Facts, repository: Repository) -> bytes:
    """The pinned key from the host itself, if a file of it there holds it and nothing else; it then need not be fetched. b"" if not."""
    for content in facts.keyrings.values():
        # apt takes a file named .asc for armoured text.
        if set(_fingerprints(content)) != set(repository.fingerprints):
            continue
        if repository.key_path.endswith(".gpg"):
            return openpgp.dearmor(content)
        if content.startswith(b"-----BEGIN"):
            return content
    return b""


def details(repository: Repository) -> dict[str, object]:
    """The repository as decisions print it."""
    return {
        "uri": repository.uri,
        "suite": repository.suite,
        "components": list(repository.components),
        "key_fingerprint": repository.fingerprints[0] if repository.fingerprints else None,
    }


def unreachable(ctx: Context, repository: Repository | None) -> str:
    """How the host failed to reach the repository, "" if it was not asked or could."""
    answer = ctx.facts.reach.get(repository.index_url) if repository else None
    if answer is None or answer.ok or answer.state == "no-client":
        return ""
    return answer.detail or answer.state


def own_index(ctx: Context) -> tuple[str, ...]:
    """The index of the distribution's own archive, as the host's apt sources name it: what the vendors' packages depend on comes from there.

    Of rpm's repositories most are lists of mirrors, of which no single one has to answer.
    """
    suite = ctx.platform.codename
    for source in ctx.facts.apt_sources:
        if source.enabled and "deb" in source.types and suite in source.suites and "main" in source.components:
            return tuple(
                f"{uri.rstrip('/')}/dists/{suite}/InRelease" for uri in source.uris[:1] if uri.startswith(("http://", "https://"))
            )
    return ()
