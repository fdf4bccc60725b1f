"""One apt repository: adopt what is there, converge what is wrong, write what is missing."""

from __future__ import annotations

from dataclasses import replace

from provision import aptsource, openpgp
from provision.actions import AptRepository, Key
from provision.model import CHANGE, OK, AptSource, Facts, Item
from provision.rows import Repository
from provision.spec import Mirror
from provision.steps import SOURCES, Context


def mirrored(repository: Repository, mirror: Mirror) -> Repository:
    """The repository as the playbook's mirror serves it; the vendor's own where no mirror is named."""
    if not mirror.url:
        return repository
    base = mirror.url.rstrip("/")

    def moved(url: str) -> str:
        return base + url[len(repository.base) :] if url.startswith(repository.base) else url

    return replace(
        repository,
        uri=moved(repository.uri),
        base=base,
        index_url=moved(repository.index_url),
        key_url=mirror.key_url or moved(repository.key_url),
        fingerprints=(mirror.fingerprint,) if mirror.fingerprint else repository.fingerprints,
    )


def uris(repository: Repository) -> tuple[str, ...]:
    """The ways in which a source can name the repository: its URI at each of its hosts, the architecture spelt out or left to apt."""
    deb_arch = repository.architectures[0] if repository.architectures else ""
    named = [repository.uri]
    if deb_arch and repository.uri.endswith("/" + deb_arch):
        named.append(repository.uri[: -len(deb_arch)] + "$(ARCH)")
    return tuple(named)


def _key_is_pinned(facts: Facts, source: AptSource, repository: Repository) -> bool:
    if source.signed_by.startswith("-----BEGIN"):
        material: bytes | None = source.signed_by.encode()
    else:
        material = facts.keyrings.get(source.signed_by)
    if not material:
        return False
    try:
        found = openpgp.fingerprints(material)
    except ValueError:
        return False
    return bool(found) and set(found) <= set(repository.fingerprints)


def _serves(source: AptSource, repository: Repository) -> bool:
    return "deb" in source.types and repository.suite in source.suites and set(repository.components) <= set(source.components)


def item(ctx: Context, repository: Repository, step: str) -> Item:
    """The item that makes exactly one enabled apt source name `repository`, signed by a pinned key."""
    facts, platform = ctx.facts, ctx.platform
    named = uris(repository)
    hits = aptsource.naming(facts.apt_sources, named)
    good = [s for s in hits if _serves(s, repository) and _key_is_pinned(facts, s, repository)]
    expected = {
        "uri": repository.uri,
        "suite": repository.suite,
        "components": " ".join(repository.components),
        "key": " ".join(repository.fingerprints),
    }
    identifier = f"{step}/repository"
    if len(hits) == len(good) == 1:
        return Item(
            identifier,
            step,
            "apt-repository",
            OK,
            f"{good[0].path} names it and its key is the pinned one",
            expected,
            expected,
            phase=SOURCES,
        )

    text = aptsource.deb822 if platform.deb822 else aptsource.one_line
    path = repository.source_path if platform.deb822 else repository.source_path.replace(".sources", ".list")
    moved = aptsource.takeover(path, named, facts.apt_sources, facts.apt_source_texts)
    if not hits:
        why = f"no apt source names {repository.uri}"
    elif len(hits) > 1:
        why = f"{len(hits)} sources name it ({', '.join(dict.fromkeys(s.path for s in hits))}); one stays, or apt refuses to work"
    elif not _serves(hits[0], repository):
        why = f"{hits[0].path} names it, but not {repository.suite} {' '.join(repository.components)}".rstrip()
    else:
        why = f"{hits[0].path} names it without the pinned key"
    actual = (
        {
            "uri": " ".join(dict.fromkeys(u for s in hits for u in s.uris)),
            "suite": " ".join(dict.fromkeys(u for s in hits for u in s.suites)),
            "components": " ".join(dict.fromkeys(u for s in hits for u in s.components)),
            "key": "pinned" if good else "",
        }
        if hits
        else {}
    )
    action = AptRepository(
        name=repository.title,
        path=path,
        text=text(repository.uri, repository.suite, repository.components, repository.key_path, platform.deb_arch),
        key=Key(repository.title, repository.key_url, repository.fingerprints, repository.key_path),
        obsolete=moved.obsolete,
        edits=moved.edits,
        check_url=repository.index_url,
    )
    return Item(identifier, step, "apt-repository", CHANGE, why, expected, actual, action, phase=SOURCES)


def details(repository: Repository) -> dict[str, object]:
    """The repository as decisions print it."""
    return {
        "uri": repository.uri,
        "suite": repository.suite,
        "components": list(repository.components),
        "key_fingerprint": repository.fingerprints[0] if repository.fingerprints else None,
    }
