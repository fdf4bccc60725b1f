"""Playbooks: YAML in, `provision.spec.Spec` out, strictly. What is wrong is told with file, line and column, or with the `--set` it came from.

`load` reads a playbook and those it extends, lays `--set` on top, and checks the whole. The only I/O is reading those files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from provision import playbook_yaml
from provision.errors import UsageError
from provision.playbook_checks import Given, Layer, check
from provision.playbook_ready import ready
from provision.playbook_schema import Setting, advice, children, nearest, settings
from provision.playbook_values import convert
from provision.playbook_yaml import NULL, STR, Map, Node, Scalar, Seq, show
from provision.spec import Spec

DEFAULT = "gpu-host"
MAX_EXTENDS = 8
_LITERAL = ("text", "choice", "url", "path", "version", "size", "limit")


@dataclass(frozen=True)
class Loaded:
    """A playbook read and checked.

    `path` is the user's file, None for a packaged playbook. `digest` is the sha256 (hex) of the effective values, the same however they were
    written; `name` and `extends` do not count. `step_files` are `spec.steps` with files made absolute: what `provision.ownsteps.load_steps` takes.
    """

    spec: Spec
    path: str | None
    digest: str
    step_files: tuple[str, ...] = ()


def directories() -> tuple[str, ...]:
    """Where packaged playbooks are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return (str(package / "playbooks"), str(package.parent / "playbooks"))


def packaged(search: Sequence[str] | None = None) -> dict[str, str]:
    """The packaged playbooks: name -> path. `search` are the directories to look in, first come first."""
    found: dict[str, str] = {}
    for directory in directories() if search is None else search:
        for file in sorted(Path(directory).glob("*.yaml")):
            found.setdefault(file.stem, str(file))
    return found


def load(source: str | None, sets: Sequence[str] = (), *, search: Sequence[str] | None = None) -> Loaded:
    """Read the playbook `source`: None for the packaged `gpu-host`, the name of a packaged one, or a file's path.

    `sets` are `key.path=value` texts that win over the file, later ones over earlier; `search` replaces the directories of packaged playbooks.
    Raises UsageError for anything that is wrong with them, naming the place and the remedy.
    """
    path, ours = _find(source or DEFAULT, "", packaged(search))
    layer = _chain(path, ours, packaged(search))
    for item in sets:
        layer = _merge(layer, _set(item))
    layer.setdefault(("name",), Given(Path(path).stem, path, ""))
    spec = cast(Spec, _build(Spec, (), layer))
    check(spec, layer)
    steps = tuple(_step_file(step, base) for step, base in _steps(layer))
    return Loaded(spec, None if ours else path, digest(spec), steps)


def from_values(values: Mapping[str, Any], where: str) -> Spec:
    """The desired state of effective values (`redacted` has the same shape), checked as a playbook's are. `where` is the file they come from.

    Raises UsageError for what no playbook may hold.
    """
    changed = _unlike(values, dataclasses.asdict(Spec()))
    changed.pop("extends", None)
    changed.pop("steps", None)
    # JSON is YAML too, and so meets every check that a playbook meets
    layer = parsed(json.dumps(changed, ensure_ascii=False), where)
    spec = cast(Spec, _build(Spec, (), layer))
    check(spec, layer)
    return spec


def standalone(spec: Spec) -> str:
    """The text of a playbook that extends nothing and says the same. It may hold a proxy's password.

    Raises UsageError for values that could not be read back.
    """
    changed = _unlike(dataclasses.asdict(spec), dataclasses.asdict(Spec()))
    text = json.dumps({**{key: value for key, value in changed.items() if key != "extends"}, "name": spec.name}, indent=2) + "\n"
    layer = parsed(text, "the playbook")
    again = cast(Spec, _build(Spec, (), layer))
    check(again, layer)
    if digest(again) != digest(spec):
        raise UsageError("These playbook values cannot be written down as one playbook.", "Use `mlhost setup` with the playbook itself.")
    return text


