"""mlhost for programs and notebooks: the stops on the way as functions, values in and values out.

    from provision import library as mlhost

    with mlhost.connect("admin@10.0.0.7") as host:
        facts = mlhost.parse(mlhost.probe(host))
        todo = mlhost.plan(facts)
        print(mlhost.report(todo))
        if not todo.problems and todo.changes:
            print(mlhost.report(mlhost.apply(host)))

Nothing here prints, asks or exits. Everything that is wrong is raised as `provision.errors.Error` with `.message` and `.fix`; `apply` and
`verify` put what the host did wrong into their report instead.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Union

from provision import catalog as _catalog
from provision import look as _look
from provision import prove as _prove
from provision import run as _run
from provision.capture import split
from provision.catalog import Catalog
from provision.facts import parse as _parse
from provision.look import RunOptions
from provision.model import Facts, HostReport, Plan
from provision.ownsteps import load_steps
from provision.plan import plan as _plan
from provision.playbook import Loaded
from provision.playbook import load as _load
from provision.progress import NullProgress, Progress
from provision.transport import SshOptions, Transport, open_transport

if TYPE_CHECKING:
    import fabric

__all__ = [
    "RunOptions",
    "SshOptions",
    "apply",
    "connect",
    "parse",
    "plan",
    "playbook",
    "probe",
    "render",
    "report",
    "verify",
]


@lru_cache(maxsize=1)
def _facts_of_the_world() -> Catalog:
    return _catalog.load()


def connect(target: str | fabric.Connection | None = None, options: SshOptions | None = None) -> Transport:
    """A host: this machine for None, else `[user@]host[:port]` over SSH, or a fabric Connection of your own.

    A context manager; it connects when it is first used.
    """
    if target is None or isinstance(target, str):
        return open_transport(target, options or SshOptions())
    from provision.transport.over_fabric import FabricTransport

    return FabricTransport(target, options.sudo_password if options else None)


def playbook(source: str | None = None, *sets: str) -> Loaded:
    """A desired state: the packaged `gpu-host` for None, another packaged name or a file; `sets` are `key=value` texts. Raises UsageError."""
    return _load(source, sets)


def probe(host: Transport, wanted: Loaded | None = None) -> bytes:
    """The raw capture of a host: one connection, one read-only command. What it tells can be kept and parsed anywhere."""
    return _look.observe(host, (wanted or playbook()).spec)[0]


def parse(capture: bytes) -> Facts:
    """The facts in a capture. Raises ProbeFailed for what is none."""
    return _parse(split(capture))


def plan(facts: Facts, wanted: Loaded | None = None) -> Plan:
    """What is to be done, why, and what forbids it. Pure."""
    chosen = wanted or playbook()
    return _plan(facts, chosen.spec, _facts_of_the_world(), load_steps(chosen.step_files, ""))


def render(todo: Plan, wanted: Loaded | None = None, options: RunOptions | None = None) -> str:
    """The POSIX sh script of the plan's next stage. Fetches and compares the signing keys that it carries (from the cache where they are)."""
    return _run.script_of(todo, wanted or playbook(), options or RunOptions())


def apply(host: Transport, wanted: Loaded | None = None, options: RunOptions | None = None, progress: Progress | None = None) -> HostReport:
    """Look, decide, carry out and prove, until the host is as wanted; what `mlhost setup` does."""
    chosen = wanted or playbook()
    settings = options or RunOptions(steps=load_steps(chosen.step_files, ""))
    return _run.setup(host, chosen, _facts_of_the_world(), settings, progress or NullProgress())


def verify(host: Transport, wanted: Loaded | None = None, options: RunOptions | None = None) -> HostReport:
    """Prove without changing: nothing is missing, and the smoke container runs now."""
    chosen = wanted or playbook()
    settings = options or RunOptions(steps=load_steps(chosen.step_files, ""))
    return _prove.verify(host, chosen, _facts_of_the_world(), settings, NullProgress())


def report(value: Union[Plan, HostReport]) -> str:
    """A plan or a report as text for people."""
    from provision.report import text

    return text.plan_text(value) if isinstance(value, Plan) else text.host_report_text(value)
