"""Installing the NVIDIA driver that `gpus.choose` has chosen: its source, its packages in one transaction, its module."""

from __future__ import annotations

import re
from collections.abc import Mapping

from provision.actions import AptRepository, Command, File, KernelModule, Package, Packages, Runfile, Service
from provision.aptsource import deb822, one_line
from provision.model import CHANGE, LATER, Decision, Item, Notice, Problem
from provision.rows import Repository
from provision.steps import (
    BEFORE_PACKAGES,
    MODULES,
    PACKAGES,
    SERVICES,
    SOURCES,
    Context,
    Result,
    becomes_image,
    drift,
    fabric,
    gpus,
    installed,
    repository,
    rpm_repository,
    settled,
)
from provision.steps.engine import fits, there
from provision.steps.files import file_item
from provision.steps.gpus import Choice, Gpu
from provision.watched import BLACKLIST, PERSISTENCED, PREFERENCES

STEP = "driver"
INSTALLER = MODULES - 2  # after the packages that it builds with, and before what loads the module
# nova_core is the kernel's newer driver for the same GPUs, from 6.19 on.
BLACKLIST_TEXT = (
    "# Written by mlhost: no other driver must take the GPU before NVIDIA's does.\n"
    "blacklist nouveau\nblacklist nova_core\noptions nouveau modeset=0\n"
)
PERSISTENCED_TEXT = """\
# Written by mlhost: NVIDIA's installer brings the program alone.
[Unit]
Description=NVIDIA persistence daemon
After=systemd-modules-load.service

[Service]
Type=forking
ExecStart=/usr/bin/nvidia-persistenced
ExecStopPost=/bin/rm -rf /run/nvidia-persistenced
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""
MORE_COMPONENTS = "/etc/apt/sources.list.d/mlhost-non-free"
# The ramdisk loads nouveau at the next boot unless it is made after the blacklist.
INITRAMFS_CHECK = f'[ ! -e "/boot/initrd.img-$(uname -r)" ] || [ "/boot/initrd.img-$(uname -r)" -nt {BLACKLIST} ]'
DRACUT_CHECK = f"""for image in "/boot/initramfs-$(uname -r).img" "/boot/initrd-$(uname -r)"; do
    [ ! -e "$image" ] || [ "$image" -nt {BLACKLIST} ] || exit 1
