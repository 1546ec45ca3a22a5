"""A recording: a folder with `store.sqlite` (WAL) and `bodies/`.

An exchange is acknowledged once its row is committed, and from then on it survives `kill -9`. Readers may work while
the recording grows. The folder is 0700 and its files 0600: headers may hold credentials.
"""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from captures.bodies import BodyFiles
from captures.errors import CaptureError
from captures.exchange import Body, Exchange, Headers, Request, Response, bodies_of
from captures.items import CaptureSummary
from captures.recording_folder import DATABASE
from captures.retention import GRACE, Expired, Kept, beyond
from captures.schema import BODY_USES, EXCHANGES, FACTS, IDENTITIES, SCHEMA_VERSION, STATE, migrate, version_of
from captures.sources import ReadOptions

BODIES = "bodies"
LAST_EXCHANGE = "last exchange"
EXPIRED_THROUGH = "expired through"


class StoreError(CaptureError):
    """A folder that is not a recording, or not one that this version can read or write."""


class Store:
    """A recording on disk. One writer at a time; any number of readers beside it."""

    def __init__(self, folder: Path, engine: sa.Engine) -> None:
        self.folder = folder
        self.bodies = BodyFiles(folder / BODIES)
        self._engine = engine

    @classmethod
    def create(cls, folder: Path) -> Store:
        """Open a recording for writing; makes it where there is none. Raises `StoreError`."""
        database = folder / DATABASE
        engine = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / BODIES).mkdir(mode=0o700, exist_ok=True)
            # SQLite gives its -wal and -shm files the mode of the database.
            os.close(os.open(database, os.O_CREAT | os.O_RDWR, 0o600))
            engine = _engine(database, begin="BEGIN IMMEDIATE")
            with engine.begin() as connection:
                _check_schema(connection, database, empty_is_fine=True)
                migrate(connection)
        except (OSError, sa.exc.SQLAlchemyError, StoreError) as error:
            if engine is not None:
                engine.dispose()
            if isinstance(error, StoreError):
                raise
            raise StoreError(folder, f"cannot record here: {_reason(error)}") from error
        return cls(folder, engine)

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open a recording for reading. Raises `StoreError`."""
        database = folder / DATABASE
        if not database.is_file():
            raise StoreError(folder, f"not a recording: it holds no {DATABASE}")
        engine = _engine(database, begin="BEGIN")
        try:
            with engine.connect() as connection:
                _check_schema(connection, database, empty_is_fine=False)
        except (sa.exc.SQLAlchemyError, StoreError) as error:
            engine.dispose()
            if isinstance(error, StoreError):
                raise
            raise StoreError(database, f"not a readable recording: {_reason(error)}") from error
        return cls(folder, engine)

    def add(self, exchanges: Sequence[Exchange]) -> list[int]:
        """Commit exchanges in one transaction and return their indexes. Bodies are kept by the caller beforehand.

        Raises `sqlalchemy.exc.SQLAlchemyError`; then none of them is recorded.
        """
        with self._engine.begin() as connection:
            last = max(_highest(connection), _number(connection, LAST_EXCHANGE))
            indexes = list(range(last + 1, last + 1 + len(exchanges)))
            connection.execute(
                EXCHANGES.insert(), [_row(index, exchange) for index, exchange in zip(indexes, exchanges, strict=True)]
            )
            facts = [
                {"exchange": index, "position": position, "fact": fact["fact"], "content": dict(fact)}
                for index, exchange in zip(indexes, exchanges, strict=True)
                for position, fact in enumerate(exchange.facts)
            ]
            if facts:
                connection.execute(FACTS.insert(), facts)
            uses = [
                {"exchange": index, "sha256": sha256, "size": size}
                for index, exchange in zip(indexes, exchanges, strict=True)
                for sha256, size in files_of(exchange).items()
            ]
            if uses:
                connection.execute(BODY_USES.insert(), uses)
        return indexes

    def pseudonym(self, kind: str, value: str) -> str:
        """The journal's name for a phone; a new one for a phone that is not known. Raises `SQLAlchemyError`."""
        known = sa.select(IDENTITIES.c.pseudonym).where(IDENTITIES.c.kind == kind, IDENTITIES.c.value == value)
        with self._engine.begin() as connection:
            found = connection.execute(known).scalar_one_or_none()
            if found is None:
                found = secrets.token_hex(8)
                connection.execute(IDENTITIES.insert().values(pseudonym=found, kind=kind, value=value))
        return str(found)

    def identities(self) -> dict[str, tuple[str, str]]:
        """Who the journal's pseudonyms are: kind ("mac", "serial", "address") and value."""
        with self._engine.connect() as connection:
            if version_of(connection) < 2:
                return {}
            return {row.pseudonym: (row.kind, row.value) for row in connection.execute(sa.select(IDENTITIES))}

    def decided(self, after: int = 0) -> list[int]:
        """Indexes above `after` of exchanges that hold a decision or a change."""
        decided = sa.exists().where(FACTS.c.exchange == EXCHANGES.c.id, FACTS.c.fact == "decision")
        changed = EXCHANGES.c.rewritten_request.is_not(None) | EXCHANGES.c.rewritten_response.is_not(None)
        query = sa.select(EXCHANGES.c.id).where(EXCHANGES.c.id > after, decided | changed).order_by(EXCHANGES.c.id)
        with self._engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def expired_through(self) -> int:
        """Exchanges up to this index may have been removed by `expire`."""
        with self._engine.connect() as connection:
            return 0 if version_of(connection) < 2 else _number(connection, EXPIRED_THROUGH)

    def expire(self, older_than: datetime | None, max_bytes: int | None, now: datetime) -> Expired:
        """Remove exchanges that ended before a time, and the oldest ones until the rest fits; then bodies nobody needs.

        Writers and readers may work meanwhile. Raises `SQLAlchemyError`, `OSError`.
        """
        with self._engine.begin() as connection:
            through = 0
            if older_than is not None:
                old = sa.select(sa.func.coalesce(sa.func.min(EXCHANGES.c.id), 0)).where(
                    EXCHANGES.c.ended >= _microseconds(older_than)
                )
                # Up to the first that is young enough: what is kept stays without gaps.
                first_kept = connection.execute(old).scalar_one()
                through = first_kept - 1 if first_kept else _highest(connection)
            if max_bytes is not None:
                through = max(through, beyond(_newest_first(connection), max_bytes))
            removed = list(connection.execute(sa.select(EXCHANGES.c.id).where(EXCHANGES.c.id <= through)).scalars())
            if removed:
                _set_number(connection, EXPIRED_THROUGH, removed[-1])
                _remove(connection, lambda index: index <= through)
        bodies, size = self.sweep_bodies(now)
        return Expired(len(removed), removed[-1] if removed else 0, bodies, size)

    def remove(self, indexes: Sequence[int]) -> None:
        """Remove these exchanges, overwriting what the database held of them. Bodies go with `sweep_bodies`.

        Raises `SQLAlchemyError`.
        """
        with self._engine.begin() as connection:
            for start in range(0, len(indexes), 500):
                page = indexes[start : start + 500]
                _remove(connection, partial(_among, page))
        with self._engine.connect() as connection:
            # What was removed stands in the log too until it is folded in; a reader may put that off.
            connection.connection.dbapi_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]

    def forget_identity(self, pseudonyms: Sequence[str]) -> None:
        """From now on nobody knows who these are. Raises `SQLAlchemyError`."""
        with self._engine.begin() as connection:
            connection.execute(IDENTITIES.delete().where(IDENTITIES.c.pseudonym.in_(pseudonyms)))

    def unneeded_bodies(self) -> int:
        """How many body files no exchange needs, or not yet. Raises `SQLAlchemyError`, `OSError`."""
        with self._engine.connect() as connection:
            needed = set(connection.execute(sa.select(BODY_USES.c.sha256).distinct()).scalars())
        return sum(path.name not in needed for path in self.bodies.folder.iterdir())

    def sweep_bodies(self, now: datetime) -> tuple[int, int]:
        """Remove body files that no exchange needs and that are older than the grace time; count and bytes.

        No row can be committed meanwhile; a body that is wanted again at this moment is written anew or stays
        (`BodyFiles.remove_stale`). Raises `SQLAlchemyError`, `OSError`.
        """
        with self._engine.begin() as connection:
            needed = set(connection.execute(sa.select(BODY_USES.c.sha256).distinct()).scalars())
            return self.bodies.remove_stale(needed, (now - GRACE).timestamp())

    def exchanges(self, after: int = 0) -> Generator[Exchange, None, None]:
        """The recorded exchanges in the order they ended, those with an index above `after`.

        Raises `StoreError` where the database turns out to be damaged.
        """
        query = sa.select(EXCHANGES).where(EXCHANGES.c.id > after).order_by(EXCHANGES.c.id)
        try:
            with self._engine.connect() as connection:
                for page in connection.execution_options(yield_per=500).execute(query).mappings().partitions():
                    wanted = FACTS.c.exchange.between(page[0]["id"], page[-1]["id"])
                    facts: dict[int, list[Any]] = {}
                    for fact in connection.execute(sa.select(FACTS).where(wanted).order_by(FACTS.c.position)):
                        facts.setdefault(fact.exchange, []).append(fact.content)
                    for row in page:
                        yield self._exchange(row, tuple(facts.get(row["id"], ())))
        except (sa.exc.SQLAlchemyError, json.JSONDecodeError) as error:
            raise StoreError(self.folder, f"damaged recording: {_reason(error)}") from error

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _exchange(self, row: sa.RowMapping, facts: tuple[Any, ...]) -> Exchange:
        return Exchange(
            capture=str(self.folder),
            index=row["id"],
            connection=row["connection"],
            client=row["client"],
            server=row["server"],
            started=_time(row["started"]),
            request_ended=None if row["request_ended"] is None else _time(row["request_ended"]),
            response_started=None if row["response_started"] is None else _time(row["response_started"]),
            ended=_time(row["ended"]),
            complete=row["complete"],
            problems=tuple(row["problems"]),
            request=_request(row["request"]),
            response=row["response"] and _response(row["response"]),
            rewritten_request=row["rewritten_request"] and _request(row["rewritten_request"]),
            rewritten_response=row["rewritten_response"] and _response(row["rewritten_response"]),
            facts=facts,
        )


