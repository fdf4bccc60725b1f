"""From targets to results: opens the transports, shows progress, asks what must be asked, and works on all hosts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from provision.cli import Session
from provision.cli.fleet import Result, each, name_of, report_of
from provision.cli.options import Connection, Output
from provision.cli.output import errors, fancy, look, write, write_pieces
from provision.errors import Error, UsageError
from provision.progress import Display, Progress, Renamed, open_progress
from provision.report.sanitize import block, line
from provision.report.verdict import STATUS_OF_EXIT, fleet_exit_code

if TYPE_CHECKING:
    from provision.fleet.pace import Pace
    from provision.model import HostReport
    from provision.results import About
    from provision.transport import SshOptions, Transport

T = TypeVar("T")
Work = Callable[["Transport", Progress, "Ask | None"], T]
Ask = Callable[[str], bool]
Elsewhere = Callable[[str, str, "SshOptions", Progress], T]


class Terminal:
    """Asks the user, one question at a time, while the progress display steps aside. Never asks where standard input is no terminal."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._lock = threading.Lock()
        self._sudo_password: str | None = None
        self.there = sys.stdin is not None and sys.stdin.isatty()

    def confirm(self, question: str) -> bool:
        """Yes or no; no is the default."""
        with self._lock, self._display.paused():
            return click.confirm(line(question, 4000), default=False, err=True)

    def sudo_password(self, host: str) -> str:
        """The sudo password, asked once for all hosts."""
        with self._lock:
            if self._sudo_password is None:
                with self._display.paused():
                    self._sudo_password = str(click.prompt(f"sudo password for {line(host)}", hide_input=True, err=True))
            return self._sudo_password


def on_hosts(
    targets: Sequence[str],
    connection: Connection,
    output: Output,
    work: Work[T],
    opened: Transport | None = None,
) -> list[Result[T]]:
    """As `on_each`, with the same work for all."""
    return on_each(targets, connection, output, lambda _name: work, opened)


def on_each(
    targets: Sequence[str],
    connection: Connection,
    output: Output,
    work_of: Callable[[str | None], Work[T]] | None,
    opened: Transport | None = None,
    pace: Pace | None = None,
    failed: Callable[[Result[T]], bool] | None = None,
    elsewhere: Elsewhere[T] | None = None,
) -> list[Result[T]]:
    """Call every target's work, `work_of(name)` (None: this machine, where there are no targets), with an open transport. Errors are in the results.

    `targets` may be `provision.cli.chosen.Chosen`: then an inventory says where a host is reached. `opened` is what `provision.cli.ahead` gave;
    `pace` and `failed` are as in `provision.cli.fleet.each`. With `elsewhere`, which gets a host's name, its target and how it is reached, another
    machine does it, and `work_of` is not asked.
    """
    from provision.transport import open_transport
    from provision.transport.errors import SudoPasswordNeeded

    options = connection.ssh_options()
    display = open_progress([name_of(target) for target in targets or (None,)], live=fancy(sys.stderr, output.no_color), verbose=output.verbose)
    with display:
        terminal = Terminal(display)
        ask = terminal.confirm if terminal.there else None

        def one(name: str | None) -> T:
            ended = "failed"
            display.begun(name_of(name))
            try:
                value = worked(name)
                ended = "done"
                return value
            except Error as error:
                ended = STATUS_OF_EXIT.get(error.exit_code, ended)
                raise
            finally:
                display.left(name_of(name), ended)

        def worked(name: str | None) -> T:
            progress = Renamed(display, name_of(name))
            target, own = reached(targets, name, options)
            if elsewhere is not None or work_of is None:
                assert elsewhere is not None and name is not None and target is not None  # noqa: S101, PT018 - what is elsewhere has a name
                return elsewhere(name, target, own, progress)
            call = work_of(name)
            if own.voucher is not None:
                own.voucher.await_keys(lambda text: progress.wait(name_of(name), text))
            try:
                with opened or open_transport(target, own) as transport:
                    return call(transport, progress, ask)
            except SudoPasswordNeeded:
                if not terminal.there or options.sudo_password is not None:
                    raise
                with open_transport(target, replace(own, sudo_password=terminal.sudo_password(name_of(name)))) as transport:
                    return call(transport, progress, ask)

        return each(targets, one, connection.parallel, pace, failed)


def from_inventory(targets: Sequence[str]) -> bool:
    """Whether `provision.cli.chosen` chose them; asked so that it is not imported for others."""
    return hasattr(targets, "hosts")


def reached(targets: Sequence[str], name: str | None, options: SshOptions) -> tuple[str | None, SshOptions]:
    """Where a host is reached and with which key: as it is called, or as its inventory says. A key on the command line wins."""
    if not from_inventory(targets):
        return name, options
    from provision.cli.chosen import about

    host = about(targets, name)
    if host is None:
        return name, options
    keyed = replace(options, identity_files=(host.identity,)) if host.identity and not options.identity_files else options
    if options.host_keys == "cloud":
        from provision.inventory.console import console_of

        keyed = replace(keyed, voucher=console_of(host))
    return host.target, keyed


