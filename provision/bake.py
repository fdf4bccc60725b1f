"""A tree from probe to image: the same way as for a host, with everything that needs the running machine left for the first boot.

What is done and what is left, `provision.offline` decides; what finishes the rest, `provision.firstboot` writes; how nothing of the machine that this
runs on gets in touch with the tree, `provision.transport.tree` sees to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from provision import capture, firstboot, offline
from provision.errors import Error, Failed, ProbeFailed
from provision.facts import parse
from provision.look import MAX_ANSWER, PROBE_TIMEOUT, RunOptions, decide
from provision.model import LATER, Facts, HostReport, PciDevice, Plan
from provision.plan import plan
from provision.probe import probe_args, probe_script
from provision.run import Clock, Work, lock_wait
from provision.shipped import shipped
from provision.watched import watched

if TYPE_CHECKING:
    from provision.catalog import Catalog
    from provision.plan import Step
    from provision.playbook import Loaded
    from provision.progress import Progress
    from provision.spec import Spec
    from provision.transport.tree import TreeTransport

BEFORE = "var/lib/mlhost/image.before"
WARNINGS: Mapping[str, str] = {
    "machine-id": "It had a machine id before, which all machines made from it will share: truncate /etc/machine-id in it.",
    "ssh-host-keys": "It had SSH host keys before, which all machines made from it will share: remove /etc/ssh/ssh_host_* in it.",
}


def observe(tree: TreeTransport, spec: Spec, steps: Sequence[Step], arch: str | None, devices: Sequence[PciDevice]) -> Facts:
    """The facts of the tree as of the machine it is for. Nothing in it is changed. Raises ProbeFailed, or Failed where nothing can be run in it."""
    mark = os.urandom(8).hex()
    args = probe_args(mark, image=True, arch=arch or "", paths=(*watched(spec, steps), *firstboot.PATHS))
    answer = tree.look(probe_script(), *args, timeout=PROBE_TIMEOUT, max_output=MAX_ANSWER)
    try:
        facts = parse(capture.split(answer.out, mark))
    except ProbeFailed as error:
        said = answer.last_words
        raise ProbeFailed(f"{tree.name}: {error.message}{' It said: ' + said if said else ''}", error.fix) from None
    return offline.as_image(facts, devices, tree.disk())


def plan_tree(
    tree: TreeTransport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress, devices: Sequence[PciDevice], arch: str | None = None
) -> tuple[Facts, Plan]:
    """What `bake` would do to the tree, and what it would leave for the first boot."""
    facts = observe(tree, loaded.spec, options.steps, arch, devices)
    now = offline.split(plan(facts, loaded.spec, catalog, options.steps), facts)
    if now.changes or now.problems:
        # something may have to be fetched, so it is made again with what can be reached
        facts, decided = decide(tree, facts, loaded.spec, catalog, options, progress)
        now = offline.split(decided, facts)
    return facts, firstboot.with_first_boot(now, facts, lock_wait=lock_wait(loaded.spec, options), reboot=options.reboot == "allow")


def bake(
    tree: TreeTransport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress, devices: Sequence[PciDevice], arch: str | None = None
) -> HostReport:
    """Make the tree an image of what the playbook says. Never raises an `Error` for what the tree is or does: the report tells.

    `devices` are what its machines will have on their PCI bus. Cut off at any moment, the same call goes on with what is left.
    """
    work = Baking(tree, loaded, catalog, options, progress, Clock(), tree=tree, devices=tuple(devices), arch=arch)
    try:
        report = work.finished(work.until_settled())
    except Error as error:
        report = work.failed(error)
    progress.done(tree.name, report)
    return report


@dataclass
class Baking(Work):
    """One image under way."""

    tree: TreeTransport | None = None
    devices: tuple[PciDevice, ...] = ()
    arch: str | None = None

    def look(self) -> tuple[Facts, Plan]:
        began = time.monotonic()
        assert self.tree is not None  # noqa: S101 - narrows the type
        self.progress.stage(self.tree.name, "looking" if not self.run_ids else "looking again")
        answer = plan_tree(self.tree, replace(self.loaded, spec=self.spec), self.catalog, self.options, self.progress, self.devices, self.arch)
        self.clock.add("look", began)
        return answer

    def stage(self, facts: Facts, decided: Plan) -> HostReport | None:
        if not self.run_ids:
            self.around("begin")
        return super().stage(facts, decided)

    def around(self, which: str) -> list[str]:
        """Before (begin) and after (end) the work: what is one machine's own stays out of the image. The words that it says."""
        done = self.transport.run(shipped("scripts/image.sh"), which, sudo=True, timeout=600)
        if done.rc:
            raise Failed(f"{self.transport.name}: {done.last_words or f'exit code {done.rc}'}", "Is its disk full, or mounted read-only?")
        return done.out.decode(errors="replace").split()

    def finished(self, report: HostReport) -> HostReport:
        """The report of an image that is made; of anything else as it is."""
        if report.status not in ("changed", "converged") or report.after is None or self.tree is None:
            return report
        told = self.around("end") if self.run_ids or os.path.isdir(os.path.join(self.tree.root, BEFORE)) else []
        left = [item.id for item in report.after.items if item.state == LATER]
        words = [f"Left for the first boot: {', '.join(left)}."] if left else ["Nothing is left for the first boot."]
        words += [WARNINGS[word] for word in told if word in WARNINGS]
        status = "baked" if report.status == "changed" else report.status
        return replace(report, status=status, exit_code=0, message=" ".join(words), run_ids=())


