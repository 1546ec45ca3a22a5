"""A recording: a folder with `store.sqlite` (WAL) and `bodies/`.

An exchange is acknowledged once its row is committed, and from then on it survives `kill -9`. Readers may work while
the recording grows. The folder is 0700 and its files 0600: headers may hold credentials.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from captures.bodies import BodyFiles
from captures.errors import CaptureError
from captures.exchange import Body, Exchange, Headers, Request, Response, bodies_of
from captures.items import CaptureSummary
from captures.recording_folder import DATABASE
from captures.sources import ReadOptions

BODIES = "bodies"
SCHEMA_VERSION = 1

METADATA = sa.MetaData()
EXCHANGES = sa.Table(
    "exchanges",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("connection", sa.Text, nullable=False),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("server", sa.Text, nullable=False),
    # Times are microseconds since 1970, UTC.
    sa.Column("started", sa.BigInteger, nullable=False),
    sa.Column("request_ended", sa.BigInteger),
    sa.Column("response_started", sa.BigInteger),
    sa.Column("ended", sa.BigInteger, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("problems", sa.JSON, nullable=False),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("response", sa.JSON(none_as_null=True)),
    sa.Column("rewritten_request", sa.JSON(none_as_null=True)),
    sa.Column("rewritten_response", sa.JSON(none_as_null=True)),
)
FACTS = sa.Table(
    "facts",
    METADATA,
    sa.Column("exchange", sa.ForeignKey("exchanges.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("fact", sa.Text, nullable=False),
    sa.Column("content", sa.JSON, nullable=False),
)


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
                METADATA.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
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
            last = connection.execute(sa.select(sa.func.coalesce(sa.func.max(EXCHANGES.c.id), 0))).scalar_one()
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
        return indexes

    def exchanges(self, after: int = 0) -> Iterator[Exchange]:
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

    sa.event.listen(engine, "connect", prepare)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _check_schema(connection: sa.Connection, database: Path, *, empty_is_fine: bool) -> None:
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version != SCHEMA_VERSION and not (version == 0 and empty_is_fine):
        raise StoreError(database, f"expected schema version {SCHEMA_VERSION}, found {version}")


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
