"""A recording in PostgreSQL while the server comes and goes: nothing is lost, nothing written twice, nobody waits."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from captures import shared_sink
from captures.audit import audit, entries_of
from captures.database_url import DatabaseUrl
from captures.errors import StoreError
from captures.exchange import Body, Request
from captures.read_options import ReadOptions
from captures.recording import Recording
from captures.shared_bodies import SMALL
from captures.spool import SPOOL
from captures.store import Store
from captures.store_reader import read
from tests.captures.test_journal import a_decision
from tests.captures.test_recording import Acknowledged
from tests.captures.test_store import an_exchange
from tests.conftest import ROOT
from tests.postgres import PostgresServer, postgres_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as found:
        yield found


@pytest.fixture
def url(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatabaseUrl:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return server.new_database()


@contextmanager
def stopped(server: PostgresServer, how: int = signal.SIGINT) -> Iterator[None]:
    server.stop(how)
    try:
        yield
    finally:
        server.start()


def add(recording: Recording, *names: str) -> None:
    for name in names:
        done = Acknowledged()
        exchange = replace(an_exchange(name), request=Request("POST", "/", body=Body.of(f"body of {name}".encode())))
        recording.add(exchange, done)
        assert done.wait(), "in the database or beside it, it can no longer be lost"


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def recorded(url: DatabaseUrl) -> list[str]:
    """What each exchange is called, in order; its body came with it."""
    with closing(Store.open(url)) as store:
        found = []
        for exchange in store.exchanges():
            (name,) = exchange.problems
            assert b"".join(store.bodies.chunks(exchange.request.body.sha256)) == f"body of {name}".encode()
            found.append(name)
        return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_what_comes_while_the_database_is_away_is_written_afterwards(
    server: PostgresServer, url: DatabaseUrl, how: int
) -> None:
    told: list[str] = []
    recording = Recording(url, tell=told.append)
    add(recording, "before")
    assert not recording.behind
    with stopped(server, how):
        add(recording, "away 1", "away 2", "away 3")
        assert "away" in recording.behind
    until(lambda: not recording.behind)
    add(recording, "after")
    recording.close()
    assert recorded(url) == ["before", "away 1", "away 2", "away 3", "after"]
    assert not recording.lost
    assert [line.partition(":")[0].partition(",")[0] for line in told] == [
        "the database is away",
        "the database is back",
    ]
    assert list(bodies_beside(url)) == []


def bodies_beside(url: DatabaseUrl) -> Iterator[Path]:
    return (url.local_folder() / "bodies").iterdir()


def test_a_recording_starts_and_ends_without_its_database(server: PostgresServer, url: DatabaseUrl) -> None:
    with stopped(server):
        recording = Recording(url)
        add(recording, "one")
        recording.close()
        recording = Recording(url)
        add(recording, "two")
        recording.close()
    recording = Recording(url)
    add(recording, "three")
    until(lambda: not recording.behind)
    recording.close()
    assert recorded(url) == ["one", "two", "three"]


KILLED = """
import os, signal, sys, threading
from captures.database_url import DatabaseUrl
from captures.recording import Recording
from tests.captures.test_shared_recording import add
recording = Recording(DatabaseUrl(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
add(recording, *sys.argv[2:])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_waited_survives_kill_9(server: PostgresServer, url: DatabaseUrl) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, url.secret, "a", "b"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        assert child.stdout.readline() == b"ready\n"
        with stopped(server):
            child.stdin.write(b"\n")
            child.stdin.close()
            assert child.wait(60) == -signal.SIGKILL
    assert sum(path.stat().st_size for path in (url.local_folder() / SPOOL).iterdir()) > 0
    recording = Recording(url)
    until(lambda: not recording.behind)
    recording.close()
    assert recorded(url) == ["a", "b"]


def test_a_commit_of_unknown_outcome_is_written_once(url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(url)
    add(recording, "known")
    real: Any = sa.engine.default.DefaultDialect.do_commit
    lost = threading.Event()

    def commit_and_hang_up(self: Any, connection: Any) -> None:
        real(self, connection)
        if threading.current_thread().name == "upshim-recording" and not lost.is_set():
            lost.set()
            connection.driver_connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(sa.engine.default.DefaultDialect, "do_commit", commit_and_hang_up)
    add(recording, "unknown")
    assert lost.is_set()
    until(lambda: not recording.behind)
    add(recording, "next")
    recording.close()
    assert recorded(url) == ["known", "unknown", "next"]
    assert not recording.lost


def test_a_server_that_hangs_is_away_too(
    server: PostgresServer, url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_sink, "WRITE_WITHIN", 0.5)
    recording = Recording(url)
    add(recording, "before")
    server.signal_all(signal.SIGSTOP)
    try:
        add(recording, "hangs", "and more")
        assert "away" in recording.behind
    finally:
        server.signal_all(signal.SIGCONT)
    until(lambda: not recording.behind)
    recording.close()
    assert recorded(url) == ["before", "hangs", "and more"]


def test_what_the_database_will_never_take_costs_only_itself(url: DatabaseUrl) -> None:
    recording = Recording(url)
    done = [Acknowledged() for _ in range(3)]
    with recording._changed:  # so that they go in one batch
        for name, one in zip(("good", "bad", "fine"), done, strict=True):
            exchange = replace(
                an_exchange(name), request=Request("POST", "/", body=Body.of(f"body of {name}".encode()))
            )
            recording.add(replace(exchange, connection="a\0b") if name == "bad" else exchange, one)
    assert all(one.wait() for one in done)
    recording.close()
    assert recorded(url) == ["good", "fine"]
    assert sum(recording.lost.values()) == 1


def test_a_full_spool_is_counted_and_nothing_waits(
    server: PostgresServer, url: DatabaseUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(url)
    monkeypatch.setattr(recording._sink._spool, "_most", 10)  # type: ignore[union-attr]
    with stopped(server):
        done = Acknowledged()
        recording.add(an_exchange(), done)
        assert not done.wait()
    recording.close()
    assert recording.lost == {"exchanges: more than 10 bytes wait for the database": 1}


def test_small_bodies_are_in_the_database_and_large_ones_where_they_passed(url: DatabaseUrl, tmp_path: Path) -> None:
    recording = Recording(url)
    hashes = []
    for content in (b"small" * 10, b"large" * SMALL):
        streamed = recording.stream()
        for start in range(0, len(content), 1 << 18):
            recording.chunk(streamed, content[start : start + (1 << 18)])
        hashes.append(hashlib.sha256(content).hexdigest())
        recording.finish(streamed, hashes[-1])
        body = Body(len(content), hashes[-1], len(content))
        done = Acknowledged()
        recording.add(replace(an_exchange(), request=Request("PUT", "/", body=body)), done)
        assert done.wait()
    recording.close()
    assert [path.name for path in bodies_beside(url)] == hashes[1:]
    with closing(Store.open(url)) as here, closing(Store.open(url, tmp_path / "elsewhere")) as elsewhere:
        assert [here.bodies.has(sha256) for sha256 in hashes] == [True, True]
        assert [elsewhere.bodies.has(sha256) for sha256 in hashes] == [True, False]
        with pytest.raises(FileNotFoundError):
            list(elsewhere.bodies.chunks(hashes[1]))
    small, large, _ = read(url, ReadOptions(hold=100 << 20))
    assert [one.request.body.data is not None for one in (small, large)] == [True, True]  # type: ignore[union-attr]


def test_the_journal_is_one_chain_over_all_shims_and_shows_an_edit(server: PostgresServer, url: DatabaseUrl) -> None:
    one, two = Recording(url), Recording(url)
    for number in range(6):
        done = Acknowledged()
        (one if number % 2 else two).add(a_decision(), done)
        assert done.wait()
    with stopped(server):
        done = Acknowledged()
        one.add(a_decision(), done)
        assert done.wait()
    until(lambda: not one.behind)
    for recording in (one, two):
        recording.close()
    with closing(Store.open(url)) as store:
        found = audit(entries_of(store), store)
        assert found.good, found
        assert found.decisions == 7
        lines = list(store.journal_lines())
        entry = json.loads(lines[-1])
        assert entry["changes"][0]["edits"][0]["after"] == "0.0.0.0", "what waited has its edits too"
        with store.engine.begin() as connection:
            connection.execute(sa.text("UPDATE journal SET line = replace(line, '0.0.0.0', '0.0.0.1') WHERE n = 3"))
        assert [fault.line for fault in audit(entries_of(store), store).faults] == [3]


def test_another_schema_is_refused_and_so_is_an_empty_database_to_a_reader(url: DatabaseUrl) -> None:
    with pytest.raises(StoreError, match="expected schema version 3 to 3, found 0"):
        Store.open(url)
    Store.create(url).close()
    with psycopg.connect(url.secret) as connection:
        connection.execute("UPDATE state SET number = 99 WHERE name = 'schema version'")
    for attempt in (Store.open, Store.create):
        with pytest.raises(StoreError, match="found 99"):
            attempt(url)


def test_what_is_kept_beside_it_is_private(server: PostgresServer, url: DatabaseUrl) -> None:
    with stopped(server):
        recording = Recording(url)
        add(recording, "secret")
        recording.close()
    folder = url.local_folder()
    modes = {path.is_dir(): os.stat(path).st_mode & 0o777 for path in (folder, *folder.rglob("*"))}  # noqa: PTH116
    assert modes == {True: 0o700, False: 0o600}
