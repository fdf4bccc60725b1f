"""A user's own steps: one Python file each, or an entry point of the group `mlhost.steps`, found through a playbook's `steps`.

The protocol is one function, `def step(facts, spec, platform) -> Iterable[Item]`, pure: it looks at the facts and yields what must be so. Next to it
may stand `NAME` (default: the file's name) and `watch`, the paths whose `PathFact` the step wants from the probe (`facts.paths[path]`).
Whatever goes wrong in such code ends in `UsageError` with its file and line.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

from provision.errors import UsageError
from provision.model import CHANGE, LATER, OK, REFUSED, Facts, Item
from provision.playbook_yaml import show
from provision.spec import Spec

GROUP = "mlhost.steps"
MAX_BYTES = 1024 * 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_IMPORTLIB = os.path.dirname(importlib.__file__)
_EXAMPLE = "See `playbooks/steps/gpu_order.py` for an example."

StepFunction = Callable[[Facts, Spec, Any], Iterable[Item]]


@dataclass
class Step:
    """A step ready to be planned: call it. `origin` is the file or entry point it came from, `watch` the paths it wants facts of."""

    name: str
    origin: str
    function: StepFunction
    watch: tuple[str, ...] = ()

    def __call__(self, facts: Facts, spec: Spec, platform: Any) -> tuple[Item, ...]:
        """What the step wants on this host. Raises UsageError if the step fails or gives something else than items with ids of their own."""
        try:
            found = tuple(self.function(facts, spec, platform))
        except Exception as exc:
            raise _failed(self.origin, "the step failed", exc) from None
        seen: set[str] = set()
        for item in found:
            if not isinstance(item, Item):
                raise UsageError(f"{self.origin}: `step` gave a {type(item).__name__}, not an Item.",
                                 f"Yield `provision.model.Item` values. {_EXAMPLE}")
            if item.state not in (OK, CHANGE, LATER, REFUSED):
                raise UsageError(f"{self.origin}: item `{show(str(item.id))}` has the state {item.state!r}.",
                                 "A state is ok, change, later or refused.")
            if (item.state == CHANGE) != (item.action is not None):
                what = "is to change but has no action" if item.action is None else f"is `{item.state}` but has an action"
                raise UsageError(f"{self.origin}: item `{show(str(item.id))}` {what}.", "An item has an action exactly when its state is change.")
            if item.id in seen:
                raise UsageError(f"{self.origin}: two items have the id `{show(str(item.id))}`.", "Give each item an id of its own.")
            seen.add(item.id)
        return found


def load_steps(names: Sequence[str], base_dir: str) -> tuple[Step, ...]:
    """The steps behind `names`, in that order. A name with `/` or ending in `.py` is a file, relative to `base_dir`; any other is an entry point.

    Runs the modules' top level. Raises UsageError with file and line for what is missing or broken.
    """
    steps = tuple(_from_file(os.path.join(base_dir, name)) if "/" in name or name.endswith(".py") else _from_entry_point(name) for name in names)
    origins: dict[str, str] = {}
    for step in steps:
        if step.name in origins:
            raise UsageError(f"{step.origin}: a step named `{step.name}` comes from {origins[step.name]} too.", "Give one of them another `NAME`.")
        origins[step.name] = step.origin
    return steps


def digests(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Each step with the sha256 of its file, "" for an entry point. Raises UsageError for a file that cannot be read."""
    found = []
    for name in names:
        digest = ""
        if "/" in name or name.endswith(".py"):
            try:
                with open(name, "rb") as file:
                    digest = hashlib.sha256(file.read(MAX_BYTES + 1)).hexdigest()
            except (OSError, ValueError) as exc:
                raise UsageError(f"{show(name, 4096)}: the step cannot be read: {show(str(exc))}.", "`steps` names Python files.") from None
        found.append((name, digest))
    return tuple(found)


