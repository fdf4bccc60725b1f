"""What the machine's GPUs allow: which are there, whether any driver can serve them together, and which branch and flavour of one."""

from __future__ import annotations

from dataclasses import dataclass

from provision.model import Facts, PciDevice, Problem, SmiGpu
from provision.rows import Branch, DriverPackages, GpuModel, Instance, version_key
from provision.steps import Context, installed, plural, repository

# The kernel's own drivers that hand a GPU on to a virtual machine.
PASSED_ON = ("vfio-pci", "pci-stub", "xen-pciback")


@dataclass(frozen=True)
class Gpu:
    """A GPU on the bus and what the catalog knows of it."""

    device: PciDevice
    model: GpuModel


def found(ctx: Context) -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that are this system's own, in bus order: not those handed on to virtual machines, as long as one is left."""
    every = [d for d in ctx.facts.gpus if not d.virtual_function]
    own = [d for d in every if d.driver not in PASSED_ON] or every
    return tuple(Gpu(d, ctx.catalog.gpu(d.device, d.subsystem or None)) for d in own)


def names(gpus: tuple[Gpu, ...]) -> str:
    """The models for a sentence: `2 x NVIDIA L4 and NVIDIA T4`."""
    counted = {g.model.name: sum(o.model.name == g.model.name for o in gpus) for g in gpus}
    return " and ".join(f"{count} x {name}" if count > 1 else name for name, count in counted.items())


def divided(facts: Facts) -> int:
    """How many MIG devices there are on all GPUs together."""
    return sum(len(gpu.mig_devices) for gpu in (facts.nvidia.gpus if facts.nvidia else ()))


def unusable(facts: Facts) -> tuple[SmiGpu, ...]:
    """The GPUs that no program can use: MIG is on, and no MIG device has been made."""
    return tuple(gpu for gpu in (facts.nvidia.gpus if facts.nvidia else ()) if gpu.mig and not gpu.mig_devices)


def undivided(empty: tuple[SmiGpu, ...]) -> tuple[str, str]:
    """What is wrong with GPUs that are `unusable`, and the remedy."""
    which = ", ".join(f"GPU {gpu.index} ({gpu.name})" for gpu in empty)
    message = f"MIG is on, but there is no MIG device, on {which}: CUDA finds nothing there."
    fix = (
        "Make MIG devices (profiles: `nvidia-smi mig -lgip`; they are gone after every reboot unless nvidia-mig-manager or the like makes them anew): "
        f"`nvidia-smi mig -i {empty[0].index} -cgi PROFILE -C`, then `systemctl restart nvidia-cdi-refresh.service`; "
        f"or turn MIG off: `nvidia-smi -i {empty[0].index} -mig 0`."
    )
    return message, fix


def shown(facts: Facts, count: int) -> str:
    """What programs see, for a sentence: `2 GPUs`, or `2 GPUs and their 7 MIG devices`."""
    parts = divided(facts)
    return plural(count, "GPU") + (f" and {'its' if count == 1 else 'their'} {plural(parts, 'MIG device')}" if parts else "")


def of_a_board() -> Problem:
    """Why mlhost leaves a Jetson alone."""
    message = "This is a Jetson/Tegra board, whose driver, Docker and toolkit come with NVIDIA's own system image."
    return Problem("driver/tegra", message, "Install them from JetPack's repositories (`nvidia-jetpack`), or use `--set gpu=ignore` for Docker alone.")


