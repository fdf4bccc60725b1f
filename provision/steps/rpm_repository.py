"""One rpm repository: adopt what is there, converge what is wrong, write what is missing. For dnf, yum, tdnf and zypper alike."""

from __future__ import annotations

from provision import openpgp, rpmsource
from provision.actions import Command, File, Key, Package, Packages, RpmRepository
from provision.catalog_platform import repo_file
from provision.model import CHANGE, Facts, Item, RpmSource
from provision.rows import Repository
from provision.steps import SOURCES, Context, settled

KIND = "rpm-repository"
_WRITTEN_BY = "# Written by mlhost; changes made here are replaced by its next run."
# Where subscription-manager writes what a machine is entitled to; it takes edits back.
REDHAT = "/etc/yum.repos.d/redhat.repo"


def _fingerprints(material: bytes | None) -> set[str]:
    try:
        return set(openpgp.fingerprints(material)) if material else set()
    except ValueError:
        return set()


def _pinned(facts: Facts, source: RpmSource, repository: Repository) -> bool:
    """Whether the section's keys are files of this machine that hold pinned keys and no others."""
    paths = [key[len("file://") :] for key in source.gpgkey if key.startswith("file://")]
    if not paths or len(paths) < len(source.gpgkey):
        return False
    if repository.installed_keys:
        return set(paths) <= set(repository.installed_keys)
    allowed = set(repository.fingerprints) | set(repository.obsolete_fingerprints)
    found = [_fingerprints(facts.keyrings.get(path)) for path in paths]
    return all(prints and prints <= allowed for prints in found) and bool(set(repository.fingerprints) & set().union(*found))


def _checked(source: RpmSource, repository: Repository) -> bool:
    """Whether it asks for the signatures that the vendor makes, and says so itself."""
    return (source.gpgcheck is True or not repository.gpgcheck) and (source.repo_gpgcheck is True or not repository.repo_gpgcheck)


def _literal(source: RpmSource) -> bool:
    return not any("releasever" in url for url in source.baseurl)


def _hits(ctx: Context, repository: Repository, uris: tuple[str, ...]) -> tuple[RpmSource, ...]:
    return rpmsource.naming(ctx.facts.rpm_sources, uris, ctx.platform.arch)


def _expected(repository: Repository) -> dict[str, object]:
    return {"uri": repository.uri, "section": repository.section, "key": " ".join(repository.fingerprints)}


def kept(ctx: Context, repository: Repository, uris: tuple[str, ...], step: str) -> Item | None:
    """The item for a repository that nothing is going to be installed from: it is left alone, however it is written. None if none names it."""
    hits = _hits(ctx, repository, uris)
    if not hits:
        return None
    files = ", ".join(dict.fromkeys(s.path for s in hits))
    why = f"{files} names it, and nothing is to be installed from it"
    return settled(step, f"{step}/repository", KIND, why, _expected(repository), SOURCES)


def item(ctx: Context, repository: Repository, own: tuple[str, ...], uris: tuple[str, ...], step: str) -> Item:
    """The item that makes one enabled section name `repository`, checked by a pinned key. `own` are its URIs, `uris` the vendor's too."""
    facts, identifier = ctx.facts, f"{step}/repository"
    hits, expected = _hits(ctx, repository, uris), _expected(repository)
    ours = [s for s in hits if any(rpmsource.names(url, own, ctx.platform.arch) for url in s.baseurl)]
    good = [s for s in ours if _literal(s) and _checked(s, repository) and _pinned(facts, s, repository)]
    if len(good) == 1 and len(hits) == 1:
        why = f"{good[0].path} names it and its key is the pinned one"
        return settled(step, identifier, KIND, why, expected, SOURCES)
    path = repository.source_path
    moved = rpmsource.takeover(
        path, repository.section, hits, facts.rpm_sources, facts.rpm_source_texts, repository.legacy_sources, repository.hosts
    )
    text = f"{_WRITTEN_BY}\n{repo_file(repository)}" + (f"\n{moved.rest}\n" if moved.rest else "")
    key = None
    if not repository.installed_keys:
        key = Key(repository.title, repository.key_url, repository.fingerprints, repository.key_path, _known_key(facts, repository))
    action = RpmRepository(repository.section, path, text, key, moved.obsolete, moved.edits, repository.index_url)
    actual: dict[str, object] = {}
    if hits:
        key_there = " ".join(repository.fingerprints) if good else ""
        actual = {"uri": " ".join(hits[0].baseurl), "section": hits[0].id, "key": key_there}
    return Item(identifier, step, KIND, CHANGE, _why(repository, hits, ours), expected, actual, action, phase=SOURCES)


def _why(repository: Repository, hits: tuple[RpmSource, ...], ours: list[RpmSource]) -> str:
    if not hits:
        return f"no repository file names {repository.uri}"
    files = ", ".join(dict.fromkeys(s.path for s in hits))
    if not ours:
        return f"{files} names {' '.join(hits[0].baseurl)}; the playbook's mirror stands in for it"
    if len(hits) > 1:
        return f"{len(hits)} sections name it ({files}), so one stays"
    if not _literal(hits[0]):
        return f"{files} names it by $releasever, which is not always the release's own number"
    if not _checked(hits[0], repository):
        return f"{files} names it, but does not ask for the vendor's signatures"
    return f"{files} names it with a key that is not known to be the pinned one"


