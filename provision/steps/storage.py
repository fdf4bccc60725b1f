"""A local disk for Docker's data: formatted only while it is blank, mounted at every boot before Docker starts."""

from __future__ import annotations

from provision.actions import Mount
from provision.model import CHANGE, OK, REFUSED, BlockDevice, Facts, Item, Notice, Problem
from provision.steps import BEFORE_PACKAGES, Context, Result

STEP = "storage"
# Models of cloud instances' local disks. Sources: AWS EC2 user guide ("Amazon EC2 NVMe Instance Storage"), Azure docs ("Microsoft NVMe Direct Disk"), GCP ("nvme_card").
LOCAL_MODELS = ("Amazon EC2 NVMe Instance Storage", "Microsoft NVMe Direct Disk", "nvme_card")


def _candidate(facts: Facts, disk: str) -> BlockDevice | None:
    devices = sorted(facts.block_devices or (), key=lambda d: d.name)
    if disk == "instance-store":
        return next((d for d in devices if d.model.strip().startswith(LOCAL_MODELS)), None)
    return next((d for d in devices if f"/dev/{d.name}" == disk), None)


def decide(ctx: Context) -> Result:
    """The mount, or why there is none."""
    spec, facts = ctx.spec.storage, ctx.facts
    if not spec.disk:
        return Result()
    expected = {"path": spec.path, "disk": spec.disk}
    identifier = "storage/mount"
    if facts.block_devices is None:
        return Result(notices=(Notice(identifier, "The machine's disks could not be read, so none was mounted."),))
    mounted = next((d for d in facts.block_devices if spec.path in d.mounts), None)
    if mounted:
        return Result(
            (
                Item(
                    identifier,
                    STEP,
                    "mount",
                    OK,
                    f"/dev/{mounted.name} is mounted at {spec.path}",
                    expected,
                    expected,
                    phase=BEFORE_PACKAGES,
                ),
            )
        )
    device = _candidate(facts, spec.disk)
    if device is None and spec.disk == "instance-store":
        return Result(
            notices=(
                Notice(identifier, "There is no local instance disk on this machine, so Docker's data stays on the root disk."),
            )
        )
    if device is None and not spec.disk.startswith("/dev/disk/"):
        message = f"There is no disk {spec.disk} on this host."
        return Result(
            (Item(identifier, STEP, "mount", REFUSED, message, expected, phase=BEFORE_PACKAGES),),
            problems=(Problem(identifier, message, "Correct `storage.disk`; `mlhost facts` lists the disks."),),
        )
    if device and (device.partitions or device.mounts):
        message = (
            f"/dev/{device.name} is in use ({device.partitions} partitions, mounted at {', '.join(device.mounts) or 'nowhere'})."
        )
        return Result(
            (Item(identifier, STEP, "mount", REFUSED, message, expected, phase=BEFORE_PACKAGES),),
            problems=(Problem(identifier, message, "Name a disk that is blank; mlhost never formats one that holds anything."),),
        )
    path = f"/dev/{device.name}" if device else spec.disk
    what = "is blank and will be formatted" if device and not device.content else "is formatted if it is blank"
    return Result(
        (
            Item(
                identifier,
                STEP,
                "mount",
                CHANGE,
                f"{path} {what}, then mounted at {spec.path} at every boot",
                expected,
                {"path": "", "disk": path},
                Mount(path, spec.path),
                phase=BEFORE_PACKAGES,
            ),
        )
    )
