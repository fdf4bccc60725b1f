"""The Docker Engine: keep what is there and good enough, else install Docker's own or the distribution's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from provision.actions import Package, Packages
from provision.model import CHANGE, REFUSED, Decision, Item, Notice, Problem
from provision.rows import Repository
from provision.steps import PACKAGES, Context, Result, repository, rpm_repository, settled
from provision.steps.engine import MOBY, Engine, Present, beside, fate, numbers, present, restarts, satisfies, there

STEP = "docker"
ENGINES = ("docker", "moby-")
DOWNGRADE = {
    "apt": "apt-get install --allow-downgrades",
    "dnf": "dnf downgrade",
    "dnf5": "dnf downgrade",
    "yum": "yum downgrade",
    "tdnf": "tdnf downgrade",
    "zypper": "zypper install --oldpackage",
}


def nothing() -> dict[str, object]:
    """The details of a decision that decided nothing."""
    return {"source": None, "packages": [], "repository": None, "remove": []}


def decide(ctx: Context) -> tuple[Result, Engine | None]:
    """The engine's items, and the engine there will be (None if the step refuses)."""
    facts, spec = ctx.facts, ctx.spec.docker
    if facts.docker is None or facts.packages is None:
        what = "What is installed on this host" if facts.packages is None else "Whether Docker is on this host"
        problem = Problem("docker/unknown", f"{what} could not be read.", "Run mlhost as root or with sudo rights on the host.")
        return _refusal(problem), None
    have = present(facts, ctx.platform)
    problems = beside(facts, spec)
    keep = bool(have.source) and (spec.source == "auto" or have.source in (spec.source, "other"))
    engine: Engine | None
    if keep and satisfies(have.version, spec.version):
        result, engine = _kept(ctx, have)
    elif keep and (have.source in ("other", "moby") or numbers(have.version) > numbers(spec.version)):
        return _refusal(_unfit(ctx, have), *problems), None
    else:
        result, engine = _installed(ctx, have)
    problems += result.problems
    if not problems:
        return result, engine
    shown = tuple(replace(i, state=REFUSED) if i.state == CHANGE else i for i in result.items)
    decision = replace(result.decisions[STEP], action="refuse", why=problems[0].message)
    return replace(result, items=shown, decisions={STEP: decision}, problems=tuple(problems)), None


def _refusal(problem: Problem, *more: Problem) -> Result:
    item = Item("docker/packages", STEP, "packages", REFUSED, problem.message, phase=PACKAGES)
    return Result((item,), {STEP: Decision("refuse", problem.message, nothing())}, (problem, *more))


def _unfit(ctx: Context, have: Present) -> Problem:
    wanted = ctx.spec.docker.version
    if have.source in ("other", "moby"):
        where = have.package or "outside the package manager"
        return Problem(
            "docker/version",
            f"{have.name} is here ({where}), the playbook wants {wanted}; mlhost does not replace an engine it has no packages for.",
            "Remove that engine, drop `docker.version`, or name where the engine is to come from (`--set docker.source=docker-ce`).",
        )
    return Problem(
        "docker/version",
        f"{have.name} is installed, the playbook pins {wanted}, which is older; mlhost does not downgrade an engine.",
        f"Set `docker.version` to {'.'.join(map(str, numbers(have.version)[:3]))!r} (or drop it), or downgrade by hand with "
        f"`{DOWNGRADE[ctx.platform.package_manager]}`.",
    )


def _kept(ctx: Context, have: Present) -> tuple[Result, Engine]:
    facts, pin = ctx.facts, ctx.spec.docker.version
    why = f"{have.name} is installed" + (f" and satisfies {pin}" if pin else "; an engine that works is kept")
    state = {"engine": have.package or "docker", "version": have.version}
    items = [settled(STEP, "docker/packages", "packages", why, state, PACKAGES)]
    repo = repository.of(ctx, "docker")
    source = repository.kept(ctx, repo, STEP) if repo else None
    if source:
        items.insert(0, source)
    details = {
        **nothing(),
        "source": have.source if have.source in ("docker-ce", "distro") else None,
        "packages": [have.package] if have.package else [],
        "repository": repository.details(repo) if repo and source and have.source == "docker-ce" else None,
    }
    urls = (repo.index_url,) if repo and source and source.state == CHANGE else ()
    running = facts.docker.server if facts.docker else ""
    engine = Engine(have.source, have.version or running or "", False)
    return Result(tuple(items), {STEP: Decision("keep", why, details)}, urls=urls), engine


@dataclass(frozen=True)
class _Choice:
    """Where the engine is to come from, why, and its packages. `repo` None = the distribution's archive."""

    source: str
    because: str
    repo: Repository | None
    packages: tuple[Package, ...]
    conflicts: tuple[str, ...]


def _choose(ctx: Context, have: Present) -> _Choice | Problem:
    spec, platform = ctx.spec.docker, ctx.platform
    where = f"{platform.id} {platform.version} on {platform.arch}"
    repo = repository.of(ctx, "docker")
    source, because = spec.source, "as the playbook asks"
    if source == "auto":
        source, because = _automatic(ctx, have, repo)
    if source == "docker-ce":
        if repo is None:
            fix = "Use `--set docker.source=distro` or `auto`."
            return Problem("docker/source", f"Docker has no repository for {where}.", fix)
        pinned = ("docker-ce", "docker-ce-cli")
        packages = tuple(Package(n, _asked(ctx, repo.epoch) if n in pinned else "") for n in repo.packages)
        return _Choice(source, because, repo, packages + _modules(ctx), (*platform.docker_remove, *_others(ctx)))
    if not platform.distro_docker_packages:
        fix = "Use `--set docker.source=docker-ce`."
        return Problem("docker/source", f"{platform.id} {platform.version} has no Docker package of its own.", fix)
    # What goes with the engine on some systems (a parser) has a version of its own.
    packages = tuple(Package(n, _asked(ctx, "") if n.startswith(ENGINES) else "") for n in platform.distro_docker_packages)
    return _Choice(source, because, None, packages + _modules(ctx), (*platform.distro_docker_remove, *_others(ctx)))


