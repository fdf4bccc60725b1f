"""The Docker Engine: keep what is there and good enough, else install Docker's own or the distribution's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from provision.actions import GroupMember, Package, Packages
from provision.aptsource import naming
from provision.model import CHANGE, OK, REFUSED, Decision, Facts, Item, Notice, Problem
from provision.steps import ACCESS, PACKAGES, Context, Result, repository

STEP = "docker"

# Packages that carry an engine, best known first, and whose they are.
ENGINE_PACKAGES = {"docker-ce": "docker-ce", "docker.io": "distro", "moby-engine": "moby"}


@dataclass(frozen=True)
class Engine:
    """The engine that will be there once the plan is carried out. `version` "" = whatever is newest; `fresh` = it is installed by this plan."""

    source: str
    version: str
    fresh: bool
    runs: bool

    def at_least(self, *wanted: int) -> bool:
        """Whether the version is known to be `wanted` or newer; the newest of Docker's own repository always is."""
        if not self.version:
            return self.source == "docker-ce"
        return numbers(self.version) >= wanted


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of an upstream or package version: `5:29.7.2-1~debian` -> (29, 7, 2)."""
    match = re.match(r"(?:\d+:)?v?(\d+(?:\.\d+)*)", version)
    return tuple(int(n) for n in match.group(1).split(".")) if match else ()


def satisfies(version: str, wanted: str) -> bool:
    """Whether an upstream or package version is the wanted one, exact or by whole leading numbers: 29.7.2 satisfies 29.7, not 29.70."""
    want = numbers(wanted)
    return not want or numbers(version)[: len(want)] == want


def _present(facts: Facts) -> tuple[str, str]:
    """(source, package) of the engine that is installed, ("", "") if none is."""
    for package, source in ENGINE_PACKAGES.items():
        if facts.installed(package):
            return source, package
    if facts.docker and (facts.docker.dockerd or facts.docker.server) and not facts.docker.snap:
        return "other", ""
    return "", ""


def _doubles(ctx: Context) -> list[Problem]:
    docker, spec = ctx.facts.docker, ctx.spec.docker
    problems = []
    if docker and docker.snap and "snap" not in spec.beside:
        problems.append(
            Problem(
                "docker/snap",
                "Docker is installed here as a snap, which has its own daemon and configuration and cannot see the NVIDIA toolkit.",
                "Remove it (`sudo snap remove docker`; add `--purge` only if its containers and images may go), or say that it may stay beside: `--set docker.beside=[snap]`.",
            )
        )
    if docker and docker.rootless_users and "rootless" not in spec.beside:
        who = ", ".join(docker.rootless_users)
        problems.append(
            Problem(
                "docker/rootless",
                f"A rootless Docker belongs to {who} on this host; a second, rootful engine would stand beside it.",
                "Say that it may stay beside (`--set docker.beside=[rootless]`), or remove it as that user with `dockerd-rootless-setuptool.sh uninstall`.",
            )
        )
    return problems


def decide(ctx: Context) -> tuple[Result, Engine | None]:
    """The engine's items, and the engine there will be (None if the step refuses)."""
    facts, spec = ctx.facts, ctx.spec.docker
    if facts.docker is None or facts.packages is None:
        problem = Problem(
            "docker/unknown",
            "Whether Docker is on this host could not be read.",
            "Run mlhost as root or with sudo rights on the host.",
        )
        return _refused([problem], "could not be read"), None
    problems = _doubles(ctx)
    source, package = _present(facts)
    version = facts.docker.server or facts.installed(package)
    wanted_source = spec.source
    engine: Engine | None
    keep = bool(source) and (wanted_source == "auto" or source in (wanted_source, "other"))
    if keep and satisfies(version, spec.version):
        result, engine = _kept(ctx, source, package, version)
    elif keep and source in ("other", "moby"):
        problems.append(
            Problem(
                "docker/version",
                f"Docker {version} is here from {package or 'outside the package manager'}, the playbook wants {spec.version}.",
                "Remove that engine, or drop `docker.version`.",
            )
        )
        return _refused(problems, problems[-1].message), None
    elif keep and numbers(version) > numbers(spec.version):
        problems.append(
            Problem(
                "docker/version",
                f"Docker {version} is installed, the playbook pins {spec.version}, which is older; mlhost does not downgrade an engine by itself.",
                f'Set `docker.version` to "{".".join(map(str, numbers(version)[:3]))}" (or drop it), or downgrade by hand with `apt-get install --allow-downgrades`.',
            )
        )
        return _refused(problems, problems[-1].message), None
    else:
        result, engine = _installed(ctx, source)
    if problems:
        return _refused([*problems, *result.problems], problems[0].message, result), None
    return result, engine if not result.problems else None


