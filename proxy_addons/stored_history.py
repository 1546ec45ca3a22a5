"""The history of the phones kept in a recording's database: the logic of history.py over rows instead of memory.

`PhoneProjection` folds every exchange into it, in the transaction that records the exchange; so it is, at any moment
and after any crash, what the recording tells, and a start reads nothing again. Rows are loaded for the phones that
exchanges are about, and written back at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from captures.engines import Statement, as_json, insert_new, upsert
from captures.rows import as_text, microseconds, moment_of
from captures.schema import OUTCOMES, PHONES, PLACES, RESERVATIONS, UNDECIDED
from captures.store import Recorded
from dissectors import DissectError
from dissectors.version import Version
from proxy_addons import phone_events
from proxy_addons.fleet_counts import Places
from proxy_addons.history import KEPT_FOR, MAX_PHONES, OFFER_LEASE, Histories, PhoneHistory
from proxy_addons.history_rows import from_row, to_row

FETCH_LEASE = timedelta(hours=6)  # a download whose end nobody tells holds its place for so long
PHONE_FACTS = frozenset({"update-check", "firmware-fetch"})

_PLACES_OF = Statement("SELECT identity, uid, rule, granted, until FROM places WHERE identity IN (?)")
_TAKE = upsert(PLACES)
_BEGIN = insert_new(PLACES)
_LEAVE = Statement("DELETE FROM places WHERE identity = ? AND uid = ?")
_HISTORIES_OF = Statement("SELECT identity, CAST(history AS TEXT) FROM phones WHERE identity IN (?)")
_KEEP_PHONES = upsert(PHONES)
_OPEN = insert_new(UNDECIDED)
_DECIDED = Statement("DELETE FROM undecided WHERE path = ? AND identity = ?")
KEEP_OUTCOMES = insert_new(OUTCOMES)
_KEPT = Statement("DELETE FROM reservations WHERE uid IN (?)")


class PlaceRows(Places):
    """The places of some phones, loaded beforehand; `uid` is that of the exchange being folded."""

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__()
        self.uid = ""
        self._connection = connection
        self._offered: dict[str, tuple[str, int, int]] = {}  # identity -> rule, granted, until
        self._there: set[str] = set()  # whose offer has a row
        self._fetches: dict[str, dict[str, int]] = {}  # identity -> uid -> granted
        self._loaded: set[str] = set()
        self._changed: set[str] = set()
        self._gone: list[tuple[str, str]] = []

    def load(self, identities: Iterable[str]) -> None:
        """Load what is not loaded yet."""
        wanted = [identity for identity in identities if identity not in self._loaded]
        if not wanted:
            return
        self._loaded.update(wanted)
        for identity, uid, rule, granted, until in _PLACES_OF.run(self._connection, wanted):
            if uid:
                self._fetches.setdefault(identity, {})[uid] = granted
            else:
                self._offered[identity] = (rule, granted, until)
                self._there.add(identity)

    def take(self, identity: str, rule: str, until: datetime, now: datetime) -> None:
        """A phone takes a place."""
        self.load([identity])
        self._offered[identity] = (as_text(rule), microseconds(now), microseconds(until))
        self._changed.add(identity)

    def begin(self, identity: str, now: datetime) -> None:
        """A phone fetches a file, which is known since then (`PhoneProjection.began`); a place it had has run out."""
        self.load([identity])
        place = self._offered.get(identity)
        if place is not None and place[2] <= microseconds(now):
            self.leave(identity)

    def end(self, identity: str, until: datetime) -> None:
        """A file has ended."""
        self.load([identity])
        if self.uid:
            self._fetches.get(identity, {}).pop(self.uid, 0)
            self._gone.append((identity, self.uid))
        if place := self._offered.get(identity):
            self._offered[identity] = (*place[:2], microseconds(until))
            self._changed.add(identity)

    def asks(self, identity: str, now: datetime) -> None:
        """A phone asks again: a download that began long ago and never ended is over, whatever became of its shim."""
        self.load([identity])
        long_ago = microseconds(now - OFFER_LEASE)
        for uid, granted in list(self._fetches.get(identity, {}).items()):
            if granted < long_ago:
                del self._fetches[identity][uid]
                self._gone.append((identity, uid))

    def leave(self, identity: str) -> None:
        """A phone gives up its place, unless it is fetching."""
        self.load([identity])
        if not self._fetches.get(identity) and identity in self._offered:
            del self._offered[identity]
            self._changed.add(identity)

    def flush(self) -> None:
        """Write what has changed."""
        left = (self._changed & self._there) - self._offered.keys()
        _LEAVE.run_each(self._connection, sorted({*self._gone, *((identity, "") for identity in left)}))
        taken = sorted(self._changed & self._offered.keys())
        _TAKE.run_each(self._connection, [(identity, "", *self._offered[identity]) for identity in taken])
        self._there = (self._there - left).union(taken)
        self._changed, self._gone = set(), []


class FoldedHistories(Histories):
    """Histories within one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__()
        self._connection = connection
        self._rows = self._places = PlaceRows(connection)
        self._absent: set[str] = set()
        self._dirty: set[str] = set()
        self._ends: list[tuple[str, int, str, bool]] = []  # rows of `OUTCOMES`
        self._open: dict[tuple[str, str], int | None] = {}  # path and identity -> since when; None: no longer

    def load(self, identities: Iterable[str]) -> None:
        """Load what is known of these phones at once."""
        wanted = [name for name in set(identities) if name not in self._phones and name not in self._absent]
        if wanted:
            self._absent.update(wanted)
            for identity, history in _HISTORIES_OF.run(self._connection, wanted):
                self._phones[identity] = from_row(identity, json.loads(history))
            self._absent.difference_update(self._phones)
        self._rows.load(wanted)

    def fold(self, one: Recorded) -> None:
        """Fold one exchange."""
        self._rows.uid = one.uid or ""
        phone_events.again(self, one.exchange)

    def flush(self) -> None:
        """Write what has changed."""
        self._flush_phones()
        self._rows.flush()
        KEEP_OUTCOMES.run_each(self._connection, self._ends)
        ends = sorted(self._open)
        _DECIDED.run_each(self._connection, [key for key in ends if self._open[key] is None])
        _OPEN.run_each(self._connection, [(*key, at) for key in ends if (at := self._open[key]) is not None])
        self._ends, self._open = [], {}

    def _flush_phones(self) -> None:
        rows = []
        for identity in sorted(self._dirty):
            phone = self._phones[identity]
            attempt = phone.attempt
            rows.append(
                (
                    identity,
                    phone.addresses[-1][1] if phone.addresses else None,
                    None if attempt is None else str(attempt.version or ""),
                    microseconds(phone.last_seen) if phone.last_seen else 0,
                    phone.state,
                    str(phone.version or "unknown"),
                    as_json(to_row(phone)),
                )
            )
        _KEEP_PHONES.run_each(self._connection, rows)
        self._dirty = set()

    # Where history.py has a dictionary.

    def _find(self, identity: str) -> PhoneHistory | None:
        self.load([identity])
        return self._phones.get(identity)

    def _known(self, identity: str) -> PhoneHistory:
        phone = self._find(identity)
        if phone is None:
            phone = self._phones[identity] = PhoneHistory(identity)
            self._absent.discard(identity)
        self._dirty.add(identity)
        return phone

    def _count(self, phone: PhoneHistory) -> None:
        """Counted by the database."""

    def _moves(self, identity: str, before: str | None, address: str) -> None:
        """The database has an index."""

    def _asks(self, identity: str, now: datetime) -> None:
        self._rows.asks(identity, now)
        self._rows.leave(identity)

    def _who(self, address: str, version: Version) -> str | None:
        self._flush_phones()
        there = sa.select(PHONES.c.identity).where(PHONES.c.address == address).limit(2)
        found = list(self._connection.execute(there).scalars())
        if len(found) > 1:
            found = list(self._connection.execute(there.where(PHONES.c.attempt.in_([str(version), ""]))).scalars())
        return found[0] if len(found) == 1 else None

    def _open_end(self, path: str, identity: str, now: datetime) -> None:
        key = as_text(path), identity
        if self._open.get(key) is None:
            # One that was closed in this very transaction, and before, begins anew.
            if key in self._open:
                _DECIDED.run(self._connection, *key)
            self._open[key] = microseconds(now)

    def _known_end(self, path: str, identity: str) -> None:
        self._open[as_text(path), identity] = None

    def _outcome(self, path: str, now: datetime, *, worked: bool, identity: str = "") -> None:
        if path:
            self._ends.append((identity, microseconds(now), as_text(path), worked))


