from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from captures import base_recording
from captures.bodies import PREFIX, BodyFiles, Incoming
from captures.database_url import Place
from captures.exchange import Body, Exchange, Request, Response
from captures.items import CaptureSummary
from captures.privacy import Stored
from captures.read_options import ReadOptions
from captures.recording import Recording
from captures.store import Store
from captures.store_reader import read
from tests.captures.test_store import an_exchange


class Acknowledged:
    """Waits for the acknowledgement of one exchange."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.recorded = False

    def __call__(self, recorded: bool) -> None:
        self.recorded = recorded
        self.event.set()

    def wait(self) -> bool:
        assert self.event.wait(10)
        return self.recorded


def with_body(body: Body) -> Exchange:
    plain = an_exchange()
    return Exchange(
        "", 0, plain.client, plain.server, plain.started, plain.ended, Request("GET", "/"), Response(200, body=body)
    )


def test_an_acknowledged_exchange_is_there_with_its_bodies(place: Place) -> None:
    recording = Recording(place)
    streamed = recording.stream()
    for piece in (b"first ", b"second"):
        recording.chunk(streamed, piece)
    digest = hashlib.sha256(b"first second").hexdigest()
    recording.finish(streamed, digest)
    done = Acknowledged()
    recording.add(with_body(Body(12, digest, 12)), done)
    held = Acknowledged()
    recording.add(with_body(Body.of(b"decoded", b"encoded")), held)
    assert done.wait()
    assert held.wait()
    reader = Store.open(place)
    assert len(list(reader.exchanges())) == 2
    assert b"".join(reader.bodies.chunks(digest)) == b"first second"
    for held_body in (b"decoded", b"encoded"):
        assert b"".join(reader.bodies.chunks(hashlib.sha256(held_body).hexdigest())) == held_body
    files = {path.read_bytes() for path in reader.bodies.folder.iterdir()}
    assert files == (set() if reader.shared else {b"first second", b"decoded", b"encoded"})
    reader.close()
    recording.close()


def test_a_dropped_body_leaves_nothing(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    streamed = recording.stream()
    recording.chunk(streamed, b"half of it")
    recording.finish(streamed, None)
    recording.close()
    assert list((tmp_path / "bodies").iterdir()) == []


def test_a_full_disk_stops_recording_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path)
    troubles: list[str] = []
    recording.on_trouble = troubles.append

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Incoming, "keep", full)
    streamed = recording.stream()
    recording.chunk(streamed, b"no room")
    recording.finish(streamed, "00")
    refused = Acknowledged()
    recording.add(with_body(Body.of(b"no room either")), refused)
    assert not refused.wait()
    monkeypatch.undo()
    accepted = Acknowledged()
    recording.add(with_body(Body.of(b"room again")), accepted)
    assert accepted.wait()
    recording.close()
    assert sum(recording.lost.values()) == 2
    assert all("No space left" in trouble for trouble in troubles)
    assert {path.read_bytes() for path in (tmp_path / "bodies").iterdir()} == {b"room again"}


def test_a_body_the_disk_cannot_keep_up_with_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_recording, "MAX_QUEUED_BYTES", 10)
    recording = Recording(tmp_path)
    streamed = recording.stream()
    recording.chunk(streamed, b"x" * 11)
    assert streamed.lost
    recording.finish(streamed, "00")
    recording.close()
    assert list((tmp_path / "bodies").iterdir()) == []
    assert recording.lost == {"a body: the disk is too slow": 1}


def test_an_observer_that_fails_costs_only_itself(place: Place) -> None:
    class Broken:
        def recorded(self, bodies: BodyFiles, exchange: Exchange) -> None:
            raise ValueError("no packets today")

        def close(self) -> None:
            pass

    recording = Recording(place, Broken())
    for _ in range(2):
        done = Acknowledged()
        recording.add(an_exchange(), done)
        assert done.wait()
    recording.close()
    assert recording.lost == {"packets: no packets today": 2}


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from captures.items import CaptureSummary
from captures.privacy import Stored
from captures.read_options import ReadOptions
from captures.recording import Recording
from tests.captures.test_store import an_exchange
recording = Recording(Path(sys.argv[1]))
streamed = recording.stream()
recording.chunk(streamed, b"half a download")
for number in range(50):
    done = threading.Event()
    recording.add(an_exchange(str(number)), lambda _: done.set())
    done.wait()
print("acknowledged", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL
    assert child.stdout == b"acknowledged\n"
    assert [path.name.startswith(PREFIX) for path in (tmp_path / "bodies").iterdir()] == [True]
    store = Store.open(tmp_path)
    assert [exchange.problems for exchange in store.exchanges()] == [(str(number),) for number in range(50)]
    store.close()
    # The next start sweeps up what the killed process left, and only that.
    ours = tmp_path / "bodies" / f"{PREFIX}{os.getpid()}-x"
    ours.touch()
    Recording(tmp_path).close()
    assert list((tmp_path / "bodies").iterdir()) == [ours]


def exchanges_lacking_bodies(folder: Path) -> tuple[str, ...]:
    *_, summary = read(folder, ReadOptions())
    assert isinstance(summary, CaptureSummary)
    assert summary.partial == bool(summary.problems)
    return summary.problems


def test_bodies_that_are_gone_are_told(tmp_path: Path) -> None:
    def recorded(setting: Stored, *bodies: bytes) -> None:
        recording = Recording(tmp_path, setting=setting)
        for body in bodies:
            told = Acknowledged()
            recording.add(with_body(Body.of(body)), told)
            assert told.wait()
        recording.close()

    recorded("no-bodies", b"never kept")
    recorded("full", b"one", b"", b"two", b"two")
    assert exchanges_lacking_bodies(tmp_path) == ()
    for file in (tmp_path / "bodies").iterdir():
        file.unlink()
    assert exchanges_lacking_bodies(tmp_path) == ("bodies/ lacks bodies of 3 exchanges, the first of them exchange 2",)
    recorded("full", b"two")
    assert exchanges_lacking_bodies(tmp_path) == ("bodies/ lacks bodies of exchange 2",)
    recorded("no-headers", b"not kept")
    assert exchanges_lacking_bodies(tmp_path) == ()  # from where on they were is not known any more