def _from_file(path: str) -> Step:
    origin = show(path, 4096)
    try:
        with open(path, "rb") as file:
            source = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        reason = os.strerror(exc.errno).lower() if isinstance(exc, OSError) and exc.errno else str(exc)
        raise UsageError(f"{origin}: the step cannot be read: {show(reason)}.", "`steps` names Python files, relative to the playbook.") from None
    if len(source) > MAX_BYTES:
        raise UsageError(f"{origin}: the file is larger than 1 MiB.", "A step is a short Python file; is this the right one?")
    # A name of its own in sys.modules, where dataclasses look their module up; no bytecode is written beside the user's file.
    module = ModuleType(f"mlhost_step_{hashlib.sha256(os.path.abspath(path).encode('utf-8', 'surrogateescape')).hexdigest()[:16]}")
    module.__file__ = path
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - running the user's file is what was asked for
    except (Exception, SystemExit) as exc:
        sys.modules.pop(module.__name__, None)
        raise _failed(origin, "the step cannot be loaded", exc) from None
    return _step(module, os.path.splitext(os.path.basename(path))[0], origin)


def _from_entry_point(name: str) -> Step:
    points = _entry_points()
    if name not in points:
        near = difflib.get_close_matches(name, points, n=1)
        known = f"Installed are {', '.join(sorted(points))}." if points else "None is installed."
        raise UsageError(f"There is no step named `{show(name)}` among the entry points `{GROUP}`.",
                         f"Did you mean `{near[0]}`?" if near else f"{known} A file is named by its path, such as `steps/{show(name)}.py`.")
    try:
        module = points[name].load()
    except (Exception, SystemExit) as exc:
        raise _failed(f"entry point `{name}`", "the step cannot be loaded", exc) from None
    return _step(module, name, f"entry point `{name}`")


def _entry_points() -> dict[str, metadata.EntryPoint]:
    found: Any = metadata.entry_points()
    # Python 3.9 gives a dict of groups, later ones a collection to select from.
    group = found.select(group=GROUP) if hasattr(found, "select") else found.get(GROUP, ())
    return {point.name: point for point in group}


def _step(module: Any, default_name: str, origin: str) -> Step:
    """A module with `step`, or (from an entry point) the function itself."""
    function = module if callable(module) else getattr(module, "step", None)
    if not callable(function):
        raise UsageError(f"{origin}: there is no function `step` in it.", f"Write `def step(facts, spec, platform):` yielding items. {_EXAMPLE}")
    name = getattr(module, "NAME", default_name.lower())
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(f"{origin}: the step's name is {show(repr(name))}.", "`NAME` is lower case: letters, digits, `-` and `_`.")
    watch = getattr(module, "watch", ())
    if not isinstance(watch, (tuple, list)) or not all(isinstance(path, str) and path.startswith("/") and path.isprintable() for path in watch):
        raise UsageError(f"{origin}: `watch` is {show(repr(watch))}.", 'It is a tuple of absolute paths: `watch = ("/etc/example",)`.')
    return Step(name, origin, function, tuple(watch))


def _failed(origin: str, what: str, exc: BaseException) -> UsageError:
    """The user's own mistake, told with the innermost line of their code."""
    own = [frame for frame in traceback.extract_tb(exc.__traceback__) if not frame.filename.startswith(("<", __file__, _IMPORTLIB))]
    own = [frame for frame in own if frame.filename == origin] or own
    file, line = (own[-1].filename, own[-1].lineno) if own else ("", None)
    if isinstance(exc, SyntaxError):
        file, line = exc.filename or origin, exc.lineno
    place = origin if not file else f"{show(file, 4096)}:{line or 1}"
    if not place.startswith(origin):
        place = f"{origin}, {place}"
    detail = exc.msg if isinstance(exc, SyntaxError) else str(exc)
    return UsageError(f"{place}: {what}: {type(exc).__name__}: {show(detail, 300)}.", "Correct the step, or take it out of the playbook's `steps`.")