def _known_key(facts: Facts, repository: Repository) -> bytes:
    """The pinned key from the host itself, if a file of it there holds it and nothing else; it then need not be fetched. b"" if not."""
    for content in facts.keyrings.values():
        if content.startswith(b"-----BEGIN") and _fingerprints(content) == set(repository.fingerprints):
            return content
    return b""


# ---------------------------------------------------------------- what the distribution has and keeps off


def epel(ctx: Context, repository: Repository | None, step: str) -> list[Item]:
    """EPEL, where dkms comes from: adopted as it is, by the distribution's own package, or as its repository with the pinned key."""
    facts, platform = ctx.facts, ctx.platform
    sections = ("epel", *(f"ol{n}_developer_EPEL" for n in ("8", "9", "10")), "ol10_u0_developer_EPEL")
    found = next((s for s in facts.rpm_sources if s.enabled and s.id in sections and s.gpgcheck is not False), None)
    identifier = f"{step}/epel"
    expected: dict[str, object] = {"repository": "epel"}
    if found:
        return [settled(step, identifier, KIND, f"{found.path} has it, where dkms comes from", expected, SOURCES)]
    if platform.epel_package:
        expected = {platform.epel_package: "any"}
        if facts.installed(platform.epel_package):
            return [settled(step, identifier, "packages", f"{platform.epel_package} is installed", expected, SOURCES)]
        why = f"EPEL, where dkms comes from, is in {platform.epel_package} with its own key"
        action = Packages((Package(platform.epel_package),))
        return [Item(identifier, step, "packages", CHANGE, why, expected, {}, action, phase=SOURCES - 1)]
    if repository is None:
        return []
    key = Key(repository.title, repository.key_url, repository.fingerprints, repository.key_path, _known_key(facts, repository))
    moved = rpmsource.takeover(repository.source_path, repository.section, (), facts.rpm_sources, facts.rpm_source_texts)
    text = f"{_WRITTEN_BY}\n{repo_file(repository)}" + (f"\n{moved.rest}\n" if moved.rest else "")
    action_repo = RpmRepository(
        repository.section, repository.source_path, text, key, moved.obsolete, moved.edits, repository.index_url
    )
    why = "dkms, which builds the module, comes from there; nothing else is taken from it"
    return [Item(identifier, step, KIND, CHANGE, why, _expected(repository), {}, action_repo, phase=SOURCES)]


def switched_off(ctx: Context) -> RpmSource | None:
    """The distribution's own repository that dkms' dependencies come from, if it is there and switched off."""
    wanted = ctx.platform.extra_repositories
    found = [s for s in ctx.facts.rpm_sources if s.id in wanted]
    if not found and ctx.platform.base_id == "el":  # clouds name Red Hat's by other ids
        found = [s for s in ctx.facts.rpm_sources if s.id.startswith("codeready-builder-") and not s.id.endswith(("-debug-rpms", "-source-rpms"))]
    return found[0] if found and not any(s.enabled for s in found) else None


def engine(ctx: Context, step: str) -> list[Item]:
    """The item that switches on the distribution's own repository that its engine is in, where it keeps that apart (Amazon Linux 2's extras)."""
    name, facts = ctx.platform.docker_repository, ctx.facts
    if not name:
        return []
    found = [s for s in facts.rpm_sources if s.id == name]
    identifier, expected = f"{step}/repository", {name: "enabled"}
    on = next((s for s in found if s.enabled), None)
    if on:
        return [settled(step, identifier, "file", f"{on.path} has {name} switched on", dict(expected), SOURCES - 1)]
    why = f"the distribution's engine is in {name}, which is {'switched off' if found else 'in no repository file'}"
    actual: dict[str, object] = {name: "disabled"} if found else {}
    action: Command | File
    if found:
        action = File(found[0].path, rpmsource.switched_on(facts.rpm_source_texts.get(found[0].path, ""), name))
    else:
        check = f"cat /etc/yum.repos.d/*.repo | sed -n '/^\\[{name}\\]/,/^\\[/p' | grep -Eq '^enabled *= *1'"
        action = Command(check, ctx.platform.docker_enable)
    kind = "file" if found else "command"
    return [Item(identifier, step, kind, CHANGE, why, dict(expected), actual, action, phase=SOURCES - 1)]


def builder(ctx: Context, step: str) -> list[Item]:
    """The item that switches that repository on (CodeReady Builder by its many names); none where it is on or not known."""
    source = switched_off(ctx)
    if source is None:
        return []
    why = f"dkms' dependencies come from {source.id}, which is switched off"
    expected, actual = {source.id: "enabled"}, {source.id: "disabled"}
    if source.path == REDHAT:
        check = f"dnf -q repolist --enabled | grep -q '^{source.id} '"
        action: Command | File = Command(
            check, f"subscription-manager repos --enable={source.id}", undo=f"subscription-manager repos --disable={source.id}"
        )
        kind = "command"
    else:
        action = File(source.path, rpmsource.switched_on(ctx.facts.rpm_source_texts.get(source.path, ""), source.id))
        kind = "file"
    return [Item(f"{step}/builder", step, kind, CHANGE, why, expected, actual, action, phase=SOURCES - 1)]