done"""


def decide(ctx: Context, own: tuple[Gpu, ...], choice: Choice) -> Result:
    """Everything for the chosen driver, or the refusal."""
    facts, bundle = ctx.facts, choice.bundle
    repo = repository.of(ctx, bundle.repository) if bundle.repository else None
    wanted = _wanted(ctx, choice)
    details: dict[str, object] = {
        "branch": choice.branch,
        "flavor": choice.flavor,
        "source": choice.source,
        "packages": [*([bundle.follows] if bundle.follows else []), *(p.name for p in wanted)],
        "repository": repository.details(repo) if repo else None,
        "secure_boot": facts.secure_boot,
    }
    components = _components(ctx, choice) if bundle.components else None
    besides = installed.modules_besides(facts, (*bundle.packages, *(p.name for p in wanted)), choice.branch, choice.flavor == "open")
    others = tuple(n for n in ctx.platform.driver_remove if there(facts, n) and n not in bundle.packages)
    remove = tuple(dict.fromkeys((*besides, *others)))
    problem = components if isinstance(components, Problem) else _unbuildable(ctx, choice) or _beside(ctx, choice) or _unasked(ctx, choice, remove)
    if problem:
        item = Item("driver/packages", STEP, "packages", "refused", problem.message, phase=PACKAGES)
        decisions = {STEP: Decision("refuse", problem.message, details), **fabric.skip("there is no driver to match")}
        return Result((item,), decisions, (problem,))
    why = f"no working driver for {gpus.names(own)}: {choice.why}; from {_where(choice, repo)}"
    sources, more = _sources(ctx, choice)
    items = [*sources, *_before(ctx, choice, repo), *([components] if isinstance(components, Item) else [])]
    items += _packages(ctx, choice, wanted, remove, why)
    guarded = drift.guard(ctx, bundle, gpus.kernel_follows(ctx, bundle))
    items += guarded.items
    items += _runfile(ctx, choice, why)
    items += _module(ctx, INSTALLER - 1 if bundle.installer else MODULES)
    items += _persistenced(ctx) if bundle.installer else fabric.persistenced(facts, True)
    version = choice.version or ctx.catalog.branch(choice.branch).newest_release
    manager = fabric.manager(ctx, own, choice.source, choice.branch, version, bundle.follows)
    known = {i.id for i in items}
    items += [i for i in manager.items if i.id not in known]
    urls = (repo.index_url, *more) if repo else more
    if bundle.installer and not ctx.spec.mirrors.driver and any(i.kind == "runfile" and i.state == CHANGE for i in items):
        urls = (bundle.installer.check_url, *urls)
    decisions = {STEP: Decision("install", why, details), **manager.decisions}
    problems = (*guarded.problems, *manager.problems)
    if guarded.problems:
        decisions[STEP] = Decision("refuse", guarded.problems[0].message, details)
    return Result(tuple(items), decisions, problems, _notices(ctx, choice), urls=urls)


def _wanted(ctx: Context, choice: Choice) -> tuple[Package, ...]:
    """All packages of the transaction: the driver's own, and those it is built with."""
    bundle = choice.bundle
    names = [n for n in bundle.packages if n != bundle.follows]
    # A module for one kernel comes with that kernel: the newest is the one that is still there.
    globs = {} if bundle.kernel_suffix else bundle.versions
    own = tuple(Package(n, f"@{bundle.follows}" if bundle.follows else _asked(globs.get(n, ""))) for n in names)
    beside = (*_headers(ctx, choice), *bundle.extra, *([bundle.compiler] if bundle.compiler else []))
    return (*own, *(Package(n, _asked(bundle.versions.get(n, ""))) for n in beside))


def _headers(ctx: Context, choice: Choice) -> tuple[str, ...]:
    """Headers for the running kernel; and for those to come, where those come by a metapackage too."""
    meta = choice.bundle.headers_meta
    if ctx.platform.family != "debian":
        return (*choice.bundle.headers, *([meta] if meta and choice.bundle.rebuilt else []))
    follows = bool(meta) and bool(ctx.facts.installed(meta.replace("linux-headers-", "linux-image-", 1)))
    return (*choice.bundle.headers, meta) if follows else choice.bundle.headers


def _where(choice: Choice, repo: Repository | None) -> str:
    if choice.bundle.installer:
        return f"NVIDIA's .run installer of {choice.version}, as no repository that can be used has it"
    if repo:
        return "NVIDIA's repository" if repo.name == "cuda" else repo.title
    return "the distribution, as signed prebuilt modules" if choice.bundle.prebuilt else "the distribution"


def _notices(ctx: Context, choice: Choice) -> tuple[Notice, ...]:
    bundle, notices = choice.bundle, []
    if ctx.facts.secure_boot is None and not bundle.prebuilt:
        text = "Whether Secure Boot is on could not be read; if it is, the module built here will not load."
        notices.append(Notice("driver/secure-boot", text))
    kernel = gpus.kernel(ctx.facts)
    if not bundle.prebuilt and not bundle.headers and kernel:
        text = f"Kernel {kernel} is not {ctx.platform.name}'s own, so no package is known that has its headers: the module is built only if they are there."
        notices.append(Notice("driver/headers", text))
    if bundle.installer and not gpus.kernel_follows(ctx, bundle):
        text = "No package brings new kernels with their headers to this machine: after a new kernel DKMS can build the module only once its headers are there."
        notices.append(Notice("driver/runfile", text))
    return tuple(notices)


def _beside(ctx: Context, choice: Choice) -> Problem | None:
    """Packages of a driver, beside which NVIDIA's installer must not put another one."""
    packages = installed.driver_packages(ctx.facts)
    if choice.bundle.installer is None or not packages:
        return None
    message = f"{', '.join(sorted(packages))} {'is' if len(packages) == 1 else 'are'} here; NVIDIA's .run installer beside packages of a driver would mix two drivers."
    return Problem("driver/runfile", message, "Remove the packages (no purge is needed), then run mlhost again.")


