"""`mlhost plan`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from provision.cli.bake import Image, for_gpu_option
from provision.cli.locked import locked_option, read_lock
from provision.cli.options import (
    Connection,
    Desired,
    Fleet,
    Output,
    Playbook,
    connection_options,
    fleet_options,
    output_options,
    playbook_options,
    targets_argument,
    tree_options,
)
from provision.errors import Error, UsageError

if TYPE_CHECKING:
    from provision.catalog import Catalog
    from provision.cli.fleet import Result
    from provision.cli.hosts import Ask
    from provision.look import RunOptions
    from provision.model import Facts, HostReport, Plan
    from provision.playbook import Loaded
    from provision.progress import Progress
    from provision.savedplan import SavedHost
    from provision.transport import Transport

    Planned = tuple[Plan, str, HostReport]  # the plan, its script where that is wanted, and the plan as a report


@click.command(epilog="""
\b
Examples:
  mlhost plan                                    this machine
  mlhost plan -v root@gpu-7                      with the values behind every decision
  mlhost plan -i fleet.yaml train                a group of an inventory
  mlhost plan --format json gpu-7 | jq .decisions
  mlhost plan --format sh gpu-7                  the very script that setup would run
  mlhost plan --out gpu-7.plan root@gpu-7        a plan to review, for mlhost apply gpu-7.plan
  mlhost plan --root /mnt/image --arch aarch64   an unpacked system
  mlhost plan --root /mnt/image --bake --for-gpu l4
  mlhost plan --capture gpu-7.txt                what `mlhost facts --format raw` printed elsewhere

\b
Exit codes: 0 nothing to change, 3 changes pending, 1 refused, 5 unsupported, 2 wrong usage or playbook,
4 unreachable. For several hosts that of the host worst off, in the order 1, 2, 4, 5, 3, 0.
""")
@targets_argument
@playbook_options
@tree_options
@for_gpu_option
@click.option("--bake", is_flag=True, help="With --root: what `mlhost setup --root` would do now, and what it would leave for the first boot.")
@locked_option
@fleet_options
@connection_options
@output_options("text", "json", "sh", report=True)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    targets: tuple[str, ...],
    desired: Playbook,
    root: str | None,
    arch: str | None,
    capture: str | None,
    for_gpu: tuple[str, ...],
    bake: bool,
    locked: str | None,
    connection: Connection,
    fleet: Fleet,
    output: Output,
) -> int:
    """Show what `mlhost setup` would do to machines, and why. Changes nothing."""
    from provision.cli.ahead import ahead, look_ahead
    from provision.cli.output import check_out

    hosts = fleet.choose(ctx, targets, connection)
    image = Image(root, arch, for_gpu).for_plan(bake, hosts, capture)
    check_out(output)
    keep = saves(ctx, output, root or capture, locked)
    if output.format == "sh" and len(hosts) > 1:
        raise UsageError("--format sh prints the script of one machine.", "Name one target.")
    opened = ahead(hosts, connection) if root is None and capture is None else None
    loaded = desired.load()
    steps = desired.steps(loaded)
    held = read_lock(locked)
    first = look_ahead(opened, loaded.spec, steps, held.names if held else ())

    from provision import run
    from provision.catalog import load as load_catalog
    from provision.cli.fleet import Result, name_of
    from provision.cli.hosts import Work, on_each, save_reports, single_error, tracebacks
    from provision.report.verdict import report_of_plan, worst
    from provision.versions import versions

    catalog, wanted = load_catalog(), desired.for_each(ctx, hosts, loaded, steps)
    wants_script = output.format == "sh"
    kept: dict[str, SavedHost] = {}
    check_same(hosts if keep else (), wanted, loaded)

    def work(name: str | None) -> Work[Planned]:
        own, own_steps = wanted(name)
        theirs = run.RunOptions(steps=own_steps, first=first, pinned=held.pinned(own.digest) if held else None)

        def planned(transport: Transport, progress: Progress, _ask: Ask | None) -> Planned:
            began = time.monotonic()
            facts, plan = run.plan_of(transport, own, catalog, theirs, progress)
            if keep and not refusal(plan):
                called = getattr(progress, "name", "")
                kept[called] = kept_host(called, plan, run.with_keys(plan, own.spec, theirs, transport))
            told = report_of_plan(transport.name, plan, versions(facts) if output.report else {}, time.monotonic() - began)
            return plan, run.script_of(plan, own, theirs, transport) if wants_script and not refusal(plan) else "", told

        return planned

    if root is not None or capture is not None:
        options = run.RunOptions(steps=steps, pinned=held.pinned(loaded.digest) if held else None)
        facts, plan = image.plan(loaded, catalog, options) if bake else written(root, arch, capture, loaded, catalog, options)
        script = run.script_of(plan, loaded, options) if wants_script and not refusal(plan) else ""
        results = [Result(root or name_of(capture), value=(plan, script, report_of_plan("", plan, versions(facts))))]
    else:
        results = on_each(hosts, connection, output, work, opened)
    unwritten = save_reports(ctx, [report_of_result(result) for result in results], output) if output.report else 0
    single_error(results)
    tracebacks(ctx, results)
    if keep:
        show_text(results, output._replace(out=None))
        save([kept[result.target] for result in results if result.target in kept], results, loaded, output)
    else:
        {"sh": show_script, "json": show_json, "text": show_text}[output.format](results, output)
    return worst(exit_code(result) for result in results) or unwritten


def written(root: str | None, arch: str | None, capture: str | None, loaded: Loaded, catalog: Catalog, options: RunOptions) -> tuple[Facts, Plan]:
    """The facts and the plan made from a tree's files or a capture; no host is asked."""
    from provision import run
    from provision.cli.trees import capture_bytes

    return run.plan_from_capture(capture_bytes(root, arch, capture, loaded), loaded, catalog, options.steps, options.pinned)


