"""The drift guard: an unattended update of the kernel or the driver must not take the GPU away at the next boot.

Three ways: `prebuilt` modules that follow the kernel by a metapackage, `dkms` with headers that follow it, or `hold`: neither is updated.
"""

from __future__ import annotations

import re

from provision.actions import Hold, Package, Packages
from provision.model import CHANGE, Item, Notice, Problem
from provision.rows import DriverPackages
from provision.steps import PACKAGES, Context, Result, refused, settled
from provision.steps.engine import there

STEP = "driver"
ITEM, BRANCH = "driver/drift", "driver/branch"
HOLDS = PACKAGES + 5  # between the packages and what uses them
# The kernel's own packages by the names under which updates come, not by those of one release.
_KERNEL = re.compile(
    r"linux-(image|headers|modules-extra)-[a-z][a-z0-9.-]*|linux-(generic|virtual|aws|azure|gcp|oracle|kvm)(-[a-z0-9.]+)*"
    r"|kernel[0-9.]*(-(core|modules|modules-core|modules-extra|devel|devel-matched|default|default-devel|azure|azure-devel|uek|uek-core|uek-devel|hwe|hwe-devel"
    r"|64k|64k-core|64k-modules|64k-devel-matched|rt|rt-core|rt-devel))?"
)


def policy(ctx: Context, bundle: DriverPackages) -> str:
    """The way to go: the playbook's, or the one that fits what the driver is made of."""
    asked = ctx.spec.driver.drift
    if asked != "auto":
        return asked
    if bundle.prebuilt:
        return "prebuilt" if bundle.metapackage else "hold"
    if not bundle.rebuilt:
        return "hold"
    return "dkms" if bundle.headers_meta or ctx.platform.family == "debian" else "hold"


def _by_lock(bundle: DriverPackages) -> bool:
    """Whether nothing but a lock keeps the driver on its branch: no module stream, no preferences, no name with the branch in it."""
    return bool(bundle.locks) and not bundle.stream


def guard(ctx: Context, bundle: DriverPackages, follows: bool) -> Result:
    """The item that must be ok for the GPU to be there after the next update. `follows`: new kernels come by a metapackage."""
    way = policy(ctx, bundle)
    if way == "prebuilt" and not bundle.prebuilt:
        message = "The playbook wants prebuilt modules to follow the kernel, and this driver's module is built on the machine."
        fix = "Use `--set driver.drift=dkms`, `hold` or `auto`."
        problem = Problem(ITEM, message, fix)
        return Result((refused(STEP, "packages", problem, PACKAGES),), problems=(problem,))
    if way == "dkms" and not bundle.prebuilt and not bundle.rebuilt:
        message = f"The playbook wants DKMS to build the module for new kernels, and there is no dkms for {ctx.platform.name}."
        problem = Problem(ITEM, message, "Use `--set driver.drift=hold` or `auto`: kernel and driver are then held.")
        return Result((refused(STEP, "packages", problem, PACKAGES),), problems=(problem,))
    if way == "hold":
        return Result((*_locks(ctx), _held(ctx, ITEM, (*_kernels(ctx, bundle, follows), *bundle.packages), _why_held(ctx, bundle)),))
    items = []
    if way == "dkms" and bundle.prebuilt:
        items.append(_ok("the prebuilt modules follow the kernel, which is as good", {"policy": way}))
    else:
        items.append(_followed(ctx, way, bundle.metapackage if way == "prebuilt" else bundle.headers_meta, follows))
    if _by_lock(bundle):
        why = f"its repository has newer branches beside {bundle.branch}, and nothing but a lock keeps the driver on it"
        items += [*_locks(ctx), _held(ctx, BRANCH, bundle.packages, why)]
    return Result(tuple(items))