def _runfile(ctx: Context, choice: Choice, why: str) -> list[Item]:
    """The installer, where the driver comes in no package."""
    installer, nvidia = choice.bundle.installer, ctx.facts.nvidia
    if installer is None:
        return []
    expected: dict[str, object] = {"version": installer.version, "sha256": installer.sha256}
    if nvidia and nvidia.installed_by_runfile and nvidia.on_disk == installer.version:
        done = f"NVIDIA's installer of {installer.version} has run; its module is not seen yet"
        return [settled(STEP, "driver/runfile", "runfile", done, expected, INSTALLER)]
    mirror = ctx.spec.mirrors.driver.rstrip("/")
    url = mirror + installer.url[len(installer.base) :] if mirror else installer.url
    action = Runfile(installer.version, url, installer.sha256, installer.options, installer.cc)
    actual: dict[str, object] = {"version": nvidia.on_disk if nvidia else ""}
    return [Item("driver/runfile", STEP, "runfile", CHANGE, why, expected, actual, action, phase=INSTALLER)]


def _persistenced(ctx: Context) -> list[Item]:
    """NVIDIA's installer brings the persistence daemon, and no unit that starts it; packages bring both."""
    unit = ctx.facts.units.get("nvidia-persistenced.service")
    if unit and unit.load == "masked":
        return []
    why = "NVIDIA's installer brings the persistence daemon without a unit that starts it"
    file = file_item(ctx.facts, STEP, "driver/persistenced-unit", File(PERSISTENCED, PERSISTENCED_TEXT), why, INSTALLER)
    expected, actual = {"enabled": "enabled", "running": "active"}, {"enabled": unit.enabled if unit else "", "running": unit.active if unit else ""}
    why = "without it every first use of a GPU takes seconds, and settings are lost"
    action = Service("nvidia-persistenced.service")
    return [file, Item("driver/persistenced", STEP, "service", CHANGE, why, expected, dict(actual), action, phase=SERVICES - 2)]


def _unbuildable(ctx: Context, choice: Choice) -> Problem | None:
    """Why a module cannot be built on this machine; nothing to say of a prebuilt one."""
    if choice.bundle.prebuilt:
        return None
    if ctx.facts.secure_boot:
        return Problem(
            "driver/secure-boot",
            "Secure Boot is on, and the kernel module would be built and signed on this machine with a key that the firmware does not know: "
            "it would not load.",
            "Use a system with signed prebuilt modules (Ubuntu with its own kernel), or switch Secure Boot off for this machine; or enrol the "
            "machine's own key at its console (`mokutil --import /var/lib/dkms/mok.pub`, reboot, confirm), install the driver by hand, and run "
            "mlhost again.",
        )
    if not gpus.kernel(ctx.facts):
        message = "The kernel's version is not known, so its headers cannot be chosen."
        fix = "Run mlhost on the live system, or give the tree a proc/sys/kernel/osrelease."
        if becomes_image(ctx.facts):
            fix = "Install a kernel in the tree first, or leave the driver to the running machine: `--set driver.install=never`."
        return Problem("driver/kernel", message, fix)
    return None


def _before(ctx: Context, choice: Choice, repo: Repository | None) -> list[Item]:
    """What must be there before the packages: the vendor's source, nouveau kept away, apt kept on the branch."""
    items = [repository.item(ctx, repo, STEP)] if repo else []
    why = "nouveau must not take the GPU before NVIDIA's driver does"
    items.append(file_item(ctx.facts, STEP, "driver/nouveau", File(BLACKLIST, BLACKLIST_TEXT), why, BEFORE_PACKAGES))
    if choice.bundle.preferences:
        text = f"# Written by mlhost: every part of the driver stays on branch {choice.branch}.\n{choice.bundle.preferences}"
        why = f"apt must not mix branch {choice.branch} with a newer one"
        items.append(file_item(ctx.facts, STEP, "driver/pin", File(PREFERENCES, text), why, BEFORE_PACKAGES))
    return items


