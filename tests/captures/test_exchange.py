from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given

from captures.exchange import Body, Exchange, Request, Response, body_of, exchange_of, request_of, response_of
from tests.captures.exchange_strategies import exchanges

CONSTRUCTORS: tuple[tuple[type[Any], Callable[..., Any]], ...] = (
    (Body, body_of),
    (Request, request_of),
    (Response, response_of),
    (Exchange, exchange_of),
)


def values(one: object) -> list[object]:
    return [getattr(one, each.name) for each in fields(one)]  # type: ignore[arg-type]


@given(exchanges())
def test_constructors_make_what_the_classes_make(exchange: Exchange) -> None:
    response = exchange.response or Response(200)
    for (kind, constructor), one in zip(
        CONSTRUCTORS, (exchange.request.body, exchange.request, response, exchange), strict=True
    ):
        made = constructor(*values(one))
        assert type(made) is kind
        assert made == one
        assert values(made) == values(one)
        assert replace(made) == copy.copy(made) == pickle.loads(pickle.dumps(made)) == one


@pytest.mark.parametrize(("kind", "constructor"), CONSTRUCTORS)
def test_what_they_make_is_frozen_and_takes_every_field(kind: type[Any], constructor: Callable[..., Any]) -> None:
    names = [each.name for each in fields(kind)]
    made = constructor(*names)
    with pytest.raises(FrozenInstanceError):
        setattr(made, names[0], "changed")
    with pytest.raises(TypeError):
        constructor(*names, "one more")