def single_error(results: Sequence[Result[T]]) -> None:
    """Raise what went wrong where there is only one host: the entry point tells it."""
    if len(results) == 1 and results[0].error is not None:
        raise results[0].error


def tracebacks(ctx: click.Context, results: Sequence[Result[T]]) -> None:
    """With `--debug`, show the tracebacks of bugs met on some host of several."""
    for result in results:
        if result.error is not None and not isinstance(result.error, Error) and ctx.ensure_object(Session).debug:
            import traceback

            lines = traceback.format_exception(type(result.error), result.error, result.error.__traceback__)
            errors(block(f"{result.target}:\n{''.join(lines)}", 200_000))


def report_hosts(
    ctx: click.Context,
    targets: Sequence[str],
    connection: Connection,
    output: Output,
    work: Work[HostReport],
    opened: Transport | None = None,
) -> int:
    """As `report_each`, with the same work for all; nothing is remembered."""
    return report_each(ctx, targets, connection, output, lambda _name: work, opened, remember=False)


def report_each(
    ctx: click.Context,
    targets: Sequence[str],
    connection: Connection,
    output: Output,
    work_of: Callable[[str | None], Work[HostReport]] | None = None,
    opened: Transport | None = None,
    pace: Pace | None = None,
    *,
    elsewhere: Elsewhere[HostReport] | None = None,
    remember: bool = True,
    text: Callable[..., str] | None = None,
) -> int:
    """Every host's work, the reports printed once; the exit code of the host that is worst off. The arguments are those of `on_each`.

    `text` makes the text for people, where it is not that of `provision.report.text`. Where it is to `remember`, what several hosts left undone is kept for --retry-failed. Raises KeyboardInterrupt when the user broke it off,
    after the reports.
    """
    results = on_each(targets, connection, output, work_of, opened, pace, lambda result: report_of(result).exit_code not in (0, 3, 6), elsewhere)
    reports = [report_of(result) for result in results]
    if from_inventory(targets):
        # An inventory's names are what the user knows the hosts by.
        reports = [replace(report, target=result.target) for report, result in zip(reports, results)]
    kept = save_reports(ctx, reports, output)
    if output.format == "text" or not isinstance(results[0].error, Error):
        single_error(results)
    tracebacks(ctx, results)
    if remember and (len(results) > 1 or from_inventory(targets)):
        _remember(ctx, targets, [result.target for result, report in zip(results, reports) if report.exit_code not in (0, 3)])
    print_reports(reports, output, about(ctx), text)
    if any(type(result.error).__name__ == "LeftAtWork" for result in results):
        raise KeyboardInterrupt
    return fleet_exit_code(reports) or kept


def about(ctx: click.Context) -> About:
    """What the results of this command are of, now."""
    import time

    from provision import __version__
    from provision.results import About

    return About(ctx.info_name or "", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), __version__)


def save_reports(ctx: click.Context, reports: Sequence[HostReport], output: Output) -> int:
    """Write what --report asks for. What cannot be written is told, and the exit code for that returned: it must not hide the results."""
    if not output.report:
        return 0
    from provision.cli.reports import save

    code = 0
    for path in output.report:
        try:
            save(path, reports, about(ctx))
        except UsageError as error:
            errors(f"mlhost: {line(error.message, 1000)}")
            code = error.exit_code
    return code


def _remember(ctx: click.Context, targets: Sequence[str], failed: Sequence[str]) -> None:
    from provision.cli.chosen import Chosen
    from provision.fleet.memory import Last, left, remember

    chosen = targets if isinstance(targets, Chosen) else Chosen(targets, {}, (), targets)
    trouble = remember(ctx.info_name or "", Last(chosen.sources, chosen.words, left(chosen.retried, chosen, failed)))
    if trouble:
        errors(f"mlhost: {line(trouble)}")


def raise_as_error(report: HostReport) -> NoReturn:
    """The error that a report without any result tells of."""
    error = Error(report.message, report.fix)
    error.exit_code = report.exit_code
    raise error


def print_reports(reports: Sequence[HostReport], output: Output, about: About, text: Callable[..., str] | None = None) -> None:
    """The reports in the format that was asked for."""
    if output.format == "json":
        from provision.report.jsonout import report_json_text

        write_pieces(report_json_text(reports, about), output)
    elif output.format == "junit":
        from provision.report.junit import junit_xml

        write(junit_xml(reports), output)
    elif output.format in ("nagios", "prometheus"):
        from provision.report import monitoring

        write(monitoring.nagios(reports) if output.format == "nagios" else monitoring.prometheus(reports), output)
    else:
        from provision.report.text import fleet_text

        style = look(output)
        only = reports[0] if len(reports) == 1 else None
        if only and only.exit_code and only.fix and not (only.before or only.checks or only.outcomes):
            # Nothing came of it: an error like any other.
            raise_as_error(only)
        write((text or fleet_text)(reports, style, verbose=output.verbose), output)