def _asked(glob: str) -> str:
    """The version to ask apt for: a prefix. A pattern with more behind its star is left to the preferences, which name it too."""
    return glob if "*" not in glob[:-1] else ""


def _unasked(ctx: Context, choice: Choice, remove: tuple[str, ...]) -> Problem | None:
    if not remove or ctx.spec.driver.replace:
        return None
    names = ", ".join(remove)
    message = f"{names} {'is' if len(remove) == 1 else 'are'} here and cannot stand beside the {choice.flavor} module of branch {choice.branch}."
    return Problem(
        "driver/conflicts",
        message,
        "Allow their removal (no purge) with `--set driver.replace=true`, or ask for that branch and flavour.",
    )


def _packages(ctx: Context, choice: Choice, wanted: tuple[Package, ...], remove: tuple[str, ...], why: str) -> list[Item]:
    """The one transaction; before it the module whose version all else must have, where there is such a one."""
    bundle, facts = choice.bundle, ctx.facts
    items = []
    if bundle.follows:
        # Of which version of the branch it is, is the distribution's to say.
        module = Package(bundle.follows, f"{choice.branch}.*")
        reason = "the distribution's own signed module goes first: every other part must have its version"
        items.append(_transaction(ctx, "driver/kernel-package", Packages((module,), remove), {module.name: module.version}, reason, SOURCES + 5))
        remove = ()
    modules = (bundle.stream,) if bundle.stream else ()
    action = Packages(wanted, remove, modules=modules, allow_erasing=bool(remove) and ctx.platform.family != "debian")
    globs = {n: glob for n, glob in bundle.versions.items() if not bundle.follows or n in bundle.headers}
    if bundle.follows:
        have = re.split("[_-]", facts.installed(bundle.follows).partition(":")[2] or facts.installed(bundle.follows))[0]
        globs.update({p.name: f"{have}*" for p in wanted if p.version.startswith("@") and have})
    if bundle.kernel_suffix:
        globs = {}
    if bundle.installer:
        why = "NVIDIA's installer builds the kernel module with these"
        why += ", and DKMS builds it anew for later kernels" if bundle.rebuilt else ""
    items.append(_transaction(ctx, "driver/packages", action, globs, why, PACKAGES))
    return items


def _transaction(
    ctx: Context, identifier: str, action: Packages, globs: Mapping[str, str], why: str, phase: int
) -> Item:
    facts = ctx.facts
    have = {p.name: facts.installed(p.name) for p in action.install}
    expected: dict[str, object] = {p.name: globs.get(p.name) or "any" for p in action.install}
    streams = [m.partition(":") for m in action.modules]
    expected.update({f"module {name}": stream for name, _, stream in streams})
    enabled = {f"module {name}": facts.modules.get(name, "") for name, _, _ in streams}
    right = all(facts.modules.get(name) == stream for name, _, stream in streams)
    if right and not action.remove and all(version and fits(version, globs.get(name, "*")) for name, version in have.items()):
        built = "is not loaded yet" if facts.nvidia and facts.nvidia.on_disk else "is not seen yet"
        done = f"the driver's packages are installed; its module {built}"
        return settled(STEP, identifier, "packages", done, expected, phase)
    present: dict[str, object] = {name: there(facts, name) for name in (*have, *action.remove) if there(facts, name)}
    present.update({name: stream for name, stream in enabled.items() if stream})
    return Item(identifier, STEP, "packages", CHANGE, why, expected, present, action, phase=phase)


