"""A recording that another process writes: with the real one, and with some that die."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import base_recording, live_recording, writer_process
from captures.bodies import BodyFiles
from captures.errors import StoreError
from captures.exchange import Body, Exchange, Request, Response
from captures.journal import Fault, verify
from captures.journal_file import JOURNAL
from captures.live_recording import LiveRecording
from captures.retention import Keep
from captures.rows import row_of
from captures.sink import Item, Question, Reservation, Result
from captures.store import Store
from captures.writer_process import Told, framed, taken
from proxy_addons import recording_process
from tests.captures.test_journal import a_decision
from tests.captures.test_store import EXCHANGES, an_exchange

PATIENCE = 60.0


def in_loop(test: Callable[[LiveRecording], Any], folder: Path, command: Sequence[str] = (), **options: Any) -> None:
    """Run a coroutine test with a recording."""

    async def run() -> None:
        recording = LiveRecording(folder, command or recording_process.command(folder, "full"), **options)
        try:
            async with asyncio.timeout(PATIENCE):
                await test(recording)
        finally:
            recording.close()

    asyncio.run(run())


async def answered(hand_over: Callable[[Callable[[Any], None]], None]) -> Any:
    future = asyncio.get_running_loop().create_future()
    hand_over(future.set_result)
    return await future


async def added(recording: LiveRecording, exchange: Exchange, uid: str | None = None) -> bool:
    return bool(await answered(lambda done: recording.add(exchange, done, uid)))


def stored(folder: Path) -> list[Exchange]:
    with closing(Store.open(folder)) as store:
        return list(store.exchanges())


def test_what_is_acknowledged_is_in_the_store_with_its_bodies(tmp_path: Path) -> None:
    pieces = (b"first ", b"second")
    whole = b"".join(pieces)
    digest = hashlib.sha256(whole).hexdigest()

    async def test(recording: LiveRecording) -> None:
        streamed = recording.stream()
        for piece in pieces:
            recording.chunk(streamed, piece)
        recording.finish(streamed, digest)
        held, later = (
            replace(an_exchange(), response=Response(200, body=body))
            for body in (Body.of(b"decoded", b"encoded"), Body(len(whole), digest, len(whole)))
        )
        assert all(await asyncio.gather(added(recording, held), added(recording, later)))
        assert len(stored(tmp_path)) == 2
        backlog = recording.backlog()
        assert (backlog.exchanges, backlog.committed) == (0, 2)
        assert backlog.written_bytes == len(b"decodedencoded") + len(whole)

    in_loop(test, tmp_path)
    kept = {path.read_bytes() for path in (tmp_path / "bodies").iterdir()}
    assert kept == {b"decoded", b"encoded", whole}


def test_an_observer_sees_what_is_recorded_with_its_bodies_and_may_fail(tmp_path: Path) -> None:
    seen: list[bytes] = []

    class Observer:
        def recorded(self, bodies: BodyFiles, exchange: Exchange) -> None:
            assert exchange.response is not None
            seen.append(b"".join(bodies.chunks(exchange.response.body.sha256)))
            raise ValueError("no packets today")

        def close(self) -> None:
            seen.append(b"end")

    recordings: list[LiveRecording] = []

    async def test(recording: LiveRecording) -> None:
        recordings.append(recording)
        assert await added(recording, replace(an_exchange(), response=Response(200, body=Body.of(b"body"))))

    in_loop(test, tmp_path, observer=Observer())
    assert seen == [b"body", b"end"]
    assert recordings[0].lost == {"packets: no packets today": 1}


def test_what_is_not_acknowledged_yet_is_written_by_the_end(tmp_path: Path) -> None:
    async def test(recording: LiveRecording) -> None:
        for number in range(700):  # more than one batch
            recording.add(an_exchange(str(number)))
        recording.ask(Question("tidy"), lambda _result: None)

    in_loop(test, tmp_path)
    assert [exchange.problems for exchange in stored(tmp_path)] == [(str(number),) for number in range(700)]


def test_what_is_too_much_is_removed_within_the_hour_and_while_nothing_comes(tmp_path: Path) -> None:
    async def test(recording: LiveRecording) -> None:
        for number in range(60):
            body = Body.of(number.to_bytes(4, "big") * 25_000)
            assert await added(recording, replace(an_exchange(), request=Request("POST", "/", body=body)))
        while len(stored(tmp_path)) > 35:
            await asyncio.sleep(0.05)
        assert await added(recording, an_exchange())

    in_loop(test, tmp_path, keep=Keep(bytes=2_000_000))
    kept = stored(tmp_path)
    assert [exchange.index for exchange in kept] == list(range(kept[0].index, 62))
    lines = list(verify((tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)))
    assert not [line for line in lines if isinstance(line, Fault)]


def test_questions_are_answered_behind_what_came_before_and_from_any_thread(tmp_path: Path) -> None:
    async def test(recording: LiveRecording) -> None:
        recording.reserve("uid", Reservation("mac:x", "rule", "path", 7), lambda _result: None)
        fleet = await answered(lambda done: recording.ask(Question("fleet"), done))
        assert fleet.done
        assert fleet.value.promised == [("mac:x", "rule", "path", 7)]
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        await asyncio.to_thread(recording.ask, Question("census"), future.set_result)
        assert await future == Result(True, [])
        unknown = await answered(lambda done: recording.ask(Question("weather"), done))
        assert not unknown.done

    in_loop(test, tmp_path)


def test_a_writer_that_is_killed_is_followed_by_another_and_nothing_is_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_process, "RETRY_AFTER", 0.01)
    number = 300

    async def test(recording: LiveRecording) -> None:
        assert await added(recording, a_decision(), "before")
        waiting = [asyncio.create_task(added(recording, a_decision(), f"uid {n}")) for n in range(number)]
        await waiting[0]
        assert recording._link._process is not None
        os.kill(recording._link._process.pid, signal.SIGKILL)
        assert all(await asyncio.gather(*waiting))
        assert await added(recording, a_decision(), "after")
        assert not recording.journal_failed
        assert recording.lost["nothing yet: the process that writes has died, another one goes on"] == 1

    in_loop(test, tmp_path)
    with closing(Store.open(tmp_path)) as store:
        assert len(list(store.exchanges())) == len(store.decided()) == number + 2
        decided = store.decided()
    entries = list(verify((tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)))
    assert not [entry for entry in entries if isinstance(entry, Fault)]
    told = [entry["exchange"] for entry in entries if not isinstance(entry, Fault) and entry["entry"] == "decision"]
    assert sorted(told) == decided


def test_another_writer_is_told_what_is_to_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_process, "RETRY_AFTER", 0.01)
    monkeypatch.setattr(live_recording, "LOOK_EVERY", 0.05)
    asked: list[Any] = []
    send = writer_process.WriterLink.send

    def note(link: Any, item: Item, answer: Any) -> None:
        if item.question is not None:
            asked.append(item.question.about)
        send(link, item, answer)

    monkeypatch.setattr(writer_process.WriterLink, "send", note)

    async def test(recording: LiveRecording) -> None:
        assert await added(recording, an_exchange())
        while len(asked) < 1:
            await asyncio.sleep(0.01)
        assert recording._link._process is not None
        os.kill(recording._link._process.pid, signal.SIGKILL)
        while len(asked) < 2:
            await asyncio.sleep(0.01)

    in_loop(test, tmp_path, keep=Keep(bytes=1_000_000))
    assert asked == [Keep(bytes=1_000_000)] * 2


DIES = """
import os, sys
from captures.sinks import FolderSink
from proxy_addons.recording_process import main
write = FolderSink.write
def deadly(self, batch):
    if any(one.uid == "poison" for one in batch):
        os._exit(3)
    return write(self, batch)
