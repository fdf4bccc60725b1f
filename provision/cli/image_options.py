"""What the commands of `mlhost image` share."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from provision.shipping.gauge import Gauge

F = TypeVar("F", bound=Callable[..., Any])


def display_options(function: F) -> F:
    """`--no-color` and `--debug`."""
    from provision.cli.options import show_tracebacks

    for option in (
        click.option("--debug", is_flag=True, expose_value=False, callback=show_tracebacks, help="Show a traceback with an error."),
        click.option("--no-color", is_flag=True, help="Plain text (also: the environment variable NO_COLOR)."),
    ):
        function = option(function)
    return function


def gauge_of(no_color: bool) -> Gauge:
    """How progress is shown here."""
    from provision.cli.output import fancy
    from provision.shipping.gauge import gauge

    return gauge(fancy(sys.stderr, no_color))


@contextlib.contextmanager
def on_term_tidy() -> Iterator[None]:
    """SIGTERM and SIGHUP end the work as Ctrl-C does: what was half done is taken away."""

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
