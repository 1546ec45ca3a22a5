"""Decisions that use up a limit, made in a transaction: right for all shims that share a database, and over crashes.

What a rule would do is decided twice. First as if nothing were known of the phone: history only ever holds a rule
back, so what would not be done then is not done at all, and no database is asked. Otherwise it is decided again within
a transaction that holds the locks of the limits it counts, and what it uses up is written as a reservation before
anything is rewritten. The transaction that records the exchange turns the reservation into history. Where that never
comes (a shim was killed), the reservation counts as an offer made.

Whatever keeps the answer of the database away, within `DECIDE_WITHIN` seconds, means that nothing is offered.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime, timedelta

import sqlalchemy as sa

from captures.base_recording import BaseRecording
from captures.engines import Locks, insert, reason
from captures.exchange import Exchange
from captures.rows import as_text, microseconds
from captures.schema import OUTCOMES, PHONES, PLACES, RESERVATIONS, UNDECIDED
from captures.store import Store
from dissectors.update_status import LastUpdateStatus
from dissectors.version import Version
from proxy_addons import phone_events
from proxy_addons.census import Census, Label, told_apart
from proxy_addons.check import Check
from proxy_addons.history import DAY, KEPT_FOR, OFFER_LEASE, Histories, PhoneHistory, Unreadable, identity_of
from proxy_addons.phone import Phone
from proxy_addons.recalled import NOT_FOLDED, all_folded, census
from proxy_addons.rewriter import Checked
from proxy_addons.rules import MAX_OUTCOMES_KEPT
from proxy_addons.stored_history import KEEP_OUTCOMES, FoldedHistories

DECIDE_WITHIN = 1.0  # seconds a phone may wait for a decision
WORKERS = 4
MOST_WAITING = 64  # decisions; more than that and the database is too slow to be asked


# What every decision asks, built once: building a statement costs SQLAlchemy more than running it.
_PROMISED = sa.select(RESERVATIONS.c.path, RESERVATIONS.c.at).where(RESERVATIONS.c.identity == sa.bindparam("name"))
_OWN = sa.select(UNDECIDED.c.path, UNDECIDED.c.at).where(UNDECIDED.c.identity == sa.bindparam("name"))
_RESERVE = insert(RESERVATIONS)


class NotKnown(Exception):
    """What has happened to the phones is not all in the database."""


class Deciding(FoldedHistories):
    """What a decision asks for, counted under the locks that keep the counts right until the transaction ends."""

    def __init__(self, connection: sa.Connection, identity: str) -> None:
        """Wait for other decisions about this phone. Raises `NotKnown`, `SQLAlchemyError`."""
        super().__init__(connection)
        self._identity = identity
        Locks.take(connection, "phone", identity)
        if not all_folded(connection):
            raise NotKnown(NOT_FOLDED)
        # Before the history: an offer that is recorded in between is counted twice rather than not at all.
        mine = {"name": identity}
        self._promised = connection.execute(_PROMISED, mine).all()
        self._own = {row.path: row.at for row in connection.execute(_OWN, mine)}

    def at(self, now: datetime) -> None:
        """Count what is promised and not recorded yet as offers made within the day."""
        if self._promised:
            day = microseconds(now - DAY)
            self._known(self._identity).pending = sum(one.at > day for one in self._promised)

    def outcomes(self, path: str, now: datetime, span: timedelta) -> tuple[int, int]:
        """As in `Histories`."""
        # What this very check tells counts too, and for others at once.
        self.keep_outcomes()
        newest = sa.select(OUTCOMES.c.worked).where(
            OUTCOMES.c.path == as_text(path), OUTCOMES.c.at > microseconds(now - span)
        )
        newest = newest.order_by(OUTCOMES.c.at.desc()).limit(MAX_OUTCOMES_KEPT)
        worked = list(self._connection.execute(newest).scalars())
        return worked.count(False), len(worked)

    def undecided(self, path: str, now: datetime) -> int:
        """As in `Histories`."""
        path = as_text(path)
        Locks.take(self._connection, "path", path)
        after = microseconds(now - KEPT_FOR)
        others = sa.union(
            sa.select(UNDECIDED.c.identity).where(
                UNDECIDED.c.path == path, UNDECIDED.c.at > after, UNDECIDED.c.identity != self._identity
            ),
            sa.select(RESERVATIONS.c.identity).where(
                RESERVATIONS.c.path == path, RESERVATIONS.c.at > after, RESERVATIONS.c.identity != self._identity
            ),
        ).subquery()
        count = int(self._connection.execute(sa.select(sa.func.count()).select_from(others)).scalar_one())
        known_end = (path, self._identity) in self._open and self._open[path, self._identity] is None
        own = not known_end and self._own.get(path, 0) > after
        promised = any(one.path == path and one.at > after for one in self._promised)
        return count + (own or promised)

    def downloading(self, rule: str, now: datetime, besides: str | None = None) -> int:
        """As in `Histories`."""
        rule = as_text(rule)
        Locks.take(self._connection, "rule", rule)
        taken = sa.union(
            sa.select(PLACES.c.identity).where(
                PLACES.c.rule == rule, PLACES.c.until > microseconds(now), PLACES.c.identity != (besides or "")
            ),
            sa.select(RESERVATIONS.c.identity).where(
                RESERVATIONS.c.rule == rule,
                RESERVATIONS.c.at > microseconds(now - OFFER_LEASE),
                RESERVATIONS.c.identity != (besides or ""),
            ),
        ).subquery()
        return int(self._connection.execute(sa.select(sa.func.count()).select_from(taken)).scalar_one())

    def keep_outcomes(self) -> None:
        """Write how an attempt ended, as this check tells; the recording of it will find it there."""
        KEEP_OUTCOMES.run_each(self._connection, self._ends)
        self._ends = []

    def reserve(self, uid: str, rule: str, path: str, now: datetime) -> None:
        """Use up what an offer uses up."""
        _RESERVE.run(self._connection, uid, self._identity, as_text(rule), as_text(path), microseconds(now))


class StoredHistories(Histories):
    """What the operator sees of the history in a database: each question is a short transaction of its own.

    Raises `Unreadable`.
    """

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__()
        self._engine = engine
        self.census: Census = StoredCensus(engine)

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise Unreadable(reason(error)) from error

    def get(self, identity: str | None) -> PhoneHistory:
        """As in `Histories`."""
        with self._connected() as connection:
            return FoldedHistories(connection).get(identity)

    def outcomes(self, path: str, now: datetime, span: timedelta) -> tuple[int, int]:
        """As in `Histories`."""
        with self._connected() as connection:
            return _reading(connection).outcomes(path, now, span)

    def undecided(self, path: str, now: datetime) -> int:
        """As in `Histories`."""
        with self._connected() as connection:
            return _reading(connection).undecided(path, now)

    def downloading(self, rule: str, now: datetime, besides: str | None = None) -> int:
        """As in `Histories`."""
        with self._connected() as connection:
            return _reading(connection).downloading(rule, now, besides)

    def __len__(self) -> int:
        with self._connected() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(PHONES)).scalar_one())


def _reading(connection: sa.Connection) -> Deciding:
    deciding = Deciding.__new__(Deciding)
    FoldedHistories.__init__(deciding, connection)
    deciding._identity, deciding._promised, deciding._own = "", [], {}
    return deciding


class Supposed(StoredHistories):
    """What would be known if a phone asked now: nothing of it is written."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__(engine)
        self._connection: sa.Connection | None = None
        self._deciding: Deciding | None = None

    def checked(
        self,
        identity: str,
        now: datetime,
        *,
        version: Version | None,
        address: str | None = None,
        status: LastUpdateStatus | None = None,
        user: str | None = None,
    ) -> PhoneHistory:
        """As in `Histories`; from then on everything is about this phone. Raises `NotKnown` beside."""
        self.close()
        self._connection = self._engine.connect()
        self._deciding = Deciding(self._connection, identity)
        self._deciding.at(now)
        return self._deciding.checked(identity, now, version=version, address=address, status=status, user=user)

    def get(self, identity: str | None) -> PhoneHistory:
        """As in `Histories`."""
        return super().get(identity) if self._deciding is None else self._deciding.get(identity)

    def outcomes(self, path: str, now: datetime, span: timedelta) -> tuple[int, int]:
        """As in `Histories`."""
        return super().outcomes(path, now, span) if self._deciding is None else self._deciding.outcomes(path, now, span)

    def undecided(self, path: str, now: datetime) -> int:
        """As in `Histories`."""
        return super().undecided(path, now) if self._deciding is None else self._deciding.undecided(path, now)

    def downloading(self, rule: str, now: datetime, besides: str | None = None) -> int:
        """As in `Histories`."""
        return (
            super().downloading(rule, now, besides)
            if self._deciding is None
            else self._deciding.downloading(rule, now, besides)
        )

    def close(self) -> None:
        """Let go."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._deciding = None


class StoredCensus(Census):
    """Counts phones where they are; the database has an index for it."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__()
        self._engine = engine
        self._last: dict[Label, int] = {}

    def counts(self) -> dict[Label, int]:
        """Phones by state and version; the last ones known while the database is away."""
        try:
            with self._engine.connect() as connection:
                self._last = told_apart(census(connection))
        except sa.exc.SQLAlchemyError:
            pass
        return self._last


