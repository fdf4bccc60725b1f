"""The text a probe printed, cut into its sections. Pure.

The text is exactly what `facts --format raw` prints and `--capture` reads: sections of a line `@@MARK name rc`, raw text and a newline, the last
of them `end`. What a login shell says before the first section or after the last one is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from provision.errors import ProbeFailed
from provision.model import Section

MAX_BYTES = 8 * 1024 * 1024
MAX_SECTIONS = 5000

_FIRST = re.compile(r"^@@([A-Za-z0-9]{1,64}) probe \d{1,3}$", re.MULTILINE)
_HEAD = re.compile(r"(\S.{0,4200}) (\d{1,3})\Z")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@\"']+@")
_AGAIN = "Run it again; if it comes back, `mlhost facts --format raw` shows what the host really printed."


def split(data: bytes, mark: str | None = None) -> Mapping[str, Section]:
    """The sections of a probe's answer by name, in their order, without `end`.

    `mark` is the one the probe was given; without it (a capture from a file) the first section tells. Bytes that are no UTF-8 are
    replaced. Raises ProbeFailed for what is no answer, is cut short, too big, or holds a section twice or in a wrong form.
    """
    if len(data) > MAX_BYTES:
        raise ProbeFailed(f"The probe's answer is too big ({len(data)} bytes; at most {MAX_BYTES} make sense).", _AGAIN)
    text = data.decode("utf-8", "replace").replace("\r\n", "\n")
    if mark is None:
        first = _FIRST.search(text)
        if not first:
            raise ProbeFailed("This is no answer of the probe: it has no line `@@… probe 0`.", "Make one with `mlhost facts --format raw`.")
        mark = first.group(1)
    chunks = ("\n" + text).split(f"\n@@{mark} ", MAX_SECTIONS + 1)
    if len(chunks) == 1:
        said = text[-4096:].strip().splitlines()
        tail = f" It printed: {said[-1][:200]}" if said else " It printed nothing."
        raise ProbeFailed(f"The probe's answer holds none of its sections.{tail}", _AGAIN)
    if len(chunks) > MAX_SECTIONS:
        raise ProbeFailed(f"The probe's answer has too many sections (more than {MAX_SECTIONS}).", _AGAIN)
    sections: dict[str, Section] = {}
    for chunk in chunks[1:]:
        head, newline, body = chunk.partition("\n")
        found = _HEAD.match(head)
        if not found:
            if chunk is chunks[-1] and not newline and "end" not in sections:
                break
            raise ProbeFailed(f"The probe's answer has a malformed section head: `{head[:80]}`.", _AGAIN)
        name = found.group(1)
        if "end" in sections:
            raise ProbeFailed(f"The probe's answer goes on after its end, with section {name[:80]}.", _AGAIN)
        if name in sections:
            raise ProbeFailed(f"The probe's answer has section {name[:80]} twice.", _AGAIN)
        sections[name] = Section(int(found.group(2)), body)
    if "end" not in sections:
        last = next(reversed(sections), "none")
        raise ProbeFailed(f"The probe's answer was cut short: its end is missing (the last section is {last[:80]}).", _AGAIN)
    if "probe" not in sections:
        raise ProbeFailed("The probe's answer lacks its first section.", _AGAIN)
    del sections["end"]
    return sections


def join(sections: Mapping[str, Section], mark: str = "0") -> bytes:
    """The text that `split` reads as `sections`."""
    frames = [f"@@{mark} {name} {section.rc}\n{section.text}\n" for name, section in sections.items()]
    return ("".join(frames) + f"@@{mark} end 0\n\n").encode()


def redact(text: str) -> str:
    """`text` with the user and password of every URL replaced by stars (apt sources and proxies may hold them)."""
    return _CREDENTIALS.sub("***@", text)
