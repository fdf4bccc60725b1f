"""The NVIDIA driver: keep a working one; else install branch and flavour for the oldest GPU, from the distribution or NVIDIA's repository."""

from __future__ import annotations

from dataclasses import dataclass

from provision.actions import AptRepository, File, KernelModule, Package, Packages, Reboot, Service
from provision.aptsource import deb822, one_line
from provision.model import CHANGE, LATER, OK, REFUSED, Decision, Facts, Item, Notice, Problem
from provision.rows import version_key
from provision.steps import BEFORE_PACKAGES, MODULES, PACKAGES, SERVICES, SOURCES, Context, Result, gpus, repository
from provision.steps.files import file_item
from provision.steps.gpus import Choice, Gpu

STEP = "driver"
BLACKLIST = "/etc/modprobe.d/mlhost-nouveau.conf"
BLACKLIST_TEXT = "# Written by mlhost: nouveau must not take the GPU before NVIDIA's driver does.\nblacklist nouveau\noptions nouveau modeset=0\n"
PREFERENCES = "/etc/apt/preferences.d/mlhost-nvidia"
NON_FREE = "/etc/apt/sources.list.d/mlhost-non-free"
WATCHED = (BLACKLIST, PREFERENCES)


@dataclass(frozen=True)
class Driver:
    """What the later steps can count on: usable GPUs, and whether a driver is `working`, `planned` or there will be `none`."""

    count: int
    state: str


def _nothing() -> dict[str, object]:
    return {"branch": None, "flavor": None, "source": None, "packages": [], "repository": None, "secure_boot": None}


def _skip(why: str, count: int = 0) -> tuple[Result, Driver]:
    decisions = {STEP: Decision("skip", why, _nothing()), "fabricmanager": Decision("skip", why, {"packages": []})}
    return Result(decisions=decisions), Driver(count, "none")


def _refuse(ctx: Context, problem: Problem, details: dict[str, object] | None = None) -> tuple[Result, Driver]:
    item = Item("driver/packages", STEP, "packages", REFUSED, problem.message, phase=PACKAGES)
    decisions = {
        STEP: Decision("refuse", problem.message, details or _nothing()),
        "fabricmanager": Decision("skip", "there is no driver to match", {"packages": []}),
    }
    return Result((item,), decisions, (problem,)), Driver(len(ctx.facts.gpus), "none")


def decide(ctx: Context) -> tuple[Result, Driver]:
    """The driver's items and what the later steps can count on."""
    facts, spec = ctx.facts, ctx.spec
    if spec.gpu == "ignore":
        return _skip("the playbook asks for a Docker host only")
    if facts.nvidia_pci is None:
        return _refuse(
            ctx,
            Problem(
                "driver/unknown",
                "Which devices are on the PCI bus could not be read.",
                "Check that /sys is mounted and that mlhost may read it.",
            ),
        )
    if not facts.gpus:
        if spec.gpu == "required":
            return _refuse(
                ctx,
                Problem(
                    "driver/no-gpu",
                    "The playbook requires a GPU, and there is no NVIDIA GPU on this machine's PCI bus.",
                    "Check the instance type or the card's seating, or use `--set gpu=auto` for a plain Docker host.",
                ),
            )
        return _skip("there is no NVIDIA GPU on the PCI bus")
    found = gpus.found(ctx)
    problem = gpus.impossible(ctx, found)
    if problem:
        return _refuse(ctx, problem)
    kept = _working(ctx, found)
    if kept:
        return kept
    if spec.driver.install == "never":
        why = "the playbook leaves the driver alone, and there is no working one"
        result, driver = _skip(why)
        return Result((Item("driver/packages", STEP, "packages", LATER, why, phase=PACKAGES),), result.decisions), driver
    nvidia = facts.nvidia
    if nvidia and nvidia.loaded and nvidia.on_disk and nvidia.loaded != nvidia.on_disk:
        why = f"module {nvidia.loaded} is loaded but {nvidia.on_disk} is installed; only a reboot brings them together"
        item = Item(
            "driver/reboot",
            STEP,
            "reboot",
            CHANGE,
            why,
            {"module": nvidia.on_disk},
            {"module": nvidia.loaded},
            Reboot(why),
            phase=MODULES,
        )
        decision = Decision("keep", why, {**_nothing(), "branch": nvidia.on_disk.split(".", maxsplit=1)[0], "source": "present"})
        return Result(
            (item,), {STEP: decision, "fabricmanager": Decision("skip", "decided after the reboot", {"packages": []})}
        ), Driver(len(found), "planned")
    chosen = gpus.choose(ctx, found, "newest" if _switches(ctx) else "")
    if isinstance(chosen, Problem):
        return _refuse(ctx, chosen)
    return _install(ctx, found, chosen)


