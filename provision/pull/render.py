"""The files of a machine that sets itself up, and the script that puts them there. Pure: values in, texts out."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from provision import __version__
from provision.pull.model import STATE, UNIT, Pull
from provision.sh import Sh, template

# Not in the ordinary order of multi-user.target: cloud-final.service comes after that target on Debian and Ubuntu, so that a unit which is part of
# the target and after cloud-final would close a circle, of which systemd throws out some part or other.
# Source: github.com/canonical/cloud-init issue 4068 and pull request 5830.
UNIT_TEXT = f"""\
# Written by mlhost: this machine sets itself up. Gone when that is done and told.
[Unit]
Description=mlhost sets this machine up
ConditionPathExists={STATE}/run.sh
DefaultDependencies=no
Wants=network-online.target
After=sysinit.target basic.target network-online.target time-sync.target cloud-final.service docker.service
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=simple
WorkingDirectory=/
Environment=HOME=/root
ExecStart=/bin/sh {STATE}/run.sh boot
KillMode=mixed
TimeoutStopSec=180

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class File:
    """One file in `STATE`, for root alone. Of `data`, `text` is what a script or a cloud-config can hold: itself, or as base64 in lines."""

    name: str
    data: bytes

    @property
    def encoded(self) -> bool:
        """Whether `text` is base64."""
        try:
            text = self.data.decode("utf-8")
        except UnicodeDecodeError:
            return True
        # A carriage return, a blank at a line's end or a missing last line end would not arrive everywhere as it is.
        return not text.endswith("\n") or any(c not in {"\n", "\t"} and not c.isprintable() for c in text)

    @property
    def text(self) -> str:
        """The content as lines of text."""
        if not self.encoded:
            return self.data.decode("utf-8")
        return base64.encodebytes(self.data).decode("ascii")


def files(pull: Pull) -> tuple[File, ...]:
    """What lies in `STATE`: the driver, the playbook where there is one, and what does the work where it travels along."""
    found = [File("run.sh", _driver(pull).encode("utf-8", "surrogateescape"))]
    if pull.playbook:
        found.append(File("playbook.yaml", pull.playbook.encode("utf-8", "surrogateescape")))
    if pull.payload.content is not None:
        found.append(File("payload", pull.payload.content))
    return tuple(found)


def _driver(pull: Pull) -> Sh:
    payload, report = pull.payload, pull.report
    return template(
        "pull/run.sh.j2",
        unit=Sh(UNIT),
        state=Sh(STATE),
        id=pull.id,
        version=__version__,
        kind=payload.kind,
        source=payload.source,
        sha256=payload.sha256,
        system=payload.system,
        console="yes" if report.console else "no",
        post=report.post,
        put=report.put,
        headers="\n".join(report.headers),
        tries=pull.tries,
        reboots=pull.reboots,
        reboot="yes" if pull.reboot else "no",
        environment=[(Sh(name), value) for name, value in pull.environment.items()],
    )


def installer(pull: Pull) -> Sh:
    """The script that puts everything in its place and starts the unit. Run as root, by whatever runs scripts at a boot, or by hand."""
    content = files(pull)
    mark = hashlib.sha256(b"".join(file.data for file in content)).hexdigest()[:16]
    return template(
        "pull/install.sh.j2",
        version=__version__,
        state=Sh(STATE),
        unit=Sh(UNIT),
        id=pull.id,
        files=[{"name": file.name, "encoded": file.encoded, "text": Sh(file.text)} for file in content],
        unit_text=Sh(UNIT_TEXT),
        end=Sh(f"MLHOST_{mark}"),
    )