def read(path: Path, options: ReadOptions) -> Iterator[Exchange | CaptureSummary]:
    """A recording as a capture (captures/sources.py). Raises `StoreError`."""
    store = Store.open(path.parent if path.name == DATABASE else path)
    count = 0
    try:
        for exchange in store.exchanges():
            count += 1
            if options.bodies is not None:
                copy_bodies(store.bodies, options.bodies, exchange)
            yield with_bodies(exchange, store.bodies, options.hold)
    finally:
        store.close()
    yield CaptureSummary(str(path), "recording", Counter(exchanges=count))


def with_bodies(exchange: Exchange, kept: BodyFiles, hold: int) -> Exchange:
    """The exchange holding its bodies of up to `hold` bytes, as far as they were kept. Raises `StoreError`."""
    asked, sent = exchange.request, exchange.rewritten_request
    answered, given = exchange.response, exchange.rewritten_response
    return replace(
        exchange,
        request=replace(asked, body=_held(asked.body, kept, hold)),
        response=answered and replace(answered, body=_held(answered.body, kept, hold)),
        rewritten_request=sent and replace(sent, body=_held(sent.body, kept, hold)),
        rewritten_response=given and replace(given, body=_held(given.body, kept, hold)),
    )


def _held(body: Body, kept: BodyFiles, hold: int) -> Body:
    def read_file(sha256: str | None, size: int) -> bytes | None:
        try:
            return kept.path(sha256).read_bytes() if sha256 is not None and 0 < size <= hold else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(kept.path(sha256 or ""), error) from error

    data = read_file(body.sha256, body.size) if body.size else b""
    return replace(body, data=data, encoded=read_file(body.encoded_sha256, body.encoded_size))


