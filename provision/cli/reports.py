"""Results as files, each in the format that its name ends with."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from provision.errors import UsageError

if TYPE_CHECKING:
    from provision.model import HostReport
    from provision.report.layout import Look
    from provision.results import About

FORMATS = {".html": "html", ".htm": "html", ".json": "json", ".xml": "junit", ".prom": "prometheus", ".txt": "text"}


def format_of(path: str) -> str:
    """`html`, `json`, `junit`, `prometheus` or `text`. Raises UsageError for a name that tells none of them."""
    found = FORMATS.get(os.path.splitext(path)[1].lower())
    if found is None:
        raise UsageError(f"--report {path}: what to write there is not clear.", f"Let the name end with {', '.join(FORMATS)}.")
    return found


def text_of(kind: str, reports: Sequence[HostReport], about: About) -> Iterable[str]:
    """The results in a format, in pieces."""
    if kind == "html":
        from provision.report.page import pieces

        return pieces(reports, about)
    if kind == "json":
        from provision.report.jsonout import report_json_text

        return report_json_text(reports, about)
    if kind == "junit":
        from provision.report.junit import junit_xml

        return [junit_xml(reports)]
    if kind == "prometheus":
        from provision.report.monitoring import prometheus

        return [prometheus(reports)]
    return [for_people(reports, about), "\n"]


def for_people(reports: Sequence[HostReport], about: About, look: Look | None = None, *, verbose: bool = False) -> str:
    """The results as the command itself would print them."""
    from provision.report.layout import PLAIN
    from provision.report.statustext import status_text
    from provision.report.text import fleet_text

    return (status_text if about.command == "status" else fleet_text)(reports, look or PLAIN, verbose=verbose)


def save(path: str, reports: Sequence[HostReport], about: About) -> None:
    """Write the results to a file, which is there whole or not at all. Raises UsageError where it cannot be written."""
    write_whole(text_of(format_of(path), reports, about), path)


def write_whole(pieces: Iterable[str], path: str) -> None:
    """Text to a file, by way of a new one beside it: whoever reads it meanwhile sees the old one. Raises UsageError where it cannot be written."""
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    # A device, or a file in a folder that is not ours to change, is written as it stands.
    special = os.path.exists(target) and not (stat.S_ISREG(os.stat(target).st_mode) and os.access(folder, os.W_OK))
    temporary = target if special else os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CLOEXEC | (os.O_TRUNC if special else os.O_CREAT | os.O_EXCL), 0o666)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            for piece in pieces:
                file.write(piece)
        if not special:
            os.replace(temporary, target)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.", "Name another file.") from None
    finally:
        if not special:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