def impossible(ctx: Context, gpus: tuple[Gpu, ...]) -> Problem | None:
    """Why no driver can be installed for these GPUs, if so."""
    if ctx.facts.tegra or any(g.model.tegra for g in gpus):
        return of_a_board()
    held = [g.device.address for g in gpus if g.device.driver in PASSED_ON]
    if held:
        message = f"The GPU at {', '.join(held)} is bound to {gpus[0].device.driver}, that is, reserved for a virtual machine."
        return Problem("driver/vfio", message, "Give it back to the host (remove the binding), or use `--set gpu=ignore`.")
    kind = instance(ctx)
    virtual = [g.model.name for g in gpus if g.device.vgpu or g.model.vgpu]
    if virtual or (kind and kind.driver == "grid"):
        what = f"{virtual[0]} is" if virtual else f"{names(gpus)} is, on the instance type {ctx.facts.instance['type']},"
        told = f" {kind.note}" if kind and kind.driver == "grid" and kind.note else ""
        return Problem(
            "driver/vgpu",
            f"{what} a virtual GPU, which needs the GRID driver of the cloud or hypervisor that made it.{told}",
            "Use the vendor's image or extension for this instance type, or an instance with a whole GPU.",
        )
    kinds = {g: ctx.catalog.generation(g.model.generation) for g in gpus}
    strange = next((g for g, kind in kinds.items() if kind.name == "unknown"), None)
    if strange:
        message = f"The {strange.model.name} at {strange.device.address} is newer than what mlhost knows, so it cannot choose a driver for it."
        return Problem("driver/unknown-gpu", message, "Update mlhost, or install the driver by hand: a working one is kept.")
    old = next((g for g, kind in kinds.items() if kind.name == "fermi"), None)
    if old:
        message = f"{old.model.name} is of a generation that no maintained driver serves."
        return Problem("driver/too-old", message, "Use a newer GPU, or `--set gpu=ignore`.")
    if not flavors(ctx, gpus) or not any(_serves(ctx, gpus, b) for b in ctx.catalog.branches):
        message = f"{names(gpus)} cannot share a driver: no branch has a kernel module that serves them all."
        return Problem("driver/mixed", message, "Take one kind out of the machine, or use `--set gpu=ignore`.")
    return None


def instance(ctx: Context) -> Instance | None:
    """What the cloud's instance type says of the machine's accelerators; None where neither is known."""
    cloud = ctx.catalog.cloud(ctx.facts.dmi) if ctx.facts.instance.get("type") else None
    return ctx.catalog.instance(cloud, ctx.facts.instance["type"]) if cloud else None


