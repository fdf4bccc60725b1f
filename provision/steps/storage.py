"""A local disk for Docker's data: formatted only while it is blank, mounted at every boot before Docker starts."""

from __future__ import annotations

from provision.actions import Mount
from provision.model import CHANGE, BlockDevice, Facts, Item, Notice, Problem, State
from provision.steps import BEFORE_PACKAGES, Context, Result, plural, refused, settled

STEP = "storage"
# Models of cloud instances' local disks. Sources: AWS EC2 user guide ("Amazon EC2 NVMe Instance Storage"), Azure docs ("Microsoft NVMe Direct Disk"), GCP ("nvme_card").
LOCAL_MODELS = ("Amazon EC2 NVMe Instance Storage", "Microsoft NVMe Direct Disk", "nvme_card")


# A disk with this on it is mounted as it is; one with nothing on it is formatted. "unknown" is looked at again, by the script.
USABLE = ("", "ext4", "unknown")


def _candidate(facts: Facts, disk: str) -> BlockDevice | None:
    devices = sorted(facts.block_devices or (), key=lambda d: d.name)
    if disk == "instance-store":
        return next((d for d in devices if d.model.strip().startswith(LOCAL_MODELS) and not _use(d)), None)
    return next((d for d in devices if f"/dev/{d.name}" == disk), None)


def _use(device: BlockDevice) -> str:
    """What a disk is in use for; "" if it can be had."""
    if device.mounts:
        return f"mounted at {', '.join(device.mounts)}"
    if device.partitions:
        return f"divided into {plural(device.partitions, 'partition')}"
    return "" if device.content in USABLE else f"holding {device.content}"


def decide(ctx: Context) -> Result:
    """The mount, or why there is none."""
    spec, facts = ctx.spec.storage, ctx.facts
    if not spec.disk:
        return Result()
    expected = {"path": spec.path, "disk": spec.disk}
    identifier = "storage/mount"
    if facts.block_devices is None:
        message = "Which disks this machine has could not be read, so none can be mounted."
        return _refusal(Problem(identifier, message, "Run mlhost on the live system, with root or sudo rights."), expected)
    mounted = next((d for d in facts.block_devices if spec.path in d.mounts), None)
    if mounted:
        why = f"/dev/{mounted.name} is mounted at {spec.path}"
        return Result((settled(STEP, identifier, "mount", why, expected, BEFORE_PACKAGES),))
    device = _candidate(facts, spec.disk)
    if device is None and spec.disk == "instance-store":
        text = "There is no unused local instance disk on this machine, so Docker's data stays where it is."
        return Result(notices=(Notice(identifier, text),))
    if device is None and not spec.disk.startswith("/dev/disk/"):
        message = f"There is no disk {spec.disk} on this host."
        return _refusal(Problem(identifier, message, "Correct `storage.disk`; `mlhost facts` lists the disks."), expected)
    if device and _use(device):
        message = f"/dev/{device.name} is in use: {_use(device)}."
        fix = "Name a disk that is blank; mlhost never formats one that holds anything."
        return _refusal(Problem(identifier, message, fix), expected)
    path = f"/dev/{device.name}" if device else spec.disk
    how = "is blank and will be formatted" if device and not device.content else "is formatted if it is blank"
    why = f"{path} {how}, then mounted at {spec.path} at every boot"
    actual = {"path": "", "disk": path}
    action = Mount(path, spec.path)
    return Result((Item(identifier, STEP, "mount", CHANGE, why, expected, actual, action, phase=BEFORE_PACKAGES),))


def _refusal(problem: Problem, expected: State) -> Result:
    return Result((refused(STEP, "mount", problem, BEFORE_PACKAGES, expected),), problems=(problem,))
