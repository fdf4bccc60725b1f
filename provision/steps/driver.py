"""The NVIDIA driver: keep a working one; else say why there can be none, or install one (see `driver_install`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from provision.actions import Reboot
from provision.model import CHANGE, Decision, Item, Notice, Nvidia, Problem
from provision.rows import version_key
from provision.steps import MODULES, PACKAGES, Context, Result, drift, driver_install, fabric, gpus, installed, settled
from provision.steps.engine import there
from provision.steps.gpus import Choice, Gpu
from provision.watched import DKMS

STEP = "driver"


@dataclass(frozen=True)
class Driver:
    """What the later steps can count on: usable GPUs, whether a driver is `working`, `planned` or there will be `none`, and what is known of it."""

    count: int
    state: str
    source: str | None = None
    version: str = ""


def nothing() -> dict[str, object]:
    """The details of a decision that decided nothing."""
    return {"branch": None, "flavor": None, "source": None, "packages": [], "repository": None, "secure_boot": None}


def _skip(why: str, *notices: Notice) -> tuple[Result, Driver]:
    return Result(decisions={STEP: Decision("skip", why, nothing()), **fabric.skip(why)}, notices=notices), Driver(0, "none")


def _refuse(problem: Problem, **details: object) -> tuple[Result, Driver]:
    item = Item("driver/packages", STEP, "packages", "refused", problem.message, phase=PACKAGES)
    decision = Decision("refuse", problem.message, {**nothing(), **details})
    return Result((item,), {STEP: decision, **fabric.skip("there is no driver to match")}, (problem,)), Driver(0, "none")


def decide(ctx: Context) -> tuple[Result, Driver]:
    """The driver's items and what the later steps can count on."""
    facts, spec = ctx.facts, ctx.spec
    if spec.gpu == "ignore":
        return _skip("the playbook asks for a Docker host only")
    if facts.nvidia_pci is None and not facts.live and spec.gpu == "auto":
        why = "this tree does not tell which devices are on the PCI bus"
        return _skip(why, Notice("driver/unknown", f"Whether there is a GPU is decided on the running machine: {why}."))
    if facts.nvidia_pci is None:
        message = "Which devices are on the PCI bus could not be read."
        fix = "Check that /sys is mounted and that mlhost may read it." if facts.live else "Say which GPU it is for: `--for-gpu l4`."
        return _refuse(Problem("driver/unknown", message, fix))
    own = gpus.found(ctx)
    if facts.tegra and not own:
        # Their GPU is in the processor, on no bus.
        return _refuse(gpus.of_a_board())
    if not own:
        if spec.gpu == "required":
            message = "The playbook requires a GPU, and there is no NVIDIA GPU on this machine's PCI bus."
            fix = "Check the instance type or the card's seating, or use `--set gpu=auto` for a plain Docker host."
            return _refuse(Problem("driver/no-gpu", message, fix))
        why, told = _without(ctx)
        return _skip(why, *told)
    nvidia = facts.nvidia or Nvidia()
    if _works(ctx, nvidia):
        short = _short(ctx, nvidia)
        if not short or not spec.driver.replace:
            return _kept(ctx, own, nvidia, short)
    problem = gpus.impossible(ctx, own)
    if problem:
        return _refuse(problem, **({"flavor": "grid"} if problem.id == "driver/vgpu" else {}))
    if spec.driver.install == "never":
        why = "the playbook leaves the driver alone, and there is no working one"
        return _skip(why, Notice("driver/none", f"{gpus.names(own)} is without a driver: {why}."))
    if nvidia.loaded and nvidia.on_disk and nvidia.loaded != nvidia.on_disk:
        return _pending(ctx, own, nvidia)
    chosen = gpus.choose(ctx, own, exact=fabric.needed(ctx, own))
    problem = _broken(ctx, own, nvidia, chosen)
    if problem:
        return _refuse(problem, **_there(ctx, nvidia))
    if isinstance(chosen, Problem):
        return _refuse(chosen, secure_boot=facts.secure_boot)
    result = driver_install.decide(ctx, own, chosen)
    if result.decisions[STEP].action == "refuse":
        return result, Driver(0, "none")
    version = chosen.version or ctx.catalog.branch(chosen.branch).newest_release
    return result, Driver(len(own), "planned", chosen.source, version)


