"""A whole set-up of a tree host, killed at a chosen point; then the next one, as a user would start it; and what became of the host."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from provision import catalog, render, run
from provision.errors import Error
from provision.follow import apply
from provision.look import RunOptions
from provision.playbook import load
from provision.progress import NullProgress
from provision.sh import Sh
from tests.lab import treestate
from tests.lab.gpuland import GpuLand
from tests.lab.killpoints import RECORD, Point, dying, points, recording
from tests.lab.need import LabError
from tests.lab.treehost import TreeHost

DPKG_POINTS = "/run/dpkg-points"
LOGGER = "etc/dpkg/dpkg.cfg.d/lab"  # its folder is noise to treestate
WANTED = ("docker.users=[admin]", "docker.log.max_size=50m")


@dataclass(frozen=True)
class State:
    """What two runs' hosts are compared by."""

    tree: dict[str, str]
    packages: list[str]
    receipts: list[str]
    originals: dict[str, str]
    leftovers: list[str]

    def differences(self, other: State) -> list[str]:
        """In words, what `other` has too little and too much."""
        found = []
        for name, mine in vars(self).items():
            theirs = getattr(other, name)
            one, two = ({f"{k}: {v}" for k, v in x.items()} if isinstance(x, dict) else set(x) for x in (mine, theirs))
            found += [f"{name} lacks {line}" for line in sorted(one - two)] + [f"{name} has also {line}" for line in sorted(two - one)]
        return found


def state_of(host: TreeHost) -> State:
    # Started or started again; apt's lists; settings put back while the double of a daemon was too slow for its turn, and set anew at the next.
    receipts = [line for line in treestate.receipts(host) if not line.startswith(("service\t", "cache\t", "put-back\t"))]
    return State(treestate.tree(host), treestate.packages(host), receipts, treestate.originals(host), treestate.leftovers(host))


@dataclass
class Walk:
    """The uninterrupted run, once; `kill_at` and the others then interrupt it. Safe to be used by several threads at once."""

    land: GpuLand
    cache: Path
    settings: tuple[str, ...] = WANTED
    script: Sh = field(init=False)
    points: list[Point] = field(init=False)
    dpkg_points: int = field(init=False)
    reference: State = field(init=False)

    def __post_init__(self) -> None:
        self.loaded = load(None, [*self.land.settings(), *self.settings])
        self.catalog = catalog.load()
        self.options = RunOptions(cache=self.cache, lock_wait=60)
        with self.land.host() as host:
            _, plan = run.plan_of(host, self.loaded, self.catalog, self.options, NullProgress())
            ready = run.with_keys(plan, self.loaded.spec, self.options, host)
            self.script = render.stage(ready, run_id="killed", lock_wait=60)
            self._dpkg_logger(host, 0)
            followed = apply(host, recording(self.script), "killed", "lab", "", {}, NullProgress(), None)
            if followed.rc != 0:
                raise LabError(f"the uninterrupted run failed: {followed.reason()}\n{followed.log}")
            self.points = points(host.sh(f"cat {RECORD}"))
            self.dpkg_points = len(host.sh(f"cat {DPKG_POINTS}").splitlines())
            self.reference = state_of(host)

    def lines(self, text: str) -> set[int]:
        """The lines of the script that hold this text."""
        # the preamble is one line more
        return {number for number, line in enumerate(self.script.splitlines(), 2) if text in line}

    def kill_at(self, point: Point, how: str) -> list[str]:
        """What is wrong after a kill at `point` and the next set-up; nothing if it is as if it had never happened."""
        return self._killed(dying(self.script, point, how), how == "power")

    def kill_in_dpkg(self, number: int) -> list[str]:
        """The same with a kill when dpkg reports its `number`-th change of state."""
        alone = "$(sed -n s/^pid=//p /var/lib/mlhost/runs/killed/script)"  # dpkg then goes on without it
        whom = ("-1", "0", alone)[number % 3]
        return self._killed(self.script, whom == "-1", lambda host: self._dpkg_logger(host, number, whom))

    def kill_in_maintainer_script(self) -> list[str]:
        """The same with a kill within a package's postinst."""
        return self._killed(self.script, False, lambda host: host.sh("echo 'kill -KILL 0' >/run/lab-postinst"))

    def kill_when(self, there: Callable[[], bool], prepare: Callable[[TreeHost], object], after: Callable[[], object]) -> list[str]:
        """The same with a power cut as soon as `there` is true; `after` is called before the next set-up."""
        return self._killed(self.script, True, prepare, there, after)

    def _killed(
        self,
        script: Sh,
        power: bool,
        prepare: Callable[[TreeHost], object] = lambda host: None,
        there: Optional[Callable[[], bool]] = None,
        after: Callable[[], object] = lambda: None,
    ) -> list[str]:
        with self.land.host() as host:
            prepare(host)
            if there is not None:
                threading.Thread(target=_cut_when, args=(host, there), daemon=True).start()
            survived = False
            with contextlib.suppress(Error):
                survived = apply(host, script, "killed", "lab", "", {}, NullProgress(), None).rc == 0
            if survived:
                return ["it was not killed"]
            if power:
                host.power_cycle()
            (host.root / LOGGER).unlink(missing_ok=True)
            host.sh("rm -f /run/lab-postinst")
            after()
            report = run.setup(host, self.loaded, self.catalog, self.options, NullProgress())
            if report.exit_code != 0:
                return [f"{report.status}: {report.message}", *report.log.splitlines()[-10:]]
            state = state_of(host)
            if not report.run_ids:
                # all was done already, so no script has run that would clear up; the next one does
                kept = [name for name in state.leftovers if not re.match(r"var/lib/mlhost/(work\.|lock$|intended$)", name)]
                state = replace(state, leftovers=kept)
            return self.reference.differences(state)

    def _dpkg_logger(self, host: TreeHost, number: int, whom: str = "0") -> None:
        """dpkg tells every change of a package's state to a program, which writes them down and kills at the given one."""
        program = f'while read -r l; do echo "$l" >>{DPKG_POINTS}; [ "$(wc -l <{DPKG_POINTS})" != {number} ] || kill -KILL {whom}; done'
        (host.root / LOGGER).parent.mkdir(parents=True, exist_ok=True)
        (host.root / LOGGER).write_text(f"status-logger={program}\n")


def _cut_when(host: TreeHost, there: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not there() and time.monotonic() < end:
        time.sleep(0.01)
    host.sh("kill -KILL -1", check=False)
