from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import retention, schema
from captures.database_url import Place
from captures.exchange import Body, Exchange, Request
from captures.journal import Fault, verify
from captures.journal_file import JOURNAL, JournalFile
from captures.recording_folder import DATABASE
from captures.retention import INTERVAL, Expired, Keep, Taken, due
from captures.rows import microseconds
from captures.sink import Item
from captures.sinks import FolderSink
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


def expire(store: Store, older_than: datetime | None, max_bytes: int | None, now: datetime) -> Expired:
    """All of it at once."""
    steps = list(store.expire(older_than, max_bytes))
    return together([*steps, *store.sweep_bodies(now)])


def together(steps: Iterable[Expired]) -> Expired:
    found = Expired()
    for one in steps:
        found = Expired(
            found.exchanges + one.exchanges,
            one.through or found.through,
            found.bodies + one.bodies,
            found.bytes + one.bytes,
        )
    return found


def bodies(store: Store) -> set[bytes]:
    found = {path.read_bytes() for path in store.bodies.folder.iterdir()}
    if store.shared:
        with store.engine.connect() as connection:
            found |= {bytes(data) for data in connection.execute(sa.select(schema.BODIES.c.data)).scalars()}
    return found


def test_old_exchanges_go_with_the_bodies_nobody_else_needs(place: Place) -> None:
    store = Store.create(place)
    keep(store, with_body(b"old", 9), with_body(b"shared", 9), with_body(b"shared", 1), with_body(b"new"))
    assert expire(store, NOW - 5 * DAY, None, NOW) == Expired(2, 2, 1, 3)
    assert [exchange.index for exchange in store.exchanges()] == [3, 4]
    assert bodies(store) == {b"shared", b"new"}
    assert store.expired_through() == 2
    assert expire(store, NOW - 5 * DAY, None, NOW) == Expired()
    assert expire(store, NOW + DAY, None, NOW).exchanges == 2
    assert store.add([an_exchange()]) == [5], "an index is never given twice"
    store.close()


def test_the_oldest_go_until_the_rest_fits(place: Place) -> None:
    store = Store.create(place)
    keep(store, *(with_body(bytes([number]) * 100_000) for number in range(10)))
    assert expire(store, None, 10_000_000, NOW).exchanges == 0
    assert expire(store, None, 350_000, NOW).bodies == 7
    assert [exchange.index for exchange in store.exchanges()] == [8, 9, 10]
    store.close()


def test_a_body_whose_row_may_still_come_stays(place: Place) -> None:
    store = Store.create(place)
    keep(store, with_body(b"again", 9))
    store.bodies.put(Body.of(b"again").sha256, b"again")  # the same download once more: no row yet
    store.bodies.put(Body.of(b"fresh").sha256, b"fresh")
    assert expire(store, NOW - DAY, None, datetime.now(UTC)) == Expired(1, 1, 0, 0)
    assert bodies(store) == {b"again", b"fresh"}
    assert together(store.sweep_bodies(datetime.now(UTC) + DAY)) == Expired(bodies=2, bytes=10)
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
    assert store.bodies.remove_stale([path.name], (NOW - timedelta(hours=1)).timestamp()) == (0, 0)
    assert bodies(store) == {b"wanted"}
    store.close()


def test_no_acknowledged_exchange_loses_its_body_while_others_expire(tmp_path: Path) -> None:
    stop, expired = threading.Event(), threading.Event()
    added, most = 0, 300
    with closing(Store.create(tmp_path)) as writer, closing(Store.create(tmp_path)) as cleaner:

        def clean() -> None:
            while not stop.is_set():
                if expire(cleaner, None, 3_000, datetime.now(UTC)).exchanges:
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


LARGE = 50_000  # bytes of a body, many times those of the rows


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), max_size=5), st.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_what_is_kept_fits_and_one_more_would_not_however_often_one_looks(batches: list[list[str]], most: int) -> None:
    with TemporaryDirectory() as folder, closing(Store.create(Path(folder))) as store:
        taken, names = Taken(), list[str]()
        limit = most * LARGE + LARGE // 2
        for batch in batches:
            store.add([with_body(name.encode() * LARGE) for name in batch])
            names += batch
            together(store.expire(None, limit, taken))
            kept = [exchange.index for exchange in store.exchanges()]
            first = kept[0] if kept else len(names) + 1
            assert kept == list(range(first, len(names) + 1))
            assert len(set(names[first - 1 :])) <= most
            assert first == 1 or len(set(names[first - 2 :])) > most
            again = Taken()
            together(store.expire(None, limit, again))
            assert taken.bytes == again.bytes


def a_sink(folder: Path, lost: list[str]) -> FolderSink:
    return FolderSink(folder, "full", None, lost.append)