def _others(ctx: Context) -> tuple[str, ...]:
    """Microsoft's engine, which is a stranger everywhere but where it is the distribution's own."""
    return () if MOBY[0] in ctx.platform.distro_docker_packages else MOBY


def _modules(ctx: Context) -> tuple[Package, ...]:
    """Kernel modules that Docker needs and that the distribution leaves out of its kernel package."""
    kernel = ctx.catalog.kernel(ctx.platform, ctx.facts.kernel) if ctx.facts.kernel else None
    return tuple(map(Package, kernel.docker)) if kernel else ()


def _automatic(ctx: Context, have: Present, repo: Repository | None) -> tuple[str, str]:
    platform = ctx.platform
    if have.source in ("docker-ce", "distro"):
        return have.source, "where the installed one comes from"
    if repo is None:
        return "distro", f"because Docker has no repository for {platform.id} {platform.version} on {platform.arch}"
    failed = repository.unreachable(ctx, repo)
    if failed and platform.distro_docker_packages:
        return "distro", f"because Docker's repository cannot be used from here ({failed})"
    reached = " and can be reached" if repo.index_url in ctx.facts.reach else ""
    return "docker-ce", f"because Docker's repository serves {platform.id} {platform.codename or platform.version}{reached}"


def _asked(ctx: Context, epoch: str) -> str:
    """The package manager's pattern for the playbook's version. rpm's needs neither epoch nor release."""
    version = ctx.spec.docker.version
    if ctx.platform.family == "debian":
        return glob(version, epoch)
    return version if len(numbers(version)) > 2 or not version else f"{version}.*"


def glob(version: str, epoch: str) -> str:
    """apt's pattern for an upstream version, exact up to the packaging's own suffix, or a prefix of whole numbers; "" for any.

    Docker's packages were named `5:20.10.21~3-0~…` before 23.0 and are named `5:29.7.2-1~…` since.
    """
    if not version:
        return ""
    if len(numbers(version)) < 3:
        return f"{epoch}{version}.*"
    if not epoch:
        return f"{version}*"
    return f"{epoch}{version}{'~' if numbers(version) < (23,) else '-'}*"


def _installed(ctx: Context, have: Present) -> tuple[Result, Engine | None]:
    facts, spec = ctx.facts, ctx.spec.docker
    choice = _choose(ctx, have)
    if isinstance(choice, Problem):
        return _refusal(choice), None
    names = tuple(p.name for p in choice.packages)
    remove = tuple(dict.fromkeys(n for n in choice.conflicts if there(facts, n) and n not in names))
    why = f"{_reason(have, choice.source, spec.version)}; from {choice.source}, {choice.because}"
    items = [repository.item(ctx, choice.repo, STEP)] if choice.repo else rpm_repository.engine(ctx, STEP)
    items.append(
        Item(
            "docker/packages",
            STEP,
            "packages",
            CHANGE,
            why,
            {p.name: p.version or "any" for p in choice.packages},
            {n: there(facts, n) for n in (*names, *remove) if there(facts, n)},
            Packages(choice.packages, remove),
            restarts(facts) if have.source else (),
            PACKAGES,
        )
    )
    details: dict[str, object] = {
        "source": choice.source,
        "packages": list(names),
        "repository": repository.details(choice.repo) if choice.repo else None,
        "remove": list(remove),
    }
    problems = (_conflicts(ctx, choice.source, remove),) if remove and not spec.remove_conflicts else ()
    notices = []
    if choice.repo and ctx.platform.docker_frozen:
        old = f"Docker publishes nothing new for {ctx.platform.name}; its repository there stays as it is."
        notices.append(Notice("docker/frozen", old))
    urls = (choice.repo.index_url,) if choice.repo else ()
    planned = spec.version or (ctx.platform.docker_newest if choice.source == "docker-ce" else ctx.platform.distro_docker_version)
    result = Result(tuple(items), {STEP: Decision("install", why, details)}, problems, tuple(notices), urls=urls)
    return result, Engine(choice.source, planned, not have.source, True)


def _reason(have: Present, source: str, wanted: str) -> str:
    if not have.source:
        return "no Docker Engine here"
    if have.source != source:
        return f"{have.name} is to make way"
    return f"{have.name} is installed, the playbook wants {wanted}"


def _conflicts(ctx: Context, source: str, remove: tuple[str, ...]) -> Problem:
    stops = fate(ctx.facts)
    return Problem(
        "docker/conflicts",
        f"{', '.join(remove)} conflict{'s' if len(remove) == 1 else ''} with the engine from {source} and would be removed"
        + (f"; {stops}" if stops else "")
        + ".",
        "Allow it with `--yes` or `--set docker.remove_conflicts=true` (the data in /var/lib/docker stays), or keep what is there with "
        "`--set docker.source=auto`.",
    )
