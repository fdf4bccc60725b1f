"""Making a lock: the playbook's plan for each system, and what apt with a root of its own says that it comes to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from provision import aptroot
from provision.actions import Packages
from provision.aptask import ask
from provision.capture import split
from provision.errors import Failed, Refused, Unsupported
from provision.lockfile import HostClass, LockedPackage, LockedRepository, system_of
from provision.lockplan import DRIVER
from provision.look import RunOptions, with_keys
from provision.model import CHANGE, REFUSED, Facts, Plan
from provision.plan import plan
from provision.steps.toolkit import PACKAGES_AT_ONE_VERSION

if TYPE_CHECKING:
    from provision.aptroot import Offered
    from provision.catalog import Catalog
    from provision.playbook import Loaded
    from provision.transport import Transport

_PASSWORD = re.compile(r"//[^/@]*@")
NO_APT = "Pin versions in the playbook (`docker.version`, `toolkit.version`, `driver.branch`) for such hosts."
NO_RECORD = "`mlhost facts --format raw --packages` makes one that has it; without --packages it has not."


@dataclass(frozen=True)
class System:
    """One system to be locked: what it was seen to be, and what is wanted of it. `transport` None: only its capture is there."""

    name: str
    facts: Facts
    record: str
    loaded: Loaded
    steps: Sequence[Any] = ()
    transport: Transport | None = None


@dataclass(frozen=True)
class Resolved:
    """A system's kind, the packages that it would fetch, and the plan (with its keys) that they are of."""

    kind: HostClass
    packages: tuple[Offered, ...]
    plan: Plan


def system(name: str, raw: bytes, loaded: Loaded, steps: Sequence[Any] = (), transport: Transport | None = None) -> System:
    """A system from its capture. Raises Failed for a capture without dpkg's record, Unsupported for one of a system without dpkg, ProbeFailed for what is none."""
    from provision.facts import parse

    sections = split(raw)
    facts = parse(sections)
    record = sections.get(aptroot.RECORDED)
    if "rpm" in sections:
        raise Unsupported(f"{name}: {facts.os.pretty_name or facts.os.id} has no apt, and locks and bundles are made with apt so far.", NO_APT)
    if record is None or record.rc:
        raise Failed(f"{name}: the capture does not hold what is installed there.", NO_RECORD)
    # what it was made by and where a host's answer went long ago does not matter
    return System(name, replace(facts, asked_at=None, locks=(), cloud_init=""), record.text, loaded, steps, transport)


def resolve(seen: System, catalog: Catalog, options: RunOptions, elsewhere: bool = False) -> Resolved:
    """What the playbook comes to on a system.

    Its own apt is asked where there is a transport, in a folder that goes again, unless `elsewhere`: then this machine's, as for a mere capture.
    Raises Refused for a system that the playbook cannot be carried out on, Failed where apt cannot
    be asked or says no.
    """
    decided = _decided(seen, catalog)
    ready = with_keys(decided, seen.loaded.spec, options, seen.transport)
    names = _kept(seen.facts, decided, catalog)
    wishes = aptroot.wishes(ready)
    calls = [aptroot.transaction(number, wish) for number, wish in enumerate(wishes)]
    if names:
        calls.append(aptroot.show(names))
    own = None if elsewhere else seen.transport
    sections = ask(seen.name, seen.facts, seen.record, ready, catalog, calls, own) if calls else {}
    fetched = aptroot.transactions(sections, seen.name)
    there = {(o.name, o.version): o for o in aptroot.offers(sections)}
    asked = {p.name for i in ready.items if i.state == CHANGE and isinstance(i.action, Packages) for p in i.action.install}
    packages = {o.name: LockedPackage(o.version, o.arch, o.sha256, o.size, o.name in asked, _PASSWORD.sub("//", o.uri)) for o in fetched}
    for name in names:
        have = seen.facts.installed(name)
        if name not in packages:
            offer = there.get((name, have))
            packages[name] = LockedPackage(have, offer.arch if offer else "", offer.sha256 if offer else "", offer.size if offer else 0, True)
    return Resolved(_kind(seen, decided, packages), fetched, ready)