def _unlike(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults: a playbook may not say everything that a default may be."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(default, Mapping) and default and isinstance(value, Mapping):
            inner = _unlike(value, default)
            found.update({key: inner} if inner else {})
        elif json.dumps(value) != json.dumps(default):
            found[key] = value
    return found


def digest(spec: Spec) -> str:
    """sha256 (hex) of the effective values; what the playbook is called and extends does not count."""
    values = {key: value for key, value in dataclasses.asdict(spec).items() if key not in ("name", "extends")}
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def redacted(spec: Spec) -> dict[str, Any]:
    """The values as JSON types for reports and bundles: credentials in URLs and whatever is named like a secret become `***`. Pure."""
    values = _plain(dataclasses.asdict(spec))
    for setting in settings().values():
        if setting.secret and setting.kind != "url":
            section = values
            for part in setting.path[:-1]:
                section = section[part]
            section[setting.path[-1]] = "***" if section[setting.path[-1]] else ""
    return cast("dict[str, Any]", values)


_SECRET_KEY = re.compile(r"token|passw|secret|credential|api[_-]?key", re.IGNORECASE)
_USERINFO = re.compile(r"://[^/?#\s]*@")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: "***" if isinstance(item, str) and item and _SECRET_KEY.search(key) else _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _USERINFO.sub("://***@", value) if isinstance(value, str) else value


# ---------------------------------------------------------------- files

def _is_path(source: str) -> bool:
    return "/" in source or source.endswith((".yaml", ".yml"))


def _find(source: str, relative_to: str, known: Mapping[str, str]) -> tuple[str, bool]:
    """The path behind a name or a path, and whether it is a packaged playbook."""
    if not _is_path(source) and source in known:
        return known[source], True
    if not source.isprintable():
        raise UsageError(f"`{show(source)}` is no name and no path of a playbook.",
                         "Give a file's path without control characters.")
    path = os.path.expanduser(source)
    if relative_to:
        path = os.path.normpath(os.path.join(relative_to, path))
    if _is_path(source) or os.path.isfile(path):
        return path, False
    near = nearest(source, known)
    hint = f"Did you mean `{near[0]}`? " if near else ""
    raise UsageError(f"There is no playbook named `{show(source)}`.",
                     f"{hint}Packaged are {', '.join(known) or 'none'}; a file is given by its path, such as `./mine.yaml`.")


def _chain(path: str, ours: bool, known: Mapping[str, str]) -> Layer:
    """The playbook at `path` on top of all that it extends."""
    layers: list[Layer] = []
    seen: list[str] = []
    where = ""
    while True:
        real = os.path.realpath(path)
        if real in seen:
            raise UsageError(f"{where}: `extends` leads back to {show(path, 200)}.",
                             "Playbooks cannot extend each other in a circle: drop one `extends`.")
        if len(seen) > MAX_EXTENDS:
            raise UsageError(f"{where}: more than {MAX_EXTENDS} playbooks extend one another.", "Put them together.")
        seen.append(real)
        try:
            text = playbook_yaml.read(path)
        except UsageError as exc:
            raise UsageError(f"{where}: `extends`: {exc.message}" if where else exc.message, exc.fix) from None
        layer = _read(text, path)
        layers.append(layer)
        parent = layer.get(("extends",))
        if parent is None:
            break
        where = parent.where
        try:
            path, _ = _find(parent.value, os.path.dirname(path), known)
        except UsageError as exc:
            raise UsageError(f"{where}: `extends`: {exc.message}", exc.fix) from None
    effective: Layer = {}
    for layer in reversed(layers):
        # What a playbook is called and extends is its own; everything else is inherited.
        effective = {key: given for key, given in effective.items() if key not in (("name",), ("extends",))}
        effective = _merge(effective, layer)
    return effective


def _read(text: str, path: str) -> Layer:
    stored = ready(text)
    if stored is None:
        return parsed(text, path)
    base = os.path.dirname(os.path.abspath(path))
    return {key: Given(value, f"{show(path, 200)}:{at}", base) for key, (value, at) in stored.items()}


def parsed(text: str, path: str) -> Layer:
    """The settings in a playbook's text, without what it extends. Raises UsageError."""
    node = playbook_yaml.parse(text, path)
    if node is None or (isinstance(node, Scalar) and node.tag == NULL):
        return {}
    if not isinstance(node, Map):
        raise UsageError(f"{node.where}: a playbook is a mapping of settings, not {'a list' if isinstance(node, Seq) else 'a single value'}.",
                         "Write lines such as `gpu: auto`.")
    return dict(_settings(node, (), os.path.dirname(os.path.abspath(path))))


def _settings(node: Map, prefix: tuple[str, ...], base: str) -> Iterator[tuple[tuple[str, ...], Given]]:
    for key, value in node.entries:
        path = (*prefix, key.text)
        setting = settings().get(path)
        if setting is None:
            raise UsageError(f"{key.where}: unknown key `{show('.'.join(path))}`.", advice(path))
        if setting.section is None:
            yield path, Given(convert(setting, value), value.where, base)
        elif isinstance(value, Map):
            yield from _settings(value, path, base)
        elif not (isinstance(value, Scalar) and value.tag == NULL):
            inside = ", ".join(child.path[-1] for child in children(path))
            raise UsageError(f"{value.where}: `{setting.key}` is a section, not {'a list' if isinstance(value, Seq) else 'a single value'}.",
                             f"Under it go {inside}.")


# ---------------------------------------------------------------- --set

def _set(item: str) -> Layer:
    """One `key.path=value`: texts are taken literally, everything else as a YAML scalar or flow list."""
    name, equals, text = item.partition("=")
    if not equals:
        raise UsageError(f"--set {show(_USERINFO.sub('://***@', item))}: there is no `=`.",
                         "Write `--set key.path=value`, for example `--set docker.version=29.7`.")
    where = f"--set {show(name)}"
    path = tuple(name.strip().split("."))
    setting, rest = _setting(path)
    if setting is None:
        raise UsageError(f"{where}: there is no such setting.", advice(path))
    if setting.section is not None:
        first = children(setting.path)[0].key
        raise UsageError(f"{where}: `{setting.key}` is a section.", f"Set one of its keys, for example `--set {first}=…`.")
    if setting.key == "extends":
        raise UsageError(f"{where}: a playbook is chosen with `--playbook`, not extended here.", "Use `--playbook NAME`.")
    return {setting.path: Given(convert(setting, _argument(setting, rest, text, where)), where, os.getcwd())}


def _setting(path: tuple[str, ...]) -> tuple[Setting | None, tuple[str, ...]]:
    """The setting a dotted name means, and what of the name goes on into its mapping."""
    known = settings()
    for length in range(len(path), 0, -1):
        setting = known.get(path[:length])
        if setting and (length == len(path) or (setting.kind in ("json", "limits") and all(path[length:]))):
            return setting, path[length:]
    return None, ()


def _argument(setting: Setting, rest: tuple[str, ...], text: str, where: str) -> Node:
    literal = setting.kind in _LITERAL or (setting.kind == "limits" and bool(rest))
    if setting.kind == "texts" and not text.lstrip().startswith("["):
        return Seq((Scalar(text, STR, where),) if text else (), where)
    node: Node | None = Scalar(text, STR, where) if literal else playbook_yaml.parse_value(text, where)
    node = node or Scalar("", NULL, where)
    for key in reversed(rest):
        node = Map(((Scalar(key, STR, where), node),), where)
    return node


# ---------------------------------------------------------------- together

def _merge(below: Layer, above: Layer) -> Layer:
    """Settings of `above` win; mappings inside a setting are merged key by key, lists are replaced."""
    merged = dict(below)
    for path, given in above.items():
        under = below.get(path)
        both = under is not None and isinstance(under.value, dict) and isinstance(given.value, dict)
        merged[path] = dataclasses.replace(given, value=_deep(cast(Given, under).value, given.value)) if both else given
    return merged


def _deep(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _deep(merged[key], value) if isinstance(merged.get(key), dict) and isinstance(value, dict) else value
    return merged


def _build(cls: type, prefix: tuple[str, ...], layer: Layer) -> Any:
    values: dict[str, Any] = {}
    for setting in children(prefix):
        if setting.section is not None:
            values[setting.path[-1]] = _build(setting.section, setting.path, layer)
        elif setting.path in layer:
            values[setting.path[-1]] = layer[setting.path].value
    return cls(**values)


def _steps(layer: Layer) -> list[tuple[str, str]]:
    given = layer.get(("steps",))
    return [(step, given.base) for step in given.value] if given else []


def _step_file(step: str, base: str) -> str:
    """A file is told from an entry point by its `/` or `.py`."""
    return os.path.normpath(os.path.join(base, os.path.expanduser(step))) if "/" in step or step.endswith(".py") else step
