"""Recording into PostgreSQL: what it cannot take waits on this machine, and is written later, in order, once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from captures.database_url import DatabaseUrl
from captures.engines import is_poison, reason
from captures.errors import StoreError
from captures.exchange import bodies_held
from captures.journalling import Journal, told_of
from captures.privacy import Stored, stored
from captures.retention import Keep
from captures.shared_bodies import SharedBodies
from captures.sink import RETRY_AFTER, Item, Lose, Result
from captures.sinks import fold_all, reason_of
from captures.spool import SPOOL, Spool, Waiting
from captures.store import Projection, Recorded, Store
from captures.tidying import Tidier

WRITE_WITHIN = 3.0  # seconds a transaction may take before the database counts as away
TIDY_WITHIN = 20.0  # seconds a statement of a look at what may go may take
PAGE = 100  # exchanges of one transaction: decisions wait for what it holds


class SharedSink:
    """PostgreSQL, and the spool beside it."""

    journal_failed = False  # journal and exchange are one transaction

    def __init__(
        self,
        place: DatabaseUrl,
        setting: Stored,
        state: Path | None,
        projection: Projection | None,
        lose: Lose,
        tell: Callable[[str], None],
    ) -> None:
        """Raises `StoreError` where the URL is unusable or nothing can be written to this machine."""
        self.store = Store.connect(place, state, within=WRITE_WITHIN)
        try:
            self._spool = Spool(self.store.folder / SPOOL)
        except OSError as error:
            raise StoreError(self.store.folder / SPOOL, error) from error
        self.bodies = self.store.bodies
        self._setting = setting
        self._state = state
        self._journal = Journal(self.store)
        self._projection = projection
        self._tidier = Tidier(lambda: self.store.written, self._slow, projection, lose)
        self._lose = lose
        self._tell = tell
        self._prepared = self._folded = False
        self._away = ""
        self._retry_at = 0.0
        self._attempt(lambda: None)

    @property
    def behind(self) -> str:
        """Why what has happened is not all in the database."""
        if self._away:
            return f"the database is away: {self._away}"
        return "" if not self._spool.pending else "what happened while the database was away is still being written"

    @property
    def spooled(self) -> int:
        """Bytes of the spool that the database has yet to take."""
        return self._spool.size if self._spool.pending else 0

    @property
    def waiting(self) -> bool:
        """Whether something waits, or the database has still to be looked at."""
        return self._spool.pending or bool(self._away) or not self._folded

    def start(self) -> None:
        """Write what the process before could not."""
        self.go_on()

    @property
    def tidying(self) -> bool:
        """Whether there is something to be removed, and a database to remove it from."""
        return self._prepared and not self._away and self._tidier.under_way

    def go_on(self) -> None:
        """Write what waits, if the database takes it."""
        self._write_waiting()
        if self.tidying:
            self._tidier.go_on()

    def _write_waiting(self) -> None:
        if not self._folded:
            self._folded = self._attempt(lambda: fold_all(self.store, self._projection))
        while self._spool.pending:
            page, taken = self._spool.page(PAGE)
            if not self._attempt(lambda page=page: self._send(page, kept_aside=True)):  # type: ignore[misc]
                return
            self._spool.done(taken)

    def write(self, batch: Sequence[Item]) -> list[Result]:
        """Write through where nothing waits, else behind what waits. Whoever has a question asks the database."""
        self._tidier.wrote(len(batch))
        waiting = [
            Waiting(item.uid, fetch=None if item.fetch is None else dict(item.fetch))
            if item.exchange is None
            else Waiting(item.uid, stored(item.exchange, self._setting), told_of(item.exchange))
            for item in batch
        ]
        done: list[bool] = []
        for start in range(0, len(waiting), PAGE):
            page = waiting[start : start + PAGE]
            if not self._spool.pending and self._attempt(lambda page=page: self._send(page)):  # type: ignore[misc]
                done += [True] * len(page)
            else:
                done += [self._put_aside(page)] * len(page)
        return [Result(one) for one in done]

    def _put_aside(self, page: Sequence[Waiting]) -> bool:
        try:
            held = bodies_held([one.exchange for one in page if one.exchange is not None])
            for sha256, data in held.items():
                if isinstance(self.store.bodies, SharedBodies):
                    self.store.bodies.put_aside(sha256, data)
            self._spool.append(page)
        except OSError as error:
            self._lose(f"exchanges: {error.strerror or error}")
            return False
        return True

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Whether it could be done; a database that is away is not asked again at once."""
        began = time.monotonic()
        if began < self._retry_at:
            return False
        try:
            if not self._prepared:
                self.store.prepare()
                self._prepared = True
            work()
        except (sa.exc.SQLAlchemyError, OSError, StoreError) as error:
            if not self._away:
                self._tell(f"the database is away, exchanges wait on this machine: {reason_of(error)}")
            self._away = reason_of(error)
            # A server that hangs is asked more seldom: meanwhile exchanges wait for the one thread there is.
            self._retry_at = time.monotonic() + max(RETRY_AFTER, 3 * (time.monotonic() - began))
            self._prepared = False  # who knows what comes back
            return False
        if self._away:
            self._tell("the database is back")
        self._away = ""
        return True

    def _send(self, page: Sequence[Waiting], *, kept_aside: bool = False) -> None:
        if kept_aside and isinstance(self.store.bodies, SharedBodies):
            self.store.bodies.hand_over_all()
        try:
            self._commit(page)
        except Exception as error:
            if not is_poison(error):
                raise
            if len(page) == 1:
                self._lose(f"an exchange: {reason(error)}")
                return
            # One of them is what the database will never take: the others need not suffer for it.
            for one in page:
                self._send([one])

    def _commit(self, page: Sequence[Waiting]) -> None:
        begins = 0
        for position, one in enumerate(page):
            if one.exchange is None:
                self._add(page[begins:position])
                begins = position + 1
                if one.fetch is not None and self._projection is not None:
                    with self.store.engine.begin() as connection:
                        self._projection.began(connection, one.uid, one.fetch)
        self._add(page[begins:])

    def _add(self, page: Sequence[Waiting]) -> None:
        exchanges = [one.exchange for one in page if one.exchange is not None]
        told = {one.uid: one.told for one in page}

        def journal(connection: sa.Connection, recorded: Sequence[Recorded]) -> None:
            pairs = ((told.get(one.uid or ""), one.exchange.index) for one in recorded)
            self._journal.write_within(connection, [(what, index) for what, index in pairs if what is not None])

        if exchanges:
            uids = [one.uid for one in page]
            self.store.add(exchanges, uids, self._projection, journal, bodies_held(exchanges))

    def tidy(self, keep: Keep) -> None:
        """Have what is too old or too much removed; other shims may do it too."""
        self._tidier.ask(keep)

    @contextmanager
    def _slow(self) -> Iterator[tuple[Store, Journal]]:
        """The store for what may take its time; a database that hangs holds it up no longer than twice this."""
        slow = Store.connect(self.store.place, self._state, within=TIDY_WITHIN)
        try:
            yield slow, Journal(slow)
        finally:
            slow.close()

    def close(self) -> None:
        """Let go; what still waits in the spool after one more attempt waits for the next start."""
        self._tidier.close()
        self._retry_at = 0
        self._write_waiting()
        self._spool.close()
        self.store.close()
