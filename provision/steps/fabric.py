"""What stands beside the driver: the fabric manager on machines with NVSwitch, and the persistence daemon."""

from __future__ import annotations

from provision.actions import Package, Packages, Service
from provision.model import CHANGE, Decision, Facts, Item, Problem
from provision.steps import PACKAGES, SERVICES, Context, Result, refused, repository, settled
from provision.steps.engine import exactly, there
from provision.steps.gpus import Gpu

STEP = "driver"
DECISION = "fabricmanager"


def skip(why: str) -> dict[str, Decision]:
    """The decision where no fabric manager is wanted."""
    return {DECISION: Decision("skip", why, {"packages": []})}


def switches(ctx: Context) -> int:
    """How many NVSwitches are on the PCI bus."""
    return sum(d.is_bridge and ctx.catalog.is_nvswitch(d.device) for d in ctx.facts.nvidia_pci or ())


def nvlink5(gpus: tuple[Gpu, ...]) -> bool:
    """Whether these GPUs are joined by switches that are not on the PCI bus (B200, B300)."""
    return sum(g.model.nvlink5 for g in gpus) > 1


def needed(ctx: Context, gpus: tuple[Gpu, ...]) -> bool:
    """Whether CUDA waits for a fabric manager on this machine."""
    return bool(switches(ctx)) or nvlink5(gpus)


def manager(
    ctx: Context, gpus: tuple[Gpu, ...], source: str | None, branch: str, version: str, follows: str = ""
) -> Result:
    """The fabric manager, at exactly the driver's version. `source` None = where the driver came from is not known.

    `follows` names the package that decides on that version while it is not installed yet.
    """
    if not needed(ctx, gpus):
        return Result(decisions=skip("there is no NVSwitch on the PCI bus"))
    count = switches(ctx)
    what = f"{count} NVSwitch device{'s' if count != 1 else ''}" if count else "NVLink switches behind the GPUs"
    exact = f"the version of {follows}" if follows else f"driver {version}"
    why = f"{what}: CUDA works only with a fabric manager of exactly {exact}"
    sources = [source] if source else list(ctx.platform.driver_sources)
    offers = ((s, ctx.catalog.fabric_packages(ctx.platform, s, branch, version, nvlink5(gpus))) for s in sources)
    origin, bundle = next(((s, b) for s, b in offers if b), ("", None))
    unit = ctx.facts.units.get("nvidia-fabricmanager.service")
    running = unit.active if unit else ""
    if bundle is None:
        if running == "active":
            return Result(decisions={DECISION: Decision("keep", "the fabric manager runs", {"packages": []})})
        message = f"{why}, and no source for one is known on {ctx.platform.name}."
        problem = Problem("driver/fabricmanager", message, "Install it by hand, or use `--set driver.source=cuda`.")
        decision = Decision("refuse", message, {"packages": []})
        return Result((refused(STEP, "packages", problem, PACKAGES),), {DECISION: decision}, (problem,))
    wanted = tuple(Package(n, f"@{follows}" if follows and n in bundle.versions else bundle.versions.get(n, "")) for n in bundle.packages)
    present = {p.name: there(ctx.facts, p.name) for p in wanted if there(ctx.facts, p.name)}
    expected = {p.name: exact if p.version.startswith("@") else p.version or "any" for p in wanted}
    unlike = [n for n, v in present.items() if bundle.versions.get(n) and not exactly(v, version)]
    repo = repository.of(ctx, "cuda") if origin == "cuda" else None
    items = []
    urls: tuple[str, ...] = ()
    if len(present) < len(wanted) or unlike:
        if repo:
            items.append(repository.item(ctx, repo, STEP))
            urls = (repo.index_url,)
        action = Packages(wanted)
        items.append(Item("driver/fabricmanager", STEP, "packages", CHANGE, why, expected, present, action, phase=PACKAGES))
    else:
        items.append(settled(STEP, "driver/fabricmanager", "packages", why, present, PACKAGES))
    items.append(_service(bundle.service, running))
    installs = any(i.state == CHANGE for i in items)
    details = {"packages": list(bundle.packages), "version": version}
    return Result(tuple(items), {DECISION: Decision("install" if installs else "keep", why, details)}, urls=urls)


def _service(name: str, running: str) -> Item:
    identifier, expected = "driver/fabricmanager-service", {"running": "active"}
    if running == "active":
        return settled(STEP, identifier, "service", "the fabric manager runs", expected, SERVICES)
    action = Service(name if name.endswith(".service") else f"{name}.service")
    why = "without it CUDA says that the system is not yet initialized (error 802)"
    return Item(identifier, STEP, "service", CHANGE, why, expected, {"running": running}, action, phase=SERVICES - 2)


def persistenced(facts: Facts, installing: bool) -> list[Item]:
    """The persistence daemon, where the driver's packages brought one or (`installing`) may bring one."""
    unit = facts.units.get("nvidia-persistenced.service")
    expected = {"running": "active"}
    identifier = "driver/persistenced"
    loaded = unit is not None and unit.load == "loaded"
    if loaded and unit and unit.active == "active":
        return [settled(STEP, identifier, "service", "the persistence daemon runs", expected, SERVICES)]
    if (unit and unit.load == "masked") or not (installing or loaded):
        return []
    why = "without it every first use of a GPU takes seconds, and settings are lost"
    action = Service("nvidia-persistenced.service", enabled=None, optional=True)
    actual = {"running": unit.active if unit else ""}
    return [Item(identifier, STEP, "service", CHANGE, why, expected, actual, action, phase=SERVICES - 2)]