def _sources(ctx: Context, choice: Choice) -> tuple[list[Item], tuple[str, ...]]:
    """Further sources that a driver built here needs (EPEL and what goes with it), and their indexes."""
    bundle, items, urls = choice.bundle, [], []
    if "epel" in bundle.needs:
        repo = repository.of(ctx, "epel")
        items += [*rpm_repository.builder(ctx, STEP), *rpm_repository.epel(ctx, repo, STEP)]
        urls += [repo.index_url for i in items if repo and i.id == "driver/epel" and i.kind == rpm_repository.KIND and i.state == CHANGE]
    if bundle.release:
        expected: dict[str, object] = {bundle.release: "any"}
        if ctx.facts.installed(bundle.release):
            items.append(settled(STEP, "driver/release", "packages", f"{bundle.release} is installed", expected, SOURCES))
        else:
            why = f"{bundle.release} is the distribution's own package that brings its repository of NVIDIA's packages"
            action = Packages((Package(bundle.release),))
            items.append(Item("driver/release", STEP, "packages", CHANGE, why, expected, {}, action, phase=SOURCES - 1))
    return items, tuple(urls)


def _module(ctx: Context, ramdisk: int) -> list[Item]:
    nvidia, items = ctx.facts.nvidia, []
    if nvidia and nvidia.nouveau_loaded and ctx.platform.initramfs_update:
        why = "nouveau is loaded, and would be again at the next boot, from a ramdisk that does not know it is unwanted"
        check = DRACUT_CHECK if ctx.platform.initramfs == "dracut" else INITRAMFS_CHECK
        action = Command(check, ctx.platform.initramfs_update, undo=":", live=True)
        state = {"ramdisk": "newer than the blacklist"}
        items.append(Item("driver/initramfs", STEP, "command", CHANGE, why, state, {"ramdisk": ""}, action, phase=ramdisk))
    loaded = nvidia.loaded if nvidia else ""
    why = "the module is loaded without a reboot where that works; else a reboot follows"
    # Debian's files are named nvidia-current and the like; its own modprobe.d makes them answer to these names, which are also those in /sys/module.
    load = KernelModule(("nvidia", "nvidia-uvm"), unload=("nouveau",))
    expected, actual = {"module": "loaded"}, {"module": loaded}
    items.append(Item("driver/module", STEP, "kernel-module", CHANGE, why, expected, actual, load, phase=MODULES))
    return items


def _components(ctx: Context, choice: Choice) -> Item | Problem:
    """An apt source beside the system's own: the same mirror, suite and key with more components."""
    facts, suite, platform, components = ctx.facts, ctx.platform.codename, ctx.platform, choice.bundle.components
    own = [s for s in facts.apt_sources if s.enabled and suite in s.suites and "deb" in s.types]
    # apt refuses two sources of one suite with different keys, and a key written into a source cannot be repeated by its path.
    main = next((s for s in own if "main" in s.components and not s.signed_by.startswith("-----BEGIN")), None)
    expected = {"suite": suite, "components": " ".join(components)}
    missing = [c for c in components if not any(c in s.components for s in own)]
    identifier, more = "driver/components", " ".join(missing)
    if not missing:
        return settled(
            STEP, identifier, "apt-repository", f"the system's apt sources have {' '.join(components)}", expected, SOURCES
        )
    if not facts.live and not facts.apt_sources:
        why = f"the same mirror's {more} are added once the system's own apt sources are known; this tree has none"
        return Item(identifier, STEP, "apt-repository", LATER, why, expected, phase=SOURCES)
    if main is None:
        message = f"No apt source of this host names {suite} main, so the same mirror's {more} cannot be added, which the driver's packages need."
        return Problem(identifier, message, f"Add {more} to the system's apt sources.")
    text = deb822 if platform.deb822 else one_line
    action = AptRepository(
        f"{platform.base_id.capitalize()} {more}",
        f"{MORE_COMPONENTS}.{'sources' if platform.deb822 else 'list'}",
        text(main.uris[0], suite, missing, main.signed_by, platform.deb_arch),
        None,
    )
    whose = "the distribution keeps its driver in" if choice.source == "distro" else "NVIDIA's packages depend on some in"
    why = f"{whose} {more}: same mirror, more components"
    actual = {"suite": suite, "components": " ".join(main.components)}
    return Item(identifier, STEP, "apt-repository", CHANGE, why, expected, actual, action, phase=SOURCES)