def flavors(ctx: Context, gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """The kernel module flavours that serve all of them, the preferred one first."""
    sets = [("open",) if g.model.open_only else ctx.catalog.generation(g.model.generation).flavors for g in gpus]
    return tuple(f for f in sets[0] if all(f in s for s in sets))


@dataclass(frozen=True)
class Choice:
    """A branch and flavour of driver, where it comes from, its packages, and why. `version` is the exact one asked for, "" = any of the branch."""

    branch: str
    flavor: str
    source: str
    bundle: DriverPackages
    why: str
    version: str = ""


def choose(ctx: Context, gpus: tuple[Gpu, ...], exact: bool = False) -> Choice | Problem:
    """Branch and flavour from the oldest GPU, the playbook and what the sources have.

    With `exact` the packages are those of one version, which a fabric manager can be made to match. What of a driver is there already is
    gone on with, where it serves. A source that the host cannot reach, and a module that Secure Boot would not load, are last choices; the
    very last is NVIDIA's .run installer, which no package manager knows of.
    """
    spec, catalog = ctx.spec.driver, ctx.catalog
    oldest = min(gpus, key=lambda g: catalog.generation(g.model.generation).order)
    able = flavors(ctx, gpus)
    if spec.flavor not in ("auto", *able):
        message = f"{oldest.model.name} ({_title(ctx, oldest)}) does not work with the {spec.flavor} kernel module."
        return Problem("driver/flavor", message, f"Use `--set driver.flavor={able[0]}` or `auto`.")
    problem = _branch_problem(ctx, gpus, oldest) if spec.branch != "auto" else None
    if problem:
        return problem
    last: Choice | None = None
    wanted = able if spec.flavor == "auto" else (spec.flavor,)
    for number in _branches(ctx, gpus):
        for flavor in wanted:
            for source in _sources(ctx):
                version = catalog.branch(number).newest_release if exact else ""
                bundle = packages(ctx, source, number, flavor, version)
                if bundle is None:
                    continue
                choice = Choice(number, flavor, source, bundle, _why(ctx, oldest, number, flavor, able), version)
                lost = source == "cuda" and repository.unreachable(ctx, repository.of(ctx, "cuda"))
                if not lost and (bundle.prebuilt or not ctx.facts.secure_boot):
                    return choice
                last = last or choice
    if last is None and spec.source in ("auto", "runfile"):
        tries = ((n, f, packages(ctx, "runfile", n, f)) for n in _branches(ctx, gpus, everywhere=True) for f in wanted)
        last = next((_by_runfile(ctx, oldest, n, f, able, b) for n, f, b in tries if b), None)
    return last or _no_source(ctx, oldest, able)


def _by_runfile(ctx: Context, oldest: Gpu, number: str, flavor: str, able: tuple[str, ...], bundle: DriverPackages) -> Choice:
    version = bundle.installer.version if bundle.installer else ""
    return Choice(number, flavor, "runfile", bundle, _why(ctx, oldest, number, flavor, able), version)


def _branches(ctx: Context, gpus: tuple[Gpu, ...], everywhere: bool = False) -> tuple[str, ...]:
    """The branches to try, best first. Without `everywhere` those that the platform's repositories are known to begin with."""
    if ctx.spec.driver.branch != "auto":
        return (ctx.spec.driver.branch,)
    known = {b.number: b for b in ctx.catalog.branches}
    begun = installed.branch(ctx.facts)
    best = () if everywhere else ctx.platform.preferred_branches
    order = dict.fromkeys((*([begun] if begun in known else []), *(best or ctx.catalog.preferred_branches)))
    return tuple(n for n in order if _serves(ctx, gpus, known[n]) and _minimum_met(ctx, known[n]))


def _minimum_met(ctx: Context, branch: Branch) -> bool:
    return version_key(branch.newest_release) >= version_key(ctx.spec.driver.minimum)


def _sources(ctx: Context) -> tuple[str, ...]:
    if ctx.spec.driver.source == "runfile":
        return ()
    if ctx.spec.driver.source != "auto":
        return (ctx.spec.driver.source,)
    begun = installed.source(ctx.facts, ctx.platform.base_id)
    best = ctx.platform.driver_sources
    return tuple(dict.fromkeys((*([begun] if begun in best else []), *best)))


def packages(ctx: Context, source: str, number: str, flavor: str, version: str = "") -> DriverPackages | None:
    """The packages of that driver for this machine's kernel; None where the source does not have it."""
    facts = ctx.facts
    bundle = ctx.catalog.driver_packages(ctx.platform, source, number, flavor, kernel(facts), version=version, image=_image(ctx))
    built = ctx.spec.driver.drift == "dkms" or _foreign_kernel(facts)
    if bundle and bundle.prebuilt and bundle.fallback and built:
        return bundle.fallback
    return bundle


def kernel_follows(ctx: Context, bundle: DriverPackages) -> bool:
    """Whether new kernels come to this machine by a metapackage; with rpm they always do."""
    if ctx.platform.family != "debian":
        return True
    meta = bundle.headers_meta.replace("linux-headers-", "linux-image-", 1)
    return bool(_image(ctx)) or bool(meta and ctx.facts.installed(meta))


def kernel(facts: Facts) -> str:
    """The kernel that the module is for: the running one; in a tree without one, the only one installed there. "" = not known."""
    images = [n[len("linux-image-") :] for n in facts.packages or {} if n.startswith("linux-image-") and facts.installed(n)]
    images += [n[len("kernel-core-") :] for n in facts.packages or {} if n.startswith("kernel-core-")]
    releases = [name for name in images if name[:1].isdigit()]
    return facts.kernel or (releases[0] if len(releases) == 1 and not facts.live else "")


def _foreign_kernel(facts: Facts) -> bool:
    """Whether the running kernel is not the distribution's own build: its image package is not there, though others are."""
    images = [n for n in facts.packages or {} if n.startswith("linux-image-") and facts.installed(n)]
    return bool(images) and f"linux-image-{kernel(facts)}" not in images


def _image(ctx: Context) -> str:
    """The installed linux-image metapackage of the running kernel's flavour, "" if there is none. Modules for `virtual` are those of `generic`."""
    flavor = ctx.catalog.kernel_flavor(ctx.platform, kernel(ctx.facts))
    found = []
    for name in sorted(ctx.facts.packages or {}):
        suffix = name[len("linux-image-") :] if name.startswith("linux-image-") else ""
        if not suffix or suffix[0].isdigit() or not ctx.facts.installed(name):
            continue
        suffix = "generic" + suffix[len("virtual") :] if suffix.startswith("virtual") else suffix
        if flavor and (suffix == flavor or suffix.startswith(f"{flavor}-")):
            found.append(f"linux-image-{suffix}")
    return found[-1] if found else ""


def _serves(ctx: Context, gpus: tuple[Gpu, ...], branch: Branch) -> bool:
    return bool(set(branch.flavors) & set(flavors(ctx, gpus))) and all(
        ctx.catalog.supports(branch, g.model.generation) and version_key(g.model.min_driver) <= version_key(branch.newest_release)
        for g in gpus
    )


def _title(ctx: Context, gpu: Gpu) -> str:
    return ctx.catalog.generation(gpu.model.generation).title


def _branch_problem(ctx: Context, gpus: tuple[Gpu, ...], oldest: Gpu) -> Problem | None:
    """Why the branch that the playbook names cannot be had."""
    number = ctx.spec.driver.branch
    known = {b.number: b for b in ctx.catalog.branches}
    if number not in known:
        return Problem("driver/branch", f"mlhost knows no driver branch {number}.", f"Known are {', '.join(known)}.")
    kind = ctx.catalog.generation(oldest.model.generation)
    if kind.last_branch and int(number) > int(kind.last_branch):
        message = (
            f"Branch {number} no longer serves {oldest.model.name} ({kind.title}); the last one that does is {kind.last_branch}."
        )
        return Problem("driver/branch", message, f"Use `--set driver.branch={kind.last_branch}` or `auto`.")
    needy = next((g for g in gpus if not _serves(ctx, (g,), known[number])), None)
    if needy:
        least = f"needs at least driver {needy.model.min_driver}" if needy.model.min_driver else "is too new for it"
        message = f"Branch {number} does not serve {needy.model.name}, which {least}."
        return Problem("driver/branch", message, "Use `--set driver.branch=auto`.")
    if not _minimum_met(ctx, known[number]):
        message = f"Branch {number} has no driver as new as {ctx.spec.driver.minimum}, which the playbook wants at least."
        return Problem("driver/branch", message, "Name a newer branch, or lower `driver.minimum`.")
    return None


def _no_source(ctx: Context, oldest: Gpu, able: tuple[str, ...]) -> Problem:
    spec = ctx.spec.driver
    asked = f"branch {spec.branch}" if spec.branch != "auto" else "a driver"
    asked += f" of at least {spec.minimum}" if spec.minimum else ""
    where = f"on {ctx.platform.name} {ctx.platform.arch}" + (f" from {spec.source}" if spec.source != "auto" else "")
    withheld = dict(ctx.platform.withheld).get("cuda", "")
    more = f" NVIDIA's own repository is not used there: {withheld}." if withheld else ""
    more += _outgrown(ctx, oldest, able)
    return Problem(
        "driver/source",
        f"There is no source for {asked} ({' or '.join(able)} module) for {oldest.model.name} {where}.{more}",
        "Install the driver by hand (a working one is kept), or set up the rest without it: `--set driver.install=never`."
        if withheld
        else "Choose another branch or source (`--set driver.branch=…`, `--set driver.source=…`), or a newer system.",
    )


def _outgrown(ctx: Context, oldest: Gpu, able: tuple[str, ...]) -> str:
    """That there is an installer for the system, and not for this kernel; "" where that is not the reason."""
    branches = _branches(ctx, (oldest,), everywhere=True)
    bundles = (ctx.catalog.driver_packages(ctx.platform, "runfile", n, f, "") for n in branches for f in able)
    bundle = next((b for b in bundles if b and b.installer), None)
    if bundle is None or not bundle.installer or ctx.spec.driver.source not in ("auto", "runfile") or not kernel(ctx.facts):
        return ""
    return f" NVIDIA's .run installer of {bundle.installer.version} is not known to build for kernel {kernel(ctx.facts)}."


def _why(ctx: Context, oldest: Gpu, number: str, flavor: str, able: tuple[str, ...]) -> str:
    kind = ctx.catalog.generation(oldest.model.generation)
    if ctx.spec.driver.branch != "auto":
        reason = f"the playbook asks for branch {number}"
    elif number == installed.branch(ctx.facts):
        reason = f"packages of branch {number} are there already"
    elif kind.last_branch == number:
        reason = f"{number} is the last branch that serves {oldest.model.name} ({kind.title})"
    else:
        reason = f"branch {number} ({ctx.catalog.branch(number).kind}) serves {oldest.model.name} ({kind.title})"
    if ctx.spec.driver.flavor != "auto":
        return f"{reason}; the playbook asks for the {flavor} kernel module"
    fits = "the only one that does" if len(able) == 1 else f"the recommended one for {kind.title}"
    return f"{reason}; the {flavor} kernel module is {fits}"
