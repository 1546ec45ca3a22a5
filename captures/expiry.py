"""What of a recording's rows goes, and in which order: for age, for room, or because somebody wants it forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from captures.engines import Locks, Statement, upsert
from captures.retention import Taken
from captures.schema import BODY_USES, EXCHANGES, FACTS, STATE

LAST_EXCHANGE = "last exchange"
EXPIRED_THROUGH = "expired through"
FOLDED = "folded"
REMOVALS = "removals"  # how often exchanges were removed, by whomever
BODIES_SINCE = "bodies since"  # the first exchange from which on all bodies were kept; 0 where they are not


_NUMBER = Statement("SELECT number FROM state WHERE name = ?")
_SET_NUMBER = upsert(STATE)
_STANDING = Statement(
    "SELECT (SELECT max(id) FROM exchanges), (SELECT number FROM state WHERE name = ?),"
    " (SELECT number FROM state WHERE name = ?)"
)
_MESSAGES = ("request", "response", "rewritten_request", "rewritten_response")
_SIZE_OF_ROW = " + ".join(f"coalesce(length(CAST({name} AS TEXT)), 0)" for name in _MESSAGES)
_SIZE_OF_FACTS = "SELECT coalesce(sum(length(CAST(content AS TEXT))), 0) FROM facts WHERE exchange = id"
_SIZES = f"SELECT id, {_SIZE_OF_ROW} + ({_SIZE_OF_FACTS}) AS size FROM exchanges WHERE id > ? ORDER BY id LIMIT ?"  # noqa: S608
_USES = "FROM body_uses AS one WHERE exchange > ? AND exchange <= ? AND NOT EXISTS"
_OTHERS = "SELECT 1 FROM body_uses AS other WHERE other.sha256 = one.sha256"
# Of a body that many share, the index has its oldest use first: that is all that is looked at from the old end.
_COUNTED = Statement(f"SELECT max(id), coalesce(sum(size), 0) FROM ({_SIZES}) AS page")  # noqa: S608
_NEW_BODIES = Statement(f"SELECT coalesce(sum(size), 0) {_USES} ({_OTHERS} AND other.exchange < one.exchange)")
_OLDEST = Statement(_SIZES)
_LAST_USES = Statement(
    f"SELECT exchange, sum(size) {_USES}"
    f" ({_OTHERS} AND other.exchange > one.exchange AND other.exchange <= ?) GROUP BY exchange"
)


class Standing(NamedTuple):
    """The highest index of an exchange ever given, and that up to which exchanges are folded."""

    highest: int
    folded: int


def standing(connection: sa.Connection) -> Standing:
    """How far a recording is."""
    ((present, last, folded),) = _STANDING.run(connection, LAST_EXCHANGE, FOLDED)
    return Standing(max(int(present or 0), int(last or 0)), int(folded or 0))


def holds(connection: sa.Connection, taken: Taken) -> bool:
    """Whether what was counted still is what is there; where it is not, counting begins anew."""
    removals = number_of(connection, REMOVALS)
    if removals == taken.removals:
        return True
    taken.counted, taken.bytes, taken.removals = 0, 0, removals
    return False


def number_of(connection: sa.Connection, name: str) -> int:
    """A number of the recording's state; 0 where there is none."""
    found = _NUMBER.run(connection, name)
    return int(found[0][0]) if found else 0


def set_number(connection: sa.Connection, name: str, number: int) -> None:
    """Set a number of the recording's state."""
    _SET_NUMBER.run(connection, name, number)


def remove_rows(connection: sa.Connection, which: Callable[[sa.ColumnElement[int]], sa.ColumnElement[bool]]) -> None:
    """Remove exchanges and all that hangs on them."""
    Locks.take(connection, REMOVALS)
    set_number(connection, LAST_EXCHANGE, standing(connection).highest)
    set_number(connection, REMOVALS, number_of(connection, REMOVALS) + 1)
    for index in (FACTS.c.exchange, BODY_USES.c.exchange, EXCHANGES.c.id):
        connection.execute(index.table.delete().where(which(index)))


def among(page: Sequence[int], index: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Whether an index is one of these."""
    return index.in_(page)


def counted(connection: sa.Connection, after: int, most: int) -> tuple[int, int]:
    """Up to which index the next exchanges are counted, no more than so many, and the bytes that they add.

    Raises `SQLAlchemyError`.
    """
    ((last, rows),) = _COUNTED.run(connection, after, most)
    if last is None:
        return after, 0
    ((bodies,),) = _NEW_BODIES.run(connection, after, last)
    return int(last), int(rows + bodies)


def oldest(connection: sa.Connection, most: int, through: int) -> Iterator[tuple[int, int]]:
    """The index of each of the oldest exchanges, and the bytes that are free without it and those before it.

    A body is free where no exchange up to `through` needs it: those behind are not counted yet.

    Raises `SQLAlchemyError`.
    """
    rows = _OLDEST.run(connection, 0, most)
    last_uses = dict(_LAST_USES.run(connection, 0, rows[-1][0], through)) if rows else {}
    free = 0
    for index, size in rows:
        free += int(size + last_uses.get(index, 0))
        yield index, free