def _refused(problems: list[Problem], why: str, shown: Result | None = None) -> Result:
    items = tuple(
        Item(i.id, i.step, i.kind, REFUSED if i.state == CHANGE else i.state, i.why, i.expected, i.actual, None, (), i.phase)
        for i in (shown.items if shown else ())
    )
    before = shown.decisions[STEP].details if shown and STEP in shown.decisions else {}
    if not items:
        items = (Item("docker/packages", STEP, "packages", REFUSED, why, phase=PACKAGES),)
    return Result(items, {STEP: Decision("refuse", why, before)}, tuple(problems))


def _kept(ctx: Context, source: str, package: str, version: str) -> tuple[Result, Engine]:
    named = f"Docker {version} from {package}" if package else f"Docker {version}"
    why = f"{named} is installed" + (
        f" and satisfies {ctx.spec.docker.version}" if ctx.spec.docker.version else "; an engine that works is kept"
    )
    state = {"engine": package or "docker", "version": version}
    items = [Item("docker/packages", STEP, "packages", OK, why, state, state, phase=PACKAGES)]
    problems: tuple[Problem, ...] = ()
    if source == "docker-ce":
        repo = ctx.catalog.repository("docker", ctx.platform)
        mirrored = repository.mirrored(repo, ctx.spec.mirrors.docker) if repo else None
        # A source that breaks apt (named twice, wrong key) is put right even where the engine itself is kept.
        if mirrored and naming(ctx.facts.apt_sources, repository.uris(mirrored)):
            items.insert(0, repository.item(ctx, mirrored, STEP))
    decision = Decision(
        "keep", why, {"source": source, "packages": [package] if package else [], "repository": None, "remove": []}
    )
    docker = ctx.facts.docker
    runs = bool(docker and docker.server)
    return Result(tuple(items), {STEP: decision}, problems), Engine(source, version, False, runs)