def copy_bodies(kept: BodyFiles, wanted: BodyFiles, exchange: Exchange) -> None:
    """Copy what was kept of the bodies of an exchange. Raises `StoreError`."""
    try:
        for body in bodies_of(exchange):
            if body.size and kept.path(body.sha256).exists() and not wanted.path(body.sha256).exists():
                with wanted.incoming() as incoming:
                    incoming.file.writelines(kept.chunks(body.sha256))
                    incoming.keep(body.sha256)
    except OSError as error:
        raise StoreError(wanted.folder, error) from error


def _engine(database: Path, begin: str) -> sa.Engine:
    # A writer takes the lock when it begins: the next index it reads is then its own. The driver would begin too late.
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(database)), connect_args={"timeout": 10, "isolation_level": None}
    )

    def prepare(connection: Any, _record: object) -> None:
        if begin != "BEGIN":
            connection.execute("PRAGMA journal_mode=WAL")
        # With WAL a commit survives the process without an fsync; only power loss may take the last ones.
        connection.execute("PRAGMA synchronous=NORMAL")
        # What is removed is overwritten: it may have been removed because somebody wanted it forgotten.
        connection.execute("PRAGMA secure_delete=ON")

    sa.event.listen(engine, "connect", prepare)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _check_schema(connection: sa.Connection, database: Path, *, empty_is_fine: bool) -> None:
    version = version_of(connection)
    # Older versions have the tables that readers need; a writer brings them up to date.
    if not (0 if empty_is_fine else 1) <= version <= SCHEMA_VERSION:
        raise StoreError(database, f"expected schema version 1 to {SCHEMA_VERSION}, found {version}")


