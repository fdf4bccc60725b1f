"""Looking at a host and deciding: the probe, the question whether sources can be reached, and the plan made of both. Nothing is changed.

What only the answer needs is imported while the host is still answering, so the imports stand in the functions.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from provision.errors import ProbeFailed
from provision.probe import probe_args, probe_script
from provision.shipped import shipped
from provision.watched import watched, watched_disks

if TYPE_CHECKING:
    from provision.catalog import Catalog
    from provision.cudafit import ImageConfig
    from provision.lockplan import Pinned
    from provision.model import Check, Facts, Plan, Reach
    from provision.plan import Step
    from provision.playbook import Loaded
    from provision.progress import Progress
    from provision.spec import Spec
    from provision.transport import RunResult, Transport

PROBE_TIMEOUT = 180.0
MAX_ANSWER = 8 * 1024 * 1024  # provision.capture.MAX_BYTES, which is not imported before the host has answered


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlhost" / "keys"


class Bringing(Protocol):
    """Files that hosts are set up from; see `provision.bundled.Bundle`."""

    def lay(self, transport: Transport, plan: Plan, told: Callable[[str], None]) -> None: ...

    def clear(self, transport: Transport) -> None: ...


@dataclass(frozen=True)
class RunOptions:
    """What the user allows. `reboot`: ask, allow, never. `ask` puts a question to the user; None where nobody is there to answer.

    `timeout` bounds one stage, in seconds. `self_command` starts the same run again after a reboot of this machine. `offline` asks
    no source whether it can be reached. `first` is a look at the host that is under way already. `only` restricts the work to the items
    of these ids. `agreed` says of the first plan what is not as it was reviewed, one failed check each; nothing is carried out then.
    `pinned` is a lock that every host is held to; `bundle` what its packages come from without a
    network. `reboots` is entered while the host reboots, so that not all of a fleet do at once.
    """

    yes: bool = False
    reboot: str = "ask"
    lock_wait: int | None = None
    offline: bool = False
    timeout: float | None = None
    ask: Callable[[str], bool] | None = None
    self_command: tuple[str, ...] = ()
    cache: Path = field(default_factory=_cache)
    steps: Sequence[Step] = ()
    first: Looking | None = None
    only: tuple[str, ...] | None = None
    pinned: Pinned | None = None
    bundle: Bringing | None = None
    agreed: Callable[[Transport, Plan], tuple[Check, ...]] | None = None
    reboots: AbstractContextManager[object] = field(default_factory=nullcontext)


    @property
    def names(self) -> tuple[str, ...]:
        """Packages that a host is asked about besides those it always is."""
        return self.pinned.names if self.pinned else ()


@lru_cache(maxsize=1)
def _reach_text() -> str:
    return shipped("scripts/reach.sh")


@lru_cache(maxsize=1)
def _reading_ahead() -> threading.Thread:
    """What the answers of all hosts are read with is loaded once, in the background. Many hosts at once may begin that more than once; the locks
    of what is loaded let only one do the work."""
    thread = threading.Thread(target=_read_ahead, daemon=True)
    thread.start()
    return thread


def _read_ahead() -> None:
    import provision.capture
    import provision.facts
    import provision.plan
    import provision.report.text  # noqa: F401
    from provision.catalog import packaged

    for name in ("distros", "repositories", "clouds", "instances"):  # what every plan asks
        packaged(name)


@dataclass(frozen=True)
class _Answer:
    """What a host said to the probe with this mark."""

    mark: str
    result: RunResult


def _ask(transport: Transport, spec: Spec, steps: Sequence[Step], packages: Iterable[str] = (), record: bool = False) -> _Answer:
    mark = os.urandom(8).hex()
    args = probe_args(
        mark, asked_at=int(time.time()), paths=watched(spec, steps), disks=watched_disks(spec), packages=packages, record=record
    )
    return _Answer(mark, transport.run(probe_script(), *args, sudo=True, timeout=PROBE_TIMEOUT, max_output=MAX_ANSWER))


class Looking:
    """A probe that runs in the background from now on; until it is taken, the transport is not to be used for anything else."""

    def __init__(self, transport: Transport, spec: Spec, steps: Sequence[Step] = (), packages: Iterable[str] = ()) -> None:
        self._ask: Callable[[], _Answer] = lambda: _ask(transport, spec, steps, packages)
        self._answer: _Answer | None = None
        self._problem: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._answer = self._ask()
        except BaseException as problem:  # handed to the thread that waits
            self._problem = problem

    def take(self) -> _Answer | None:
        """Wait for the answer, or raise what went wrong. Once; then None: a host changes, and who looks again wants to see that."""
        thread, self._thread = self._thread, None
        if thread is None:
            return None
        thread.join()
        if self._problem is not None:
            raise self._problem
        return self._answer


def observe(
    transport: Transport, spec: Spec, steps: Sequence[Step] = (), first: Looking | None = None, packages: Iterable[str] = (), record: bool = False
) -> tuple[bytes, Facts]:
    """Run the probe: one connection, one command. Returns the raw capture and the facts. Raises ProbeFailed, Unreachable, SudoError kinds.

    `first` is a look at the same host for the same spec that was begun before. `packages` are asked about besides those that always are; with
    `record` the capture also holds all that dpkg knows and the keys of all package sources.
    """
    reading = _reading_ahead()
    answer = (first.take() if first else None) or _ask(transport, spec, steps, packages, record)
    mark, result = answer.mark, answer.result
    reading.join()
    from provision.capture import split
    from provision.facts import parse

    try:
        return result.out, parse(split(result.out, mark))
    except ProbeFailed as error:
        said = result.last_words
        raise ProbeFailed(f"{transport.name}: {error.message}{' It said: ' + said if said else ''}", error.fix) from None


def capture_root(root: str, arch: str | None, spec: Spec, record: bool = False) -> bytes:
    """The raw capture of an unpacked system under `root`; no command of this machine's system answers for it. `record` is as for `observe`."""
    from provision.transport.local import LocalTransport

    mark = os.urandom(8).hex()
    args = probe_args(mark, root=root, arch=arch or os.uname().machine, paths=watched(spec), disks=watched_disks(spec), record=record)
    with LocalTransport() as here:
        return here.run(probe_script(), *args, timeout=PROBE_TIMEOUT, max_output=MAX_ANSWER).out


