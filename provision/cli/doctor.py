"""`mlhost doctor`."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from provision.cli.options import (
    Connection,
    Fleet,
    Output,
    Playbook,
    connection_options,
    fleet_options,
    output_options,
    playbook_options,
    targets_argument,
)
from provision.errors import Error, UsageError

if TYPE_CHECKING:
    from provision.cli.fleet import Result
    from provision.doctor.texts import Text
    from provision.examine import Examined

MOST = 64 << 20


@click.command(epilog="""
\b
Examples:
  mlhost doctor                                  this machine
  mlhost doctor root@gpu-7 root@gpu-8
  mlhost doctor --error 'could not select device driver "" with capabilities: [[gpu]]'
  docker run --gpus all IMAGE 2>&1 | mlhost doctor gpu-7
  mlhost doctor --fix gpu-7                      and mend what is safe to mend
  mlhost doctor --capture gpu-7.tar.gz           what `support-bundle` or `facts --format raw` made elsewhere

\b
Exit codes: 0 nothing is known to be broken, 7 there is a finding, 1 failed (or --fix did), 2 wrong usage,
4 unreachable. For several hosts that of the host worst off, in the order 1, 7, 2, 4, 0.
""")
@targets_argument
@click.option("--error", "error_text", metavar="TEXT", help="An error text to explain (`-`: standard input; a pipe is read without it too).")
@click.option("--text-only", is_flag=True, help="Explain the text alone; look at no machine.")
@click.option("--capture", metavar="FILE", help="Look at a capture or a support bundle instead of a machine (`-`: standard input).")
@click.option("--fix", is_flag=True, help="Carry out what is safe through the ordinary plan: services, configuration, CDI; no reboot, nothing removed.")
@playbook_options
@fleet_options
@connection_options
@output_options("text", "json")
@click.pass_context
def command(
    ctx: click.Context, *, targets: tuple[str, ...], error_text: str | None, text_only: bool, capture: str | None, fix: bool, desired: Playbook,
    connection: Connection, fleet: Fleet, output: Output,
) -> int:
    """Name what is broken, why, and what mends it.

    One read-only look at the machine (this one, if no target is named) is compared with the known failures: what its facts, its kernel's
    log and Docker's journal show, and an error text if you have one. The evidence is always shown. Changes nothing without --fix.
    """
    from provision.cli.output import check_out

    check_out(output)
    hosts = fleet.choose(ctx, targets, connection)
    _check(hosts, text_only, capture, fix)
    given = _given(error_text, read_pipe=capture != "-")
    if text_only and given is None:
        raise UsageError("--text-only needs a text.", "Give it with --error, or pipe it in.")

    from provision.cli.fleet import Result, name_of
    from provision.cli.hosts import on_hosts, single_error, tracebacks
    from provision.cli.trees import capture_bytes
    from provision.examine import Examined, examine, mend, of_text

    results: list[Result[Examined]]
    if text_only and given is not None:
        results = [Result("", value=Examined(of_text(given)))]
    elif capture is not None:
        from provision.catalog import load as load_catalog
        from provision.examine import diagnosed
        from provision.supportbundle import capture_in

        content = capture_in(capture_bytes(None, None, capture, desired.load()))
        results = [Result(name_of(capture), value=Examined(diagnosed(content, given, load_catalog())))]
    else:
        from provision.catalog import load as load_catalog
        from provision.look import RunOptions

        loaded = desired.load()
        catalog, options = load_catalog(), RunOptions(steps=desired.steps(loaded))
        work = mend if fix else examine
        results = on_hosts(hosts, connection, output, lambda transport, progress, _ask: work(transport, loaded, catalog, given, options, progress))
    single_error(results)
    tracebacks(ctx, results)
    return _tell(results, output)


def _check(targets: Sequence[str], text_only: bool, capture: str | None, fix: bool) -> None:
    given = [name for name, there in (("targets", targets), ("--capture", capture is not None), ("--text-only", text_only)) if there]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other.", "Name machines, or a capture, or look at the text alone.")
    if fix and given and given != ["targets"]:
        raise UsageError(f"--fix needs a machine, not {given[0]}.", "Name the machine, or run it there.")


def _given(error_text: str | None, read_pipe: bool) -> Text | None:
    from provision.doctor.texts import text

    raw = error_text
    if error_text == "-" or (error_text is None and read_pipe and _piped()):
        raw = sys.stdin.buffer.read(MOST)[-(1 << 20) :].decode("utf-8", "replace")
    if raw is None or not raw.strip():
        if error_text is not None:
            raise UsageError("The error text is empty.", "Give the message as you saw it.")
        return None
    return text("the text", raw, current=True)


def _piped() -> bool:
    """Whether somebody pipes something in: a pipe or file that has something (or its end) to read. A terminal or /dev/null is neither."""
    try:
        kind = os.fstat(sys.stdin.fileno()).st_mode
        return stat.S_ISREG(kind) or (stat.S_ISFIFO(kind) and bool(select.select([sys.stdin], [], [], 0.3)[0]))
    except (AttributeError, OSError, ValueError):
        return False


def _tell(results: list[Result[Examined]], output: Output) -> int:
    from provision.cli.output import errors, look, write, write_json
    from provision.report.diagnosis import diagnosis_json, diagnosis_text
    from provision.report.jsonout import error_json, many_json
    from provision.report.text import error_text, host_report_text
    from provision.report.verdict import worst

    if output.format == "json":
        parts = []
        for result in results:
            if result.value is None:
                parts.append(error_json(result.target, result.error))
                continue
            done = result.value
            fixed = None
            if done.report and done.before:
                fixed = {"items": list(done.items), "before": [f.failure.id for f in done.before.findings], "status": done.report.status,
                         "message": done.report.message}
            parts.append(diagnosis_json(done.diagnosis, target=result.target, fixed=fixed))
        write_json(parts[0] if len(parts) == 1 else many_json(parts), output)
    else:
        style = look(output)
        texts = []
        for result in results:
            done_ = result.value
            if done_ is None:
                errors(error_text(result.target, result.error, style) if result.error else result.target)
                continue
            if done_.before and done_.report:
                texts += [diagnosis_text(done_.before, style, verbose=output.verbose), host_report_text(done_.report, style, verbose=output.verbose)]
            texts.append(diagnosis_text(done_.diagnosis, style, verbose=output.verbose))
        write("\n\n".join(texts), output)
    return worst(_code(result) for result in results)


def _code(result: Result[Examined]) -> int:
    if result.value is None:
        return result.error.exit_code if isinstance(result.error, Error) else 1
    done = result.value
    if done.report and done.report.exit_code not in (0, 6, 7):
        return 1
    return 7 if done.diagnosis.findings else 0
