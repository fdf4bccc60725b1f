"""The options that several commands share, each group arriving in a command as one value."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from provision.errors import UsageError

if TYPE_CHECKING:
    from threading import Semaphore

    from provision.fleet.pace import Pace
    from provision.plan import Step
    from provision.playbook import Loaded
    from provision.transport import SshOptions

F = TypeVar("F", bound=Callable[..., Any])
Desired = Callable[["str | None"], "tuple[Loaded, Sequence[Step]]"]

DEFAULT_PLAYBOOK = "gpu-host"
HOST_KEYS = ("enforce", "accept-new", "ignore", "cloud")


class Playbook(NamedTuple):
    """Which desired state: a packaged name or a file, and `--set` overrides."""

    playbook: str
    sets: tuple[str, ...]

    def load(self) -> Loaded:
        """The desired state; raises UsageError kinds for what is wrong with it."""
        from provision import playbook

        return playbook.load(self.playbook, self.sets)

    def steps(self, loaded: Loaded) -> tuple[Step, ...]:
        """The user's own steps that the playbook names; raises UsageError for what is wrong with them."""
        if not loaded.step_files:
            return ()
        from provision.ownsteps import load_steps

        return load_steps(loaded.step_files, "")

    def for_each(self, ctx: click.Context, hosts: Sequence[str], loaded: Loaded, steps: Sequence[Step]) -> Desired:
        """Which desired state and own steps each host gets, by its name: `loaded` and `steps`, or what its inventory says. Raises UsageError kinds."""
        if not hasattr(hosts, "hosts"):  # no inventory: see provision.cli.chosen
            return lambda _name: (loaded, steps)
        from provision.cli.chosen import Wanted

        return Wanted(ctx, hosts, self, loaded, steps).of


class Connection(NamedTuple):
    """How to reach hosts, as given on the command line."""

    ssh_config: str | None
    identity: tuple[str, ...]
    host_keys: str | None
    known_hosts: str | None
    connect_timeout: float | None
    ask_sudo_password: bool
    sudo_password_file: str | None
    parallel: int

    @property
    def wants_password(self) -> bool:
        """Whether `ssh_options` asks somebody or reads a file."""
        return self.ask_sudo_password or self.sudo_password_file is not None

    def ssh_options(self) -> SshOptions:
        """The transport's options. Asks for the sudo password, or reads its file, where that was wanted."""
        from provision.transport import SshOptions

        return SshOptions(
            config_file=self.ssh_config,
            identity_files=self.identity,
            host_keys=self.host_keys,
            known_hosts_file=self.known_hosts,
            connect_timeout=self.connect_timeout,
            sudo_password=self._sudo_password(),
        )

    def _sudo_password(self) -> str | None:
        if self.sudo_password_file is not None:
            return read_password(self.sudo_password_file)
        if not self.ask_sudo_password:
            return None
        if not sys.stdin.isatty():
            raise UsageError("--ask-sudo-password needs a terminal to ask on.", "Use --sudo-password-file FILE.")
        return str(click.prompt("sudo password", hide_input=True, err=True))


def read_password(path: str) -> str:
    """The first line of a file (`-`: standard input). Raises UsageError where it cannot be read or is empty; never shows its content."""
    try:
        if path == "-":
            text = sys.stdin.readline()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.readline()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        remedy = "Name a readable file whose first line is the password."
        raise UsageError(f"The sudo password file {path} cannot be read: {reason}.", remedy) from None
    password = text.rstrip("\r\n")
    if not password:
        raise UsageError(f"The sudo password file {path} has an empty first line.", "Put the password into its first line.")
    return password


class Fleet(NamedTuple):
    """Which hosts, besides those named as targets."""

    inventory: tuple[str, ...]
    limit: tuple[str, ...]

    def choose(self, ctx: click.Context, targets: tuple[str, ...], connection: Connection, retry: bool = False) -> Sequence[str]:
        """The hosts to work on: the targets as they are, or what `provision.cli.chosen.choose` makes of them."""
        if not (self.inventory or self.limit or retry or any(word.startswith(("aws:", "azure:")) for word in targets)):
            return targets
        from provision.cli.chosen import choose

        return choose(ctx, targets, self, connection, retry)


class Pacing(NamedTuple):
    """How a fleet is worked through."""

    canary: int
    batch: str | None
    max_failures: str | None
    reboots_at_once: int | None
    retry_failed: bool
    engine: str | None

    def pace(self, connection: Connection) -> Pace | None:
        """The order and the limits, None where nothing was said. Raises UsageError for amounts that are none."""
        if not self.canary and self.batch is None and self.max_failures is None:
            return None
        from provision.fleet.pace import Pace, amount

        return Pace(
            connection.parallel,
            self.canary,
            amount(self.batch, "--batch", 1) if self.batch is not None else None,
            amount(self.max_failures, "--max-failures", 0) if self.max_failures is not None else None,
        )

    def reboots(self, connection: Connection) -> Semaphore:
        """What a host holds while it reboots."""
        import threading

        return threading.Semaphore(self.reboots_at_once or connection.parallel)


class Output(NamedTuple):
    """Where and how results are written. `report` are further files, each in the format that its name ends with."""

    format: str
    out: str | None
    verbose: bool
    no_color: bool
    report: tuple[str, ...] = ()


def playbook_options(function: F) -> F:
    """`-p`, `--set`, as `playbook: Playbook`."""
    return group(function, "desired", Playbook, [
        click.option("-p", "--playbook", default=DEFAULT_PLAYBOOK, show_default=True, metavar="NAME|FILE",
                     help="The desired state: a packaged playbook or a YAML file."),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a playbook value, e.g. docker.source=distro. Repeatable."),
    ])


