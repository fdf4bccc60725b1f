"""`mlhost facts`."""

from __future__ import annotations

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
    tree_options,
)
from provision.errors import Error, UsageError

if TYPE_CHECKING:
    from provision.catalog import Catalog
    from provision.model import Facts, GpuRow, PlatformRow


@click.command(epilog="""
\b
Examples:
  mlhost facts                                   this machine
  mlhost facts --format json root@gpu-7 | jq .docker
  mlhost facts --format raw --out gpu-7.txt gpu-7
  mlhost facts --format raw --packages --out gpu-7.txt gpu-7     for mlhost lock and mlhost bundle
  mlhost facts --root /mnt/image                 an unpacked or mounted system
  mlhost facts --capture gpu-7.txt               what --format raw printed elsewhere

\b
Exit codes: 0 fine, 1 failed, 2 wrong usage, 4 unreachable. For several hosts that of the host worst off.
""")
@targets_argument
@playbook_options
@tree_options
@click.option("--packages", "record", is_flag=True, help="With --format raw: also all that dpkg knows and the package sources' keys, for mlhost lock and bundle.")
@fleet_options
@connection_options
@output_options("text", "json", "raw")
@click.pass_context
def command(
    ctx: click.Context,
    *,
    targets: tuple[str, ...],
    desired: Playbook,
    root: str | None,
    arch: str | None,
    capture: str | None,
    record: bool,
    connection: Connection,
    fleet: Fleet,
    output: Output,
) -> int:
    """Show what mlhost reads from machines: system, GPUs, driver, Docker, toolkit. Changes nothing.

    One read-only script runs on the machine, as root where it can. `--format raw` prints what came back, for `--capture` and for bug reports;
    look through it before you share it.
    """
    from provision.cli.ahead import ahead

    hosts = fleet.choose(ctx, targets, connection)
    opened = ahead(hosts, connection) if root is None and capture is None else None

    from provision import run
    from provision.capture import split
    from provision.catalog import load as load_catalog
    from provision.cli.fleet import Result, name_of
    from provision.cli.hosts import on_hosts, single_error, tracebacks
    from provision.cli.output import as_shown, check_out, errors, look, write, write_bytes, write_json
    from provision.cli.trees import capture_bytes, check_source
    from provision.facts import parse
    from provision.report.factstext import facts_text
    from provision.report.jsonout import error_json, facts_json, many_json
    from provision.report.sanitize import redact
    from provision.report.text import error_text
    from provision.report.verdict import worst

    check_source(hosts, root, arch, capture)
    check_out(output)
    if output.format == "raw" and len(hosts) > 1:
        raise UsageError("--format raw prints the capture of one machine.", "Name one target.")
    if record and output.format != "raw":
        raise UsageError("--packages belongs to --format raw.", "Say `mlhost facts --format raw --packages`.")
    loaded = desired.load()
    catalog = load_catalog()
    results: list[Result[tuple[bytes, Facts]]]
    if root is not None or capture is not None:
        raw = capture_bytes(root, arch, capture, loaded, record)
        results = [Result(root or name_of(capture), value=(raw, parse(split(raw))))]
    else:
        results = on_hosts(
            hosts, connection, output, lambda transport, _progress, _ask: run.facts_of(transport, loaded.spec, catalog, record), opened
        )
    single_error(results)
    tracebacks(ctx, results)
    if output.format == "raw":
        raw_text = results[0].value[0].decode("utf-8", "surrogateescape") if results[0].value else ""
        write_bytes(as_shown(redact(raw_text), output).encode("utf-8", "surrogateescape"), output)
    elif output.format == "json":
        parts = [facts_json(result.value[1]) if result.value else error_json(result.target, result.error) for result in results]
        write_json(parts[0] if len(parts) == 1 else many_json({"target": result.target, **part} for result, part in zip(results, parts)), output)
    else:
        style = look(output)
        texts = [
            facts_text(result.value[1], *named(result.value[1], catalog), style, verbose=output.verbose) for result in results if result.value
        ]
        write("\n\n".join(texts), output)
        for result in results:
            if result.error is not None:
                errors(error_text(result.target, result.error, style))
    return worst((result.error.exit_code if isinstance(result.error, Error) else 1) if result.error else 0 for result in results)


def named(facts: Facts, catalog: Catalog) -> tuple[PlatformRow | str, list[GpuRow]]:
    """The catalog's names for the system and the GPUs; an unsupported system keeps its own."""
    from provision.errors import Unsupported
    from provision.model import GpuRow, PlatformRow

    gpus = []
    for device in facts.gpus:
        model = catalog.gpu(device.device, device.subsystem.split(":")[-1] or None)
        gpus.append(GpuRow(device.address, f"{device.vendor}:{device.device}", model.name, model.generation))
    try:
        platform = catalog.platform(facts.os, facts.arch)
    except Unsupported:
        return f"{facts.os.pretty_name or facts.os.id} (not supported)", gpus
    row = PlatformRow(
        platform.id, platform.version, platform.codename, platform.family, facts.arch, catalog.cloud(facts.dmi), facts.os.pretty_name
    )
    return row, gpus
