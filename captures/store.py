"""A recording: a folder with `store.sqlite` (WAL) and `bodies/`, or a PostgreSQL database that several shims share.

An exchange is acknowledged once its row is committed, and from then on it survives `kill -9`. Readers may work while
the recording grows. A folder is 0700 and its files 0600: headers may hold credentials.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import sqlalchemy as sa

from captures.bodies import BodyFiles
from captures.database_url import DatabaseUrl, Place
from captures.engines import (
    READS,
    Locks,
    Statement,
    as_json,
    has_log,
    insert,
    is_out_of_reach,
    postgres_engine,
    reason,
    sqlite_engine,
)
from captures.errors import StoreError
from captures.exchange import Exchange, bodies_of
from captures.expiry import (
    BODIES_SINCE,
    EXPIRED_THROUGH,
    FOLDED,
    REMOVALS,
    among,
    counted,
    holds,
    number_of,
    oldest,
    remove_rows,
    set_number,
    standing,
)
from captures.recording_folder import BODIES, DATABASE
from captures.retention import GRACE, Expired, Taken
from captures.rows import as_text, exchange_of, microseconds, row_of
from captures.schema import (
    BODY_USES,
    EXCHANGES,
    FACTS,
    FIRST_SHARED,
    HISTORY,
    IDENTITIES,
    JOURNAL,
    SCHEMA_VERSION,
    columns_of,
    migrate,
    version_of,
)
from captures.shared_bodies import SMALL, SharedBodies

PAGE = 500  # exchanges read or folded at once
STEP = 100  # exchanges looked at or removed while those who write wait


Phone = tuple[str, str]  # kind ("mac", "serial", "address") and value

_PSEUDONYMS = Statement("SELECT pseudonym, kind, value FROM identities WHERE value IN (?)")
_KNOWN = Statement("SELECT uid, id FROM exchanges WHERE uid IN (?)")
_USED = Statement("SELECT 1 FROM body_uses WHERE sha256 = ? LIMIT 1")
_COLUMNS = [column.name for column in EXCHANGES.columns]
_JSON_COLUMNS = [column.name for column in EXCHANGES.columns if isinstance(column.type, sa.JSON)]
_ADD_EXCHANGE, _ADD_FACT, _ADD_USE, _ADD_IDENTITY = map(insert, (EXCHANGES, FACTS, BODY_USES, IDENTITIES))


class Recorded(NamedTuple):
    """An exchange with its index, and the identifier it was given before it was written."""

    exchange: Exchange
    uid: str | None = None


class Projection(Protocol):
    """What is kept beside the exchanges and made of them: it changes in the transaction that writes them."""

    def fold(self, connection: sa.Connection, recorded: Sequence[Recorded]) -> None:
        """Exchanges are being added, in their order."""

    @property
    def reaches_back(self) -> timedelta:
        """How old an exchange may be to matter."""

    def tidy(self, connection: sa.Connection) -> None:
        """Remove what matters no more."""

    def began(self, connection: sa.Connection, uid: str, fetch: Mapping[str, Any]) -> None:
        """A download begins, whose exchange will have this uid."""


class Store:
    """A recording. Any number of readers, and of writers, who wait for each other."""

    def __init__(self, place: Place, folder: Path, engine: sa.Engine, bodies: BodyFiles) -> None:
        self.name = str(place)
        self.folder = folder  # what is on this machine; for a folder, all of it
        self.bodies = bodies
        self.place = place
        self.engine = engine
        self.reading = engine.execution_options(**{READS: True})
        self.written = 0  # bytes since it was opened, of rows and of all the bodies that they name

    @property
    def shared(self) -> bool:
        """Whether it is a PostgreSQL database."""
        return isinstance(self.place, DatabaseUrl)

    @classmethod
    def create(cls, place: Place, state: Path | None = None) -> Store:
        """Open a recording for writing; makes it where there is none. Raises `StoreError`.

        `state` is for a database: the folder below which this machine keeps what is its own.
        """
        store = cls.connect(place, state)
        try:
            store.prepare()
        except sa.exc.SQLAlchemyError as error:
            store.close()
            raise StoreError(store.name, f"cannot record here: {reason(error)}") from error
        except StoreError:
            store.close()
            raise
        return store

    @classmethod
    def connect(cls, place: Place, state: Path | None = None, within: float = 300) -> Store:
        """The same without asking the database, which may be away; `prepare` comes later. Raises `StoreError`.

        A statement to a database may take `within` seconds.
        """
        folder = place.local_folder(state) if isinstance(place, DatabaseUrl) else place
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / BODIES).mkdir(mode=0o700, exist_ok=True)
            if not isinstance(place, DatabaseUrl):
                # SQLite gives its -wal and -shm files the mode of the database.
                os.close(os.open(folder / DATABASE, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreError(folder, f"cannot record here: {error.strerror or error}") from error
        return cls._with_engine(place, folder, within, writes=True)

    @classmethod
    def _with_engine(cls, place: Place, folder: Path, within: float = 300, *, writes: bool) -> Store:
        if isinstance(place, DatabaseUrl):
            engine = postgres_engine(place, within=within)
            return cls(place, folder, engine, SharedBodies(folder / BODIES, engine))
        return cls(place, folder, sqlite_engine(folder / DATABASE, writes=writes), BodyFiles(folder / BODIES))

    @classmethod
    def open(cls, place: Place, state: Path | None = None) -> Store:
        """Open a recording for reading. Raises `StoreError`."""
        folder = place.local_folder(state) if isinstance(place, DatabaseUrl) else place
        try:
            if place is folder and not (folder / DATABASE).is_file():
                raise StoreError(folder, f"not a recording: it holds no {DATABASE}")
        except OSError as error:
            raise StoreError(folder, error) from error
        store = cls._with_engine(place, folder, writes=False)
        try:
            with store.engine.connect() as connection:
                store._check_schema(connection, empty_is_fine=False)
        except (sa.exc.SQLAlchemyError, StoreError) as error:
            store.close()
            if isinstance(error, StoreError):
                raise
            where = store.name if store.shared else folder / DATABASE
            why = reason(error)
            if not store.shared and is_out_of_reach(folder / DATABASE) and has_log(folder / DATABASE):
                why += f"; copy the folder, {DATABASE}-wal included, to where it may be written to"
            raise StoreError(where, f"not a readable recording: {why}") from error
        return store

    def prepare(self) -> None:
        """Make the tables, or bring them up to date. Raises `StoreError` for another schema, `SQLAlchemyError`."""
        with self.engine.begin() as connection:
            Locks.take(connection, "schema")
            self._check_schema(connection, empty_is_fine=True)
            migrate(connection)

    @property
    def empty(self) -> bool:
        """Whether nothing was ever recorded."""
        with self.reading.connect() as connection:
            return not standing(connection).highest

    @property
    def folded(self) -> bool:
        """Whether the history of the phones that is kept beside the exchanges tells of all of them."""
        with self.reading.connect() as connection:
            if version_of(connection) < 3:
                return False
            now = standing(connection)
            return now.folded >= now.highest

    def engine_within(self, seconds: float, *, writes: bool = True) -> sa.Engine:
        """An engine of one's own that waits no longer than this."""
        if isinstance(self.place, DatabaseUrl):
            return postgres_engine(self.place, within=seconds)
        return sqlite_engine(self.folder / DATABASE, writes=writes, within=seconds)

    def _check_schema(self, connection: sa.Connection, *, empty_is_fine: bool) -> None:
        version = version_of(connection)
        oldest = FIRST_SHARED if self.shared else 1
        # Older versions have the tables that readers need; a writer brings them up to date.
        if not (oldest <= version <= SCHEMA_VERSION or (empty_is_fine and not version)):
            where = self.name if self.shared else self.folder / DATABASE
            raise StoreError(where, f"expected schema version {oldest} to {SCHEMA_VERSION}, found {version}")

    def add(
        self,
        exchanges: Sequence[Exchange],
        uids: Sequence[str] | None = None,
        projection: Projection | None = None,
        within: Callable[[sa.Connection, Sequence[Recorded]], None] | None = None,
        bodies: Mapping[str, bytes] | None = None,
    ) -> list[int]:
        """Commit exchanges in one transaction and return their indexes.

        An exchange whose uid is there already is not written again. `within` is called with the exchanges written and
        the transaction they are written in. `bodies` are kept too; streamed ones are kept by the caller beforehand.
        Raises `sqlalchemy.exc.SQLAlchemyError`; then none of them is recorded, or, where the connection broke while it
        was committed, perhaps all. Raises `OSError` for bodies.
        """
        large = self._put_files(bodies or {})
        with self.engine.begin() as connection:
            Locks.take(connection, Locks.APPEND)
            if isinstance(self.bodies, SharedBodies):
                self.bodies.put_rows(
                    connection, {name: data for name, data in (bodies or {}).items() if name not in large}
                )
            known = _known(connection, uids or ())
            last, folded = standing(connection)
            named: Sequence[str | None] = uids or [None] * len(exchanges)
            new = [
                Recorded(exchange, uid)
                for exchange, uid in zip(exchanges, named, strict=True)
                if uid is None or uid not in known
            ]
            new = [Recorded(one.exchange.with_index(n), one.uid) for n, one in enumerate(new, last + 1)]
            written = _insert(connection, new) if new else 0
            if within is not None:
                within(connection, new)
            if new and projection is not None and folded >= last:
                projection.fold(connection, new)
                set_number(connection, FOLDED, new[-1].exchange.index)
        self.written += written
        known |= {one.uid: one.exchange.index for one in new if one.uid is not None}
        return [known[uid] for uid in uids] if uids else [one.exchange.index for one in new]

    def _put_files(self, bodies: Mapping[str, bytes]) -> set[str]:
        """Keep as files what does not go into the database; their names."""
        files = {name for name, data in bodies.items() if not self.shared or len(data) > SMALL}
        for name in files:
            self.bodies.put(name, bodies[name])
        return files

    def fold_rest(self, projection: Projection) -> bool:
        """Fold a page of exchanges that were added without the projection; False where none is left.

        Those too old to matter are passed over. Raises `SQLAlchemyError`.
        """
        with self.engine.begin() as connection:
            Locks.take(connection, Locks.APPEND)
            last, folded = standing(connection)
            if folded >= last:
                return False
            if not folded:
                since = datetime.now(UTC) - projection.reaches_back
                young = sa.select(sa.func.min(EXCHANGES.c.id)).where(EXCHANGES.c.ended >= microseconds(since))
                first = connection.execute(young).scalar_one()
                folded = last if first is None else int(first) - 1
            query = sa.select(EXCHANGES).where(EXCHANGES.c.id > folded).order_by(EXCHANGES.c.id).limit(PAGE)
            page = self._with_facts(connection, connection.execute(query).mappings().all())
            projection.fold(connection, page)
            set_number(connection, FOLDED, page[-1].exchange.index if page else last)
        return True

    def pseudonyms(self, connection: sa.Connection, phones: Iterable[Phone]) -> dict[Phone, str]:
        """The journal's names for phones; a new one for each that is not known. Raises `SQLAlchemyError`."""
        wanted = {(kind, as_text(value)): (kind, value) for kind, value in phones}
        known = _PSEUDONYMS.run(connection, sorted({value for _, value in wanted}))
        found = {(kind, value): str(pseudonym) for pseudonym, kind, value in known}
        new = {phone: secrets.token_hex(8) for phone in wanted if phone not in found}
        _ADD_IDENTITY.run_each(connection, [(name, kind, value) for (kind, value), name in new.items()])
        return {wanted[phone]: name for phone, name in (found | new).items() if phone in wanted}

    def identities(self) -> dict[str, tuple[str, str]]:
        """Who the journal's pseudonyms are: kind ("mac", "serial", "address") and value."""
        with self.reading.connect() as connection:
            if version_of(connection) < 2:
                return {}
            return {row.pseudonym: (row.kind, row.value) for row in connection.execute(sa.select(IDENTITIES))}

    def decided(self, after: int = 0) -> list[int]:
        """Indexes above `after` of exchanges that hold a decision or a change."""
        decided = sa.exists().where(FACTS.c.exchange == EXCHANGES.c.id, FACTS.c.fact == "decision")
        changed = EXCHANGES.c.rewritten_request.is_not(None) | EXCHANGES.c.rewritten_response.is_not(None)
        query = sa.select(EXCHANGES.c.id).where(EXCHANGES.c.id > after, decided | changed).order_by(EXCHANGES.c.id)
        with self.reading.connect() as connection:
            return list(connection.execute(query).scalars())

    def journal_lines(self) -> Generator[bytes, None, None]:
        """The journal of a database, line by line. Raises `StoreError`."""
        try:
            with self.reading.connect() as connection:
                lines = sa.select(JOURNAL.c.line).order_by(JOURNAL.c.n)
                with connection.execution_options(yield_per=PAGE).execute(lines) as found:
                    for line in found.scalars():
                        yield line.encode("utf-8") + b"\n"
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(self.name, f"its journal is not readable: {reason(error)}") from error

    def expired_through(self) -> int:
        """Exchanges up to this index may have been removed by `expire`."""
        with self.reading.connect() as connection:
            return 0 if version_of(connection) < 2 else number_of(connection, EXPIRED_THROUGH)

    def will_keep_bodies(self, kept: bool) -> None:
        """Note whether what is recorded from now on keeps its bodies. Raises `SQLAlchemyError`."""
        with self.engine.begin() as connection:
            if bool(number_of(connection, BODIES_SINCE)) != kept:
                set_number(connection, BODIES_SINCE, standing(connection).highest + 1 if kept else 0)

    def bodies_since(self) -> int:
        """The first exchange from which on all bodies were kept; 0 where that is not known."""
        with self.reading.connect() as connection:
            return 0 if version_of(connection) < 2 else number_of(connection, BODIES_SINCE)

    def expire(
        self, older_than: datetime | None, max_bytes: int | None, taken: Taken | None = None
    ) -> Generator[Expired, None, None]:
        """Remove exchanges that ended before a time, and the oldest ones until the rest fits.

        In small steps, each a short transaction of its own; after each it tells what it has removed, which may be
        nothing. Writers and readers may work meanwhile. `taken` is brought up to date: given again the next time, it
        spares counting what was counted. Raises `SQLAlchemyError`.
        """
        taken = Taken() if taken is None else taken
        with self.reading.connect() as connection:
            highest = standing(connection).highest
            too_old = 0
            if older_than is not None:
                old = sa.select(sa.func.coalesce(sa.func.min(EXCHANGES.c.id), 0)).where(
                    EXCHANGES.c.ended >= microseconds(older_than)
                )
                # Up to the first that is young enough: what is kept stays without gaps.
                first_kept = connection.execute(old).scalar_one()
                too_old = first_kept - 1 if first_kept else highest
        while True:
            while max_bytes is not None:
                with self.reading.connect() as connection:
                    holds(connection, taken)
                    if taken.counted >= highest:
                        break
                    last, added = counted(connection, taken.counted, STEP)
                if last == taken.counted:
                    break  # the newest are gone already
                taken.counted, taken.bytes = last, taken.bytes + added
                yield Expired()
            last = removed = free = 0
            with self.engine.begin() as connection:
                Locks.take(connection, REMOVALS)
                if max_bytes is not None and not holds(connection, taken):
                    continue  # somebody has removed some in between: count again
                for index, freed in oldest(connection, STEP, highest if max_bytes is None else taken.counted):
                    fits = max_bytes is None or taken.bytes - free <= max_bytes
                    if index > highest or (index > too_old and fits):
                        break
                    last, free, removed = index, freed, removed + 1
                if removed:
                    set_number(connection, EXPIRED_THROUGH, last)
                    remove_rows(connection, lambda index, last=last: index <= last)  # type: ignore[misc]
                    removals = number_of(connection, REMOVALS)
            if removed:
                taken.bytes, taken.removals = taken.bytes - free, removals
            yield Expired(removed, last)
            if removed < STEP:
                return

    def remove(self, indexes: Sequence[int]) -> None:
        """Remove these exchanges, overwriting what SQLite held of them. Bodies go with `sweep_bodies`.

        PostgreSQL overwrites what was removed when it vacuums. Raises `SQLAlchemyError`.
        """
        with self.engine.begin() as connection:
            for start in range(0, len(indexes), PAGE):
                page = indexes[start : start + PAGE]
                remove_rows(connection, partial(among, page))
        if not self.shared:
            with self.engine.connect() as connection:
                # What was removed stands in the log too until it is folded in; a reader may put that off.
                connection.connection.dbapi_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]

    def forget_identity(self, pseudonyms: Sequence[str], names: Sequence[str] = ()) -> None:
        """From now on nobody knows who these are, nor what is known of the phones of these names.

        Raises `SQLAlchemyError`.
        """
        with self.engine.begin() as connection:
            for table in HISTORY:
                connection.execute(table.delete().where(table.c.identity.in_(names)))
            connection.execute(IDENTITIES.delete().where(IDENTITIES.c.pseudonym.in_(pseudonyms)))

    def unneeded_bodies(self) -> int:
        """How many bodies no exchange needs, or not yet. Raises `SQLAlchemyError`, `OSError`."""
        with self.reading.connect() as connection:
            needed = set(connection.execute(sa.select(BODY_USES.c.sha256).distinct()).scalars())
        return self.bodies.unneeded(needed)

    def sweep_bodies(self, now: datetime) -> Generator[Expired, None, None]:
        """Remove bodies that no exchange needs and that are older than the grace time, in small steps as `expire`.

        No row can be committed to SQLite during a step; a body that is wanted again at this moment is written anew or
        stays (`BodyFiles.remove_stale`). Raises `SQLAlchemyError`, `OSError`.
        """
        before = (now - GRACE).timestamp()
        for names in self.bodies.stale(before):
            if names:
                with self.engine.begin() as connection:
                    unneeded = [name for name in names if not _USED.run(connection, name)]
                    count, size = self.bodies.remove_stale(unneeded, before)
                yield Expired(bodies=count, bytes=size)
        if isinstance(self.bodies, SharedBodies):
            count, size = self.bodies.remove_stale_rows(before)
            yield Expired(bodies=count, bytes=size)

    def exchanges(self, after: int = 0) -> Generator[Exchange, None, None]:
        """The recorded exchanges in the order they ended, those with an index above `after`.

        Raises `StoreError` where the database turns out to be damaged.
        """
        try:
            with self.reading.connect() as connection:
                query = sa.select(*columns_of(version_of(connection)))
                query = query.where(EXCHANGES.c.id > after).order_by(EXCHANGES.c.id)
                with connection.execution_options(yield_per=PAGE).execute(query) as found:
                    for page in found.mappings().partitions():
                        for one in self._with_facts(connection, page):
                            yield one.exchange
        except (sa.exc.SQLAlchemyError, json.JSONDecodeError) as error:
            raise StoreError(self.name, f"damaged recording: {reason(error)}") from error
        if "immutable" in self.engine.url.query and has_log(self.folder / DATABASE):
            raise StoreError(self.name, "somebody began to write to it meanwhile: read it again")

    def _with_facts(self, connection: sa.Connection, page: Sequence[sa.RowMapping]) -> list[Recorded]:
        if not page:
            return []
        wanted = FACTS.c.exchange.between(page[0]["id"], page[-1]["id"])
        facts: dict[int, list[Any]] = {}
        for fact in connection.execute(sa.select(FACTS).where(wanted).order_by(FACTS.c.position)):
            facts.setdefault(fact.exchange, []).append(fact.content)
        return [
            Recorded(exchange_of(dict(row), facts.get(row["id"], ()), self.name, row["id"]), row.get("uid"))
            for row in page
        ]

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