class PhoneProjection:
    """Keeps the history of the phones in step with the exchanges recorded; `fault` hears of what it cannot fold."""

    def __init__(self, fault: Callable[[Exception], None] = lambda _error: None) -> None:
        self._fault = fault

    def fold(self, connection: sa.Connection, recorded: Sequence[Recorded]) -> None:
        """Fold exchanges that are being recorded, and end the reservations that were made for them."""
        about = [one for one in recorded if any(fact["fact"] in PHONE_FACTS for fact in one.exchange.facts)]
        histories = FoldedHistories(connection)
        histories.load(filter(None, (phone_events.identity_in(one.exchange) for one in about)))
        for one in about:
            try:
                histories.fold(one)
            except sa.exc.SQLAlchemyError:
                raise
            except Exception as error:  # noqa: BLE001 - facts of another version: the record does not depend on them
                self._fault(error)
        histories.flush()
        uids = [one.uid for one in about if one.uid]
        if uids:
            _KEPT.run(connection, uids)

    @property
    def reaches_back(self) -> timedelta:
        """How old an exchange may be to matter."""
        return KEPT_FOR

    def tidy(self, connection: sa.Connection) -> None:
        """Remove what no limit asks for any more."""
        prune(connection)

    def began(self, connection: sa.Connection, uid: str, fetch: Mapping[str, Any]) -> None:
        """A phone with a place fetches a file: it keeps the place until the file has ended."""
        try:
            version = Version.parse(fetch["version"])
            at = moment_of(fetch["at"])
        except (DissectError, KeyError, TypeError):
            return
        identity = FoldedHistories(connection)._who(fetch["address"], version)
        if identity is None:
            return
        live = sa.select(PLACES.c.rule).where(
            PLACES.c.identity == identity, PLACES.c.uid == "", PLACES.c.until > microseconds(at)
        )
        promised = sa.select(RESERVATIONS.c.rule).where(
            RESERVATIONS.c.identity == identity, RESERVATIONS.c.at > microseconds(at - OFFER_LEASE)
        )
        rule = connection.execute(sa.union_all(live, promised).limit(1)).scalar_one_or_none()
        if rule is not None:
            until = microseconds(at + FETCH_LEASE)
            _BEGIN.run(connection, identity, uid, rule, microseconds(at), until)


def prune(connection: sa.Connection, most: int = MAX_PHONES) -> None:
    """Remove what is long ago, and the phones above a number.

    Long ago is counted from when the first tenth of the phones was seen last, but no less than two of them: a clock
    that was wrong for a while makes some phones of the future, and the others must not be forgotten for that.
    """

    def seen(rank: int) -> int | None:
        ranked = sa.select(PHONES.c.last_seen).order_by(PHONES.c.last_seen.desc()).offset(rank).limit(1)
        return connection.execute(ranked).scalar_one_or_none()

    phones = connection.execute(sa.select(sa.func.count()).select_from(PHONES)).scalar_one()
    newest = seen(min(max(1, phones // 10), phones - 1)) if phones else None
    if newest is None:
        return
    old = newest - KEPT_FOR // timedelta(microseconds=1)
    beyond = seen(most)
    connection.execute(PHONES.delete().where(PHONES.c.last_seen <= max(old, -1 if beyond is None else beyond)))
    for column in (OUTCOMES.c.at, UNDECIDED.c.at, RESERVATIONS.c.at, PLACES.c.until):
        connection.execute(column.table.delete().where(column < old))
