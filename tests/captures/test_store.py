from __future__ import annotations

import gzip
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captures.bodies import BodyFiles
from captures.database_url import Place
from captures.errors import StoreError
from captures.exchange import Body, Exchange, Request, Response
from captures.items import CaptureSummary
from captures.read_options import ReadOptions
from captures.recording_folder import DATABASE
from captures.sources import read_exchanges
from captures.store import Store
from captures.store_reader import read

LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="\0"), max_size=20)
HEADERS = st.lists(st.tuples(LATIN, LATIN), max_size=4).map(tuple)
BODIES = st.builds(Body.of, st.binary(max_size=50), st.none() | st.binary(max_size=50))
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
REQUESTS = st.builds(Request, LATIN, LATIN, st.sampled_from(["1.0", "1.1"]), HEADERS, BODIES)
INTERIM = st.lists(st.tuples(st.integers(100, 199), LATIN, HEADERS), max_size=2).map(tuple)
RESPONSES = st.builds(Response, st.integers(100, 999), LATIN, st.just("1.1"), HEADERS, BODIES, INTERIM)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | LATIN, lambda inner: st.lists(inner, max_size=3))
FACTS = st.lists(st.fixed_dictionaries({"fact": LATIN, "x": JSON}), max_size=3).map(tuple)
EXCHANGES = st.builds(
    Exchange,
    capture=st.just(""),
    index=st.just(0),
    client=LATIN,
    server=LATIN,
    client_mac=LATIN,
    started=TIMES,
    ended=TIMES,
    request=REQUESTS,
    response=st.none() | RESPONSES,
    complete=st.booleans(),
    problems=st.lists(LATIN, max_size=2).map(tuple),
    facts=FACTS,
    rewritten_request=st.none() | REQUESTS,
    rewritten_response=st.none() | RESPONSES,
    connection=LATIN,
    request_ended=st.none() | TIMES,
    response_started=st.none() | TIMES,
)


def an_exchange(problem: str = "") -> Exchange:
    moment = datetime(2026, 11, 23, 9, 0, 0, 123456, tzinfo=UTC)
    problems = (problem,) if problem else ()
    return Exchange("", 0, "127.0.0.1:1", "127.0.0.1:80", moment, moment, Request("GET", "/"), problems=problems)


@given(st.lists(EXCHANGES, min_size=1, max_size=4))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_an_exchange_comes_back_as_it_was(place: Place, exchanges: list[Exchange]) -> None:
    with closing(Store.create(place)) as store:
        last = max((exchange.index for exchange in store.exchanges()), default=0)
        indexes = store.add(exchanges)
        found = list(store.exchanges(after=last))
    assert [exchange.index for exchange in found] == indexes == list(range(last + 1, last + len(exchanges) + 1))
    expected = [
        exchange.to_json() | {"capture": str(place), "index": n} for n, exchange in enumerate(exchanges, last + 1)
    ]
    assert [exchange.to_json() for exchange in found] == expected


def test_reading_works_while_the_recording_grows(place: Place) -> None:
    writer = Store.create(place)
    writer.add([an_exchange("one")])
    reader = Store.open(place)
    reading = reader.exchanges()
    assert next(reading).problems == ("one",)
    writer.add([an_exchange("two")])
    reading.close()
    assert [exchange.problems for exchange in reader.exchanges(after=1)] == [("two",)]
    writer.close()
    reader.close()


def test_two_writers_share_a_recording(place: Place) -> None:
    one, two = Store.create(place), Store.create(place)
    for number in range(10):
        (one if number % 2 else two).add([an_exchange(str(number))])
    assert [exchange.problems for exchange in one.exchanges()] == [(str(number),) for number in range(10)]
    one.close()
    two.close()


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "rec")
    store.add([an_exchange()])
    store.bodies.put("aa", b"secret")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "rec").rglob("*")}
    store.close()
    assert modes.pop("bodies") == 0o700
    assert stat.S_IMODE((tmp_path / "rec").stat().st_mode) == 0o700
    assert {DATABASE, f"{DATABASE}-wal", "aa"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_it_is_a_capture_like_any_other(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.add([an_exchange("here")])
    store.close()
    for path in (tmp_path, tmp_path / DATABASE):
        exchange, summary = read(path, ReadOptions())
        assert isinstance(exchange, Exchange)
        assert exchange.problems == ("here",)
        assert isinstance(summary, CaptureSummary)
        assert summary.counts["exchanges"] == 1
        assert len(list(read_exchanges(path))) == 2


@pytest.mark.parametrize("hold", [1 << 20, 10])
def test_what_streamed_by_is_decoded_as_in_other_captures(place: Place, tmp_path: Path, hold: int) -> None:
    plain = b"update " * 100
    codings = {"gzip": gzip.compress(plain), "br": brotli.compress(plain)}
    streamed = {name: replace(Body.of(coded), data=None) for name, coded in codings.items()}
    damaged = Body.of(codings["gzip"][:-8] + bytes(8))
    with closing(Store.create(place)) as store:
        for coded in (*codings.values(), damaged.data or b""):
            store.bodies.put(Body.of(coded).sha256, coded)
        cases = [
            *((name, body, "") for name, body in streamed.items()),
            ("gzip", damaged, ""),
            ("gzip", damaged, "answer: body not decoded (gzip): it is damaged"),
            ("gzip", Body(9, "00" * 32, 9), ""),
        ]
        answers = [Response(200, headers=(("Content-Encoding", name),), body=body) for name, body, _ in cases]
        first = store.add(
            [replace(an_exchange(case[2]), response=answer) for case, answer in zip(cases, answers, strict=True)]
        )[0]
    (tmp_path / "out").mkdir()
    options = ReadOptions(hold=hold, bodies=BodyFiles(tmp_path / "out"))
    found = [one for one in read(place, options) if isinstance(one, Exchange) and one.index >= first]
    bodies = [one.response.body for one in found if one.response]
    assert bodies == [*(Body.of(plain, coded) for coded in codings.values()), damaged, damaged, Body(9, "00" * 32, 9)]
    assert [body.data for body in bodies[:2]] == [plain if hold > 10 else None] * 2
    assert [len(one.problems) for one in found] == [0, 0, 1, 1, 0]
    assert (tmp_path / "out" / Body.of(plain).sha256).read_bytes() == plain
    assert [each.problems for each in read(place, options) if isinstance(each, Exchange)][-5:] == [
        each.problems for each in found
    ]


def test_what_is_no_recording_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no store\.sqlite"):
        Store.open(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"not a database at all, but long enough to be looked at")
    with pytest.raises(StoreError, match="not a database"):
        Store.open(tmp_path)
    other = tmp_path / "later"
    other.mkdir()
    with sqlite3.connect(other / DATABASE) as later:
        later.execute("PRAGMA user_version=99")
    later.close()
    for attempt in (Store.open, Store.create):
        with pytest.raises(StoreError, match="found 99"):
            attempt(other)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot record here"):
        Store.create(tmp_path / "file" / "rec")


def test_damage_is_named(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.add([an_exchange(str(number)) for number in range(200)])
    store.close()
    database = tmp_path / DATABASE
    content = bytearray(database.read_bytes())
    content[4096 * 3 :] = b"\xff" * (len(content) - 4096 * 3)
    database.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged|malformed"):
        list(read(tmp_path, ReadOptions()))