def _without(ctx: Context) -> tuple[str, tuple[Notice, ...]]:
    """Why there is nothing to drive, and what the cloud's instance type says to that."""
    kind = gpus.instance(ctx)
    plain = "there is no NVIDIA GPU on the PCI bus"
    if kind is None:
        return plain, ()
    type_name = ctx.facts.instance["type"]
    if kind.vendor != "nvidia":
        why = f"{plain}: {type_name} has {kind.gpu}, which is not NVIDIA's"
        text = f"{type_name} has {kind.gpu}, which mlhost does not set up. {kind.note}".strip()
        return why, (Notice("driver/accelerator", text),)
    text = f"The instance type {type_name} should have {kind.gpu}, but no NVIDIA GPU is on the PCI bus. {kind.note}".strip()
    return plain, (Notice("driver/missing", text),)


def _works(ctx: Context, nvidia: Nvidia) -> bool:
    """Whether the driver shows GPUs. An unpacked tree cannot be asked; there the module its /proc names counts."""
    if not ctx.facts.live:
        return bool(nvidia.loaded)
    return nvidia.smi_rc == 0 and bool(nvidia.gpus)


def _version(nvidia: Nvidia) -> str:
    return nvidia.loaded or nvidia.driver_version


def _flavor(nvidia: Nvidia) -> str | None:
    return {True: "open", False: "proprietary", None: None}[nvidia.loaded_open]


def _there(ctx: Context, nvidia: Nvidia) -> dict[str, object]:
    """The details of a driver that is there."""
    return {
        "branch": _version(nvidia).split(".", maxsplit=1)[0],
        "flavor": _flavor(nvidia),
        "source": installed.source(ctx.facts, ctx.platform.base_id),
        "secure_boot": ctx.facts.secure_boot,
    }


def _short(ctx: Context, nvidia: Nvidia) -> list[str]:
    """What the working driver lacks of what the playbook wants."""
    spec, version = ctx.spec.driver, _version(nvidia)
    short = []
    if spec.branch not in ("auto", version.split(".", maxsplit=1)[0]):
        short.append(f"the playbook wants branch {spec.branch}")
    if spec.minimum and version_key(version) < version_key(spec.minimum):
        short.append(f"the playbook wants at least {spec.minimum}")
    flavor = _flavor(nvidia)
    if flavor and spec.flavor not in ("auto", flavor):
        short.append(f"the playbook wants the {spec.flavor} module")
    return short


def _kept(ctx: Context, own: tuple[Gpu, ...], nvidia: Nvidia, short: list[str]) -> tuple[Result, Driver]:
    version, details = _version(nvidia), _there(ctx, nvidia)
    if short:
        message = f"Driver {version} works, but {' and '.join(short)}; a working driver is not replaced without consent."
        fix = "Allow it with `--set driver.replace=true`, or drop the demand from the playbook."
        return _refuse(Problem("driver/replace", message, fix), **details)[0], Driver(len(own), "working")
    minimum = ctx.spec.driver.minimum
    seen = len(nvidia.gpus) if ctx.facts.live else len(own)
    why = f"driver {version} works with {gpus.shown(ctx.facts, seen)}" if ctx.facts.live else f"driver {version} is loaded"
    why += f" and satisfies >= {minimum}" if minimum else ""
    source = installed.source(ctx.facts, ctx.platform.base_id)
    manager = fabric.manager(ctx, own, source if source in ("distro", "cuda") else None, str(details["branch"]), version)
    state = {"version": version, "gpus": seen}
    kept = _guarded(ctx, details, version)
    items = (
        settled(STEP, "driver/packages", "packages", why, state, PACKAGES),
        *kept.items,
        *fabric.persistenced(ctx.facts, False),
        *manager.items,
    )
    notices = (
        [Notice("driver/count", f"{len(own)} GPUs are on the PCI bus, but the driver shows {seen}.")] if seen != len(own) else []
    )
    notices += kept.notices
    empty = gpus.unusable(ctx.facts)
    if 0 < len(empty) < seen:  # without any that can be used there is a problem, which says the same
        notices.append(Notice("driver/mig", " ".join(gpus.undivided(empty))))
    decisions = {STEP: Decision("keep", why, {**nothing(), **details}), **manager.decisions}
    after = Driver(len(own), "working", source, version)
    problems = (*kept.problems, *manager.problems)
    return Result(items, decisions, problems, tuple(notices), urls=manager.urls), after


