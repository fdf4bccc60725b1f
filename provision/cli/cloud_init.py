"""`mlhost cloud-init`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provision.cli.options import Playbook, playbook_options
from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.playbook import Loaded
    from provision.pull.model import Payload, Pull
    from provision.pull.userdata import Platform, UserData
    from provision.spec import Proxy

FORMATS = ("cloud-config", "multipart", "systemd", "packer", "ansible", "dockerfile-test")
PLATFORMS = ("aws", "azure", "gcp", "nocloud")
MAX_FILE = 64 * 1024 * 1024


@click.command(epilog="""
\b
Examples:
  mlhost cloud-init --for nocloud -o user-data         mlhost travels along
  mlhost cloud-init --for aws --source https://files.example.com/mlhost.pyz --sha256 1f6a... -o user-data
  mlhost cloud-init --for azure --capture ubuntu.txt   the script for one stated system: nothing is fetched but packages
  mlhost cloud-init --for gcp -p docker-host --source ... --report-url https://example.com/booted --report-console
  mlhost cloud-init --format multipart --with my.yaml  together with user-data of your own
  mlhost cloud-init --format systemd -o mlhost.sh      a script for machines without cloud-init

\b
Exit codes: 0 written, 1 it does not fit or is refused, 2 wrong usage or playbook, 5 unsupported system.
""")
@playbook_options
@click.option("--for", "platform", type=click.Choice(PLATFORMS), default="nocloud", show_default=True, help="Whose user-data: how much it may be, and in which form.")
@click.option("--format", "form", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True,
              help="User-data (the first two), or the same for those who do not use cloud-init.")
@click.option("--source", metavar="URL", help="Have the machine fetch mlhost.pyz from here; --sha256 says which it must be.")
@click.option("--sha256", metavar="HEX", help="The checksum of the file at --source.")
@click.option("--embed", metavar="FILE", help="Bring this mlhost.pyz along. Without --source, --embed and --capture one is built and brought along.")
@click.option("--capture", metavar="FILE", help="Bring only the script for the system in this capture (`mlhost facts --format raw`, `-`: standard input).")
@click.option("--report-url", metavar="URL", help="POST the report there (`@FILE`: the address in a file's first line).")
@click.option("--report-put", metavar="URL", help="PUT the report there: a pre-signed address of an object store (or `@FILE`).")
@click.option("--report-header", multiple=True, metavar="'NAME: VALUE'", help="Send this header with the report. Repeatable.")
@click.option("--report-console", is_flag=True, help="Tell on the machine's (serial) console, in lines that begin with `mlhost:`.")
@click.option("--tries", type=click.IntRange(1, 20), default=6, show_default=True, metavar="N", help="Try so often after each boot, waiting longer each time.")
@click.option("--reboot/--no-reboot", default=None, help="Whether it may reboot where that is needed (default: yes, unless the playbook says never).")
@click.option("--with", "parts", multiple=True, metavar="FILE", help="With --format multipart: user-data of your own that is to be there too. Repeatable.")
@click.option("--gzip/--no-gzip", "compress", default=None, help="Compress user-data always or never (default: where it does not fit otherwise).")
@click.option("-o", "--out", metavar="FILE", help="Write it there, readable by you alone, instead of to standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing about how to use it.")
def command(
    *,
    desired: Playbook,
    platform: str,
    form: str,
    source: str | None,
    sha256: str | None,
    embed: str | None,
    capture: str | None,
    report_url: str | None,
    report_put: str | None,
    report_header: tuple[str, ...],
    report_console: bool,
    tries: int,
    reboot: bool | None,
    parts: tuple[str, ...],
    compress: bool | None,
    out: str | None,
    quiet: bool,
) -> int:
    """Write user-data by which a machine sets itself up at its first boot: no controller, no SSH.

    The machine waits for cloud-init and for package work of others, does what `mlhost setup` does (--yes, with reboots), tries again where a network
    or a mirror is not there yet, goes on after a reboot, and reports once it is done or has given up. What does the work is checked by its
    SHA-256 there before any of it runs.

    User-data is no place for secrets: on most clouds every process of the machine can read it.
    """
    from provision.pull import model
    from provision.pull.userdata import platforms

    if parts and form != "multipart":
        raise UsageError("--with belongs to --format multipart.", "Add --format multipart.")
    if compress is not None and form not in FORMATS[:2]:
        raise UsageError("--gzip and --no-gzip are for user-data.", "Leave them out with this --format.")
    loaded = desired.load()
    report = model.checked(model.Report(address(report_url), address(report_put), report_header, report_console))
    payload, playbook = what_works(desired, loaded, source, sha256, embed, capture)
    allowed = loaded.spec.reboot != "never" if reboot is None else reboot
    pull = model.Pull(payload, report, playbook, proxy(loaded.spec.proxy), tries, 3, allowed)
    known = platforms()[platform]
    written = user_data(pull, known, form, parts, compress)
    send(written.content, out)
    if not quiet:
        hint(pull, known, form, written, out)
    return 0


def what_works(desired: Playbook, loaded: Loaded, source: str | None, sha256: str | None, embed: str | None, capture: str | None) -> tuple[Payload, str]:
    """What does the work on the machine, and the playbook it works by. Raises UsageError, Refused, Unsupported, Failed."""
    from provision.playbook import standalone
    from provision.pull import model

    given = [name for name, value in (("--source", source), ("--embed", embed), ("--capture", capture)) if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other.", "Choose one: mlhost fetched, mlhost brought along, or the script for one stated system.")
    if sha256 is not None and source is None:
        raise UsageError("--sha256 belongs to --source.", "Name where the machine fetches the file.")
    if capture is not None:
        return scripted(desired, loaded, capture), ""
    if loaded.step_files:
        raise UsageError("This playbook has steps of its own, and their files would not be on the machine.", "Use --capture, or a playbook without `steps`.")
    playbook = standalone(loaded.spec)
    if source is not None:
        return model.fetched(source, sha256 or ""), playbook
    if embed is not None:
        return model.embedded(single_file(embed)), playbook
    from provision.pyz import build

    with tempfile.TemporaryDirectory(prefix="mlhost-") as folder:
        return model.embedded(build(Path(folder) / "mlhost.pyz").path.read_bytes()), playbook


def scripted(desired: Playbook, loaded: Loaded, capture: str) -> Payload:
    """The script for the system that a capture is of. Raises UsageError where no single script does it, and what a refused plan raises."""
    from provision import actions, run
    from provision.catalog import load as load_catalog
    from provision.cli.plan import refusal
    from provision.cli.trees import capture_bytes
    from provision.pull import model

    steps = desired.steps(loaded)
    facts, plan = run.plan_from_capture(capture_bytes(None, None, capture, loaded), loaded, load_catalog(), steps)
    refused = refusal(plan)
    if refused is not None:
        raise refused
    if not plan.changes:
        raise UsageError(f"There is nothing to do on a system like {plan.host}.", "Take the capture on a fresh machine.")
    if plan.reboot != "no" or any(isinstance(item.action, actions.Reboot) for item in plan.changes):
        raise UsageError(
            f"Setting up a system like {plan.host} takes a reboot, and what is to be done after it is only known then.",
            "Bring mlhost itself, which looks again: --source URL --sha256 HEX, or neither, where the platform takes as much.",
        )
    script = run.script_of(plan, loaded, run.RunOptions(steps=steps))
    return model.script(script, f"{facts.os.id} {facts.os.version_id} {facts.arch}".lower())


def single_file(path: str) -> bytes:
    """The content of an mlhost.pyz. Raises UsageError for what is none."""
    import io
    import zipfile

    content = read_file(path, "--embed")
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise UsageError(f"--embed {path} is not an mlhost.pyz.", "Build one with `python -m provision.pyz`.")
    return content


def read_file(path: str, option: str) -> bytes:
    """A file's content. Raises UsageError where it cannot be had or is too big to be meant."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be read: {error.strerror}.", "Name a readable file.") from None
    if len(content) > MAX_FILE:
        raise UsageError(f"{option} {path} is larger than {MAX_FILE >> 20} MiB.", "Name another file.")
    return content


