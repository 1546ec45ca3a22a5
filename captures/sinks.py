"""Sinks that write themselves: a folder's. All of it runs on the recording's own thread, or in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from captures.engines import insert_new, reason
from captures.errors import StoreError
from captures.exchange import Exchange, bodies_held
from captures.journal_file import JOURNAL
from captures.journalling import Journal, told_of
from captures.privacy import Stored, stored
from captures.recording_folder import DATABASE
from captures.retention import Keep
from captures.schema import RESERVATIONS
from captures.sink import Item, Lose, Question, Result
from captures.store import Projection, Recorded, Store
from captures.tidying import Tidier

_RESERVE = insert_new(RESERVATIONS)  # (uid, *reservation)

Answers = Mapping[str, Callable[[sa.Connection, Any], Any]]  # by the name of the question


class FolderSink:
    """SQLite. What cannot be written is lost and counted: there is no other disk to put it on."""

    behind = ""
    waiting = False
    spooled = 0

    def __init__(
        self,
        folder: Path,
        setting: Stored,
        projection: Projection | None,
        lose: Lose,
        answers: Answers | None = None,
    ) -> None:
        """Raises `StoreError`."""
        self.journal_failed = False
        self.store = Store.create(folder)
        self.bodies = self.store.bodies
        if self.store.empty and told_before(folder):
            # Its phones may have been offered what must not be offered again.
            self.store.close()
            raise StoreError(folder, f"its journal tells of exchanges and {DATABASE} holds none: move one aside")
        try:
            self.store.will_keep_bodies(setting == "full")
        except sa.exc.SQLAlchemyError as error:
            self.store.close()
            raise StoreError(folder, f"cannot record here: {reason(error)}") from error
        self._setting = setting
        self._projection = projection
        self._lose = lose
        self._answers = answers or {}
        self._journal = Journal(self.store)
        opened = nullcontext((self.store, self._journal))
        self._tidier = Tidier(lambda: self.store.written, lambda: opened, projection, lose)
        self._opened = identity(self.store)

    def start(self) -> None:
        """Journal what a killed process could not."""
        try:
            with self._journal.file.locked():
                self._journal.catch_up()
        except (OSError, sa.exc.SQLAlchemyError, StoreError) as error:
            self._journal_trouble(error)
        fold_all(self.store, self._projection)
        if self._journal.file.torn:
            self._lose(f"the torn end of the journal ({self._journal.file.torn} bytes): the chain goes on after it")

    def write(self, batch: Sequence[Item]) -> list[Result]:
        """Commit and journal under one lock; questions are answered last, by what is then in the store."""
        self._tidier.wrote(len(batch))
        results = [Result(False)] * len(batch)
        together: list[int] = []  # positions in the batch
        for position, item in enumerate(batch):
            if item.fetch is not None:  # beginnings of downloads go in before the exchanges behind them
                self._commit(batch, together, results)
                together = []
                results[position] = Result(self._begin(item))
            elif item.question is None:
                together.append(position)
        self._commit(batch, together, results)
        for position, item in enumerate(batch):
            if item.question is not None:
                results[position] = self._answer(item.question)
        return results

    @property
    def tidying(self) -> bool:
        """Whether there is something to be removed."""
        return self._tidier.under_way

    def go_on(self) -> None:
        """Nothing waits to be written."""
        self._tidier.go_on()

    def _commit(self, batch: Sequence[Item], positions: Sequence[int], results: list[Result]) -> None:
        if not positions:
            return
        items = [batch[position] for position in positions]
        named = [(one.uid, one.exchange) for one in items if one.exchange is not None]
        if identity(self.store) != self._opened:
            # SQLite would go on writing to what nobody will find.
            self._lost(named, "the recording was taken away")
            self.journal_failed = True
            return
        reserved = [(one.uid, *one.reservation) for one in items if one.reservation is not None]
        try:
            if not named:
                with self.store.engine.begin() as connection:
                    _RESERVE.run_each(connection, reserved)
            else:
                self._commit_exchanges(named, reserved)
        except (OSError, sa.exc.SQLAlchemyError) as error:
            self._lost(named, reason_of(error))
            return
        for position in positions:
            results[position] = Result(True)

    def _lost(self, named: Sequence[tuple[str, Exchange]], why: str) -> None:
        """Exchanges could not be written. Of a reservation nothing is missing: its offer is not made."""
        for _ in named:
            self._lose(f"exchanges: {why}")
        # What is not recorded the journal cannot tell either, and it makes up for nothing of it.
        self.journal_failed = self.journal_failed or bool(named)

    def _commit_exchanges(self, named: Sequence[tuple[str, Exchange]], reserved: Sequence[tuple[Any, ...]]) -> None:
        exchanges = [stored(exchange, self._setting) for _, exchange in named]
        told = {uid: told_of(exchange) for uid, exchange in named}
        entries: list[dict[str, Any]] = []

        def within(connection: sa.Connection, recorded: Sequence[Recorded]) -> None:
            _RESERVE.run_each(connection, reserved)
            pairs = ((told.get(one.uid or ""), one.exchange.index) for one in recorded)
            entries.extend(self._journal.entries(connection, [(what, n) for what, n in pairs if what is not None]))

        with self._journal_lock() as locked:
            uids = [uid for uid, _ in named]
            self.store.add(exchanges, uids, self._projection, within, bodies_held(exchanges))
            if locked:
                self._append(entries)

    def _begin(self, one: Item) -> bool:
        if self._projection is None or one.fetch is None:
            return True
        try:
            with self.store.engine.begin() as connection:
                self._projection.began(connection, one.uid, one.fetch)
        except sa.exc.SQLAlchemyError as error:
            self._lose(f"the beginning of a download: {reason(error)}")
            return False
        return True

    def _answer(self, question: Question) -> Result:
        if question.name == "tidy":
            self.tidy(question.about or Keep())
            return Result(True)
        try:
            with self.store.reading.connect() as connection:
                return Result(True, self._answers[question.name](connection, question.about))
        except (sa.exc.SQLAlchemyError, LookupError) as error:
            return Result(False, reason(error))

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

    def _append(self, entries: Sequence[dict[str, Any]]) -> None:
        try:
            if self.journal_failed:
                self._journal.catch_up()
            elif entries:
                self._journal.file.append(entries)
            self.journal_failed = False
        except (OSError, sa.exc.SQLAlchemyError, StoreError) as error:
            self._journal_trouble(error)

    def _journal_trouble(self, error: Exception) -> None:
        self.journal_failed = True
        self._lose(f"in the journal: {reason_of(error)}")

    def tidy(self, keep: Keep) -> None:
        """Have what is too old or too much removed."""
        self._tidier.ask(keep)

    def close(self) -> None:
        """Let go."""
        self._tidier.close()
        self._journal.file.close()
        self.store.close()


def told_before(folder: Path) -> bool:
    """Whether a journal stands there."""
    try:
        return (folder / JOURNAL).stat().st_size > 0
    except OSError:
        return False


def identity(store: Store) -> tuple[int, int] | None:
    """Which file the database is; None where it is gone."""
    try:
        status = os.stat(f"{store.folder}/{DATABASE}")  # noqa: PTH116 - before every batch
    except OSError:
        return None
    return status.st_dev, status.st_ino


def fold_all(store: Store, projection: Projection | None) -> None:
    """Fold what was recorded without the projection, by an older version or by `convert`. Raises `SQLAlchemyError`."""
    while projection is not None and store.fold_rest(projection):
        pass


def reason_of(error: Exception) -> str:
    """An error of disk or database in one line."""
    return str(error) if isinstance(error, OSError) else reason(error)
