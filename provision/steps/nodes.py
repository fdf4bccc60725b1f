"""The driver's device nodes and their links: there before Docker hands them on, and made again at every boot.

A container that asks by CDI gets the nodes that exist when the spec is made, and /dev/nvidia-uvm is made by nobody on a server. Links in /dev/char are
what runc 1.1.3 to 1.1.6, and every runc on systemd before 240, need to tell systemd of these devices; without them `systemctl daemon-reload` takes the
GPUs away from containers that run. Sources: opencontainers/runc issues 3708 and 3671; NVIDIA's container toolkit issue 48.
"""

from __future__ import annotations

from provision.actions import Command, File
from provision.model import CHANGE, OK, Facts, Item
from provision.steps import FILES, SERVICES, Context, settled
from provision.steps.files import file_item
from provision.watched import DEVICE_RULE, DEVICE_RULES_OF_OTHERS

STEP = "toolkit"
RULE, NODES = "toolkit/device-rule", "toolkit/device-nodes"
RULE_TEXT = (
    "# Written by mlhost: the driver's control nodes, and the links by which systemd knows its devices, are there as soon as it is loaded.\n"
    'ACTION=="add", DEVPATH=="/bus/pci/drivers/nvidia", '
    'RUN+="/usr/bin/nvidia-ctk system create-device-nodes --control-devices --load-kernel-modules", '
    'RUN+="/usr/bin/nvidia-ctk system create-dev-char-symlinks --create-all"\n'
)
WANTED = ("/dev/nvidiactl", "/dev/nvidia-uvm")
CHECK = """\
[ -c /dev/nvidiactl ] && [ -c /dev/nvidia-uvm ] || exit 1
for node in /dev/nvidiactl /dev/nvidia-uvm /dev/nvidia[0-9]*; do
    [ -c "$node" ] || continue
    [ -e "/dev/char/$(printf '%d:%d' $(stat -c '0x%t 0x%T' "$node"))" ] || exit 1
done"""
CHANGE_NODES = """\
nvidia-ctk system create-device-nodes --control-devices --load-kernel-modules || nvidia-modprobe -u -c 0 || exit 1
nvidia-smi -L >/dev/null 2>&1
mkdir -p /dev/char || exit 1
for node in /dev/nvidiactl /dev/nvidia-uvm /dev/nvidia-uvm-tools /dev/nvidia-modeset /dev/nvidia[0-9]*; do
    [ -c "$node" ] || continue
    ln -sf "../${node#/dev/}" "/dev/char/$(printf '%d:%d' $(stat -c '0x%t 0x%T' "$node"))" || exit 1
done"""


def decide(ctx: Context) -> tuple[Item, ...]:
    """The rule for every boot and the nodes now; nothing where no udev is at work."""
    facts = ctx.facts
    if not facts.systemd:
        return ()
    rule = _rule(facts)
    missing = [node for node in WANTED if node not in (facts.nvidia.device_nodes if facts.nvidia else ())]
    expected = {"nodes": " ".join(WANTED)}
    if rule.state == OK and not missing:
        return (rule, settled(STEP, NODES, "command", "the driver's device nodes are there", expected, SERVICES - 2))
    why = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there" if missing else "systemd must know the devices by their links"
    actual = {"nodes": " ".join(node for node in WANTED if node not in missing)}
    return (rule, Item(NODES, STEP, "command", CHANGE, why, expected, actual, Command(CHECK, CHANGE_NODES, undo=":", live=True), phase=SERVICES - 2))


def _rule(facts: Facts) -> Item:
    others = [path for path in DEVICE_RULES_OF_OTHERS if path in facts.paths and facts.paths[path].kind == "file"]
    if others:
        return settled(STEP, RULE, "file", f"{others[0]} sees to the device nodes' links at boot", {"path": others[0]}, FILES)
    why = "a running container must keep its GPUs through systemctl daemon-reload"
    return file_item(facts, STEP, RULE, File(DEVICE_RULE, RULE_TEXT), why, FILES)
