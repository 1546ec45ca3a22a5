"""The journal of a database: the same lines as in `journal.jsonl`, chained over all shims that share it.

An entry is written in the transaction of its exchange, so that neither is there without the other, and no line is torn.
The chain shows what was edited or cut; that nobody can, is for the rights of the role that upshim logs in with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from captures.engines import Locks
from captures.exchange import rfc3339
from captures.journal import Head, decode, encode
from captures.schema import JOURNAL

Clock = Callable[[], datetime]


class JournalTable:
    """The table. Raises `SQLAlchemyError`."""

    def __init__(self, engine: sa.Engine, clock: Clock = lambda: datetime.now(UTC)) -> None:
        self.torn = 0
        self._engine = engine
        self._clock = clock

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody adds exchanges or entries meanwhile, but for whoever holds the lock."""
        with self._engine.connect() as connection:
            lock = {"name": Locks.APPEND}
            connection.execute(sa.text("SELECT pg_advisory_lock(hashtextextended(:name, 0))"), lock)
            connection.commit()
            try:
                yield
            finally:
                connection.execute(sa.text("SELECT pg_advisory_unlock(hashtextextended(:name, 0))"), lock)
                connection.commit()

    def append(self, contents: Sequence[Mapping[str, Any]]) -> None:
        """Write entries; on return they are committed. For whoever holds the lock."""
        with self._engine.begin() as connection:
            self.append_within(connection, contents)

    def append_within(self, connection: sa.Connection, contents: Sequence[Mapping[str, Any]]) -> None:
        """Write entries as part of a transaction that holds the lock."""
        if not contents:
            return
        last = sa.select(JOURNAL).order_by(JOURNAL.c.n.desc()).limit(1)
        row = connection.execute(last).one_or_none()
        head = Head()
        if row is not None:
            # A line that somebody spoilt breaks the chain there; what follows holds on to its number.
            entry = decode(row.line.encode("utf-8") + b"\n")
            head = Head(row.n, str(entry["hash"]) if entry else "")
        written, rows = rfc3339(self._clock()), []
        for content in contents:
            line, head = encode(content, head, written)
            rows.append({"n": head.number, "line": line.decode("ascii").removesuffix("\n")})
        connection.execute(JOURNAL.insert(), rows)

    def close(self) -> None:
        """The engine is its owner's."""
