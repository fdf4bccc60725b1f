"""Frozen dataclasses whose methods are made when they are first used.

The standard decorator compiles six methods for every class where it stands: half a millisecond each, a sixth of a run that finds nothing to
do. This one makes the same classes (`fields`, `replace`, `asdict` and `is_dataclass` know them; comparison, hash, text and errors are
the same) and compiles one method, when the first instance is made. Type checkers see the standard decorator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["dataclass"]

_T = TypeVar("_T")

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen: bool) -> Callable[[type[_T]], type[_T]]:
        """`dataclasses.dataclass(frozen=True)`; fields may have defaults, factories and `repr=False`, nothing else."""
        if not frozen:
            raise TypeError("only frozen dataclasses are made here; take the standard decorator for others")
        return _made


def _made(cls: type[_T]) -> type[_T]:
    collected: Any = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        collected.__init__ = _init_of(collected)
        collected.__init__(self, *args, **given)

    collected.__init__ = __init__
    collected.__eq__, collected.__hash__, collected.__repr__ = _eq, _hash, _repr
    collected.__setattr__, collected.__delattr__ = _no_setattr, _no_delattr
    done: type[_T] = collected
    return done


def _init_of(cls: Any) -> Any:
    """What the standard decorator would compile: the same parameters, defaults and errors."""
    fields: tuple[Field[Any], ...] = dataclasses.fields(cls)
    known: dict[str, Any] = {"MISSING": MISSING}
    parameters, values = [], []
    for field in fields:
        known[f"d_{field.name}"] = field.default if field.default is not MISSING else field.default_factory
        value = field.name
        if field.default is not MISSING:
            parameters.append(f"{field.name}=d_{field.name}")
        elif field.default_factory is not MISSING:
            parameters.append(f"{field.name}=MISSING")
            value = f"d_{field.name}() if {field.name} is MISSING else {field.name}"
        else:
            parameters.append(field.name)
        values.append(f"{field.name}={value}")
    own: dict[str, Any] = {}
    exec(  # noqa: S102 - names of fields, as the standard decorator does
        f"def __init__(self, {', '.join(parameters)}):\n self.__dict__.update({', '.join(values)})", known, own
    )
    made = own["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _values(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, name) for name in self.__dataclass_fields__])


def _eq(self: Any, other: object) -> Any:
    return _values(self) == _values(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr)
    return f"{self.__class__.__qualname__}({shown})"


def _no_setattr(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _no_delattr(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
