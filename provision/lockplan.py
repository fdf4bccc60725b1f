"""A plan that keeps to a lock: exact versions instead of the newest, and a problem for whatever the host cannot have exactly so. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from provision import debversion
from provision.actions import AptRepository, BundleImages, BundleRepository, Package, Packages, Pin, Runfile
from provision.catalog import Catalog
from provision.cudafit import ImageConfig
from provision.lockfile import HostClass, Lock, LockedPackage, system_of
from provision.model import CHANGE, REFUSED, Check, Facts, Item, Notice, Plan, Problem
from provision.plan import Step, plan
from provision.spec import Spec
from provision.steps import PACKAGES, PROOF, SOURCES
from provision.steps.engine import restarts, upstream
from provision.steps.toolkit import PACKAGES_AT_ONE_VERSION

STEP = "lock"
_AGAIN = "Make a lock in which it is: `mlhost lock` with this host among its targets."
# What a driver is made of; mlhost never exchanges one that works without being told to.
DRIVER = re.compile(r"(lib)?nvidia-(?!container)|libcuda|cuda-drivers|linux-modules-nvidia|linux-objects-nvidia|libnvcuvid|xserver-xorg-video-nvidia")
ENGINES = ("docker-ce", "docker.io")


@dataclass(frozen=True)
class Bundled:
    """Where the bundle's files lie on a host, and the hashes of those for one kind of host. `folder` is absolute; `images` are (file, reference)."""

    folder: str
    files: tuple[tuple[str, str], ...]
    images: tuple[tuple[str, str], ...] = ()
    key: str = ""


