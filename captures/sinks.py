"""Where a recording writes to, and what it does when that fails. All of it runs on the recording's own thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Protocol

import sqlalchemy as sa

from captures.engines import reason
from captures.exchange import Exchange, bodies_of
from captures.journalling import Journal, Told
from captures.recording_folder import DATABASE
from captures.retention import Keep
from captures.spool import Waiting
from captures.store import Projection, Store, StoreError

Lose = Callable[[str], None]  # counts what was lost by its cause


class Sink(Protocol):
    """What takes exchanges and beginnings of downloads, in their order."""

    journal_failed: bool

    @property
    def behind(self) -> str:
        """Why what has happened is not all in the store; blank where it is."""

    @property
    def spooled(self) -> int:
        """Bytes on this machine that the store has yet to take."""

    @property
    def waiting(self) -> bool:
        """Whether something waits to be written."""

    def start(self) -> None:
        """Make up for what the process before left undone."""

    def write(self, batch: Sequence[Waiting]) -> list[bool]:
        """Write these; True for each that can no longer be lost."""

    def go_on(self) -> None:
        """Write what waits; after every `write`, and every second while something waits."""

    def tidy(self, keep: Keep) -> None:
        """Remove what is too old or too much; every now and then."""

    def close(self) -> None:
        """Let go."""


def bodies_held(exchanges: Sequence[Exchange]) -> dict[str, bytes]:
    """The bodies these exchanges hold, by their sha256."""
    held = {}
    for body in (body for exchange in exchanges for body in bodies_of(exchange)):
        if body.data:
            held[body.sha256] = body.data
        if body.encoded and body.encoded_sha256:
            held[body.encoded_sha256] = body.encoded
    return held


class FolderSink:
    """SQLite. What cannot be written is lost and counted: there is no other disk to put it on."""

    behind = ""
    waiting = False
    spooled = 0

    def __init__(self, store: Store, projection: Projection | None, lose: Lose) -> None:
        self.journal_failed = False
        self._store = store
        self._projection = projection
        self._lose = lose
        self._journal = Journal(store)
        self._opened = identity(store)

    def start(self) -> None:
        """Journal what a killed process could not."""
        try:
            with self._journal.file.locked():
                self._journal.catch_up()
        except (OSError, sa.exc.SQLAlchemyError, StoreError) as error:
            self._journal_trouble(error)
        fold_all(self._store, self._projection)
        if self._journal.file.torn:
            self._lose(f"the torn end of the journal ({self._journal.file.torn} bytes): the chain goes on after it")

    def write(self, batch: Sequence[Waiting]) -> list[bool]:
        """Commit and journal under one lock."""
        done = [False] * len(batch)
        begins = 0  # beginnings of downloads go in before the exchanges behind them
        for position, one in enumerate(batch):
            if one.exchange is None:
                self._commit(batch[begins:position], done, begins)
                done[position] = self._begin(one)
                begins = position + 1
        self._commit(batch[begins:], done, begins)
        return done

    def go_on(self) -> None:
        """Nothing ever waits."""

    def _commit(self, rows: Sequence[Waiting], done: list[bool], first: int) -> None:
        if not rows:
            return
        exchanges = [row.exchange for row in rows if row.exchange is not None]
        if identity(self._store) != self._opened:
            # SQLite would go on writing to what nobody will find.
            self._lose("exchanges: the recording was taken away")
            self.journal_failed = True
            return
        with self._journal_lock() as locked:
            try:
                uids = [row.uid for row in rows]
                indexes = self._store.add(exchanges, uids, self._projection, bodies=bodies_held(exchanges))
            except (OSError, sa.exc.SQLAlchemyError) as error:
                self._lose(f"exchanges: {reason_of(error)}")
                return
            done[first : first + len(rows)] = [True] * len(rows)
            if locked:
                pairs = zip(rows, indexes, strict=True)
                self._journal_rows([(one.told, index) for one, index in pairs if one.told is not None])

    def _begin(self, one: Waiting) -> bool:
        if self._projection is None or one.fetch is None:
            return True
        try:
            with self._store.engine.begin() as connection:
                self._projection.began(connection, one.uid, one.fetch)
        except sa.exc.SQLAlchemyError as error:
            self._lose(f"the beginning of a download: {reason(error)}")
            return False
        return True

    @contextmanager
    def _journal_lock(self) -> Iterator[bool]:
        """Hold the journal's lock while something is committed; without it recording goes on, unjournalled."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._journal.file.locked())
                locked = True
            except OSError as error:
                locked = False
                self._journal_trouble(error)
            yield locked

    def _journal_rows(self, told: list[tuple[Told, int]]) -> None:
        try:
            if self.journal_failed:
                self._journal.catch_up()
            else:
                self._journal.write(told)
            self.journal_failed = False
        except (OSError, sa.exc.SQLAlchemyError, StoreError) as error:
            self._journal_trouble(error)

    def _journal_trouble(self, error: Exception) -> None:
        self.journal_failed = True
        self._lose(f"in the journal: {reason_of(error)}")

    def tidy(self, keep: Keep) -> None:
        """Remove what is too old or too much."""
        tidy(self._store, self._journal, self._projection, keep, self._lose)

    def close(self) -> None:
        """Let go."""
        self._journal.file.close()
        self._store.close()


def identity(store: Store) -> tuple[int, int] | None:
    """Which file the database is; None where it is gone."""
    try:
        status = (store.folder / DATABASE).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def fold_all(store: Store, projection: Projection | None) -> None:
    """Fold what was recorded without the projection, by an older version or by `convert`. Raises `SQLAlchemyError`."""
    while projection is not None and store.fold_rest(projection):
        pass


def tidy(store: Store, journal: Journal, projection: Projection | None, keep: Keep, lose: Lose) -> None:
    """Remove what is too old or too much, and say so in the journal."""
    now = datetime.now(UTC)
    try:
        if projection is not None:
            with store.engine.begin() as connection:
                projection.tidy(connection)
        if not keep:
            return
        with journal.file.locked():
            expired = store.expire(keep.older_than(now), keep.bytes, now)
            if expired.exchanges:
                entry = {"entry": "expired", "through": expired.through, "exchanges": expired.exchanges}
                journal.file.append([entry])
    except (OSError, sa.exc.SQLAlchemyError) as error:
        lose(f"the removal of old exchanges: {reason_of(error)}")


def reason_of(error: Exception) -> str:
    """An error of disk or database in one line."""
    return str(error) if isinstance(error, OSError) else reason(error)