def address(value: str | None) -> str:
    """An address as it was given, or out of the file it was given in."""
    if value is None or not value.startswith("@"):
        return value or ""
    return read_file(value[1:], "The address file").decode("utf-8", "replace").partition("\n")[0].strip()


def proxy(settings: Proxy) -> dict[str, str]:
    """The playbook's proxy as an environment: mlhost has to be fetched, and the report sent, before and after it is at work."""
    http, https = settings.http or settings.https, settings.https or settings.http
    if not http:
        return {}
    return {"http_proxy": http, "https_proxy": https, "no_proxy": ",".join(settings.no_proxy)}


def user_data(pull: Pull, platform: Platform, form: str, parts: tuple[str, ...], compress: bool | None) -> UserData:
    """What is to be written. Raises TooBig, UsageError."""
    from provision.pull import others, userdata
    from provision.pull.render import installer

    if form == "cloud-config":
        return userdata.fitted(userdata.cloud_config(pull), platform, compress)
    if form == "multipart":
        return userdata.fitted(userdata.multipart(pull, [(part, read_file(part, "--with")) for part in parts]), platform, compress)
    make = {"systemd": installer, "packer": others.packer, "ansible": others.ansible, "dockerfile-test": others.dockerfile}[form]
    return userdata.UserData(make(pull).encode("utf-8", "surrogateescape"), False, False)


def send(content: bytes, out: str | None) -> None:
    """Write it. Raises UsageError where that cannot be, and for bytes on a terminal."""
    from provision.cli.options import Output
    from provision.cli.output import write_bytes

    if out is None and sys.stdout.isatty() and not content.isascii():
        raise UsageError("This user-data is compressed, which no terminal shows.", "Write it to a file: -o FILE.")
    write_bytes(content, Output("text", out, False, True), 0o600)


def hint(pull: Pull, platform: Platform, form: str, written: UserData, out: str | None) -> None:
    """On standard error: how big it is, how it is used, and who can read it."""
    from provision.cli.output import errors

    name = out or "FILE"
    lines = [f"{len(written.content):,} bytes{', compressed' if written.compressed else ''}{', as base64' if written.base64 else ''}."]
    if form in FORMATS[:2]:
        most = f" of at most {platform.limit:,}" if platform.limit else ""
        use = (platform.use_base64 if written.base64 else platform.use).replace("FILE", name)
        lines = [f"{platform.name}: {lines[0][:-1]}{most}.", f"  {use}", f"  {platform.note}"]
    if pull.report.post or pull.report.put or pull.environment:
        lines.append("  It holds addresses that may be secret (a report's, a proxy's): keep it to yourself, and let what is signed expire soon.")
    errors("\n".join(f"mlhost: {line}" if number == 0 else line for number, line in enumerate(lines)))