def _installed(ctx: Context, present: str) -> tuple[Result, Engine | None]:
    facts, spec, platform = ctx.facts, ctx.spec.docker, ctx.platform
    repo = ctx.catalog.repository("docker", platform)
    if repo:
        repo = repository.mirrored(repo, ctx.spec.mirrors.docker)
    problems: list[Problem] = []
    url = repo.index_url if repo else ""
    reach = facts.reach.get(url)
    source, because = spec.source, "the playbook asks for it"
    if source == "auto":
        if present in ("docker-ce", "distro"):
            source, because = present, "that is where the installed one comes from"
        elif repo and (reach is None or reach.ok):
            source = "docker-ce"
            because = f"Docker's repository serves {platform.id} {platform.codename}" + (" and can be reached" if reach else "")
        elif repo and reach:
            source, because = (
                "distro",
                f"Docker's repository cannot be used from here ({reach.state}{': ' + reach.detail if reach.detail else ''})",
            )
        else:
            source, because = "distro", f"Docker has no repository for {platform.id} {platform.version} on {platform.arch}"
    if source == "docker-ce" and not repo:
        problems.append(
            Problem(
                "docker/source",
                f"Docker has no repository for {platform.id} {platform.version} on {platform.arch}.",
                "Use `--set docker.source=distro` or `auto`.",
            )
        )
    if source == "distro" and not platform.distro_docker_packages:
        problems.append(
            Problem(
                "docker/source",
                f"{platform.id} {platform.version} has no Docker package of its own.",
                "Use `--set docker.source=docker-ce`.",
            )
        )
    if problems:
        return _refused(problems, problems[0].message), None

    if source == "docker-ce":
        names: tuple[str, ...] = repo.packages if repo else ()
        conflicts = platform.docker_remove
        epoch = repo.epoch if repo else ""
        versions = {"docker-ce": _glob(spec.version, epoch), "docker-ce-cli": _glob(spec.version, epoch)}
    else:
        names = platform.distro_docker_packages
        conflicts = platform.distro_docker_remove
        versions = {"docker.io": _glob(spec.version, "")}
        repo = None
    remove = tuple(name for name in conflicts if facts.installed(name) and name not in names)
    if remove and not spec.remove_conflicts:
        running = facts.docker.running_containers if facts.docker else 0
        also = f"; {running} containers are running and would stop" if running else ""
        problems.append(
            Problem(
                "docker/conflicts",
                f"{', '.join(remove)} conflict{'s' if len(remove) == 1 else ''} with the engine from {source} and would be removed{also}.",
                "Allow it with `--yes` or `--set docker.remove_conflicts=true` (data in /var/lib/docker stays), or keep what is there with `--set docker.source=auto`.",
            )
        )
    items: list[Item] = []
    if repo:
        items.append(repository.item(ctx, repo, STEP))
    packages = tuple(Package(name, versions.get(name, "")) for name in names)
    actual = {name: facts.installed(name) for name in (*names, *remove) if facts.installed(name)}
    why = f"{'Docker ' + spec.version + ' is wanted' if present else 'no Docker Engine here'}; from {source}, because {because}"
    expected = {p.name: p.version or "any" for p in packages}
    items.append(
        Item("docker/packages", STEP, "packages", CHANGE, why, expected, actual, Packages(packages, remove), phase=PACKAGES)
    )
    decision = Decision(
        "install",
        why,
        {
            "source": source,
            "packages": list(names),
            "repository": repository.details(repo) if repo else None,
            "remove": list(remove),
        },
    )
    result = Result(tuple(items), {STEP: decision}, tuple(problems), urls=(url,) if repo and url else ())
    if problems:
        return _refused(problems, problems[0].message, result), None
    planned = spec.version or ("" if source == "docker-ce" else platform.distro_docker_version)
    return result, Engine(source, planned, not present, True)


def _glob(version: str, epoch: str) -> str:
    """apt's pattern for an upstream version: exact up to the packaging suffix, or a prefix on whole numbers."""
    if not version:
        return ""
    return f"{epoch}{version}{'-*' if epoch and len(numbers(version)) > 2 else '*' if len(numbers(version)) > 2 else '.*'}"


def access(ctx: Context) -> Result:
    """Users that are to be in the `docker` group, with what that means."""
    facts, users = ctx.facts, ctx.spec.docker.users
    items, problems = [], []
    members = facts.groups.get("docker", ())
    for user in users:
        expected = {"group": "docker", "member": user}
        identifier = f"docker/user/{user}"
        if user in members:
            items.append(
                Item(identifier, STEP, "group-member", OK, f"{user} is in the docker group", expected, expected, phase=ACCESS)
            )
        elif facts.users is not None and user not in facts.users:
            problems.append(
                Problem(
                    identifier,
                    f"There is no user {user} on this host to put into the docker group.",
                    "Create the user first, or correct `docker.users`.",
                )
            )
        else:
            items.append(
                Item(
                    identifier,
                    STEP,
                    "group-member",
                    CHANGE,
                    f"the playbook puts {user} into the docker group (as good as root on this host)",
                    expected,
                    {"group": "docker", "member": ""},
                    GroupMember(user, "docker"),
                    phase=ACCESS,
                )
            )
    notices = (
        (
            Notice(
                "docker/group",
                f"Members of the docker group ({', '.join(users)}) can become root on this host; they need a new login for it to take effect.",
            ),
        )
        if users
        else ()
    )
    return Result(tuple(items), {}, tuple(problems), notices)