FolderSink.write = deadly
main(sys.argv[1:])
"""


def test_what_kills_every_writer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_process, "RETRY_AFTER", 0.01)

    async def test(recording: LiveRecording) -> None:
        assert await added(recording, an_exchange())
        assert not await added(recording, an_exchange(), "poison")
        assert recording.lost["exchanges: the process that writes has died of them"] == 1
        while recording.journal_failed:
            await asyncio.sleep(0.01)
        assert await added(recording, an_exchange())

    in_loop(test, tmp_path, [sys.executable, "-c", DIES, str(tmp_path), "full"])
    assert len(stored(tmp_path)) == 2


def test_a_fault_in_the_writer_costs_its_batch_only(tmp_path: Path) -> None:
    faulty = DIES.replace("os._exit(3)", "raise ZeroDivisionError")

    async def test(recording: LiveRecording) -> None:
        assert not await added(recording, an_exchange(), "poison")
        assert await added(recording, an_exchange())
        assert recording.lost == {"exchanges: ZeroDivisionError()": 1}

    in_loop(test, tmp_path, [sys.executable, "-c", faulty, str(tmp_path), "full"])


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["-c", "raise SystemExit"], "does not start"),
        ([*recording_process.COMMAND[1:], "/dev/null/rec", "full"], "cannot record here"),
    ],
)
def test_a_writer_that_does_not_start_is_one_line(tmp_path: Path, command: list[str], complaint: str) -> None:
    async def run() -> None:
        with pytest.raises(StoreError, match=complaint) as refused:
            LiveRecording(tmp_path, [sys.executable, *command])
        assert str(refused.value).startswith(f"{tmp_path}: ")
        assert str(refused.value).count("/") == str(tmp_path).count("/"), "the folder is named once"

    asyncio.run(run())


def test_what_is_too_much_is_refused_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_process, "MAX_UNANSWERED", 2)
    monkeypatch.setattr(base_recording, "due", lambda *_: False)  # nothing is asked beside

    async def test(recording: LiveRecording) -> None:
        assert await added(recording, an_exchange())
        done = [asyncio.create_task(added(recording, an_exchange())) for _ in range(3)]
        assert await asyncio.gather(*done) == [True, True, False]
        assert recording.lost == {"an exchange: too much waits to be written": 1}

    in_loop(test, tmp_path)


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from proxy_addons import recording_process
from tests.captures.test_live_recording import LiveRecording, added, an_exchange

async def run(folder):
    recording = LiveRecording(folder, recording_process.command(folder, "full"))
    for number in range(50):
        assert await added(recording, an_exchange(str(number)))
    recording.add(an_exchange("in flight"))
    print(recording._link._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(run(Path(sys.argv[1])))
"""