@dataclass(frozen=True)
class Pinned:
    """What a host is held to. `playbook` is the digest of its own effective values; `bundles` by the class's name, where packages come from a bundle."""

    lock: Lock
    playbook: str
    where: str = "the lock"
    bundles: Mapping[str, Bundled] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All packages that are in it."""
        return tuple(sorted({name for kind in self.lock.classes.values() for name in kind.packages}))

    def of(self, facts: Facts) -> tuple[str, HostClass] | Problem:
        """The class that a host belongs to, or why it belongs to none."""
        system = system_of(facts)
        same = [(name, kind) for name, kind in self.lock.classes.items() if kind.system == system]
        found = next(((name, kind) for name, kind in same if kind.playbook == self.playbook), None)
        if found:
            return found
        if same:
            message = f"{self.where} was made for hosts like this one ({same[0][1].words}), but with other playbook values."
            return Problem("lock/playbook", message, "Give the playbook and the --set values that the lock was made with, or make it again.")
        this = HostClass(*system[:3], "", system[3]).words
        message = f"{self.where} holds no class of hosts for {this}; it holds {'; '.join(kind.words for kind in self.lock.classes.values())}."
        return Problem("lock/class", message, _AGAIN)


@dataclass(frozen=True)
class Differs:
    """A package that is not as the lock has it. `have` "" = not installed."""

    name: str
    have: str
    want: LockedPackage


def skew(facts: Facts, kind: HostClass) -> tuple[Differs, ...]:
    """What is installed and is not at the version in the lock, or is asked for there and not installed."""
    found = []
    for name, package in kind.packages.items():
        have = facts.installed(name)
        if have != package.version and (have or package.asked):
            found.append(Differs(name, have, package))
    return tuple(found)


def checks(facts: Facts, pinned: Pinned) -> tuple[Check, ...]:
    """The skew of a host against its lock, as checks for a report."""
    kind = pinned.of(facts)
    if isinstance(kind, Problem):
        return (Check("lock", "failed", kind.message, kind.fix),)
    name, locked = kind
    wrong = [f"{d.name} is {d.have or 'not installed'}, locked is {d.want.version}" for d in skew(facts, locked) if d.want.asked]
    beside = [f"{d.name} is {d.have}, locked is {d.want.version}" for d in skew(facts, locked) if not d.want.asked]
    if facts.kernel and locked.kernels and facts.kernel not in locked.kernels:
        wrong.append(f"the kernel is {facts.kernel}, locked is {' or '.join(locked.kernels)}")
    told = [Check("lock", "failed", "; ".join(wrong), "Run `mlhost setup --locked FILE`, or make a new lock.")] if wrong else []
    if not wrong:
        asked = sum(package.asked for package in locked.packages.values())
        told = [Check("lock", "ok", f"as {name} in {pinned.where}: {asked} packages at exactly the locked versions")]
    return (*told, *([Check("lock/dependencies", "skipped", "; ".join(beside))] if beside else []))


def steered(spec: Spec, kind: HostClass, loaded: bool = False) -> Spec:
    """The playbook's values with what the lock decided: where the engine comes from, its version, the toolkit's, and the images by their digests.

    `loaded`: the images come out of a bundle; an image that was loaded has no digest to be asked for by.
    """
    docker, toolkit, smoke = spec.docker, spec.toolkit, spec.smoke
    engine = next((upstream(kind.packages[name].version) for name in ENGINES if name in kind.packages), "")
    if kind.engine in ("docker-ce", "distro"):
        docker = replace(docker, source=kind.engine, version=engine or docker.version)
    if PACKAGES_AT_ONE_VERSION[0] in kind.packages:
        toolkit = replace(toolkit, version=upstream(kind.packages[PACKAGES_AT_ONE_VERSION[0]].version))
    images = {name: f"{name}@{digest}" if "@" not in name else name for name, digest in kind.images.items() if not loaded}
    smoke = replace(smoke, image=images.get(smoke.image, smoke.image), workload=images.get(smoke.workload, smoke.workload))
    return replace(spec, docker=docker, toolkit=toolkit, smoke=smoke)


def held(
    pinned: Pinned, facts: Facts, spec: Spec, catalog: Catalog, steps: Sequence[Step] = (), image: ImageConfig | None = None,
    offered: Mapping[str, Mapping[str, str]] | None = None,
) -> Plan:
    """As `plan`, but held to the lock. `offered` is what the host's sources have: name -> version -> sha256; None where they were not asked."""
    kind = pinned.of(facts)
    if isinstance(kind, Problem):
        return _refused(plan(facts, spec, catalog, steps, image), (kind,))
    name, locked = kind
    bundled = (pinned.bundles or {}).get(name)
    wanted = steered(spec, locked, bundled is not None)
    if pinned.bundles is not None and bundled is None:
        return _refused(plan(facts, spec, catalog, steps, image), (Problem("lock/class", f"{pinned.where} has no packages for {locked.words}.", _AGAIN),))
    decided = plan(facts, wanted, catalog, steps, image)
    if decided.platform.family not in ("debian", ""):
        problem = Problem("lock/system", f"Locks and bundles are for systems with apt so far; this is {decided.platform.name or decided.platform.id}.", "Pin versions in the playbook instead.")
        return _refused(decided, (problem,))
    items, problems = _exact(decided, locked, pinned.where)
    extra, more = _rest(facts, locked, items, pinned.where)
    items = _sorted([*items, *extra])
    problems = [*_kernel(facts, locked, pinned.where), *problems, *more]
    if offered is not None:
        problems += _gone(facts, locked, items, offered, pinned.where)
    if bundled is not None:
        problems += [*_lacking(items, bundled, pinned.where), *_fetched(items)]
        items = _from_bundle(items, bundled)
        decided = replace(decided, urls=())
    beside = [d for d in skew(facts, locked) if not d.want.asked]
    if beside:
        text = "; ".join(f"{d.name} is {d.have}, locked is {d.want.version}" for d in beside)
        decided = replace(decided, notices=(*decided.notices, Notice("lock/dependencies", f"Other versions than in {pinned.where}, and left so: {text}.")))
    decided = replace(decided, items=tuple(items), restarts=tuple(dict.fromkeys(r for i in items if i.state == CHANGE for r in i.restarts)))
    return _refused(decided, problems) if problems else decided


