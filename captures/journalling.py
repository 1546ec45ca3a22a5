"""Journals what a store records: into the file of a folder, or the table of a database.

In a folder, an exchange is committed and journalled under the file's lock, one after the other; what a killed process
or a disk that failed left out is made up for later. In a database both are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from captures.exchange import Exchange
from captures.journal import decision_entry, identity_of, to_be_journalled
from captures.journal_file import JOURNAL, JournalFile
from captures.journal_table import JournalTable
from captures.store import Store
from captures.store_reader import with_bodies

HOLD = 1 << 22  # a body up to this size is compared when an entry is made up for; rewritten ones are small
PAGE = 200  # entries made up for in one write

Clock = Callable[[], datetime]


class Told(NamedTuple):
    """What the journal will tell of an exchange, but for its index and the pseudonym of its phone."""

    entry: dict[str, Any]
    kind: str  # the phone's identity, as in `captures.journal.Identity`
    value: str


def told_of(exchange: Exchange) -> Told | None:
    """What there is to tell of an exchange that holds its bodies; None where nothing was decided or changed."""
    if not to_be_journalled(exchange):
        return None
    return Told(decision_entry(exchange, ""), *identity_of(exchange))


class Journal:
    """The journal of a store."""

    def __init__(self, store: Store, clock: Clock = lambda: datetime.now(UTC)) -> None:
        self.file: JournalFile | JournalTable = (
            JournalTable(store.engine, clock) if store.shared else JournalFile(store.folder / JOURNAL, clock)
        )
        self._store = store

    def entries(self, connection: sa.Connection, told: Sequence[tuple[Told, int]]) -> list[dict[str, Any]]:
        """The entries of exchanges, by their indexes, within a transaction. Raises `SQLAlchemyError`."""
        if not told:
            return []
        names = self._store.pseudonyms(connection, {(one.kind, one.value) for one, _ in told})
        return [{**one.entry, "phone": names[one.kind, one.value], "exchange": index} for one, index in told]

    def write_within(self, connection: sa.Connection, told: Sequence[tuple[Told, int]]) -> None:
        """Journal exchanges as part of the transaction that commits them, in a database. Raises `SQLAlchemyError`."""
        if isinstance(self.file, JournalTable):
            self.file.append_within(connection, self.entries(connection, told))

    def catch_up(self) -> int:
        """Journal what the store holds and the journal does not; how much that was.

        Raises `OSError`, `StoreError`, `SQLAlchemyError`.
        """
        if isinstance(self.file, JournalTable):
            return 0
        known, first = self.file.recent()
        missing = [index for index in self._store.decided(first - 1) if index not in known]
        for start in range(0, len(missing), PAGE):
            indexes = missing[start : start + PAGE]
            # Read to the end before a pseudonym is written: one connection of a writer waits for the other.
            reading = self._store.exchanges(after=indexes[0] - 1)
            wanted, page = set(indexes), []
            for exchange in reading:
                if exchange.index in wanted:
                    page.append(exchange)
                if exchange.index >= indexes[-1]:
                    break
            reading.close()
            held = (with_bodies(exchange, self._store.bodies, HOLD) for exchange in page)
            late = [(told, exchange.index) for exchange in held if (told := told_of(exchange)) is not None]
            with self._store.engine.begin() as connection:
                entries = self.entries(connection, late)
            self.file.append([{**entry, "late": True} for entry in entries])
        self.file.append([])  # a torn line is accounted for even so
        return len(missing)
