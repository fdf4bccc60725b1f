"""`provision.values.dataclass` makes what the standard decorator makes, only later."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.values import dataclass


class Base:
    """Two classes with one body: made by the standard decorator, and by ours."""

    a: int
    b: str = "b"
    c: tuple[int, ...] = ()
    d: dict[str, int] = dataclasses.field(default_factory=dict)
    secret: str = dataclasses.field(default="", repr=False)

    @property
    def doubled(self) -> int:
        return self.a * 2


def twins() -> tuple[Any, Any]:
    """The two classes, fresh, both called Twin."""
    made = []
    for decorate in (dataclasses.dataclass(frozen=True), dataclass(frozen=True)):
        body = {k: v for k, v in vars(Base).items() if k not in ("__dict__", "__weakref__")}
        body["d"] = dataclasses.field(default_factory=dict)
        body["secret"] = dataclasses.field(default="", repr=False)
        body["__annotations__"] = dict(Base.__annotations__)
        body["__qualname__"] = "Twin"
        made.append(decorate(type("Twin", (), body)))
    return made[0], made[1]


ARGUMENTS = st.fixed_dictionaries(
    {"a": st.integers()},
    optional={
        "b": st.text(),
        "c": st.lists(st.integers()).map(tuple),
        "d": st.dictionaries(st.text(), st.integers()),
        "secret": st.text(),
    },
)


@given(ARGUMENTS, ARGUMENTS)
def test_instances_look_and_compare_as_those_of_the_standard_decorator(one: dict[str, Any], other: dict[str, Any]) -> None:
    standard, ours = twins()
    assert repr(ours(**one)) == repr(standard(**one))
    assert (ours(**one) == ours(**other)) == (standard(**one) == standard(**other))
    assert ours(**one) == ours(**one)
    assert dataclasses.asdict(ours(**one)) == dataclasses.asdict(standard(**one))
    assert dataclasses.replace(ours(**one), **other) == ours(**{**one, **other})
    assert copy.deepcopy(ours(**one)) == ours(**one)


def test_an_instance_is_not_equal_to_one_of_another_class() -> None:
    standard, ours = twins()
    assert ours(1) != standard(1)
    assert ours(1) != 1


def test_hashes_are_those_of_the_values() -> None:
    @dataclass(frozen=True)
    class Pair:
        """Two values that can be hashed."""

        x: int
        y: str = ""

    assert hash(Pair(1)) == hash(Pair(1, ""))
    assert len({Pair(1), Pair(1, ""), Pair(2)}) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda cls: cls(),
        lambda cls: cls(1, 2, 3, 4, 5, 6),
        lambda cls: cls(1, a=1),
        lambda cls: cls(1, z=1),
        lambda cls: setattr(cls(1), "a", 2),
        lambda cls: setattr(cls(1), "z", 2),
        lambda cls: delattr(cls(1), "a"),
    ],
    ids=["too few", "too many", "twice", "unknown", "set a field", "set another", "delete"],
)
def test_mistakes_raise_the_same_errors(call: Any) -> None:
    said = []
    for cls in twins():
        with pytest.raises((TypeError, dataclasses.FrozenInstanceError)) as raised:
            call(cls)
        said.append((raised.type, str(raised.value)))
    assert said[0] == said[1]


def test_a_factory_is_called_for_every_instance() -> None:
    _, ours = twins()
    assert ours(1).d is not ours(1).d


def test_the_standard_library_knows_the_class_before_its_first_instance() -> None:
    standard, ours = twins()
    assert dataclasses.is_dataclass(ours)
    assert [(f.name, f.default) for f in dataclasses.fields(ours)] == [(f.name, f.default) for f in dataclasses.fields(standard)]
    assert ours(3).doubled == 6


def test_a_class_can_have_further_fields_than_its_base() -> None:
    @dataclass(frozen=True)
    class Point:
        """A base."""

        x: int

    @dataclass(frozen=True)
    class Point3(Point):
        """More than its base."""

        y: int = 2

    assert Point3(1) == Point3(1, 2)
    assert Point(1) == Point(1)
    assert repr(Point3(1)).endswith("Point3(x=1, y=2)")


def test_other_dataclasses_than_frozen_ones_are_refused() -> None:
    with pytest.raises(TypeError):
        dataclass(frozen=False)