def _guarded(ctx: Context, details: Mapping[str, object], version: str) -> Result:
    """The drift guard of a driver that is there, by the packages that it is known to be made of."""
    source, branch, flavor = (str(details[key] or "") for key in ("source", "branch", "flavor"))
    if source not in ("distro", "cuda", "runfile"):
        return Result()
    bundle = gpus.packages(ctx, source, branch, flavor)
    if source == "runfile":
        registered = DKMS in ctx.facts.paths and ctx.facts.paths[DKMS].kind == "dir"
        if bundle is None or (bundle.rebuilt and not (registered and ctx.facts.installed("dkms"))):
            return Result(notices=drift.unknown(version))
        return drift.guard(ctx, bundle, gpus.kernel_follows(ctx, bundle))
    if bundle and bundle.prebuilt and bundle.fallback and not any(there(ctx.facts, n) for n in bundle.packages if n.startswith("linux-modules-")):
        bundle = bundle.fallback
    if bundle is None or not all(there(ctx.facts, name) for name in bundle.packages if name != bundle.metapackage):
        return Result()
    return drift.guard(ctx, bundle, gpus.kernel_follows(ctx, bundle))


def _pending(ctx: Context, own: tuple[Gpu, ...], nvidia: Nvidia) -> tuple[Result, Driver]:
    why = f"module {nvidia.loaded} is loaded but {nvidia.on_disk} is installed; only a reboot brings them together"
    expected, actual = {"module": nvidia.on_disk}, {"module": nvidia.loaded}
    item = Item("driver/reboot", STEP, "reboot", CHANGE, why, expected, actual, Reboot(why), phase=MODULES)
    details = {**nothing(), **_there(ctx, nvidia), "branch": nvidia.on_disk.split(".", maxsplit=1)[0]}
    decisions = {STEP: Decision("keep", why, details), **fabric.skip("decided after the reboot")}
    source = installed.source(ctx.facts, ctx.platform.base_id)
    return Result((item,), decisions), Driver(len(own), "planned", source, nvidia.on_disk)


def _broken(ctx: Context, own: tuple[Gpu, ...], nvidia: Nvidia, chosen: Choice | Problem) -> Problem | None:
    """A driver that is there and that no package work would heal."""
    packages = installed.driver_packages(ctx.facts)
    same = isinstance(chosen, Choice) and chosen.source == "runfile" and nvidia.on_disk in ("", chosen.version)
    if nvidia.installed_by_runfile and not packages and not same:
        return Problem(
            "driver/runfile",
            "A driver installed by NVIDIA's .run file is here and does not work; another one beside it would mix two drivers.",
            "Take it away with `sudo nvidia-uninstall --silent`, then run mlhost again.",
        )
    # A module of the wrong flavour is loaded and shows nothing; another one is installed then.
    unfit = _flavor(nvidia) is not None and _flavor(nvidia) not in gpus.flavors(ctx, own)
    if not nvidia.loaded or nvidia.smi_rc in (None, 0) or unfit or ctx.spec.driver.replace:
        return None
    said = next((line.strip() for line in nvidia.smi_text.splitlines() if line.strip()), f"exit code {nvidia.smi_rc}")
    return Problem(
        "driver/broken",
        f"Driver {nvidia.loaded} is loaded, but nvidia-smi fails: {said[:200].rstrip('.')}.",
        "Look at `sudo dmesg | grep -i -e nvrm -e xid` (a GPU may have fallen off the bus); a reboot often helps. "
        "To have the driver installed anew: `--set driver.replace=true`.",
    )
