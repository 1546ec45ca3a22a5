from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from captures.errors import StoreError
from captures.exchange import Exchange
from captures.journal import Fault, verify
from captures.journal_file import JOURNAL, TAIL, JournalFile
from captures.recording import Recording
from captures.recording_folder import DATABASE
from captures.retention import Keep
from captures.store import Store
from tests.captures.test_journal import a_decision
from tests.captures.test_recording import Acknowledged
from tests.captures.test_store import an_exchange


def entries(folder: Path) -> list[Any]:
    with (folder / JOURNAL).open("rb") as lines:
        found = list(verify(lines))
    assert not any(isinstance(entry, Fault) for entry in found), found
    return found


def add(recording: Recording, *exchanges: Exchange) -> None:
    for exchange in exchanges:
        done = Acknowledged()
        recording.add(exchange, done)
        assert done.wait()


def test_each_decision_is_journalled_before_it_is_acknowledged(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    add(recording, an_exchange(), a_decision(), a_decision())
    found = entries(tmp_path)
    recording.close()
    assert [(entry["n"], entry["exchange"], entry["action"]) for entry in found] == [(1, 2, "report"), (2, 3, "report")]
    assert found[0]["phone"] == found[1]["phone"]
    assert found[0]["changes"][0]["edits"][0]["after"] == "0.0.0.0"
    store = Store.open(tmp_path)
    assert store.identities() == {found[0]["phone"]: ("mac", "00:04:f2:00:01:76")}
    store.close()
    assert stat.S_IMODE((tmp_path / JOURNAL).stat().st_mode) == 0o600


def test_two_recordings_of_one_folder_make_one_chain(tmp_path: Path) -> None:
    one, two = Recording(tmp_path), Recording(tmp_path)
    for number in range(10):
        add(one if number % 2 else two, a_decision())
    one.close()
    two.close()
    assert [entry["exchange"] for entry in entries(tmp_path)] == list(range(1, 11))


@pytest.mark.parametrize("left", [b'{"action":"rep', b"\0" * 500, b"\xff\n\0\0", b"{}\n"])
def test_a_torn_end_is_accounted_for_and_the_chain_goes_on(tmp_path: Path, left: bytes) -> None:
    recording = Recording(tmp_path)
    add(recording, a_decision())
    recording.close()
    with (tmp_path / JOURNAL).open("ab") as journal:
        journal.write(left)
    recording = Recording(tmp_path)
    add(recording, a_decision())
    recording.close()
    assert [entry["entry"] for entry in entries(tmp_path)] == ["decision", "torn", "decision"]
    assert any("torn end" in cause for cause in recording.lost)


def test_a_cut_entry_is_made_up_for_from_the_store(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    add(recording, a_decision(), a_decision(b"<v>1.0.0.1</v>"))
    recording.close()
    before = entries(tmp_path)
    os.truncate(tmp_path / JOURNAL, (tmp_path / JOURNAL).stat().st_size - 30)
    Recording(tmp_path).close()
    one, torn, again = entries(tmp_path)
    assert (one["entry"], torn["entry"], again["late"]) == ("decision", "torn", True)
    assert again["changes"] == before[1]["changes"]
    Recording(tmp_path).close()
    assert len(entries(tmp_path)) == 3


def test_an_entry_longer_than_the_end_that_is_looked_at(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    add(recording, a_decision(os.urandom(TAIL), os.urandom(TAIL)))
    recording.close()
    recording = Recording(tmp_path)
    add(recording, a_decision())
    recording.close()
    assert [entry["exchange"] for entry in entries(tmp_path)] == [1, 2]


def test_a_journal_that_cannot_be_written_is_told_and_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(tmp_path)
    add(recording, a_decision())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JournalFile, "append", full)
    add(recording, a_decision())
    assert recording.journal_failed
    monkeypatch.undo()
    add(recording, a_decision())
    assert not recording.journal_failed
    recording.close()
    assert [(entry["exchange"], entry.get("late")) for entry in entries(tmp_path)] == [(1, None), (2, True), (3, True)]
    assert sum(recording.lost.values()) == 1


def test_without_its_lock_recording_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def no_lock(_: object) -> Iterator[None]:
        raise OSError(errno.EACCES, "Permission denied")
        yield

    monkeypatch.setattr(JournalFile, "locked", no_lock)
    recording = Recording(tmp_path)
    add(recording, a_decision())
    assert recording.journal_failed
    recording.close()
    store = Store.open(tmp_path)
    assert len(list(store.exchanges())) == 1
    store.close()


KILLED = """
import sys, threading, os, signal
from pathlib import Path
from captures.recording import Recording
from tests.captures.test_journal import a_decision
recording = Recording(Path(sys.argv[1]))
def tell(recorded):
    print("acknowledged", flush=True)
while True:
    recording.add(a_decision(), tell)
"""


def test_killed_at_any_moment_the_journal_tells_all_that_the_store_holds(tmp_path: Path) -> None:
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(100):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
    Recording(tmp_path).close()
    store = Store.open(tmp_path)
    assert sorted(entry["exchange"] for entry in entries(tmp_path) if entry["entry"] == "decision") == store.decided()
    store.close()


def test_what_is_kept_is_limited_while_recording(tmp_path: Path) -> None:
    recording = Recording(tmp_path, keep=Keep(days=1))
    add(recording, replace(a_decision(), ended=a_decision().ended.replace(year=2000)))
    recording.close()
    recording = Recording(tmp_path, keep=Keep(days=1))
    recording.add(replace(an_exchange(), ended=datetime.now(UTC)))
    recording.close()
    assert entries(tmp_path)[-1] | {"through": 1, "exchanges": 1} == entries(tmp_path)[-1]


@pytest.mark.parametrize(("setting", "headers"), [("no-bodies", True), ("no-headers", False)])
def test_what_is_not_to_be_stored_never_reaches_the_disk(tmp_path: Path, setting: Any, headers: bool) -> None:
    recording = Recording(tmp_path, setting=setting)
    streamed = recording.stream()
    recording.chunk(streamed, b"streamed")
    recording.finish(streamed, "00")
    plain = a_decision()
    add(recording, replace(plain, request=replace(plain.request, headers=(("A", "secret"),))))
    recording.close()
    assert list((tmp_path / "bodies").iterdir()) == []
    store = Store.open(tmp_path)
    (found,) = store.exchanges()
    store.close()
    assert bool(found.request.headers) is headers
    assert found.request.body.sha256 == plain.request.body.sha256
    assert json.dumps(entries(tmp_path)[0]["changes"]).count("1.0.522.73") == 1


def test_a_database_that_was_emptied_is_not_taken_for_a_new_recording(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    add(recording, a_decision())
    recording.close()
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / DATABASE).touch()
    with pytest.raises(StoreError, match=f"its journal tells of exchanges and {DATABASE} holds none"):
        Recording(tmp_path)
    (tmp_path / JOURNAL).unlink()
    Recording(tmp_path).close()
