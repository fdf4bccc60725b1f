"""Shell text as a type of its own, and the one mechanism that quotes values into it.

A template's every `{{ value }}` is quoted by the environment itself; only text that is already `Sh` passes unquoted. A list becomes its quoted
elements separated by spaces, so a forgotten join fails safe.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


class Sh(str):
    """Text that is shell already and is not quoted again."""

    __slots__ = ()


def quote(value: object) -> Sh:
    """One shell word for a string or a number; several for a list or tuple. Raises ValueError for what no shell word can hold."""
    if isinstance(value, Sh):
        return value
    if isinstance(value, bool) or value is None:
        raise ValueError(f"{value!r} has no meaning as a shell word")
    if isinstance(value, (list, tuple)):
        return join(value)
    text = str(value)
    if "\0" in text:
        raise ValueError("a NUL byte cannot be passed to a shell")
    return Sh(shlex.quote(text))


def join(values: Iterable[object]) -> Sh:
    """Quoted words separated by single spaces."""
    return Sh(" ".join(quote(value) for value in values))


def _finalize(value: Any) -> Sh:
    return quote(value)


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """The jinja2 environment for the templates in `provision/scripts`; it quotes every value and refuses undefined names."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("provision", "scripts"),
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - shell, not HTML: every value is quoted by finalize
    )


def template(name: str, **values: object) -> Sh:
    """Render the template `name` of `provision/scripts` with every value quoted. Pure apart from reading package data once."""
    return Sh(environment().get_template(name).render(**values))