def unoffered(facts: Facts, kind: HostClass, made: Plan) -> tuple[str, ...]:
    """The packages that carrying out the plan may fetch, of which the host's sources have to be asked; () where it fetches none."""
    if not any(i.state == CHANGE and isinstance(i.action, Packages) for i in made.items):
        return ()
    return tuple(name for name, package in kind.packages.items() if facts.installed(name) != package.version)


def _refused(made: Plan, problems: Iterable[Problem]) -> Plan:
    """The plan with more problems, which keep it from being carried out."""
    items = tuple(replace(i, state=REFUSED) if i.state == CHANGE else i for i in made.items)
    return replace(made, items=items, problems=(*made.problems, *problems))


def _sorted(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.phase)


def _exact(decided: Plan, kind: HostClass, where: str) -> tuple[list[Item], list[Problem]]:
    """Every package that the plan installs at the locked version, and with it, held to theirs, what it depends on."""
    items, missing = [], []
    pins = tuple(Pin(name, package.version, package.sha256) for name, package in kind.packages.items() if package.sha256)
    for item in decided.items:
        action = item.action
        if item.state not in (CHANGE, REFUSED) or not isinstance(action, Packages):
            items.append(item)
            continue
        missing += [package.name for package in action.install if package.name not in kind.packages]
        exact = tuple(Package(p.name, kind.packages[p.name].version if p.name in kind.packages else p.version) for p in action.install)
        items.append(replace(item, action=replace(action, install=exact, pins=pins), expected={p.name: p.version for p in exact}))
    if not missing:
        return items, []
    names = ", ".join(dict.fromkeys(missing))
    return items, [Problem("lock/packages", f"The playbook comes to {names} on this host, of which {where} knows nothing.", _AGAIN)]


def _rest(facts: Facts, kind: HostClass, items: Sequence[Item], where: str) -> tuple[list[Item], list[Problem]]:
    """What the plan would leave as it is although the lock has it at another version: an upgrade where that is one, else a problem."""
    touched = {p.name for i in items if i.state == CHANGE and isinstance(i.action, Packages) for p in i.action.install}
    older, problems = [], []
    for found in skew(facts, kind):
        if not found.want.asked or not found.have:
            continue
        is_newer = debversion.compare(found.have, found.want.version) > 0
        if is_newer:
            message = f"{found.name} is {found.have} here, and {where} has {found.want.version}, which is older; mlhost does not go back to an older version."
            problems.append(Problem("lock/newer", message, f"Go back by hand (`sudo apt-get install --allow-downgrades {found.name}={found.want.version}`), or make a new lock."))
        elif found.name not in touched and DRIVER.match(found.name):
            message = f"{found.name} is {found.have} here, and {where} has {found.want.version}; mlhost does not replace a driver that works by itself."
            problems.append(Problem("lock/driver", message, f"Upgrade it (`sudo apt-get install {found.name}={found.want.version}`) and reboot, or make a new lock."))
        elif found.name not in touched:
            older.append(found)
    if not older:
        return [], problems
    pins = tuple(Pin(name, package.version, package.sha256) for name, package in kind.packages.items() if package.sha256)
    why = f"{where} has {'another version' if len(older) == 1 else 'other versions'} of what is installed"
    wanted = tuple(Package(d.name, d.want.version) for d in older)
    action = Packages(wanted, pins=pins)
    expected: dict[str, object] = {d.name: d.want.version for d in older}
    actual: dict[str, object] = {d.name: d.have for d in older}
    again = restarts(facts) if any(d.name in (*ENGINES, "containerd", "containerd.io", "runc") for d in older) else ()
    return [Item("lock/packages", STEP, "packages", CHANGE, why, expected, actual, action, again, PACKAGES)], problems