async def within(decided: asyncio.Future[Checked], seconds: float) -> Checked:
    """What is decided. Raises `TimeoutError`, and `NotKnown` where it was given up.

    This may have begun outside of a task, where asyncio's own timeouts do not work.
    """
    loop = asyncio.get_running_loop()
    ends: asyncio.Future[None] = loop.create_future()

    def end(late: asyncio.Future[Checked] | None = None) -> None:
        if late is not None and not late.cancelled():
            late.exception()  # whether anybody still waits for it or not
        if not ends.done():
            ends.set_result(None)

    decided.add_done_callback(end)
    timer = loop.call_later(seconds, end)
    await ends
    timer.cancel()
    if not decided.done():
        raise TimeoutError
    if decided.cancelled():
        raise NotKnown("the decision was given up: another process writes to the recording, or no longer does")
    return decided.result()


class Ledger:
    """Decides for one recording. Its methods but `close` are for the event loop's thread."""

    def __init__(self, recording: BaseRecording, store: Store) -> None:
        """Decide in this store, into which the recording is written. Raises `StoreError`."""
        self._recording = recording
        self._shared = store.shared
        self._engine = store.engine_within(DECIDE_WITHIN / 2)
        # SQLite has one writer at a time, whoever waits.
        self._workers = ThreadPoolExecutor(WORKERS if store.shared else 1, "upshim-ledger")
        self._waiting = 0
        self._reading = store.engine_within(DECIDE_WITHIN, writes=False)
        self.histories = StoredHistories(self._reading)

    async def decide(self, uid: str, check: Check) -> Checked:
        """The decision about a check, and its reservation. Without an answer nothing is offered."""
        checked = check.now()
        if not check.may_act(checked):
            return checked
        why = self._why_not()
        if not why:
            abandoned = threading.Event()
            self._waiting += 1
            future = self._workers.submit(self._decide, uid, check, abandoned)
            try:
                return await within(asyncio.wrap_future(future), DECIDE_WITHIN)
            except TimeoutError:
                why = f"the database did not answer within {DECIDE_WITHIN:g} s"
            except (NotKnown, sa.exc.SQLAlchemyError) as error:
                why = reason(error)
            finally:
                abandoned.set()
                self._waiting -= 1
        return check.unknown(why)

    def decide_now(self, uid: str, check: Check) -> Checked:
        """The same where nothing can be awaited: only a database of this machine is asked, and briefly."""
        checked = check.now()
        if not check.may_act(checked):
            return checked
        why = self._why_not()
        if not why and self._shared:
            why = "a chunked check cannot wait for the database"
        if not why:
            abandoned = threading.Event()
            try:
                return self._workers.submit(self._decide, uid, check, abandoned).result(DECIDE_WITHIN / 4)
            except TimeoutError:
                why = "the database is busy"
            except (NotKnown, sa.exc.SQLAlchemyError) as error:
                why = reason(error)
            finally:
                abandoned.set()
        return check.unknown(why)

    async def look(self) -> None:
        """Nothing changes by itself."""

    def ended(self, identity: str | None, exchange: Exchange) -> None:
        """The transaction that records an exchange tells."""

    def fetching(self, uid: str, method: str, target: str, address: str, now: datetime) -> None:
        """A request begins; where it fetches a file of an update, its phone keeps its place until the file ends."""
        version = phone_events.fetched_version(method, target)
        if version is not None:
            fetch = {"address": address, "version": str(version), "at": microseconds(now)}
            self._recording.fetch(uid, fetch)

    def _why_not(self) -> str:
        if self._waiting >= MOST_WAITING:
            return "too many decisions wait for the database"
        return self._recording.behind

    def _decide(self, uid: str, check: Check, abandoned: threading.Event) -> Checked:
        if abandoned.is_set():
            raise NotKnown("too late")
        with self._engine.connect() as connection, closing(connection.begin()) as transaction:
            found: list[Deciding] = []

            def find(phone: Phone) -> Histories:
                identity = identity_of(phone.mac, phone.serial, phone.address)
                histories = Deciding(connection, identity or "")
                histories.at(check.at)
                found.append(histories)
                return histories

            checked = check.by(find)
            rule = checked.decision.rule
            for histories in found:
                histories.keep_outcomes()
                if check.may_act(checked) and rule is not None and not check.dry_run:
                    histories.reserve(uid, rule.name, rule.path.name if rule.path else "", check.at)
            if abandoned.is_set():
                raise NotKnown("too late")
            transaction.commit()
            return checked

    def close(self) -> None:
        """Let go; decisions that are still waited for come to nothing, those under way end in their own time."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._reading.dispose()
        threading.Thread(target=self._let_go, name="upshim-ledger-ends", daemon=True).start()

    def _let_go(self) -> None:
        self._workers.shutdown()
        self._engine.dispose()  # a connection that is in use would not be closed