def files_of(exchange: Exchange) -> dict[str, int]:
    """The body files an exchange needs, and their sizes."""
    files = {}
    for body in bodies_of(exchange):
        if body.size and body.sha256:
            files[body.sha256] = body.size
        if body.encoded_sha256:
            files[body.encoded_sha256] = body.encoded_size
    return files


def _known(connection: sa.Connection, uids: Sequence[str]) -> dict[str, int]:
    if not uids:
        return {}
    return {str(uid): int(index) for uid, index in _KNOWN.run(connection, list(uids))}


def _insert(connection: sa.Connection, new: Sequence[Recorded]) -> int:
    """Write exchanges; the bytes of their rows and bodies, no less than `counted` makes of them."""
    rows = [_values_of(exchange, uid) for exchange, uid in new]
    _ADD_EXCHANGE.run_each(connection, rows)
    facts = [
        (exchange.index, position, fact["fact"], as_json(fact if type(fact) is dict else dict(fact)))
        for exchange, _ in new
        for position, fact in enumerate(exchange.facts)
    ]
    _ADD_FACT.run_each(connection, facts)
    uses = [(exchange.index, *use) for exchange, _ in new for use in files_of(exchange).items()]
    _ADD_USE.run_each(connection, uses)
    texts = sum([len(value) for row in rows for value in row if type(value) is str])
    return texts + sum([len(content) for *_, content in facts]) + sum([size for *_, size in uses])


def _values_of(exchange: Exchange, uid: str | None) -> tuple[Any, ...]:
    """The columns of an exchange in their order."""
    row: dict[str, Any] = {"id": exchange.index, "uid": uid, **row_of(exchange)}
    for name in _JSON_COLUMNS:
        if row[name] is not None:
            row[name] = as_json(row[name])
    return tuple([row[name] for name in _COLUMNS])


__all__ = ["Projection", "Recorded", "Store", "files_of"]