def _kernel(facts: Facts, kind: HostClass, where: str) -> list[Problem]:
    if not facts.kernel or not kind.kernels or facts.kernel in kind.kernels:
        return []
    message = f"This host runs the kernel {facts.kernel}; {where} was made for {' or '.join(kind.kernels)}."
    return [Problem("lock/kernel", message, "Boot that kernel, or make the lock again with this host (a lock may name several).")]


def _gone(
    facts: Facts, kind: HostClass, items: Iterable[Item], offered: Mapping[str, Mapping[str, str]], where: str
) -> list[Problem]:
    """Locked packages that are to be fetched and that the sources no longer have, or have with another content."""
    asked = {p.name for i in items if isinstance(i.action, Packages) for p in i.action.install}
    problems = []
    for name, package in kind.packages.items():
        have = facts.installed(name)
        if have == package.version or (have and name not in asked):
            continue
        found = offered.get(name, {}).get(package.version)
        if found is None:
            newest = ", ".join(sorted(offered.get(name, {}), key=debversion.key)[-3:])
            message = f"{name} {package.version}, which {where} asks for, is in none of this host's package sources any more (there is {newest or 'none'})."
            problems.append(Problem("lock/gone", message, "Make a new lock, or install from a bundle that was made with this one (`mlhost bundle --lock`)."))
        elif found != package.sha256:
            message = f"{name} {package.version} is another file here ({found[:16]}…) than in {where} ({package.sha256[:16] or 'unknown'}…)."
            problems.append(Problem("lock/hash", message, "Find out who has changed it (a mirror?) before you trust it; then make a new lock."))
    return problems


def _from_bundle(items: Sequence[Item], bundled: Bundled) -> list[Item]:
    """The items without the network: the bundle's own repository instead of the vendors', its images loaded before the proof."""
    kept = [i for i in items if not (isinstance(i.action, AptRepository) and i.state in (CHANGE, REFUSED))]
    if not any(i.state == CHANGE for i in kept):
        return kept
    if any(i.state == CHANGE and isinstance(i.action, Packages) for i in kept):
        action = BundleRepository(bundled.folder, bundled.files)
        state: dict[str, object] = {"folder": bundled.folder, "key": bundled.key}
        kept.append(Item("bundle/repository", "bundle", "bundle-repository", CHANGE, "packages come from the bundle, not from the network", state, {}, action, phase=SOURCES - 3))
    return _sorted([*kept, *_images(bundled)])


def _lacking(items: Iterable[Item], bundled: Bundled, where: str) -> list[Problem]:
    """What is to be installed and did not come along, because it was on the host that the bundle was made for."""
    there = {path.rpartition("/")[2].partition("_")[0] for path, _ in bundled.files if path.endswith(".deb")}
    wanted = {p.name for i in items if i.state == CHANGE and isinstance(i.action, Packages) for p in i.action.install}
    if wanted <= there:
        return []
    message = f"{', '.join(sorted(wanted - there))} would have to be installed, and {where} does not have it: it was on the host already that it was made for."
    return [Problem("bundle/packages", message, "Make the bundle for a host that is as bare as the barest one (`--capture`; several may be given).")]


def _fetched(items: Iterable[Item]) -> list[Problem]:
    """What a host would fetch by itself, from no repository."""
    if not any(i.state == CHANGE and isinstance(i.action, Runfile) for i in items):
        return []
    message = "The driver of this host comes from NVIDIA's installer, which the host fetches itself; a bundle brings packages and images alone."
    return [Problem("bundle/runfile", message, "Install the driver by hand first, or take it from packages (`driver.source`).")]


def _images(bundled: Bundled) -> list[Item]:
    if not bundled.images:
        return []
    why = f"{' and '.join(reference for _, reference in bundled.images)} from the bundle, as nothing can be pulled"
    files = dict(bundled.files)
    loads = tuple((f"{bundled.folder}/{file}", reference, files[file]) for file, reference in bundled.images)
    return [Item("bundle/images", "bundle", "bundle-images", CHANGE, why, {}, {}, BundleImages(loads), phase=PROOF - 1)]
