"""What a part of the lab needs of this machine, and the one way to say that it is missing."""

from __future__ import annotations

import os
import shutil


class LabUnavailable(Exception):
    """This machine lacks something that a real test host needs; the text names it. Fixtures turn it into a skip."""


class LabError(Exception):
    """A part of the lab that should work on this machine did not; the text holds what it said."""


def require_root(what: str) -> None:
    """Raise LabUnavailable unless this process is root; `what` is the thing that needs it."""
    if os.geteuid() != 0:
        raise LabUnavailable(f"{what} needs root (run the tests as root or with sudo)")


def tool(name: str, package: str) -> str:
    """Return the path of a program, also from the sbin folders; LabUnavailable names the package that has it."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(name, path=path)
    if found is None:
        raise LabUnavailable(f"the program {name} is missing (Debian package {package}, see tests/lab/packages.txt)")
    return found
