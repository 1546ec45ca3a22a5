"""What of a recording's rows goes, and in which order: for age, for room, or because somebody wants it forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import sqlalchemy as sa

from captures.engines import Statement, upsert
from captures.retention import Kept
from captures.schema import BODY_USES, EXCHANGES, FACTS, STATE

LAST_EXCHANGE = "last exchange"
EXPIRED_THROUGH = "expired through"
FOLDED = "folded"
BODIES_SINCE = "bodies since"  # the first exchange from which on all bodies were kept; 0 where they are not


_NUMBER = Statement("SELECT number FROM state WHERE name = ?")
_SET_NUMBER = upsert(STATE)
_STANDING = Statement(
    "SELECT (SELECT max(id) FROM exchanges), (SELECT number FROM state WHERE name = ?),"
    " (SELECT number FROM state WHERE name = ?)"
)


class Standing(NamedTuple):
    """The highest index of an exchange ever given, and that up to which exchanges are folded."""

    highest: int
    folded: int


def standing(connection: sa.Connection) -> Standing:
    """How far a recording is."""
    ((present, last, folded),) = _STANDING.run(connection, LAST_EXCHANGE, FOLDED)
    return Standing(max(int(present or 0), int(last or 0)), int(folded or 0))


def number_of(connection: sa.Connection, name: str) -> int:
    """A number of the recording's state; 0 where there is none."""
    found = _NUMBER.run(connection, name)
    return int(found[0][0]) if found else 0


def set_number(connection: sa.Connection, name: str, number: int) -> None:
    """Set a number of the recording's state."""
    _SET_NUMBER.run(connection, name, number)


def remove_rows(connection: sa.Connection, which: Callable[[sa.ColumnElement[int]], sa.ColumnElement[bool]]) -> None:
    """Remove exchanges and all that hangs on them."""
    set_number(connection, LAST_EXCHANGE, standing(connection).highest)
    for index in (FACTS.c.exchange, BODY_USES.c.exchange, EXCHANGES.c.id):
        connection.execute(index.table.delete().where(which(index)))


def among(page: Sequence[int], index: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Whether an index is one of these."""
    return index.in_(page)


def newest_first(connection: sa.Connection) -> Iterator[Kept]:
    """What each exchange takes."""
    messages = (EXCHANGES.c[name] for name in ("request", "response", "rewritten_request", "rewritten_response"))
    of_facts = sa.select(sa.func.coalesce(sa.func.sum(_length(FACTS.c.content)), 0))
    size = sum(
        (sa.func.coalesce(_length(message), 0) for message in messages),
        of_facts.where(FACTS.c.exchange == EXCHANGES.c.id).scalar_subquery(),
    )
    rows = sa.select(EXCHANGES.c.id, sa.type_coerce(size, sa.Integer).label("size"))
    rows = rows.order_by(EXCHANGES.c.id.desc())
    uses = sa.select(BODY_USES).order_by(BODY_USES.c.exchange.desc())
    bodies = groupby(connection.execute(uses), lambda use: use.exchange)
    index, used = next(bodies, (0, iter(())))
    for row in connection.execute(rows):
        needed = {}
        if index == row.id:
            needed = {use.sha256: use.size for use in used}
            index, used = next(bodies, (0, iter(())))
        yield Kept(row.id, row.size, needed)


def _length(column: sa.Column[object]) -> sa.Function[int]:
    return sa.func.length(sa.cast(column, sa.Text))
