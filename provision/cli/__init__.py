"""The command line: it parses arguments, calls the library, prints what came back and picks the exit code. Nothing else.

Each command is a module of its own, imported when it is used; `mlhost --version` and `mlhost --help` load none of the machinery.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import click

from provision import __version__
from provision.errors import Error, Interrupted

# What `mlhost --help` lists, in the order a new user needs it. The module of each holds a click command named `command`.
COMMANDS = {
    "setup": "Set machines up as GPU container hosts, and prove it.",
    "plan": "Show what setup would do and why. Changes nothing.",
    "apply": "Carry out a plan that was reviewed, if nothing has changed since.",
    "verify": "Prove that machines are what the playbook says. Changes nothing.",
    "status": "Show how machines stand: the last run, what has drifted since. Changes nothing.",
    "run": "Run a command in a container as if it were a program.",
    "lock": "Write down what the playbook comes to, in exact versions and hashes.",
    "bundle": "Put everything that hosts need into one file, for hosts without a network.",
    "rollback": "Take back what mlhost has changed on machines.",
    "uninstall": "Take back everything, and mlhost itself.",
    "doctor": "Name what is broken on machines, why, and what mends it.",
    "support-bundle": "Pack what a helper needs to see, without secrets, into one file.",
    "facts": "Show what mlhost reads from a machine. Changes nothing.",
    "report": "Make a page (or JUnit, Prometheus …) of results that were kept as JSON.",
    "image": "Make, build, save, load, push and copy container images.",
    "cloud-init": "Write user-data by which a machine sets itself up at its first boot.",
    "inventory": "Show which hosts an inventory, a cloud or ssh_config has.",
}

INTERRUPTED = 130


@dataclass
class Session:
    """What the commands tell the entry point: whether tracebacks are wanted, and what to say if the user stops it."""

    debug: bool = False
    interrupted: str = "Interrupted. Nothing was being changed."


class CommandGroup(click.Group):
    """Commands that are imported when they are called; help lists them without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"provision.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)  # noqa: S101 - narrows the type
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, 1)
            hint = f"Did you mean `{near[0]}`?" if near else f"Commands are: {', '.join(COMMANDS)}."
            if "@" in args[0] or "." in args[0]:
                hint = f"To set a machine up: mlhost setup {args[0]}"
            raise click.UsageError(f"There is no command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Run `mlhost COMMAND --help` for a command's options and examples.",
)
@click.version_option(__version__, prog_name="mlhost", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Turn fresh Linux machines into proved GPU container hosts.

    mlhost reads what a machine is, plans what is missing, carries the plan out and proves the result by running a container.

    \b
      mlhost plan                  what would be done to this machine, and why
      mlhost setup                 do it, and prove it
      mlhost setup root@gpu-7      the same over SSH
    """
    ctx.ensure_object(Session).debug |= debug


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code. Prints errors; raises nothing for what a user can meet."""
    session = Session()
    words = list(sys.argv[1:] if args is None else args)
    try:
        result = cli.main(args=words or ["--help"], prog_name="mlhost", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Abort:
        return _interrupted(session)
    except KeyboardInterrupt:
        return _interrupted(session)
    except click.ClickException as error:
        _say(error.format_message(), _usage_hint(error))
        return error.exit_code
    except Error as error:
        _debug(session)
        _say(error.message, error.fix)
        return INTERRUPTED if isinstance(error, Interrupted) else error.exit_code
    except BrokenPipeError:
        # Whoever read our output has gone; what is still buffered must not complain at exit either.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if session.debug:
            _debug(session)
        _say(
            f"this is a bug in mlhost {__version__}: {type(error).__name__}: {error}",
            "Please report it with the output of the same command with --debug added."
            if not session.debug
            else "Please report it with the traceback above.",
        )
        return 1


def entrypoint() -> NoReturn:
    """The program `mlhost`."""
    # Python's default, a look for garbage at every 700 objects more, would be taken a hundred times by the imports alone, in vain.
    gc.set_threshold(100_000)
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or not there at all
            stream.flush()
    # Not sys.exit: threads may still be at work for other hosts, and Python can abort where one of them is writing while it shuts down.
    # Nothing here wants Python's own tidying up, which takes a twentieth of a short run besides.
    os._exit(code)


def _usage_hint(error: click.ClickException) -> str:
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return ""
    return f"Run `{error.ctx.command_path} --help` for how to call it."


def _interrupted(session: Session) -> int:
    _say(session.interrupted, "")
    return INTERRUPTED


def _debug(session: Session) -> None:
    if session.debug:
        import traceback

        from provision.report.sanitize import block

        # A traceback quotes the exceptions' own words, which may be a host's and may hold a password.
        with contextlib.suppress(OSError, ValueError):
            print(block(traceback.format_exc(), 200_000), file=sys.stderr, flush=True)


def _say(message: str, fix: str) -> None:
    """One paragraph on standard error: what is wrong, and what to do."""
    from provision.report.sanitize import line

    # Each on one line: a host's words must not look like another message of ours.
    with contextlib.suppress(OSError, ValueError):
        print("\n".join(part for part in (f"mlhost: {line(message, 4000)}", line(fix, 4000)) if part), file=sys.stderr, flush=True)
