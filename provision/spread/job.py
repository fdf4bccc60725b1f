"""One host's work as a value that another machine's mlhost carries out: what is sent to it, and what it does.

A job done twice is done once: the second finds on the host what the first began, by the journal there, and follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from provision import __version__
from provision.errors import Error, Failed
from provision.progress import NullProgress
from provision.report.verdict import report_of_error

if TYPE_CHECKING:
    from provision.model import HostReport
    from provision.playbook import Loaded
    from provision.prove import Depth
    from provision.transport import SshOptions

Heard = Callable[[str, tuple[str, ...]], None]


class Job(NamedTuple):
    """What to do on which host. `depth` is None for a setup, and what a verify is asked beyond looking.

    `options`, the playbook's own steps and `sudo_password_file` name files of the machine that does it: its keys, its ssh_config, its agent. No secret is in a job.
    `version` is that of the mlhost that made it.
    """

    name: str
    target: str
    options: SshOptions
    loaded: Loaded
    sudo_password_file: Optional[str] = None
    yes: bool = False
    reboot: str = "never"
    lock_wait: Optional[int] = None
    timeout: Optional[float] = None
    depth: Optional[Depth] = None
    version: str = __version__


def carry_out(job: Job, heard: Heard, reboots: Optional[AbstractContextManager[object]] = None) -> HostReport:
    """Do it, here. What goes wrong is in the report. `heard` gets the calls of a `Progress`, by name and arguments; `reboots` is held while the
    host reboots. Nobody is asked anything."""
    try:
        return _carried_out(job, _Told(heard), reboots or nullcontext())
    except Error as error:
        return replace(report_of_error(job.name, error), target=job.name)


def _carried_out(job: Job, progress: NullProgress, reboots: AbstractContextManager[object]) -> HostReport:
    from provision import catalog, prove, run
    from provision.cli.options import read_password
    from provision.ownsteps import load_steps
    from provision.transport import open_transport

    if job.version != __version__:
        raise Failed(
            f"The worker has mlhost {__version__}, and {job.version} gives it work.", "Install the same version on the workers as here: pip install 'mlhost[dask]'."
        )
    steps = load_steps(job.loaded.step_files, "") if job.loaded.step_files else ()
    options = job.options
    if job.sudo_password_file is not None:
        options = replace(options, sudo_password=read_password(job.sudo_password_file))
    if options.voucher is not None:
        options.voucher.await_keys(lambda text: progress.wait(job.name, text))
    allowed = run.RunOptions(yes=job.yes, reboot=job.reboot, lock_wait=job.lock_wait, timeout=job.timeout, steps=steps, reboots=reboots)
    with open_transport(job.target, options) as transport:
        if job.depth is not None:
            return prove.verify(transport, job.loaded, catalog.load(), allowed, progress, job.depth)
        return run.setup(transport, job.loaded, catalog.load(), allowed, progress)


class _Told(NullProgress):
    """A progress display that is elsewhere. Lines of logs stay where they are: they are many."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    def stage(self, target: str, name: str) -> None:
        self._heard("stage", (name,))

    def item(self, target: str, item_id: str, title: str, state: str) -> None:
        self._heard("item", (item_id, title, state))

    def wait(self, target: str, text: str) -> None:
        self._heard("wait", (text,))


def show(progress: Any, target: str, kind: str, arguments: tuple[str, ...]) -> None:
    """A call that `heard` got, on a progress display here. What is no such call is passed over: it came over the network."""
    if kind in ("stage", "item", "wait") and all(isinstance(text, str) for text in arguments) and len(arguments) == (3 if kind == "item" else 1):
        getattr(progress, kind)(target, *arguments)
