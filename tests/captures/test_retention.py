from __future__ import annotations

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from captures import schema
from captures.database_url import Place
from captures.exchange import Body, Exchange, Request
from captures.recording_folder import DATABASE
from captures.retention import INTERVAL, Expired, Keep, Kept, beyond, due
from captures.rows import microseconds
from captures.store import Store, files_of
from tests.captures.test_store import an_exchange

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def with_body(data: bytes, days_old: float = 0) -> Exchange:
    return replace(an_exchange(), ended=NOW - days_old * DAY, request=Request("POST", "/", body=Body.of(data)))


def keep(store: Store, *exchanges: Exchange, written: datetime = NOW - DAY) -> None:
    for exchange in exchanges:
        for sha256 in files_of(exchange):
            store.bodies.put(sha256, exchange.request.body.data or b"")
            if store.shared:
                with store.engine.begin() as connection:
                    row = schema.BODIES.update().where(schema.BODIES.c.sha256 == sha256)
                    connection.execute(row.values(touched=microseconds(written)))
            else:
                os.utime(store.bodies.path(sha256), (written.timestamp(), written.timestamp()))
    store.add(exchanges)


def bodies(store: Store) -> set[bytes]:
    found = {path.read_bytes() for path in store.bodies.folder.iterdir()}
    if store.shared:
        with store.engine.connect() as connection:
            found |= {bytes(data) for data in connection.execute(sa.select(schema.BODIES.c.data)).scalars()}
    return found


def test_old_exchanges_go_with_the_bodies_nobody_else_needs(place: Place) -> None:
    store = Store.create(place)
    keep(store, with_body(b"old", 9), with_body(b"shared", 9), with_body(b"shared", 1), with_body(b"new"))
    assert store.expire(NOW - 5 * DAY, None, NOW) == Expired(2, 2, 1, 3)
    assert [exchange.index for exchange in store.exchanges()] == [3, 4]
    assert bodies(store) == {b"shared", b"new"}
    assert store.expired_through() == 2
    assert store.expire(NOW - 5 * DAY, None, NOW) == Expired()
    assert store.expire(NOW + DAY, None, NOW).exchanges == 2
    assert store.add([an_exchange()]) == [5], "an index is never given twice"
    store.close()


def test_the_oldest_go_until_the_rest_fits(place: Place) -> None:
    store = Store.create(place)
    keep(store, *(with_body(bytes([number]) * 100_000) for number in range(10)))
    assert store.expire(None, 10_000_000, NOW).exchanges == 0
    assert store.expire(None, 350_000, NOW).bodies == 7
    assert [exchange.index for exchange in store.exchanges()] == [8, 9, 10]
    store.close()


def test_a_body_whose_row_may_still_come_stays(place: Place) -> None:
    store = Store.create(place)
    keep(store, with_body(b"again", 9))
    store.bodies.put(Body.of(b"again").sha256, b"again")  # the same download once more: no row yet
    store.bodies.put(Body.of(b"fresh").sha256, b"fresh")
    assert store.expire(NOW - DAY, None, datetime.now(UTC)) == Expired(1, 1, 0, 0)
    assert bodies(store) == {b"again", b"fresh"}
    assert store.sweep_bodies(datetime.now(UTC) + DAY) == (2, 10)
    store.close()


def test_a_body_touched_while_it_is_taken_away_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.create(tmp_path)
    keep(store, with_body(b"wanted"))
    (path,) = store.bodies.folder.iterdir()
    replaced = Path.replace

    def touch_first(source: Path, target: Path) -> Path:
        if source == path:
            os.utime(path)
        return replaced(source, target)

    monkeypatch.setattr(Path, "replace", touch_first)
    assert store.bodies.remove_stale((), (NOW - timedelta(hours=1)).timestamp()) == (0, 0)
    assert bodies(store) == {b"wanted"}
    store.close()