def _working(ctx: Context, found: tuple[Gpu, ...]) -> tuple[Result, Driver] | None:
    nvidia, spec = ctx.facts.nvidia, ctx.spec.driver
    if not nvidia or nvidia.smi_rc != 0 or not nvidia.gpus:
        return None
    version = nvidia.driver_version or nvidia.loaded
    branch = version.split(".", maxsplit=1)[0]
    flavor = {True: "open", False: "proprietary", None: None}[nvidia.loaded_open]
    short = []
    if spec.branch not in ("auto", branch):
        short.append(f"the playbook wants branch {spec.branch}")
    if spec.minimum and version_key(version) < version_key(spec.minimum):
        short.append(f"the playbook wants at least {spec.minimum}")
    if flavor and spec.flavor not in ("auto", flavor):
        short.append(f"the playbook wants the {spec.flavor} module")
    details = {**_nothing(), "branch": branch, "flavor": flavor, "secure_boot": ctx.facts.secure_boot, "source": "present"}
    if short:
        if spec.replace:
            return None
        return _refuse(
            ctx,
            Problem(
                "driver/replace",
                f"Driver {version} works, but {' and '.join(short)}; a working driver is not replaced without consent.",
                "Allow it with `--set driver.replace=true`, or drop the demand from the playbook.",
            ),
            details,
        )
    why = f"driver {version} works with {len(nvidia.gpus)} GPU{'s' if len(nvidia.gpus) != 1 else ''}" + (
        f" and satisfies >= {spec.minimum}" if spec.minimum else ""
    )
    state = {"version": version, "gpus": len(nvidia.gpus)}
    fabric = _fabric(ctx, found, "", branch, version)
    items = [
        Item("driver/packages", STEP, "packages", OK, why, state, state, phase=PACKAGES),
        *_persistenced(ctx.facts, False),
        *fabric.items,
    ]
    notices: tuple[Notice, ...] = ()
    if len(nvidia.gpus) != len(found):
        notices = (Notice("driver/count", f"{len(found)} GPUs are on the PCI bus, but the driver shows {len(nvidia.gpus)}."),)
    return Result(tuple(items), {STEP: Decision("keep", why, details), **fabric.decisions}, fabric.problems, notices), Driver(
        len(found), "working"
    )