def recorded(sink: FolderSink, number: int, size: int = 100_000) -> bool:
    data = number.to_bytes(4, "big") * (size // 4)
    (result,) = sink.write([Item(f"uid {number}", with_body(data))])
    return result.done


def test_it_is_looked_at_again_as_soon_as_it_is_too_much(tmp_path: Path) -> None:
    lost: list[str] = []
    with closing(a_sink(tmp_path, lost)) as sink:
        sink.tidy(Keep(bytes=5_000_000))
        most = 0
        for number in range(300):  # nobody asks any more
            assert recorded(sink, number)
            tidied(sink)
            most = max(most, kept(sink))
        assert 4_000_000 < most < 5_000_000 + retention.SMALLEST_SHARE + 200_000
        lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
        told = [entry for entry in verify(lines) if not isinstance(entry, Fault)]
        gone = [entry["exchanges"] for entry in told if entry["entry"] == "expired"]
        assert sum(gone) == sink.store.expired_through()
        assert len(gone) < 50, "it is not looked at after every batch"
    assert not lost


def test_what_fits_is_not_looked_at_and_not_touched(tmp_path: Path) -> None:
    with closing(a_sink(tmp_path, [])) as sink:
        sink.tidy(Keep(bytes=20_000_000))
        tidied(sink)
        looks = 0
        for number in range(60):
            recorded(sink, number)
            looks += sink.tidying
            tidied(sink)
        assert 2 <= looks <= 3, "after a tenth each"
        assert sink.store.expired_through() == 0
        sink.tidy(Keep(days=1))
        assert sink.tidying


def tidied(sink: FolderSink) -> None:
    while sink.tidying:
        sink.go_on()


def kept(sink: FolderSink) -> int:
    with sink.store.engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.sum(schema.BODY_USES.c.size))).scalar_one() or 0)


def test_several_writers_together_keep_what_one_would(tmp_path: Path) -> None:
    with closing(a_sink(tmp_path, [])) as one, closing(a_sink(tmp_path, [])) as two:
        sinks = (one, two)
        for sink in sinks:
            sink.tidy(Keep(bytes=12_000_000))
            tidied(sink)
        stood = []
        for number in range(500):
            sink = sinks[number % 2]
            assert recorded(sink, number)
            tidied(sink)
            stood.append(kept(sink))
        assert min(stood[150:]) > 11_500_000
        assert max(stood) < 12_000_000 + 2 * 1_200_000 + 400_000


@pytest.mark.parametrize("most", [250_000, 1_000_000])
def test_who_counted_before_others_removed_some_counts_again(place: Place, most: int) -> None:
    with closing(Store.create(place)) as store:
        keep(store, *(with_body(bytes([number]) * 100_000) for number in range(8)))
        ours, theirs = Taken(), Taken()
        together(store.expire(None, 2_000_000, ours))
        together(store.expire(None, 500_000, theirs))
        left = len(list(store.exchanges()))
        assert left == 4
        together(store.expire(None, most, ours))
        assert len(list(store.exchanges())) == min(left, most // 100_000)


def test_what_was_forgotten_is_not_removed_once_more(tmp_path: Path) -> None:
    with closing(a_sink(tmp_path, [])) as sink:
        sink.tidy(Keep(bytes=10_000_000))
        for number in range(90):
            recorded(sink, number)
            tidied(sink)
        with closing(Store.create(tmp_path)) as other:
            other.remove(list(range(20, 70)))
        for number in range(90, 130):
            recorded(sink, number)
            tidied(sink)
        assert kept(sink) == 8_000_000
        assert sink.store.expired_through() == 0


@pytest.mark.parametrize("size", [16, 250])
def test_however_much_comes_at_once_it_is_kept_up_with(tmp_path: Path, size: int) -> None:
    with closing(a_sink(tmp_path, [])) as sink:
        sink.tidy(Keep(bytes=3_000_000))
        stood: list[int] = []
        for start in range(0, 4000, size):
            items = [
                Item(f"uid {number}", with_body(number.to_bytes(4, "big") * 1000))
                for number in range(start, start + size)
            ]
            assert all(result.done for result in sink.write(items))
            sink.go_on()
            stood.append(kept(sink))
        assert max(stood) < 3_000_000 + retention.SMALLEST_SHARE + 3 * 250 * 4000


def test_whoever_writes_waits_for_one_step_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captures.store.STEP", 5)
    lost: list[str] = []
    with closing(a_sink(tmp_path, lost)) as sink:
        for number in range(100):
            recorded(sink, number)
        sink.tidy(Keep(bytes=1_000_000))
        number = 100
        while sink.tidying:
            before = sink.store.expired_through()
            sink.go_on()
            assert sink.store.expired_through() - before <= 5
            assert recorded(sink, number, 4)
            number += 1
        assert number > 130
        assert sink.store.expired_through() > 85
        sink.tidy(Keep(bytes=1))
        sink.go_on()  # one that is closed in the middle of it lets go
    assert not lost


def test_what_cannot_be_removed_is_told_and_recording_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    lost: list[str] = []
    with closing(a_sink(tmp_path, lost)) as sink:
        recorded(sink, 1)
        monkeypatch.setattr(JournalFile, "append", full)
        sink.tidy(Keep(bytes=1))
        while sink.tidying:
            sink.go_on()
        monkeypatch.undo()
        assert recorded(sink, 2)
    assert lost == ["the removal of old exchanges: [Errno 28] No space left on device"]


def test_the_database_does_not_grow_for_good(tmp_path: Path) -> None:
    with closing(a_sink(tmp_path, [])) as sink:
        sink.tidy(Keep(bytes=3_000_000))
        sizes = []
        for number in range(300):
            headers = tuple((f"name {each}", "v" * 900) for each in range(50))
            request = Request("GET", "/", headers=headers)
            sink.write([Item(f"uid {number}", replace(an_exchange(), request=request))])
            while sink.tidying:
                sink.go_on()
            sizes.append((tmp_path / DATABASE).stat().st_size)
        assert sizes[-1] < 1.05 * sizes[150], "pages that are free are used again"
        assert sizes[-1] < 6_000_000


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