def ask_reach(transport: Transport, spec: Spec, asked: Sequence[tuple[str, str]]) -> Mapping[str, Reach]:
    from provision import reach

    mark = os.urandom(8).hex()
    words = [word for pair in asked for word in pair]
    result = transport.run(reach.script(_reach_text(), spec.proxy), mark, *words, sudo=True, timeout=180, max_output=MAX_ANSWER)
    return reach.parse(result.out, asked, mark)


def plan_of(
    transport: Transport, loaded: Loaded, catalog: Catalog, options: RunOptions, progress: Progress
) -> tuple[Facts, Plan]:
    """Look at the host and decide. Where something is to be fetched, the host is asked whether it can reach the sources, and the plan made with that."""
    progress.stage(transport.name, "looking")
    _, facts = observe(transport, loaded.spec, options.steps, options.first, options.names)
    return decide(transport, facts, loaded.spec, catalog, options, progress)


def decide(
    transport: Transport, facts: Facts, spec: Spec, catalog: Catalog, options: RunOptions, progress: Progress
) -> tuple[Facts, Plan]:
    from provision.plan import restricted

    decided = made(facts, spec, catalog, options)
    if options.only is not None:
        return facts, restricted(decided, options.only)
    # Twice at most: a source that cannot be reached may make way for another.
    for _ in range(2):
        unasked = [url for url in decided.urls if url not in facts.reach]
        if not unasked or options.offline:
            break
        progress.stage(transport.name, "asking for the package sources")
        answers = ask_reach(transport, spec, [("head", url) for url in unasked])
        facts = replace(facts, reach={**facts.reach, **answers})
        decided = made(facts, spec, catalog, options)
    image = None if options.offline else ask_image(transport, facts, spec, decided, progress)
    decided = made(facts, spec, catalog, options, image) if image else decided
    if options.pinned and not options.offline and not decided.problems:
        from provision.aptask import offered

        progress.stage(transport.name, "asking for the locked packages")
        found = offered(transport, facts, spec, decided, catalog, options)
        decided = made(facts, spec, catalog, options, image, found) if found is not None else decided
    return facts, decided


def made(
    facts: Facts, spec: Spec, catalog: Catalog, options: RunOptions, image: ImageConfig | None = None,
    offered: Mapping[str, Mapping[str, str]] | None = None,
) -> Plan:
    """The plan for a host, held to a lock where there is one. `image` and `offered` are as for `provision.lockplan.held`."""
    from provision.plan import plan

    if options.pinned is None:
        return plan(facts, spec, catalog, options.steps, image)
    from provision.lockplan import held

    return held(options.pinned, facts, spec, catalog, options.steps, image, offered)


def with_keys(decided: Plan, spec: Spec, options: RunOptions, transport: Transport | None) -> Plan:
    """The plan with its signing keys: from the cache, the network, or (with a transport) from the host."""
    from provision import keys

    def host(urls: tuple[str, ...]) -> Mapping[str, bytes]:
        if transport is None:
            return {}
        return {
            url: answer.content for url, answer in ask_reach(transport, spec, [("get", url) for url in urls]).items() if answer.ok
        }

    return keys.gather(decided, options.cache, host)


def ask_image(transport: Transport, facts: Facts, spec: Spec, decided: Plan, progress: Progress) -> ImageConfig | None:
    """What the registry says of the image that a plan would run with GPUs, before anybody pulls it; None where there is none to ask about."""
    from provision.steps.smoke import unasked

    name = unasked(decided)
    if not name:
        return None
    progress.stage(transport.name, "asking the registry what the image needs")
    return image_config(transport, facts, spec, name)


def image_config(transport: Transport, facts: Facts, spec: Spec, name: str) -> ImageConfig:
    """What the registry says of an image for this host.

    It is this machine that asks, with its own network and Docker's own login. A registry that cannot be asked is no error: the answer says why.
    """
    from provision.cudafit import ImageConfig
    from provision.imageconfig import RegistryError, ask, is_loopback, reference
    from provision.transport.local import LocalTransport

    if is_loopback(reference(name).registry) and not isinstance(transport, LocalTransport):
        return ImageConfig(name, error="the registry is the host's own, which only the host can ask")
    try:
        return ask(name, facts.arch, mirrors=spec.mirrors.registry, insecure=spec.docker.insecure_registries)
    except RegistryError as error:
        return ImageConfig(name, error=error.message)


def plan_from_capture(
    raw: bytes, loaded: Loaded, catalog: Catalog, steps: Sequence[Step] = (), pinned: Pinned | None = None
) -> tuple[Facts, Plan]:
    """Decide from a capture alone; no host is asked anything."""
    from provision.capture import split
    from provision.facts import parse

    facts = parse(split(raw))
    return facts, made(facts, loaded.spec, catalog, RunOptions(steps=steps, pinned=pinned))


def facts_of(transport: Transport, spec: Spec, catalog: Catalog, record: bool = False) -> tuple[bytes, Facts]:
    """The raw capture of a host and its facts; `record` is as for `observe`."""
    return observe(transport, spec, record=record)
