"""A plan for a tree that is to become an image: what can be done while nothing runs, and what is left for the first boot.

Pure. What needs the running machine (a kernel module, a service that runs, device nodes, the proof) gets the state `later` and keeps its action;
units are enabled in the tree. `provision.firstboot` makes the program that carries the rest out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from provision.actions import ON_BUS, Command, Enable, KernelModule, Mount, Reboot, Runfile, Service, Smoke
from provision.model import CHANGE, LATER, OK, REFUSED, Disk, Facts, Item, PciDevice, Plan, Problem
from provision.steps import MODULES
from provision.steps.daemon import ENABLED
from provision.watched import BLACKLIST

STEP = "image"
# While an image is made its ramdisk is made for any machine, not for the one it is made on.
RAMDISK_CHECK = """for image in "/boot/initrd.img-$KERNEL" "/boot/initramfs-$KERNEL.img" "/boot/initrd-$KERNEL"; do
    [ ! -e "$image" ] || [ "$image" -nt {file} ] || exit 1
done"""
RAMDISK_CHANGE = """if command -v update-initramfs >/dev/null 2>&1; then
    update-initramfs -u -k "$KERNEL"
else
    for image in "/boot/initramfs-$KERNEL.img" "/boot/initrd-$KERNEL"; do
        [ ! -e "$image" ] || dracut --force --no-hostonly "$image" "$KERNEL" || exit 1
    done
fi"""
MODULE_CHECK = """grep -Eq '(^|/)nvidia(-current)?[.]ko' "/lib/modules/$KERNEL/modules.dep" """
MODULE_CHANGE = """if ! command -v dkms >/dev/null 2>&1; then
    echo "no package has brought a module for kernel $KERNEL, and there is no dkms to build one" >&2
    exit 1
fi
dkms autoinstall -k "$KERNEL" && depmod "$KERNEL" """


def as_image(facts: Facts, devices: Sequence[PciDevice], disk: Disk | None) -> Facts:
    """The facts of a tree, seen as of the machine it is for: with `devices` on its bus, if they were said, and the kernel that will be booted."""
    kernels = sorted(facts.kernels or {}, key=_natural)
    return replace(
        facts,
        nvidia_pci=tuple(devices) if devices else facts.nvidia_pci,
        kernel=kernels[-1] if kernels else facts.kernel,
        disks={path: replace(disk, path=path) for path in ("/", "/var/lib/docker")} if disk else facts.disks,
        unknown=tuple(name for name in facts.unknown if not (name == "nvidia_pci" and devices)),
    )


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", text)]


def split(plan: Plan, facts: Facts) -> Plan:
    """The plan with each item done now or left for the first boot."""
    items: list[Item] = []
    for item in plan.items:
        items += _parted(item, facts)
    if plan.decisions["driver"].action == "install" and facts.kernel:
        items += _module(facts)
    problems = (*plan.problems, *_impossible(items, facts))
    if problems:
        items = [replace(i, state=REFUSED) if i.state == CHANGE else i for i in items]
    return replace(plan, items=tuple(sorted(items, key=lambda i: i.phase)), problems=problems, reboot="no", restarts=())


def _parted(item: Item, facts: Facts) -> list[Item]:
    """An item as one or two: what of it can be done in a tree, and what cannot."""
    action = item.action
    if item.state not in (CHANGE, LATER) or action is None or not needs_the_machine(item):
        return [item]
    if isinstance(action, Smoke):
        action = replace(action, gpus=ON_BUS) if action.gpus else action
    if isinstance(action, Service):
        # Whatever it reads when it starts was there before the first boot.
        action = replace(action, act="restart", newer_than=(), stamps=())
    later = replace(item, state=LATER, action=action, restarts=())
    if isinstance(action, Service) and action.enabled and facts.systemd:
        return [_enabled(item, action.name, facts), later]
    return [later]


def needs_the_machine(item: Item) -> bool:
    """Whether an item can only be carried out where the image runs."""
    action = item.action
    if isinstance(action, Command):
        return action.live
    return isinstance(action, (Service, KernelModule, Smoke, Mount, Runfile))


def to_finish(items: Sequence[Item]) -> tuple[Item, ...]:
    """What a program has to do at the first boot. Nothing, where it is services alone that start at every boot."""
    left = tuple(i for i in items if i.state == LATER and i.action is not None)
    return () if all(isinstance(i.action, Service) and i.action.enabled for i in left) else left


def _enabled(item: Item, unit: str, facts: Facts) -> Item:
    identifier = f"{item.id}-enabled"
    expected: Mapping[str, object] = {"enabled": "enabled"}
    known = facts.units.get(unit)
    if known and known.enabled in ENABLED:
        return replace(item, id=identifier, state=OK, why=f"{unit} starts at boot", expected=expected, actual=expected, action=None)
    actual: Mapping[str, object] = {"enabled": known.enabled if known else ""}
    why = "it must start at every boot, the first one too"
    return replace(item, id=identifier, state=CHANGE, kind="enable", why=why, expected=expected, actual=actual, action=Enable(unit))


def _module(facts: Facts) -> list[Item]:
    """The module is there for the kernel that will be booted, and the ramdisk keeps other drivers away from the GPU."""
    kernel = facts.kernel or ""
    env = (("KERNEL", kernel),)
    expected: Mapping[str, object] = {"kernel": kernel, "module": "nvidia"}
    there = bool((facts.kernels or {}).get(kernel))
    action = Command(MODULE_CHECK, MODULE_CHANGE, undo=":", env=env)
    why = f"the image boots kernel {kernel}, whatever kernel runs where it is made"
    actual: Mapping[str, object] = {"kernel": kernel, "module": "nvidia" if there else ""}
    built = Item(f"{STEP}/module", STEP, "command", OK if there else CHANGE, why, expected, actual, None if there else action, phase=MODULES - 1)
    if there and BLACKLIST in facts.paths and facts.paths[BLACKLIST].kind == "file":
        return [built]
    ramdisk = Command(RAMDISK_CHECK.format(file=BLACKLIST), RAMDISK_CHANGE, undo=":", env=env)
    why = "a ramdisk made before the blacklist would load nouveau"
    state: Mapping[str, object] = {"ramdisk": "newer than the blacklist"}
    return [built, Item(f"{STEP}/ramdisk", STEP, "command", CHANGE, why, state, {"ramdisk": ""}, ramdisk, phase=MODULES)]


def _impossible(items: Sequence[Item], facts: Facts) -> list[Problem]:
    """What neither a tree nor its first boot can do."""
    problems = []
    boots = [i.id for i in items if isinstance(i.action, Reboot) and i.state == CHANGE]
    if boots:
        message = f"{', '.join(boots)} wants a reboot halfway, and a tree cannot boot."
        problems.append(Problem(f"{STEP}/reboot", message, "Leave that step out of the image's playbook, and run `mlhost setup` on the booted machine."))
    if not facts.systemd and to_finish(items):
        message = "There is no systemd in this tree, so nothing could finish at the first boot what needs the machine."
        problems.append(Problem(f"{STEP}/systemd", message, "Set the machine up once it runs: `mlhost setup`."))
    return problems
