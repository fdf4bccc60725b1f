"""A step of one's own, small enough to copy: every login shell numbers GPUs as nvidia-smi does.

CUDA puts the fastest GPU first unless told otherwise, nvidia-smi goes by PCI address; on a host with unlike GPUs `CUDA_VISIBLE_DEVICES=0` then
means another card than nvidia-smi's 0. The fix is one environment variable, set here for all users.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from provision.actions import File
from provision.model import CHANGE, OK, Facts, Item
from provision.spec import Spec

NAME = "gpu-order"
PATH = "/etc/profile.d/cuda-device-order.sh"
TEXT = "# CUDA numbers GPUs as nvidia-smi does.\nexport CUDA_DEVICE_ORDER=PCI_BUS_ID\n"

# The probe tells what is at these paths; see `facts.paths` below.
watch = (PATH,)


def step(facts: Facts, spec: Spec, platform: object) -> Iterator[Item]:
    """Yield what must be so. Decide from the facts alone: no I/O here, so that a plan can be made from a capture, anywhere."""
    if spec.gpu == "ignore":
        return
    wanted = hashlib.sha256(TEXT.encode()).hexdigest()
    there = facts.paths.get(PATH)
    actual = there.sha256 if there else ""
    fine = actual == wanted
    yield Item(
        id="gpu-order/file",
        step=NAME,
        kind="file",
        state=OK if fine else CHANGE,
        why="login shells number GPUs as nvidia-smi does" if fine else "CUDA would put the fastest GPU first, nvidia-smi goes by PCI address",
        expected={"path": PATH, "sha256": wanted},
        actual={"path": PATH, "sha256": actual},
        action=None if fine else File(PATH, TEXT),
    )
