from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field

import pytest

from dissectors.frozen import constructor


@dataclass(frozen=True, slots=True)
class Outer:
    one: int
    two: str = "b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Outer):
    three: list[int] = field(default_factory=list, compare=False)


def test_what_is_made_is_what_the_class_makes() -> None:
    assert constructor(Outer)(1, "a") == Outer(1, "a")
    made = constructor(Inner)(1, "a", [2])
    assert type(made) is Inner
    assert made == Inner(one=1, two="a")
    assert (repr(made), hash(made)) == (repr(Inner(one=1, two="a", three=[2])), hash(Inner(one=1, two="a")))


def test_it_is_frozen() -> None:
    made = constructor(Inner)(1, "a", [])
    with pytest.raises(FrozenInstanceError):
        made.two = "c"  # type: ignore[misc]


def test_a_field_too_few_is_refused() -> None:
    with pytest.raises(TypeError):
        constructor(Outer)(1)