def test_kill_9_leaves_what_was_acknowledged_and_no_process(tmp_path: Path) -> None:
    proxy = subprocess.run([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, timeout=60, check=False)
    assert proxy.returncode == -signal.SIGKILL
    problems = [exchange.problems for exchange in stored(tmp_path)]
    assert problems[:50] == [(str(number),) for number in range(50)]
    writer = Path("/proc", proxy.stdout.decode().strip())
    with closing(Store.create(tmp_path)) as store:  # which waits for a writer at work
        store.add([an_exchange("next")])
    for _ in range(int(PATIENCE * 100)):
        if not writer.exists() or "State:\tZ" in (writer / "status").read_text():
            break
        subprocess.run(["sleep", "0.01"], check=True)
    else:
        pytest.fail("the writer has not ended")


@given(st.lists(EXCHANGES, max_size=4), st.lists(st.integers(1, 4000), max_size=6))
@settings(max_examples=50, deadline=None)
def test_frames_come_out_as_they_went_in_however_they_are_cut(exchanges: list[Exchange], cuts: list[int]) -> None:
    sent = [Item(f"uid {number}", exchange) for number, exchange in enumerate(exchanges)]
    others: tuple[Item | Told, ...] = (
        Told([Result(True, {"any": (1, None)})], True, {"what": 2}),
        Told([Result(True), Result(False)], False, {}, "why"),
        Item("uid", reservation=Reservation("mac:x", "rule", "path", 7)),
        Item(question=Question("tidy", Keep(7))),
    )
    data = b"".join([*map(framed, sent), *map(framed, others)])
    received, found = bytearray(), []
    places = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    for start, end in zip([0, *places], places, strict=False):
        received += data[start:end]
        found += taken(received)
    assert not received
    items = found[: len(sent)]
    assert tuple(found[len(sent) :]) == others
    assert [one.uid for one in items] == [one.uid for one in sent]
    for ours, theirs in zip(sent, items, strict=True):
        assert ours.exchange is not None
        assert theirs.exchange is not None
        assert row_of(theirs.exchange) == row_of(ours.exchange)
        assert list(theirs.exchange.facts) == [dict(fact) for fact in ours.exchange.facts]


class Text(str):
    """What marshal does not take."""


def test_facts_of_other_than_plain_values_go_too() -> None:
    exchange = replace(an_exchange(), facts=({"fact": Text("x"), "path": Path("/")},), request=Request("GET", "/"))
    (item,) = taken(bytearray(framed(Item("uid", exchange))))
    assert item.exchange == exchange


def test_the_sink_here_writes_nothing_by_itself() -> None:
    assert not hasattr(live_recording, "Store"), "the database is the other process's"
    loaded = "import captures.live_recording, sys; print('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True).stdout == b"False\n"
