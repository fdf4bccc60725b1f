"""`mlhost report`."""

from __future__ import annotations

import sys

import click
from click.core import ParameterSource

from provision.cli.options import Output, output_options
from provision.errors import UsageError


@click.command(epilog="""
\b
Examples:
  mlhost setup -i fleet.yaml --report results.json --report fleet.html
  mlhost report results.json -o fleet.html       the page, from results that were kept
  mlhost report east.json west.json -o all.html  several runs on one page
  mlhost report results.json --format prometheus -o /var/lib/node_exporter/mlhost.prom
  mlhost verify -i fleet.yaml --format json | mlhost report - > fleet.html

\b
Exit codes: 0 written, 2 wrong usage, or a file that holds no results.
""")
@click.argument("files", nargs=-1, required=True, metavar="RESULTS.json...")
@output_options("html", "text", "json", "junit", "prometheus")
@click.pass_context
def command(ctx: click.Context, *, files: tuple[str, ...], output: Output) -> int:
    """Make a page (or another report) of results that were kept as JSON. Connects to no host.

    RESULTS.json is what setup, apply, verify, plan or status wrote with --format json or --report FILE.json (`-`: standard input). A host that is
    in several files is shown as the last of them has it. Without --format the name after -o decides.
    """
    from provision.cli.output import as_shown, check_out, look, write
    from provision.cli.reports import FORMATS, for_people, text_of, write_whole
    from provision.report.saved import merged, read

    check_out(output)
    kind = output.format
    if output.out and ctx.get_parameter_source("format") is not ParameterSource.COMMANDLINE:
        kind = FORMATS.get("." + output.out.rpartition(".")[2].lower(), kind)
    about, reports = merged([read(text_from(name), name) for name in files])
    if output.out:
        write_whole(text_of(kind, reports, about), output.out)
    elif kind == "text":
        write(for_people(reports, about, look(output), verbose=output.verbose), output)
    else:
        write(as_shown("".join(text_of(kind, reports, about)), output), output)
    return 0


def text_from(name: str) -> str:
    """The text of a file, or of standard input for `-`. Raises UsageError where it cannot be read."""
    try:
        if name == "-":
            return sys.stdin.read()
        with open(name, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{name} cannot be read: {reason}.", "Name a readable file of results.") from None
