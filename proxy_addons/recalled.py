"""What the process that decides about a folder's phones asks of the database: asked in the process that writes it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from captures.expiry import standing
from captures.schema import OUTCOMES, PHONES, PLACES, RESERVATIONS, UNDECIDED
from captures.sinks import Answers
from proxy_addons.rules import MAX_OUTCOMES_KEPT
from proxy_addons.sole_history import Fleet, Recalled

MAX_ON_THEIR_WAY = 20_000  # phones

_PROMISED = sa.select(RESERVATIONS.c.identity, RESERVATIONS.c.rule, RESERVATIONS.c.path, RESERVATIONS.c.at)
_PROMISED = _PROMISED.order_by(RESERVATIONS.c.at)


NOT_FOLDED = "the history of the phones is still being read from the recording"


def all_folded(connection: sa.Connection) -> bool:
    """Whether the history tells of all exchanges."""
    highest, folded = standing(connection)
    return folded >= highest


def phone(connection: sa.Connection, identity: str) -> Recalled:
    """One phone."""
    found = connection.execute(sa.select(PHONES.c.history).where(PHONES.c.identity == identity)).scalar_one_or_none()
    promised = connection.execute(_PROMISED.where(RESERVATIONS.c.identity == identity)).all()
    return Recalled(found, [tuple(row) for row in promised])


def fleet(connection: sa.Connection, _about: None) -> Fleet:
    """The fleet. Raises `LookupError` while the history does not tell of all exchanges."""
    if not all_folded(connection):
        raise LookupError(NOT_FOLDED)

    def rows(query: sa.Select[Any]) -> list[Any]:
        return [tuple(row) for row in connection.execute(query)]

    on_their_way = sa.select(PHONES.c.identity, PHONES.c.history).where(PHONES.c.attempt.is_not(None))
    on_their_way = on_their_way.order_by(PHONES.c.last_seen.desc()).limit(MAX_ON_THEIR_WAY)
    outcomes: list[tuple[str, int, bool]] = []
    for path in connection.execute(sa.select(OUTCOMES.c.path).distinct()).scalars():
        newest = sa.select(OUTCOMES.c.path, OUTCOMES.c.at, OUTCOMES.c.worked).where(OUTCOMES.c.path == path)
        outcomes += reversed(rows(newest.order_by(OUTCOMES.c.at.desc()).limit(MAX_OUTCOMES_KEPT)))
    return Fleet(
        rows(on_their_way),
        rows(sa.select(PLACES.c.identity, PLACES.c.rule, PLACES.c.granted, PLACES.c.until)),
        outcomes,
        rows(sa.select(UNDECIDED.c.path, UNDECIDED.c.identity, UNDECIDED.c.at).order_by(UNDECIDED.c.at)),
        rows(_PROMISED),
    )


def census(connection: sa.Connection, _about: None = None) -> list[tuple[str, str, int]]:
    """How many phones are in which state and run which version."""
    query = sa.select(PHONES.c.state, PHONES.c.version, sa.func.count()).group_by(PHONES.c.state, PHONES.c.version)
    return [(state, version, count) for state, version, count in connection.execute(query)]


ANSWERS: Answers = {"phone": phone, "fleet": fleet, "census": census}
