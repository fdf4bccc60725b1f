"""What the machine's GPUs allow: which are there, whether any driver can serve them together, and which branch and flavour of one."""

from __future__ import annotations

from dataclasses import dataclass

from provision.model import PciDevice, Problem
from provision.rows import DriverPackages, GpuModel, version_key
from provision.steps import Context


@dataclass(frozen=True)
class Gpu:
    """A GPU on the bus and what the catalog knows of it."""

    device: PciDevice
    model: GpuModel


def found(ctx: Context) -> tuple[Gpu, ...]:
    """The NVIDIA GPUs on the bus, in bus order."""
    return tuple(Gpu(d, ctx.catalog.gpu(d.device, d.subsystem or None)) for d in ctx.facts.gpus)


def names(gpus: tuple[Gpu, ...]) -> str:
    """The models for a sentence: `2 x NVIDIA L4 and NVIDIA T4`."""
    counted = {g.model.name: sum(o.model.name == g.model.name for o in gpus) for g in gpus}
    return " and ".join(f"{count} x {name}" if count > 1 else name for name, count in counted.items())


def impossible(ctx: Context, gpus: tuple[Gpu, ...]) -> Problem | None:
    """Why no driver can be installed for these GPUs, if so."""
    if ctx.facts.tegra:
        return Problem(
            "driver/tegra",
            "This is a Jetson/Tegra board, whose driver comes with NVIDIA's own system image.",
            "Use JetPack there; mlhost sets up servers.",
        )
    held = [g.device.address for g in gpus if g.device.driver == "vfio-pci"]
    if held:
        return Problem(
            "driver/vfio",
            f"The GPU at {', '.join(held)} is bound to vfio-pci, that is, reserved for a virtual machine.",
            "Give it back to the host (remove the vfio-pci binding), or use `--set gpu=ignore`.",
        )
    working = ctx.facts.nvidia is not None and ctx.facts.nvidia.smi_rc == 0
    virtual = [g.model.name for g in gpus if g.device.vgpu or g.model.vgpu]
    if virtual and not working:
        return Problem(
            "driver/vgpu",
            f"{virtual[0]} is a virtual GPU, which needs the GRID driver of the cloud or hypervisor that made it.",
            "Use the vendor's image or extension for this instance type, or an instance with a whole GPU.",
        )
    kinds = [ctx.catalog.generation(g.model.generation) for g in gpus]
    old = next((g for g, k in zip(gpus, kinds) if k.name == "fermi"), None)
    if old:
        return Problem(
            "driver/too-old",
            f"{old.model.name} is of a generation that no maintained driver serves.",
            "Use a newer GPU, or `--set gpu=ignore`.",
        )
    if not _flavors(ctx, gpus):
        return Problem(
            "driver/mixed",
            f"{names(gpus)} cannot share a driver: one needs the proprietary kernel module, another the open one.",
            "Take one kind out of the machine, or use `--set gpu=ignore`.",
        )
    return None


