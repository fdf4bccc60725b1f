"""Connecting while there is still something to read and to import. Imports little itself: it is what a command does first."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from provision.cli.options import Connection
from provision.errors import Error

if TYPE_CHECKING:
    from provision.look import Looking
    from provision.plan import Step
    from provision.spec import Spec
    from provision.transport import Transport


def ahead(targets: Sequence[str], connection: Connection) -> Transport | None:
    """The transport to the only target, connecting in the background from now on; None where that is not to be.

    What is wrong with the target or the options is told later, in its turn, by opening it again.
    """
    if len(targets) != 1 or connection.wants_password or hasattr(targets, "hosts"):  # where an inventory's host is reached is not its name
        return None
    from provision.transport import open_transport

    # A thread that computes gives way to one that the network has woken after this time; the default is 5 ms, at every step of the handshake.
    sys.setswitchinterval(0.0005)
    with contextlib.suppress(Error):
        return open_transport(targets[0], connection.ssh_options(), begin=True)
    return None


def look_ahead(opened: Transport | None, spec: Spec, steps: Sequence[Step], packages: Sequence[str] = ()) -> Looking | None:
    """A look at the host that `ahead` has begun to connect to, begun as soon as it is known what to look for. `packages` are asked about too."""
    if opened is None:
        return None
    from provision.look import Looking

    return Looking(opened, spec, steps, packages)