def test_no_acknowledged_exchange_loses_its_body_while_others_expire(tmp_path: Path) -> None:
    stop, expired = threading.Event(), threading.Event()
    added, most = 0, 300
    with closing(Store.create(tmp_path)) as writer, closing(Store.create(tmp_path)) as cleaner:

        def clean() -> None:
            while not stop.is_set():
                if cleaner.expire(None, 3_000, datetime.now(UTC)).exchanges:
                    expired.set()
                stop.wait(0.005)  # without the lock: SQLite promises nobody a turn

        with ThreadPoolExecutor(1) as pool:
            cleaning = pool.submit(clean)
            try:
                # At least a hundred, and until the cleaner has had its turn: the scheduler promises it none.
                while added < 100 or (not expired.is_set() and added < most):
                    exchange = with_body(bytes([added % 3]) * 100)
                    for sha256 in files_of(exchange):
                        writer.bodies.put(sha256, exchange.request.body.data or b"")
                    writer.add([exchange])
                    added += 1
                    if added > 100:
                        expired.wait(0.1)  # without the lock that the cleaner is waiting for
                    for found in writer.exchanges():
                        assert writer.bodies.path(found.request.body.sha256).exists()
            finally:
                stop.set()
            cleaning.result()
        assert expired.is_set()
        assert 0 < len(list(writer.exchanges())) < added


@given(
    st.lists(st.tuples(st.integers(1, 50), st.dictionaries(st.sampled_from("abc"), st.just(40)))), st.integers(0, 400)
)
def test_what_is_kept_fits_and_one_more_would_not(sizes: list[tuple[int, dict[str, int]]], limit: int) -> None:
    newest_first = [Kept(index, *size) for index, size in zip(range(len(sizes), 0, -1), sizes, strict=True)]
    through = beyond(newest_first, limit)

    def total(first: int) -> int:
        kept = [each for each in newest_first if each.exchange >= first]
        return sum(each.size for each in kept) + 40 * len({name for each in kept for name in each.bodies})

    assert total(through + 1) <= limit
    assert through == 0 or total(through) > limit


def test_when_it_is_time() -> None:
    assert due(None, NOW)
    assert due(NOW - INTERVAL, NOW)
    assert due(NOW + DAY, NOW), "the clock was set back"
    assert not due(NOW - INTERVAL / 2, NOW)
    assert Keep(days=2).older_than(NOW) == NOW - 2 * DAY
    assert not Keep()


SINCE_3 = ("phones", "outcomes", "undecided", "places", "reservations")
SINCE_2 = ("body_uses", "identities", "state")


def as_version(version: int, folder: Path) -> None:
    with sqlite3.connect(folder / DATABASE) as old:
        old.execute("DROP INDEX exchanges_by_uid")
        for column in ("client_mac", "uid"):
            old.execute(f"ALTER TABLE exchanges DROP COLUMN {column}")
        for table in (*SINCE_3, *(SINCE_2 if version < 2 else ())):
            old.execute(f"DROP TABLE {table}")
        old.execute(f"PRAGMA user_version={version}")
    old.close()


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_recording_is_read_as_it_is_and_brought_up_to_date_by_a_writer(tmp_path: Path, version: int) -> None:
    store = Store.create(tmp_path)
    encoded = replace(an_exchange(), request=Request("POST", "/", body=Body.of(b"plain", b"packed")))
    keep(store, with_body(b"one"), encoded, an_exchange())
    uses = list_uses(tmp_path)
    store.close()
    as_version(version, tmp_path)
    reader = Store.open(tmp_path)
    assert len(list(reader.exchanges())) == 3
    assert (reader.identities(), reader.expired_through()) == ({}, 0)
    reader.close()
    writer = Store.create(tmp_path)
    assert list_uses(tmp_path) == uses
    assert len(uses) == 3
    assert writer.add([replace(an_exchange(), client_mac="00:04:f2:00:01:76")], ["its name"]) == [4]
    assert writer.add([an_exchange()], ["its name"]) == [4], "under one name it is written once"
    assert [exchange.client_mac for exchange in writer.exchanges()] == ["", "", "", "00:04:f2:00:01:76"]
    writer.close()


def list_uses(folder: Path) -> list[tuple[object, ...]]:
    database = sqlite3.connect(folder / DATABASE)
    found = database.execute("SELECT * FROM body_uses ORDER BY exchange, sha256").fetchall()
    database.close()
    return found


def test_steps_are_taken_one_after_another_and_a_failing_one_leaves_the_older_version() -> None:
    engine = sa.create_engine("sqlite://")
    taken: list[str] = []

    def fail(_connection: sa.Connection) -> None:
        raise ValueError("no room")

    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA user_version=1")
        schema.migrate(connection, {1: lambda _: taken.append("1"), 2: lambda _: taken.append("2")}, 3)
        assert (taken, schema.version_of(connection)) == (["1", "2"], 3)
        with pytest.raises(ValueError, match="no room"):
            schema.migrate(connection, {3: fail}, 4)
        assert schema.version_of(connection) == 3
    engine.dispose()
    assert set(schema.STEPS) == set(range(1, schema.SCHEMA_VERSION))