def connection_options(function: F) -> F:
    """How to reach hosts, as `connection: Connection`."""
    return group(function, "connection", Connection, [
        click.option("-F", "--ssh-config", metavar="FILE", help="Read this ssh_config instead of the usual ones (`none`: read none)."),
        click.option("--identity", multiple=True, metavar="FILE", help="Log in with this private key. Repeatable."),
        click.option("--host-keys", type=click.Choice(HOST_KEYS), default=None,
                     help="Unknown host keys: refuse (enforce, the default), store at first sight, do not check, or ask the cloud: what the EC2 "
                          "instance's console shows."),
        click.option("--known-hosts", metavar="FILE", help="Use this known_hosts file instead of the usual ones."),
        click.option("--connect-timeout", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Give up connecting after this long."),
        click.option("--ask-sudo-password", is_flag=True, help="Ask for the sudo password once, on the terminal."),
        click.option("--sudo-password-file", metavar="FILE", help="Read the sudo password from the file's first line (`-`: standard input)."),
        click.option("--parallel", type=click.IntRange(min=1), default=8, show_default=True, metavar="N", help="Work on so many hosts at once."),
    ])


def fleet_options(function: F) -> F:
    """Hosts from inventories, as `fleet: Fleet`; `provision.cli.chosen` makes targets of it."""
    return group(function, "fleet", Fleet, [
        click.option("-i", "--inventory", multiple=True, metavar="SOURCE",
                     help="Take hosts from here: a file, ssh:PATTERN, aws:… or azure:…; see `mlhost inventory --help`. Targets are then names, "
                          "groups or patterns of it; without a target all its hosts. Repeatable."),
        click.option("--limit", multiple=True, metavar="PATTERN", help="Only these of them: names, groups, * and ?, `!not`, `&and`. Repeatable."),
    ])


def pace_options(function: F) -> F:
    """How a fleet is worked through, as `pacing: Pacing`."""
    return group(function, "pacing", Pacing, [
        click.option("--canary", type=click.IntRange(min=0), default=0, metavar="N", help="First so many hosts alone; go on only if all end well."),
        click.option("--batch", metavar="N|P%", help="So many hosts, or that share of them, at a time; the next when all have ended."),
        click.option("--max-failures", metavar="N|P%", help="Begin no more hosts once more than so many have failed."),
        click.option("--reboots-at-once", type=click.IntRange(min=1), metavar="N",
                     help="Reboot so many hosts at the same time (default: as many as --parallel)."),
        click.option("--retry-failed", is_flag=True, help="Only hosts that this command's last run over several hosts left undone."),
        click.option("--engine", metavar="dask=ADDRESS", help="Have the workers of a Dask cluster do it: dask=tcp://SCHEDULER:8786. Keys are those that the workers have."),
    ])


def output_options(*formats: str, report: bool = False) -> Callable[[F], F]:
    """`--format`, `--out` and how it looks, as `output: Output`; the first format is the default. With `report` also `--report`."""
    further = [
        click.option("--report", multiple=True, metavar="FILE",
                     help="Also write the results there, as its name ends: .html (one page), .json, .xml (JUnit), .prom (Prometheus) or .txt. Repeatable.")
    ]

    def decorate(function: F) -> F:
        return group(function, "output", Output, [
            click.option("--format", type=click.Choice(formats), default=formats[0], show_default=True, help="What to print."),
            click.option("-o", "--out", metavar="FILE", help="Write the result to a file instead of standard output."),
            *(further if report else ()),
            click.option("-v", "--verbose", is_flag=True, help="Show more: values, what is already right, the log as it comes."),
            click.option("--no-color", is_flag=True, help="Plain text (also: the environment variable NO_COLOR)."),
            click.option("--debug", is_flag=True, expose_value=False, callback=show_tracebacks, help="Show a traceback with an error."),
        ])

    return decorate


def lock_wait_option(function: F) -> F:
    """`--lock-wait`, as `lock_wait: int | None`, for the commands that work on packages."""
    text = "Wait so long for cloud-init and package manager locks."
    return click.option("--lock-wait", type=click.IntRange(min=0), metavar="SECONDS", help=text)(function)


def tree_options(function: F) -> F:
    """`--root`, `--arch` and `--capture`: work from a system tree or a capture instead of a host."""
    for option in (
        click.option("--capture", metavar="FILE", help="Work from what `mlhost facts --format raw` printed elsewhere (`-`: standard input)."),
        click.option("--arch", metavar="ARCH", help="With --root: the tree's architecture as `uname -m` has it."),
        click.option("--root", metavar="DIR", help="Read an unpacked or mounted system instead of a live one."),
    ):
        function = option(function)
    return function


def targets_argument(function: F) -> F:
    """`[TARGET]...`, each once, in the order given."""
    argument = click.argument("targets", nargs=-1, metavar="[[USER@]HOST[:PORT]]...", callback=lambda _c, _p, value: tuple(dict.fromkeys(value)))
    return argument(function)


def show_tracebacks(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    """The callback of `--debug`."""
    from provision.cli import Session

    ctx.ensure_object(Session).debug |= value


def group(function: F, name: str, cls: Any, options: list[Callable[[Any], Any]]) -> F:
    """Collect the options whose names are fields of `cls` into one argument `name`."""
    names = cls._fields

    @functools.wraps(function)
    def collected(*args: Any, **kwargs: Any) -> Any:
        kwargs[name] = cls(**{key: kwargs.pop(key) for key in names if key in kwargs})
        return function(*args, **kwargs)

    wrapped: Any = collected
    for option in reversed(options):
        wrapped = option(wrapped)
    result: F = wrapped
    return result