def files_of(exchange: Exchange) -> dict[str, int]:
    """The body files an exchange needs, and their sizes."""
    files = {}
    for body in bodies_of(exchange):
        if body.size and body.sha256:
            files[body.sha256] = body.size
        if body.encoded_sha256:
            files[body.encoded_sha256] = body.encoded_size
    return files


def _highest(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(EXCHANGES.c.id), 0))).scalar_one())


def _number(connection: sa.Connection, name: str) -> int:
    return connection.execute(sa.select(STATE.c.number).where(STATE.c.name == name)).scalar_one_or_none() or 0


def _set_number(connection: sa.Connection, name: str, number: int) -> None:
    connection.execute(STATE.delete().where(STATE.c.name == name))
    connection.execute(STATE.insert().values(name=name, number=number))


def _remove(connection: sa.Connection, which: Callable[[sa.ColumnElement[int]], sa.ColumnElement[bool]]) -> None:
    _set_number(connection, LAST_EXCHANGE, max(_highest(connection), _number(connection, LAST_EXCHANGE)))
    for index in (FACTS.c.exchange, BODY_USES.c.exchange, EXCHANGES.c.id):
        connection.execute(index.table.delete().where(which(index)))


def _among(page: Sequence[int], index: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    return index.in_(page)


def _newest_first(connection: sa.Connection) -> Iterator[Kept]:
    messages = (EXCHANGES.c[name] for name in ("request", "response", "rewritten_request", "rewritten_response"))
    of_facts = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(FACTS.c.content)), 0))
    size = sum(
        (sa.func.coalesce(sa.func.length(message), 0) for message in messages),
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


def _reason(error: Exception) -> str:
    original = getattr(error, "orig", None) or error
    return str(original).splitlines()[0]


def _microseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    seconds, rest = divmod(moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC), _SECOND)
    return seconds * 1_000_000 + rest.microseconds


_SECOND = datetime(1970, 1, 1, 0, 0, 1) - datetime(1970, 1, 1)


def _time(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def _row(index: int, exchange: Exchange) -> dict[str, Any]:
    return {
        "id": index,
        "connection": exchange.connection,
        "client": exchange.client,
        "server": exchange.server,
        "started": _microseconds(exchange.started),
        "request_ended": _microseconds(exchange.request_ended),
        "response_started": _microseconds(exchange.response_started),
        "ended": _microseconds(exchange.ended),
        "complete": exchange.complete,
        "problems": list(exchange.problems),
        "request": _message_row(exchange.request),
        "response": _message_row(exchange.response),
        "rewritten_request": _message_row(exchange.rewritten_request),
        "rewritten_response": _message_row(exchange.rewritten_response),
    }


def _message_row(message: Request | Response | None) -> Any:
    if message is None:
        return None
    body = message.body
    row = {name: getattr(message, name) for name in message.__slots__ if name != "body"}
    row["body"] = {name: getattr(body, name) for name in body.__slots__ if name not in {"data", "encoded"}}
    return row


def _headers(pairs: Sequence[Sequence[str]]) -> Headers:
    return tuple((name, value) for name, value in pairs)


def _request(row: dict[str, Any]) -> Request:
    return Request(**{**row, "headers": _headers(row["headers"]), "body": Body(**row["body"])})


def _response(row: dict[str, Any]) -> Response:
    interim = tuple((status, reason, _headers(headers)) for status, reason, headers in row["interim"])
    return Response(**{**row, "headers": _headers(row["headers"]), "body": Body(**row["body"]), "interim": interim})