def _decided(seen: System, catalog: Catalog) -> Plan:
    decided = plan(seen.facts, seen.loaded.spec, catalog, seen.steps)
    # whether the host is ready at this moment (its disk, its clock, its locks) changes nothing about what the playbook comes to
    problem = next((p for p in decided.problems if not p.id.startswith("preflight/") or p.id == "preflight/root"), None)
    if problem is not None:
        kind = Unsupported if problem.unsupported else Refused
        raise kind(f"{seen.name}: {problem.message}", problem.fix)
    if decided.platform.family != "debian":
        raise Unsupported(f"{seen.name}: {decided.platform.name or decided.platform.id} has no apt, and locks and bundles are made with apt so far.", NO_APT)
    items = tuple(replace(i, state=CHANGE) if i.state == REFUSED and i.action is not None else i for i in decided.items)
    return replace(decided, items=items, problems=())


def _kept(facts: Facts, decided: Plan, catalog: Catalog) -> tuple[str, ...]:
    """What is installed already of what the playbook wants, and is left as it is."""
    names: list[str] = []
    for decision in decided.decisions.values():
        listed = decision.details.get("packages")
        names += [str(name) for name in listed] if isinstance(listed, (list, tuple)) else []
    actions = {step: decision.action for step, decision in decided.decisions.items()}
    if actions.get("docker") == "keep":
        platform = catalog.platform(facts.os, facts.arch)
        vendor = catalog.repository("docker", platform)
        names += [*(vendor.packages if vendor else ()), *platform.distro_docker_packages, "containerd", "runc"]
    if actions.get("toolkit") == "keep":
        names += PACKAGES_AT_ONE_VERSION
    if actions.get("driver") == "keep":
        names += [name for name in facts.packages or {} if DRIVER.match(name)]
    return tuple(dict.fromkeys(name for name in names if ":" not in name and facts.installed(name)))


def _kind(seen: System, decided: Plan, packages: Mapping[str, LockedPackage]) -> HostClass:
    distro, version, arch, gpus = system_of(seen.facts)
    repositories = {}
    for step, decision in decided.decisions.items():
        found = decision.details.get("repository")
        if isinstance(found, Mapping):
            keys = next((i.action.key.fingerprints for i in decided.items if _signs(i, step)), None) or (str(found.get("key_fingerprint") or ""),)  # type: ignore[union-attr]
            parts = tuple(str(part) for part in found.get("components") or ())
            repositories[step] = LockedRepository(str(found.get("uri") or ""), str(found.get("suite") or ""), parts, tuple(k for k in keys if k))
    docker, driver = decided.decisions.get("docker"), decided.decisions.get("driver")
    engine = str(docker.details.get("source") or "") if docker and docker.action in ("install", "keep") else ""
    words = ""
    if driver and driver.action in ("install", "keep"):
        words = " ".join(str(driver.details.get(key) or "") for key in ("branch", "flavor", "source")).strip()
    return HostClass(
        distro, version, arch, seen.loaded.digest, gpus, (seen.facts.kernel,) if seen.facts.kernel else (), engine, words,
        dict(sorted(packages.items())), repositories, _images(seen),
    )


def _signs(item: Any, step: str) -> bool:
    return item.id == f"{step}/repository" and getattr(item.action, "key", None) is not None


def _images(seen: System) -> dict[str, str]:
    """The digests of the images that the playbook names, as their registries say now."""
    from provision.imageconfig import ask as ask_registry

    found = {}
    spec = seen.loaded.spec
    for image in (spec.smoke.image if spec.smoke.enabled else "", spec.smoke.workload):
        if image and image != "embedded":
            said = ask_registry(image, seen.facts.arch, mirrors=spec.mirrors.registry, insecure=spec.docker.insecure_registries)
            found[image] = said.digest
    return found