def saves(ctx: click.Context, output: Output, tree: str | None, locked: str | None = None) -> bool:
    """Whether `--out` asks for a plan file: it does unless a format was asked for as well. Raises UsageError where there is no host to apply it to."""
    keep = bool(output.out) and ctx.get_parameter_source("format") is not ParameterSource.COMMANDLINE
    if keep and tree is not None:
        raise UsageError("A plan to be carried out later needs a host.", "Say --format text or json to write this plan to a file.")
    if keep and locked is not None:
        raise UsageError("A plan file cannot be held to a lock.", "Use `mlhost setup --locked FILE`, which plans by the lock itself.")
    return keep


def check_same(hosts: Sequence[str], wanted: Desired, loaded: Loaded) -> None:
    """Raise UsageError for a host that an inventory gives a desired state of its own: a plan file has one for all."""
    differs = next((name for name in hosts if wanted(name)[0].digest != loaded.digest), None)
    if differs is not None:
        fix = "Leave it out with --limit '!NAME', and set that host up by `mlhost setup`."
        raise UsageError(f"A plan file holds one desired state, and {differs} has one of its own in the inventory.", fix)


def kept_host(name: str, plan: Plan, ready: Plan) -> SavedHost:
    """The host's part of a plan file. `ready` is the plan with its keys."""
    from provision.cli.fleet import HERE
    from provision.savedplan import saved_host

    return saved_host(None if name == HERE else name, plan, ready)


def save(hosts: Sequence[SavedHost], results: Sequence[Result[Planned]], loaded: Loaded, output: Output) -> None:
    """Write the plan file, for its owner's eyes. Raises Refused where a host's plan cannot be carried out: half a plan is none."""
    from provision.cli.fleet import HERE
    from provision.cli.output import write_private
    from provision.errors import Refused
    from provision.ownsteps import digests
    from provision.run import owner
    from provision.savedplan import write

    missing = [result.target for result in results if result.target not in {h.target or HERE for h in hosts}]
    if missing:
        raise Refused(
            f"No plan file was written: {', '.join(missing)} {'has' if len(missing) == 1 else 'have'} no plan that could be carried out.",
            "See above; leave that host out, or put it right first.",
        )
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    write_private(write(hosts, loaded, made=made, by=owner(), steps=digests(loaded.step_files)), output.out or "")


def exit_code(result: Result[Planned]) -> int:
    """One host's exit code."""
    from provision.report.verdict import plan_exit_code

    if result.value:
        return plan_exit_code(result.value[0])
    return result.error.exit_code if isinstance(result.error, Error) else 1


def report_of_result(result: Result[Planned]) -> HostReport:
    """One host's plan, or what went wrong there, as a report."""
    from dataclasses import replace

    from provision.cli.fleet import report_of

    if result.value is None:
        return report_of(replace(result, value=None))  # type: ignore[arg-type]
    return replace(result.value[2], target=result.target)


def show_script(results: Sequence[Result[Planned]], output: Output) -> None:
    """Print the script of the one plan; raises the refusal of a plan that has none."""
    from provision.cli.output import as_shown, write

    value = results[0].value
    plan, script = value[:2] if value else (None, "")
    error = refusal(plan) if plan else None
    if error:
        raise error
    # It may hold a proxy's password, so the file is its owner's alone.
    write(as_shown(script, output), output, 0o700)


def show_json(results: Sequence[Result[Planned]], output: Output) -> None:
    """Print the plans and what went wrong, for programs."""
    from provision.cli.output import write_json
    from provision.report.jsonout import error_json, many_json, plan_json

    parts = [plan_json(result.value[0]) if result.value else error_json(result.target, result.error) for result in results]
    write_json(parts[0] if len(parts) == 1 else many_json({"target": result.target, **part} for result, part in zip(results, parts)), output)


def show_text(results: Sequence[Result[Planned]], output: Output) -> None:
    """Print the plans, and on standard error what went wrong with other hosts."""
    from provision.cli.output import errors, look, write
    from provision.report.text import error_text, plan_text

    style = look(output)
    name = len(results) > 1
    texts = [
        plan_text(result.value[0], style, verbose=output.verbose, target=result.target if name else "") for result in results if result.value
    ]
    write("\n\n".join(texts), output)
    for result in results:
        if result.error is not None:
            errors(error_text(result.target, result.error, style))


def refusal(plan: Plan) -> Error | None:
    """The error that a refused plan ends a run with; None for one that can be carried out."""
    from provision.errors import Refused, Unsupported

    if not plan.problems:
        return None
    kind = Unsupported if any(problem.unsupported for problem in plan.problems) else Refused
    return kind(
        f"{plan.host}: there is no script, because the plan is refused: {' '.join(problem.message for problem in plan.problems)}",
        " ".join(problem.fix for problem in plan.problems),
    )
