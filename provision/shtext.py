"""The pieces that stage scripts are made of: calls of the shell's functions, and values checked before they become their words.

Pure apart from reading the package's own scripts. Every word is quoted by `provision.sh`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from provision.errors import Failed
from provision.sh import Sh, join
from provision.shipped import shipped

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class RenderError(Failed):
    """A value cannot become part of a script."""


@dataclass(frozen=True)
class Bodies:
    """What an action becomes: the bodies of its check and its change, and the fragments that they call."""

    check: Sh
    change: Sh
    fragments: tuple[str, ...] = ()


def call(function: str, *words: object) -> Sh:
    """A call of one of the scripts' functions."""
    return Sh(f"{function} {join(words)}" if words else function)


def body(*lines: Sh) -> Sh:
    """A function's body of these lines."""
    return Sh("{\n" + "".join(f"    {line}\n" for line in lines) + "}")


def every(lines: Sequence[Sh]) -> Sh:
    """A body that fails where the first of these lines does."""
    return body(Sh(" &&\n        ".join(lines or [Sh("true")])))


def raw(content: str | bytes) -> bytes:
    """Content as bytes."""
    return content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")


def has(path: str, content: str | bytes, *mode_and_owner: str) -> Sh:
    """A check that a file has this content."""
    return call("has_file", absolute(path), hashlib.sha256(raw(content)).hexdigest(), *mode_and_owner)


def put(path: str, mode: str, owner: str, content: str | bytes) -> Sh:
    """Text stays readable in the script; what is no text travels as base64."""
    data = raw(content)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return call("put", absolute(path), mode, word(owner, "owner"), base64.b64encode(data).decode(), "base64")
    return call("put", absolute(path), mode, word(owner, "owner"), text)


def absolute(path: str) -> str:
    """A path, if it is one that a script may write to."""
    if not path.startswith("/") or _CONTROL.search(path) or ".." in path.split("/"):
        raise RenderError(f"{path!r} is not an absolute path without detours.")
    return path


def octal(mode: str) -> str:
    """A file mode, if it is one."""
    if not re.fullmatch(r"0?[0-7]{3,4}", mode, re.ASCII):
        raise RenderError(f"{mode!r} is not a file mode in octal digits.")
    return mode


def word(text: str, what: str) -> str:
    """A name that programs take as an argument: nothing they could read as an option, several words or several lines."""
    if not text or text.startswith("-") or _CONTROL.search(text) or " " in text:
        raise RenderError(f"{text!r} is not the name of a {what}.")
    return text


def line(text: str) -> str:
    """A text on one line."""
    return _CONTROL.sub(" ", text).strip()


def fragment(name: str) -> str:
    """A script of the package."""
    return shipped(f"scripts/{name}")
