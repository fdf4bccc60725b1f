"""What a host says is data. Before it meets a terminal it loses everything that could move the cursor, recolour, reorder or flood it, and
before it meets any report it loses the passwords in its URLs.
"""

from __future__ import annotations

import re

# ESC sequences (CSI, OSC and the other strings up to their end, two-byte ones), with the 8-bit forms of the same introducers.
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"
    "|\x1b[ -/]*[0-~]?"
)
# C0 without tab and newline, DEL, C1, the characters that reorder text (Unicode TR9), lone surrogates, and those that show nothing and so hide text or
# make two texts look alike (Default_Ignorable_Code_Point, Unicode DerivedCoreProperties.txt; joiners for letters and emoji among them).
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff]"
)
# A letter with a pile of marks on it covers the lines above and below; no script needs more than a few.
_PILES = re.compile("([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{4})[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
# The user part ends at the last @ of the authority. The second form is for a password with a raw slash in it, which is no valid URL but is
# typed all the same; a port before the slash tells it from a path that holds an @.
# Every repetition is bounded, so that hostile text costs no more than its length.
_CREDENTIALS = re.compile(
    r"""\b([a-z][a-z0-9+.-]{0,30}://)(?:[^/\s"'<>]{0,500}@|(?![^/\s:@]{0,255}:\d{1,5}/)[^/\s:@"'<>]{1,255}:[^\s@"'<>]{1,255}@)""", re.IGNORECASE
)

LINE, BLOCK = 500, 20_000


def redact(text: str) -> str:
    """The text with the user part of every URL (`scheme://user:password@host`) replaced by `***`."""
    # Of a hundred texts one has a URL, and the expression takes a thousand times as long to find none.
    if "://" not in text or "@" not in text:
        return text
    return _CREDENTIALS.sub(r"\1***@", text)


def block(text: str, limit: int = BLOCK) -> str:
    """Text of several lines, safe for a terminal: no escape sequences, control or bidi characters, no credentials, at most `limit` characters.

    Newlines stay, tabs become spaces, a carriage return starts the line anew as a terminal would show it.
    """
    cut = len(text) > 4 * limit
    text = _ESCAPES.sub("", text[: 4 * limit].replace("\r\n", "\n"))
    text = "\n".join(part.rstrip("\r").rpartition("\r")[2] for part in text.split("\n")).replace("\t", "    ")
    text = redact(_PILES.sub(r"\1", _CONTROLS.sub("", text)))
    return text[:limit] + "…" if cut or len(text) > limit else text


def line(text: object, limit: int = LINE) -> str:
    """One line, safe for a terminal: as `block`, with every run of white space made one space."""
    shown = " ".join(block(str(text), 4 * limit).split())
    return shown if len(shown) <= limit else shown[:limit] + "…"


def visible(text: str) -> str:
    """Text of any length whose lines and words stay as they are; what a terminal would act upon is written as an escape (`\\x1b`)."""
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def xml(text: str) -> str:
    """Text of several lines that any XML 1.0 parser takes."""
    return re.sub("[\ufffe\uffff]", "", block(text))
