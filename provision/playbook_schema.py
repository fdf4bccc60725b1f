"""What `provision.spec` says about its fields, as a flat table: the one source for reading playbooks and for their reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from provision.spec import Spec

Path = tuple[str, ...]


@dataclass(frozen=True)
class Setting:
    """One key of a playbook. `section` is the dataclass behind a section, None for a value; `default` is None for sections."""

    path: Path
    kind: str
    doc: str
    choices: tuple[str, ...]
    secret: bool
    default: Any
    section: type | None

    @property
    def key(self) -> str:
        """The dotted name, as `--set` takes it."""
        return ".".join(self.path)


def _walk(cls: Any, prefix: Path) -> Iterator[Setting]:
    for field in dataclasses.fields(cls):
        about, path = field.metadata, (*prefix, field.name)
        section = cast(type, field.default_factory) if about["kind"] == "section" else None
        default = None if section else field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        yield Setting(path, about["kind"], about["doc"], about["choices"], about["secret"], default, section)
        if section:
            yield from _walk(section, path)


@lru_cache(maxsize=1)
def settings() -> dict[Path, Setting]:
    """Every setting and section by its path, in the order of `provision.spec`."""
    return {setting.path: setting for setting in _walk(Spec, ())}


def children(prefix: Path) -> list[Setting]:
    """The settings and sections directly under a section; `()` is the top."""
    return [setting for path, setting in settings().items() if path[:-1] == prefix]


def advice(path: Path) -> str:
    """What to write instead of the unknown key `path`: the nearest key of its section, else its namesakes elsewhere, else what there is."""
    here = [child.path[-1] for child in children(path[:-1])]
    word = path[-1]
    near = nearest(word.replace("-", "_"), here)
    if near:
        return f"Did you mean `{'.'.join((*path[:-1], near[0]))}`?"
    namesakes = [setting.key for setting in settings().values() if setting.path[-1] == word]
    if namesakes:
        return f"There is {_either(namesakes)}."
    near = nearest(".".join(path), [setting.key for setting in settings().values()], 0.7)
    if near:
        return f"Did you mean `{near[0]}`?"
    if path[0] == "docker" and len(path) == 2 and "-" in word:
        return "Keys of Docker's own daemon.json go under `docker.daemon`."
    return f"Known here: {', '.join(here)}."


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """The known word most like this one, if there is one like it."""
    import difflib  # only a mistake needs it

    return difflib.get_close_matches(word.lower(), list(known), 1, cutoff)


def _either(words: list[str]) -> str:
    return " and ".join(f"`{word}`" for word in words)
