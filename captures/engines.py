"""The two databases a recording may be in, behind SQLAlchemy: what differs stands here and in schema.py."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from captures.database_url import SCHEMES, DatabaseUrl
from captures.errors import StoreError

_JSON = json.JSONEncoder()

UNWATCHED = 60  # seconds; who may take longer than that is not in a hurry
READS = "upshim_reads"
CONNECT_WITHIN = 3  # seconds; libpq takes no less than 2
NO_DRIVER = "PostgreSQL needs the driver psycopg: pip install 'upshim[postgres]'"


class Locks:
    """Advisory locks on PostgreSQL, each held to the end of its transaction; SQLite has one writer at a time anyway."""

    APPEND = "append"  # exchanges, journal and history are appended to in order

    @staticmethod
    def take(connection: sa.Connection, *names: str) -> None:
        """Wait for a lock. Raises `SQLAlchemyError` where that takes too long."""
        if is_shared(connection):
            connection.execute(
                sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": "\x1f".join(names)}
            )


def has_log(database: Path) -> bool:
    """Whether something is committed that is not folded into the database yet, or somebody is at work there."""
    log, index = (database.with_name(f"{database.name}-{name}") for name in ("wal", "shm"))
    return log.exists() and (log.stat().st_size > 0 or index.exists())


def is_out_of_reach(database: Path) -> bool:
    """Whether nothing may be written beside the database: another's folder, a read-only file system."""
    return not os.access(database.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def sqlite_engine(database: Path, *, writes: bool, within: float = 10) -> sa.Engine:
    """The database of a folder; waits up to `within` seconds for other writers."""
    url = sa.URL.create("sqlite", database=str(database))
    if not writes and is_out_of_reach(database) and not has_log(database):
        # SQLite makes files beside a database of this kind even to read it, unless it is told that nobody writes. A log
        # that is there belongs to the recording: that SQLite can read, if its -shm is there too.
        query = {"mode": "ro", "immutable": "1", "uri": "true"}
        url = sa.URL.create("sqlite", database=f"file:{quote(str(database))}", query=query)
    # A writer takes the lock when it begins: the next index it reads is then its own. The driver would begin too late.
    # Who only reads says so by an execution option, and nobody waits for it.
    engine = sa.create_engine(url, connect_args={"timeout": within, "isolation_level": None})

    def prepare(connection: Any, _record: object) -> None:
        if writes:
            connection.execute("PRAGMA journal_mode=WAL")
        # With WAL a commit survives the process without an fsync; only power loss may take the last ones.
        connection.execute("PRAGMA synchronous=NORMAL")
        # What is removed is overwritten: it may have been removed because somebody wanted it forgotten.
        connection.execute("PRAGMA secure_delete=ON")

    def begin(connection: sa.Connection) -> None:
        reads = not writes or connection.get_execution_options().get(READS, False)
        _by_driver(connection, "BEGIN" if reads else "BEGIN IMMEDIATE", ())

    sa.event.listen(engine, "connect", prepare)
    sa.event.listen(engine, "begin", begin)
    return engine


def postgres_engine(place: DatabaseUrl, *, within: float = 30, connections: int = 5) -> sa.Engine:
    """The database of a URL; a statement may take `within` seconds, waiting for a lock half of that.

    Connects when it is first used. Raises `StoreError` where the URL is none or the driver is missing.
    """
    try:
        if not place.secret.startswith(SCHEMES):
            raise ValueError("another kind of URL")
        url = sa.make_url(place.secret.replace("postgres://", "postgresql://", 1))
        engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED",
            pool_size=connections,
            max_overflow=0,
            pool_timeout=within,
            connect_args={
                "connect_timeout": CONNECT_WITHIN,
                "tcp_user_timeout": int(max(within, CONNECT_WITHIN) * 1000),
                "application_name": "upshim",
                "client_encoding": "utf8",
            },
        )
    except ImportError as error:
        raise StoreError(str(place), NO_DRIVER) from error
    except (sa.exc.ArgumentError, ValueError) as error:
        raise StoreError(str(place), "expected a URL such as postgresql://user@host/database") from error

    def prepare(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = {int(within * 1000)}")
            cursor.execute(f"SET lock_timeout = {int(within * 500)}")
            cursor.execute(f"SET idle_in_transaction_session_timeout = {int(max(within, 60) * 1000)}")
        connection.commit()

    sa.event.listen(engine, "connect", prepare)
    if within < UNWATCHED:
        _Watchdog(engine, within * 2)
    return engine


class _Watchdog:
    """Cuts connections that are in use for too long: a server that hangs keeps no time limit of its own."""

    def __init__(self, engine: sa.Engine, limit: float) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._since: dict[int, tuple[float, Any]] = {}
        self._thread: threading.Thread | None = None
        sa.event.listen(engine, "checkout", self._taken)
        sa.event.listen(engine, "checkin", self._given_back)

    def _taken(self, connection: Any, _record: object, _proxy: object) -> None:
        with self._lock:
            self._since[id(connection)] = (time.monotonic(), connection)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="upshim-watchdog", daemon=True)
                self._thread.start()

    def _given_back(self, connection: Any, _record: object) -> None:
        with self._lock:
            self._since.pop(id(connection), None)

    def _watch(self) -> None:
        idle = 0
        while True:
            time.sleep(self._limit / 4)
            with self._lock:
                idle = 0 if self._since else idle + 1
                if idle > 40:
                    self._thread = None
                    return
                late = time.monotonic() - self._limit
                for since, connection in self._since.values():
                    if since < late:
                        _cut(connection)


