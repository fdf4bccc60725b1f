"""The program that finishes an image at its first boot, as items of the plan for the tree.

It is the same kind of script that a setup runs, of the items left for later, and needs no Python in the image: whatever made the image, an old or a
minimal one too, what is tested here is what runs there. The unit is tried again while it fails, and takes itself out once it is done. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from provision import render, shtext
from provision.actions import Enable, File
from provision.journal import STATE
from provision.model import CHANGE, OK, Facts, Item, Plan
from provision.offline import STEP, to_finish
from provision.sh import Sh, template
from provision.steps import PROOF
from provision.steps.daemon import ENABLED
from provision.steps.files import file_item

UNIT = "mlhost-first-boot.service"
UNIT_PATH = f"/etc/systemd/system/{UNIT}"
PROGRAM = "/usr/local/lib/mlhost/first-boot"
PATHS = (UNIT_PATH, PROGRAM)
UNIT_TEXT = f"""\
# Written by mlhost while this image was made. Gone once it has succeeded.
[Unit]
Description=mlhost finishes what needs this machine
Wants=network-online.target
After=network-online.target docker.service
StartLimitIntervalSec=3600
StartLimitBurst=5

[Service]
Type=simple
ExecStart=/bin/sh {PROGRAM}
Restart=on-failure
RestartSec=20
KillMode=mixed
TimeoutStopSec=180
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""
# What there is to do for these only on a machine with a GPU.
GPU_STEPS = ("driver", "toolkit")


def with_first_boot(plan: Plan, facts: Facts, *, lock_wait: int, reboot: bool) -> Plan:
    """The plan with the program and its unit, or without them where nothing is left to finish. `reboot`: the first boot may reboot once more."""
    if plan.problems:
        return plan
    last = PROOF + 1
    left = to_finish(plan.items)
    if not left:
        gone = [_gone(facts, path, last) for path in PATHS if path in facts.paths and facts.paths[path].kind == "file"]
        return replace(plan, items=(*plan.items, *gone))
    why = f"at the first boot it finishes {', '.join(i.id for i in left)}"
    program = File(PROGRAM, text(plan, lock_wait=lock_wait, reboot=reboot), "0755")
    items = (
        file_item(facts, STEP, f"{STEP}/first-boot", program, why, last),
        file_item(facts, STEP, f"{STEP}/first-boot-unit", File(UNIT_PATH, UNIT_TEXT), "systemd runs it, again while it fails", last),
        _enabled(facts, last),
    )
    return replace(plan, items=(*plan.items, *items))


def _enabled(facts: Facts, phase: int) -> Item:
    known = facts.units.get(UNIT)
    there = known is not None and known.enabled in ENABLED
    expected: Mapping[str, object] = {"enabled": "enabled"}
    actual: Mapping[str, object] = {"enabled": known.enabled if known else ""}
    action = None if there else Enable(UNIT)
    return Item(f"{STEP}/first-boot-enabled", STEP, "enable", OK if there else CHANGE, "it is there to run once", expected, actual, action, phase=phase)


def _gone(facts: Facts, path: str, phase: int) -> Item:
    why = "nothing is left for the first boot"
    return Item(f"{STEP}/none{path}", STEP, "file", CHANGE, why, {"path": ""}, {"path": path}, File(path, None), phase=phase)


def text(plan: Plan, *, lock_wait: int, reboot: bool) -> Sh:
    """The program: the script of the items that are left, run in the journal. The same items give the same text."""
    left = to_finish(plan.items)
    rest = replace(plan, host="the first boot", items=tuple(replace(i, state=CHANGE, why="") for i in left))
    script = render.stage(rest, run_id="first-boot", lock_wait=lock_wait)
    end = "MLHOST_" + hashlib.sha256(script.encode()).hexdigest()[:24]
    return template(
        "firstboot.sh.j2",
        functions=Sh("\n".join(shtext.fragment(f"journal/{name}.sh") for name in ("lock", "runner"))),
        finder=Sh(shtext.fragment("firstboot.sh")),
        script=script if script.endswith("\n") else Sh(script + "\n"),
        end=Sh(end),
        state=STATE,
        program=PROGRAM,
        unit=UNIT,
        unit_path=UNIT_PATH,
        gpu_items=" ".join(i.id for i in left if i.step in GPU_STEPS),
        reboot="yes" if reboot else "no",
    )