def _locks(ctx: Context) -> tuple[Item, ...]:
    """What the package manager itself needs to hold anything."""
    wanted = ctx.platform.lock_packages
    expected: dict[str, object] = dict.fromkeys(wanted, "any")
    missing = [name for name in wanted if not ctx.facts.installed(name)]
    if not wanted:
        return ()
    if not missing:
        return (settled(STEP, "driver/locks", "packages", f"{ctx.platform.package_manager} can hold packages", expected, PACKAGES),)
    why = f"{ctx.platform.package_manager} can hold packages only with this"
    action = Packages(tuple(map(Package, missing)))
    return (Item("driver/locks", STEP, "packages", CHANGE, why, expected, {}, action, phase=PACKAGES),)


def _ok(why: str, state: dict[str, object]) -> Item:
    return settled(STEP, ITEM, "packages", why, state, PACKAGES)


def _followed(ctx: Context, way: str, package: str, follows: bool) -> Item:
    """A metapackage that brings modules, or the headers to build them, with every new kernel."""
    if not follows or not package:
        return _ok("no metapackage brings new kernels to this machine; the module fits the one that is there", {"policy": way})
    what = (
        f"{package} brings a signed module with every new kernel"
        if way == "prebuilt"
        else f"DKMS builds the module for every new kernel, whose headers come by {package}"
    )
    expected: dict[str, object] = {"policy": way, package: "any"}
    have = there(ctx.facts, package)
    if ctx.facts.installed(package):
        return _ok(what, {"policy": way, package: have})
    action = Packages((Package(package),))
    actual: dict[str, object] = {"policy": way, package: have}
    return Item(ITEM, STEP, "packages", CHANGE, f"after an update the GPU must still be there: {what}", expected, actual, action, phase=PACKAGES)


def _kernels(ctx: Context, bundle: DriverPackages, follows: bool) -> tuple[str, ...]:
    """The kernel's packages that are there or will be; none where the prebuilt module fits every kernel of this release."""
    installed = [name for name in ctx.facts.packages or {} if ctx.facts.installed(name)]
    if bundle.prebuilt and not bundle.kernel_suffix and ctx.spec.driver.drift != "hold":
        return ()
    # rpm's names do not carry the release by which they are asked for: kernel-devel-5.14.0-570.el9.x86_64 is kernel-devel.
    headers = [re.sub(r"-\d+\.\d.*$", "", name) for name in bundle.headers]
    coming = [*headers, bundle.headers_meta] if follows else []
    return tuple(sorted({name for name in (*installed, *coming) if _KERNEL.fullmatch(name)}))


def _why_held(ctx: Context, bundle: DriverPackages) -> str:
    if ctx.spec.driver.drift == "hold":
        return "the playbook holds kernel and driver; security updates of both are then a matter of hand"
    if bundle.prebuilt and not bundle.kernel_suffix:
        return "the signed module fits every kernel of this release, and all else must have exactly its version, so neither moves without the other"
    if bundle.prebuilt:
        return "the module is made for one kernel, so neither moves without the other"
    if not bundle.rebuilt:
        return (
            f"the module was built for the running kernel, and there is no dkms for {ctx.platform.name} that would build it for another: "
            "to move to a newer kernel, release the lock, boot it, and run mlhost again"
        )
    return "no package brings this kernel's headers with its updates, so kernel and driver are held"


def _held(ctx: Context, identifier: str, names: tuple[str, ...], why: str) -> Item:
    known = ctx.facts.packages or {}
    if not names:
        return settled(STEP, identifier, "hold", "there is no package to hold: no package brings new kernels to this machine", {"policy": "hold"}, HOLDS)
    missing = [name for name in names if not (name in known and known[name].installed and known[name].held)]
    expected: dict[str, object] = dict.fromkeys(names, "held")
    if not missing:
        return settled(STEP, identifier, "hold", f"held: {why}", expected, HOLDS)
    actual: dict[str, object] = {n: "held" if n not in missing else "free" for n in names if n in known and known[n].installed}
    return Item(identifier, STEP, "hold", CHANGE, why, expected, actual, Hold(names), phase=HOLDS)


def unknown(version: str) -> tuple[Notice, ...]:
    """What is said of a working driver that no package database knows."""
    text = f"Driver {version} was not installed from packages that mlhost knows; whether it outlives a kernel update is a matter of how it was installed."
    return (Notice(ITEM, text),)