def _cut(connection: Any) -> None:
    """End what waits for an answer on this connection, from another thread."""
    import psycopg  # noqa: PLC0415 - only where there is a connection

    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)


def is_shared(connection: sa.Connection | sa.Engine) -> bool:
    """Whether this is a PostgreSQL database."""
    return connection.dialect.name == "postgresql"


class Statement:
    """SQL that the driver executes itself: SQLAlchemy takes several times as long, even for what is text already.

    `?` stands for a value and `IN (?)` for one of a list of texts. Values are plain: JSON is text (`as_json`).
    """

    def __init__(self, sql: str) -> None:
        self._sqlite = sql.replace("IN (?)", "IN (SELECT value FROM json_each(?))")
        self._postgres = sql.replace("IN (?)", "= ANY (?)").replace("?", "%s")

    def run(self, connection: sa.Connection, *values: Any) -> list[tuple[Any, ...]]:
        """Execute it once; the rows it gives. Raises `SQLAlchemyError`."""
        if not connection.in_transaction():
            connection.begin()
        if is_shared(connection):
            return _by_driver(connection, self._postgres, values)
        plain = tuple([as_json(value) if isinstance(value, list) else value for value in values])
        return _by_driver(connection, self._sqlite, plain)

    def run_each(self, connection: sa.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Execute it with the values of each of these, within a transaction. Raises `SQLAlchemyError`."""
        if rows:
            _by_driver(connection, self._postgres if is_shared(connection) else self._sqlite, rows, many=True)


def _by_driver(connection: sa.Connection, sql: str, values: Sequence[Any], *, many: bool = False) -> list[Any]:
    """Execute this as the driver has it; its errors become those of SQLAlchemy."""
    driver: Any = connection.connection.dbapi_connection
    fault = connection.dialect.loaded_dbapi.Error
    cursor: Any = None
    try:
        cursor = driver.cursor()
        if many:
            cursor.executemany(sql, values)
            return []
        cursor.execute(sql, values)
        return cursor.fetchall() if cursor.description is not None else []
    except fault as error:
        broken = connection.dialect.is_disconnect(error, driver, cursor)
        if broken:
            connection.invalidate(error)
            connection.engine.dispose()  # its other connections are of the same server
        raise sa.exc.DBAPIError.instance(
            sql, None, error, fault, connection_invalidated=broken, dialect=connection.dialect
        ) from error
    finally:
        if cursor is not None:
            cursor.close()


def insert(table: sa.Table) -> Statement:
    """An `INSERT` of whole rows, the values in the order of the columns."""
    return Statement(_insert(table))


def insert_new(table: sa.Table) -> Statement:
    """The same; rows that are there already are left alone."""
    return Statement(f"{_insert(table)} ON CONFLICT DO NOTHING")


def upsert(table: sa.Table, *changed: str) -> Statement:
    """The same; rows that are there already are changed: in these columns, or in all."""
    key = {column.name for column in table.primary_key}
    names = changed or [column.name for column in table.columns if column.name not in key]
    update = ", ".join(f'"{name}" = excluded."{name}"' for name in names)
    return Statement(f"{_insert(table)} ON CONFLICT ({', '.join(sorted(key))}) DO UPDATE SET {update}")


def _insert(table: sa.Table) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    return f'INSERT INTO "{table.name}" ({names}) VALUES ({", ".join("?" for _ in table.columns)})'  # noqa: S608


def as_json(value: Any) -> str:
    """A value of a JSON column. Raises `StatementError`, as SQLAlchemy does, for what is none."""
    try:
        return _JSON.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise sa.exc.StatementError(f"not a JSON value: {error}", None, None, error) from error


def reason(error: Exception) -> str:
    """An error of a database in one line."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_poison(error: Exception) -> bool:
    """Whether what was to be written is at fault, and would be at every attempt, rather than the database."""
    if isinstance(error, sa.exc.DBAPIError):
        return isinstance(error, sa.exc.DataError | sa.exc.IntegrityError) and not error.connection_invalidated
    return isinstance(error, sa.exc.StatementError | ValueError | TypeError)