def _flavors(ctx: Context, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """The kernel module flavours that serve all of them, the preferred one first."""
    sets = [("open",) if g.model.open_only else ctx.catalog.generation(g.model.generation).flavors for g in gpus]
    return tuple(f for f in sets[0] if all(f in s for s in sets))


@dataclass(frozen=True)
class Choice:
    """A branch and flavour of driver, where it comes from, its packages, and why."""

    branch: str
    flavor: str
    source: str
    bundle: DriverPackages
    why: str


def choose(ctx: Context, gpus: tuple[Gpu, ...], version: str = "") -> Choice | Problem:
    """Branch and flavour from the oldest GPU, the playbook and what the sources have. `version` asks for one exact version of the branch."""
    spec, catalog = ctx.spec.driver, ctx.catalog
    oldest = min(gpus, key=lambda g: catalog.generation(g.model.generation).order)
    kind = catalog.generation(oldest.model.generation)
    able = _flavors(ctx, gpus)
    if spec.flavor != "auto" and spec.flavor not in able:
        return Problem(
            "driver/flavor",
            f"{oldest.model.name} ({kind.name}) does not work with the {spec.flavor} kernel module.",
            f"Use `--set driver.flavor={able[0]}` or `auto`.",
        )
    flavors = able if spec.flavor == "auto" else (spec.flavor,)
    sources = ctx.platform.driver_sources if spec.source == "auto" else (spec.source,)
    known = {b.number: b for b in catalog.branches}
    if spec.branch != "auto":
        problem = _branch_problem(ctx, gpus, spec.branch, oldest)
        if problem:
            return problem
    wanted = [spec.branch] if spec.branch != "auto" else [n for n in catalog.preferred_branches if _serves(ctx, gpus, n)]
    unsigned: Choice | None = None
    for number in wanted:
        for flavor in flavors:
            for source in sources:
                exact = known[number].newest_release if version == "newest" and number in known else version
                bundle = catalog.driver_packages(
                    ctx.platform, source, number, flavor, ctx.facts.kernel or "", version=exact, image=_image(ctx)
                )
                if bundle is None:
                    continue
                choice = Choice(number, flavor, source, bundle, _why(ctx, oldest, number, flavor, able))
                if ctx.facts.secure_boot and not bundle.prebuilt:
                    unsigned = unsigned or choice
                    continue
                return choice
    if unsigned:
        return unsigned
    asked = f"branch {spec.branch}" if spec.branch != "auto" else "a driver"
    return Problem(
        "driver/source",
        f"There is no source for {asked} ({' or '.join(flavors)} module) for {oldest.model.name} on {ctx.platform.name} {ctx.platform.arch}"
        + (f" from {spec.source}." if spec.source != "auto" else "."),
        "Choose another branch or source (`--set driver.branch=…`, `--set driver.source=…`), or a newer system.",
    )


def _image(ctx: Context) -> str:
    """The installed linux-image metapackage of the running kernel's flavour, "" if there is none."""
    flavor = ctx.catalog.kernel_flavor(ctx.platform, ctx.facts.kernel or "")
    images = sorted(
        n
        for n in (ctx.facts.packages or {})
        if n.startswith("linux-image-") and not any(c.isdigit() for c in n.split("-")[2]) and ctx.facts.installed(n)
    )
    return next((n for n in images if flavor and n.startswith(f"linux-image-{flavor}")), "")


def _serves(ctx: Context, gpus: tuple[Gpu, ...], number: str) -> bool:
    branch = ctx.catalog.branch(number)
    return all(
        ctx.catalog.supports(branch, g.model.generation) and version_key(g.model.min_driver) <= version_key(branch.newest_release)
        for g in gpus
    )


def _branch_problem(ctx: Context, gpus: tuple[Gpu, ...], number: str, oldest: Gpu) -> Problem | None:
    kind = ctx.catalog.generation(oldest.model.generation)
    if number not in {b.number for b in ctx.catalog.branches}:
        known = ", ".join(b.number for b in ctx.catalog.branches)
        return Problem("driver/branch", f"mlhost knows no driver branch {number}.", f"Known are {known}.")
    if kind.last_branch and int(number) > int(kind.last_branch):
        return Problem(
            "driver/branch",
            f"Branch {number} no longer serves {oldest.model.name} ({kind.name}); the last one that does is {kind.last_branch}.",
            f"Use `--set driver.branch={kind.last_branch}` or `auto`.",
        )
    needy = next((g for g in gpus if not _serves(ctx, (g,), number)), None)
    if needy:
        least = f" needs at least driver {needy.model.min_driver}" if needy.model.min_driver else " is too new for it"
        return Problem(
            "driver/branch",
            f"Branch {number} does not serve {needy.model.name}, which{least}.",
            "Use `--set driver.branch=auto`.",
        )
    return None


def _why(ctx: Context, oldest: Gpu, number: str, flavor: str, able: tuple[str, ...]) -> str:
    kind = ctx.catalog.generation(oldest.model.generation)
    if ctx.spec.driver.branch != "auto":
        reason = f"the playbook asks for branch {number}"
    elif kind.last_branch == number:
        reason = f"{number} is the last branch that serves {oldest.model.name} ({kind.title})"
    else:
        reason = f"branch {number} ({ctx.catalog.branch(number).kind}) serves {oldest.model.name} ({kind.title})"
    if ctx.spec.driver.flavor != "auto":
        return f"{reason}; the playbook asks for the {flavor} kernel module"
    return f"{reason}; the {flavor} kernel module is " + (
        "the only one that does" if len(able) == 1 else f"the recommended one for {kind.title}"
    )