def _install(ctx: Context, found: tuple[Gpu, ...], choice: Choice) -> tuple[Result, Driver]:
    facts, bundle = ctx.facts, choice.bundle
    vendor = ctx.catalog.repository(bundle.repository, ctx.platform) if bundle.repository else None
    repo = repository.mirrored(vendor, ctx.spec.mirrors.cuda) if vendor else None
    wanted = (*(Package(n, bundle.versions.get(n, "")) for n in bundle.packages), *(Package(h) for h in bundle.headers))
    details: dict[str, object] = {
        "branch": choice.branch,
        "flavor": choice.flavor,
        "source": choice.source,
        "packages": [p.name for p in wanted],
        "repository": repository.details(repo) if repo else None,
        "secure_boot": facts.secure_boot,
    }
    if facts.secure_boot and not bundle.prebuilt:
        return _refuse(
            ctx,
            Problem(
                "driver/secure-boot",
                "Secure Boot is on, and the kernel module would be built and signed on this machine with a key that the firmware does not know: it would not load.",
                "Use a system with signed prebuilt modules (Ubuntu), or switch Secure Boot off for this machine; or enrol the machine's own key at its console "
                "(`mokutil --import /var/lib/dkms/mok.pub`, reboot, confirm), install the driver by hand, and run mlhost again.",
            ),
            details,
        )
    if facts.kernel is None and not bundle.prebuilt:
        return _refuse(
            ctx,
            Problem(
                "driver/kernel",
                "The kernel's version is not known, so its headers cannot be chosen.",
                "Run mlhost on the live system, or give the tree a proc/sys/kernel/osrelease.",
            ),
            details,
        )
    where = (
        "NVIDIA's repository"
        if repo
        else "the distribution, as signed prebuilt modules"
        if bundle.prebuilt
        else "the distribution"
    )
    why = f"no working driver for {gpus.names(found)}: {choice.why}; from {where}"
    items: list[Item] = []
    if repo:
        items.append(repository.item(ctx, repo, STEP))
    if bundle.components:
        extra = _components(ctx, bundle.components)
        if isinstance(extra, Problem):
            return _refuse(ctx, extra, details)
        items.append(extra)
    items.append(
        file_item(
            facts,
            STEP,
            "driver/nouveau",
            File(BLACKLIST, BLACKLIST_TEXT),
            "nouveau must not take the GPU before NVIDIA's driver does",
            BEFORE_PACKAGES,
        )
    )
    if bundle.preferences:
        text = f"# Written by mlhost: every part of the driver stays on branch {choice.branch}.\n{bundle.preferences}"
        items.append(
            file_item(
                facts,
                STEP,
                "driver/pin",
                File(PREFERENCES, text),
                f"apt must not mix branch {choice.branch} with a newer one",
                BEFORE_PACKAGES,
            )
        )
    present = {p.name: facts.installed(p.name) for p in wanted if facts.installed(p.name)}
    expected = {p.name: p.version or "any" for p in wanted}
    if len(present) == len(wanted):
        items.append(
            Item(
                "driver/packages",
                STEP,
                "packages",
                OK,
                "the driver's packages are installed; the module is not loaded yet",
                expected,
                present,
                phase=PACKAGES,
            )
        )
    else:
        items.append(Item("driver/packages", STEP, "packages", CHANGE, why, expected, present, Packages(wanted), phase=PACKAGES))
    items.append(
        Item(
            "driver/module",
            STEP,
            "kernel-module",
            CHANGE,
            "the module is loaded without a reboot where that works; else a reboot follows",
            {"module": "loaded"},
            {"module": facts.nvidia.loaded if facts.nvidia else ""},
            KernelModule(
                (bundle.module, bundle.module.replace("nvidia", "nvidia-uvm", 1) if bundle.module == "nvidia" else "nvidia-uvm"),
                unload=("nouveau",),
            ),
            phase=MODULES,
        )
    )
    items += _persistenced(facts, True)
    newest = ctx.catalog.branch(choice.branch).newest_release
    fabric = _fabric(ctx, found, choice.source, choice.branch, newest)
    items += fabric.items
    return Result(
        tuple(items),
        {STEP: Decision("install", why, details), **fabric.decisions},
        fabric.problems,
        urls=(repo.index_url,) if repo else (),
    ), Driver(len(found), "planned")


def _switches(ctx: Context) -> int:
    return sum(d.is_bridge and ctx.catalog.is_nvswitch(d.device) for d in ctx.facts.nvidia_pci or ())


