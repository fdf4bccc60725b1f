"""Asking an apt with a root of its own (`provision.aptroot`) on this machine or on the host itself. Nothing is changed on either."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from provision import aptroot
from provision.catalog import Catalog
from provision.model import Facts, Plan, Problem, Section
from provision.sh import Sh

if TYPE_CHECKING:
    from provision.look import RunOptions
    from provision.spec import Spec
    from provision.transport import Transport

TIMEOUT = 1200.0
"""How long an apt may take to fetch its lists and what it is asked for, in seconds."""


def ask(
    name: str, facts: Facts, record: str, ready: Plan, catalog: Catalog, calls: Sequence[Sh], transport: Transport | None, folder: str = ""
) -> Mapping[str, Section]:
    """The answers to `calls` (see `provision.aptroot`), of the host's own apt through `transport`, or of this machine's for None.

    `record` is dpkg's of the host, needed for this machine's; `ready` is the plan with its keys; `folder` is an empty folder that stays, "" makes
    one that goes. Raises Failed where there is no apt, or its package sources cannot be read.
    """
    from provision.transport.local import LocalTransport

    mark = os.urandom(8).hex()
    deb_arch = catalog.platform(facts.os, facts.arch).deb_arch
    status = None if transport is not None else record
    text = aptroot.script(facts, ready, deb_arch, mark, calls, status=status, folder=folder, here=transport is not None)
    if transport is not None:
        return aptroot.answer(transport.run(text, sudo=True, timeout=TIMEOUT).out, mark, name)
    with LocalTransport() as here:
        return aptroot.answer(here.run(text, timeout=TIMEOUT).out, mark, "This machine")


def offered(
    transport: Transport, facts: Facts, spec: Spec, decided: Plan, catalog: Catalog, options: RunOptions
) -> Mapping[str, Mapping[str, str]] | None:
    """What a host's sources have of the packages that a plan held to a lock may fetch: name -> version -> sha256. None where nothing is to be asked."""
    from provision.lockplan import unoffered
    from provision.look import with_keys

    kind = options.pinned.of(facts) if options.pinned and options.pinned.bundles is None else None
    if kind is None or isinstance(kind, Problem):
        return None
    names = unoffered(facts, kind[1], decided)
    if not names:
        return None
    ready = with_keys(decided, spec, options, transport)
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for offer in aptroot.offers(ask(transport.name, facts, "", ready, catalog, [aptroot.show(names)], transport)):
        found.setdefault(offer.name, {})[offer.version] = offer.sha256
    return found
