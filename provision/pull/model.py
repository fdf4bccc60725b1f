"""What a machine that sets itself up is told: what does the work there, how, and to whom it reports. Values only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from provision import __version__
from provision.errors import UsageError

STATE = "/var/lib/mlhost/pull"
"""Where such a machine keeps what it was told, its log and its last report."""

UNIT = "mlhost-pull.service"
"""The unit that does the work after each boot until it is done."""

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_URL = re.compile(r"https?://[!-~]+")
_HEADER = re.compile(r"[A-Za-z0-9-]+: ?[ -~]*")


@dataclass(frozen=True)
class Payload:
    """What does the work on the machine: `kind` "mlhost" is mlhost as one file, "script" a stage's script for one stated system.

    `content` travels along; where it is None the machine fetches it from `source`. `sha256` is checked on the machine before anything of it runs.
    `system` is what the script is for: os-release's ID, its VERSION_ID and `uname -m`, with single spaces.
    """

    kind: str
    sha256: str
    content: bytes | None = None
    source: str = ""
    system: str = ""


@dataclass(frozen=True)
class Report:
    """Whom the machine tells how it went: an address that takes a POST, one that takes a PUT, more headers for both, and its console."""

    post: str = ""
    put: str = ""
    headers: tuple[str, ...] = ()
    console: bool = False


@dataclass(frozen=True)
class Pull:
    """Everything that the machine is told. `playbook` is the text of a playbook that stands alone; `environment` is that of all work (a proxy's
    variables); `tries` are tries of one boot, `reboots` how many reboots it may take in all; without `reboot` it takes none."""

    payload: Payload
    report: Report = field(default_factory=Report)
    playbook: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    tries: int = 6
    reboots: int = 3
    reboot: bool = True

    @property
    def id(self) -> str:
        """What these settings are called: a machine that has done their work does not do it again."""
        return hashlib.sha256(repr((__version__, self)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def embedded(content: bytes) -> Payload:
    """mlhost itself, brought along."""
    return Payload("mlhost", hashlib.sha256(content).hexdigest(), content)


def fetched(source: str, sha256: str) -> Payload:
    """mlhost itself, to be fetched by the machine. Raises UsageError for an address or a checksum that is none."""
    if not _URL.fullmatch(source):
        raise UsageError("--source is not an address to fetch from.", "Give the http or https address of an mlhost.pyz.")
    if not _SHA256.fullmatch(sha256):
        raise UsageError("--source needs the file's SHA-256 checksum.", "Add --sha256 with what `sha256sum mlhost.pyz` prints: 64 hex digits.")
    return Payload("mlhost", sha256.lower(), None, source)


def script(text: str, system: str) -> Payload:
    """A stage's script for one stated system."""
    content = text.encode("utf-8", "surrogateescape")
    return Payload("script", hashlib.sha256(content).hexdigest(), content, "", system)


def checked(report: Report) -> Report:
    """The report settings, with the header that Azure's object store insists on. Raises UsageError for what is no address and no header.

    Source: learn.microsoft.com "Put Blob": x-ms-blob-type is required.
    """
    for option, url in (("--report-url", report.post), ("--report-put", report.put)):
        # Not shown: it may hold a signature.
        if url and not _URL.fullmatch(url):
            raise UsageError(f"{option} is not an http or https address.", "Give it whole, in quotes, without blanks.")
    for header in report.headers:
        if not _HEADER.fullmatch(header):
            raise UsageError("--report-header is not a header line.", "Write it as 'NAME: VALUE' in plain ASCII.")
    host = re.sub(r"^https?://([^/?#@]*@)?([^/?#:]*).*$", r"\2", report.put).lower()
    names = {header.partition(":")[0].lower() for header in report.headers}
    more = ("x-ms-blob-type: BlockBlob",) if host.endswith(".blob.core.windows.net") and "x-ms-blob-type" not in names else ()
    return Report(report.post, report.put, (*report.headers, *more), report.console)