def _fabric(ctx: Context, found: tuple[Gpu, ...], source: str, branch: str, version: str) -> Result:
    """The fabric manager, at exactly the driver's version. `source` "" = where the installed driver came from is not known."""
    switches, nvlink5 = _switches(ctx), sum(g.model.nvlink5 for g in found) > 1
    if not switches and not nvlink5:
        return Result(decisions={"fabricmanager": Decision("skip", "there is no NVSwitch on the PCI bus", {"packages": []})})
    why = f"{switches or 'hidden'} NVSwitch devices: CUDA works only with a fabric manager of exactly driver {version}"
    unit = ctx.facts.units.get("nvidia-fabricmanager.service")
    if not source and unit and unit.active == "active":
        return Result(decisions={"fabricmanager": Decision("keep", "the fabric manager runs", {"packages": []})})
    candidates = [source] if source else list(ctx.platform.driver_sources)
    bundle = next(
        (b for b in (ctx.catalog.fabric_packages(ctx.platform, s, branch, version, nvlink5) for s in candidates) if b), None
    )
    if bundle is None:
        problem = Problem(
            "driver/fabricmanager",
            f"{why}, and no source for one is known on {ctx.platform.name}.",
            "Install it by hand, or use `--set driver.source=cuda`.",
        )
        return Result(
            (Item("driver/fabricmanager", STEP, "packages", REFUSED, problem.message, phase=PACKAGES),),
            {"fabricmanager": Decision("refuse", problem.message, {"packages": []})},
            (problem,),
        )
    wanted = tuple(Package(n, bundle.versions.get(n, "")) for n in bundle.packages)
    present = {p.name: ctx.facts.installed(p.name) for p in wanted if ctx.facts.installed(p.name)}
    expected = {p.name: p.version or "any" for p in wanted}
    missing = len(present) < len(wanted) or any(version not in v for n, v in present.items() if bundle.versions.get(n))
    items = [
        Item(
            "driver/fabricmanager",
            STEP,
            "packages",
            CHANGE if missing else OK,
            why,
            expected,
            present,
            Packages(wanted) if missing else None,
            phase=PACKAGES,
        ),
        Item(
            "driver/fabricmanager-service",
            STEP,
            "service",
            CHANGE,
            "CUDA waits for it (error 802)",
            {"running": "active"},
            {"running": unit.active if unit else ""},
            Service(bundle.service if bundle.service.endswith(".service") else f"{bundle.service}.service"),
            phase=SERVICES,
        ),
    ]
    return Result(
        tuple(items), {"fabricmanager": Decision("install", why, {"packages": list(bundle.packages), "version": version})}
    )


def _persistenced(facts: Facts, installing: bool) -> list[Item]:
    unit = facts.units.get("nvidia-persistenced.service")
    expected = {"running": "active"}
    if unit and unit.load == "loaded" and unit.active == "active":
        return [
            Item("driver/persistenced", STEP, "service", OK, "the persistence daemon runs", expected, expected, phase=SERVICES)
        ]
    if not installing and not (unit and unit.load == "loaded"):
        return []
    return [
        Item(
            "driver/persistenced",
            STEP,
            "service",
            CHANGE,
            "without it every first use of a GPU takes seconds, and settings are lost",
            expected,
            {"running": unit.active if unit else ""},
            Service("nvidia-persistenced.service", enabled=None, optional=True),
            phase=SERVICES,
        )
    ]


def _components(ctx: Context, components: tuple[str, ...]) -> Item | Problem:
    """An apt source beside the system's own: the same mirror and suite with more components."""
    facts, suite = ctx.facts, ctx.platform.codename
    own = [s for s in facts.apt_sources if s.enabled and suite in s.suites and "deb" in s.types]
    main = [s for s in own if "main" in s.components and not s.signed_by.startswith("-----BEGIN")]
    expected = {"suite": suite, "components": " ".join(components)}
    missing = [c for c in components if not any(c in s.components for s in own)]
    if not missing:
        return Item(
            "driver/components",
            STEP,
            "apt-repository",
            OK,
            f"the system's apt sources have {' '.join(components)}",
            expected,
            expected,
            phase=SOURCES,
        )
    if not main:
        return Problem(
            "driver/components",
            f"No apt source of this host names {suite} main, so the same mirror's {' '.join(missing)} cannot be added.",
            f"Add {' '.join(missing)} to the system's apt sources, or use `--set driver.source=cuda`.",
        )
    base = main[0]
    path = f"{NON_FREE}.{'sources' if ctx.platform.deb822 else 'list'}"
    text = (deb822 if ctx.platform.deb822 else one_line)(base.uris[0], suite, missing, base.signed_by, ctx.platform.deb_arch)
    return Item(
        "driver/components",
        STEP,
        "apt-repository",
        CHANGE,
        f"the distribution keeps its driver in {ctx.platform.nonfree or ' '.join(missing)}: same mirror, more components",
        expected,
        {"suite": suite, "components": " ".join(base.components)},
        AptRepository("Debian non-free", path, text, None),
        phase=SOURCES,
    )
