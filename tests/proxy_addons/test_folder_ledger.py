"""Decisions in memory, for the one process that writes to a folder: the same as those within a database."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures.base_recording import FOREVER, Answer, BaseRecording, new_uid
from captures.exchange import Body, Exchange, Fact, Request, Response
from captures.folder_lock import FolderLock
from captures.recording import Recording
from captures.sink import Item, Question, Reservation, Result
from captures.sinks import FolderSink
from dissectors.vocabulary import Vocabulary
from proxy_addons import folder_ledger
from proxy_addons.check import Check
from proxy_addons.folder_ledger import FolderLedger
from proxy_addons.ledger import Ledger
from proxy_addons.recalled import ANSWERS
from proxy_addons.rewriter import Checked, Rewriter
from proxy_addons.rules import Rules
from proxy_addons.sole_history import MOST_REMEMBERED
from proxy_addons.stored_history import PhoneProjection
from tests.bodies import CHECK_TARGET, INTERIM, OFFER_NEXT, answer_body, check_body

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
STUCK = "1.0.522.73"
FIRMWARE = f"/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/{INTERIM}/CPE/"
STATUS = b"<LastUpdateStatus>0x80072ee2;0</LastUpdateStatus>"


class AtOnce(BaseRecording):
    """A recording whose writer answers before the call returns, or with `silent`, never."""

    behind = ""
    journal_failed = False

    def __init__(self, folder: Path) -> None:
        self.sink = FolderSink(folder, "full", PhoneProjection(), self._lose, ANSWERS)
        super().__init__(folder, self.sink.bodies, None, FOREVER, "full")
        self.sink.start()
        self.asked: list[str] = []
        self.silent = False

    def add(self, exchange: Exchange, acknowledge: Any = lambda _recorded: None, uid: str | None = None) -> None:
        self.put(Item(uid or new_uid(), exchange), lambda result: acknowledge(result.done))

    def put(self, item: Item, answer: Answer) -> None:
        if item.question is not None:
            self.asked.append(item.question.name)
        if not self.silent:
            answer(*self.sink.write([item]))

    def backlog(self) -> Any:
        raise NotImplementedError

    def close(self, timeout: float = 30) -> None:
        self.sink.close()

    def _work(self, handed: Any) -> None:
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _idle(self) -> float:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError


class Shim:
    """A ledger, and what passes before it."""

    def __init__(self, folder: Path, rules: str, *, in_memory: bool = True) -> None:
        self.rewriter = Rewriter(Rules.parse(rules.encode()), Vocabulary.default(), 1 << 20)
        self.recording: BaseRecording
        self.ledger: FolderLedger | Ledger
        if in_memory:
            self.recording = AtOnce(folder)
            self.lock = FolderLock(folder)
            self.ledger = FolderLedger(self.recording, self.lock)
        else:
            recording = Recording(folder, projection=PhoneProjection())
            self.recording, self.ledger = recording, Ledger(recording, recording.store)

    def check(self, phone: int, at: datetime, version: str = STUCK, *, failed: bool = False) -> Check:
        body = check_body(version, f"0004F20{phone:05X}")
        if failed:
            body = body.replace(b"<Modules>", STATUS + b"<Modules>")
        return Check(self.rewriter, (body, (), f"10.0.0.{phone}"), at, "", None, None)

    async def ask(self, phone: int, at: datetime = NOW, uid: str = "", **said: Any) -> Checked:
        return await self.ledger.decide(uid or new_uid(), self.check(phone, at, **said))

    async def pass_check(self, phone: int, at: datetime, *, offered: bool = True, **said: Any) -> str:
        """A check and its exchange; what was decided."""
        uid = new_uid()
        checked = await self.ask(phone, at, uid, **said)
        acts = Check.may_act(checked)
        offers = [{"empty": False, "offered_version": INTERIM}] if acts and offered else []
        facts: list[Fact] = [*checked.body.facts, {"fact": "update-answer", "offers": offers}]
        answer = Response(200, body=Body.of(answer_body()))
        given = replace(answer, body=Body.of(answer_body("http://server/", INTERIM))) if acts and offered else None
        exchange = Exchange("live", 0, f"10.0.0.{phone}:1037", "s:80", at, at, Request("POST", CHECK_TARGET), answer)
        exchange = replace(exchange, rewritten_response=given, facts=tuple(facts))
        self.ledger.ended(None, exchange)
        self.add(exchange, uid)
        return checked.decision.reason if checked.decision.action == "hold" else checked.decision.action

    def fetch(self, phone: int, at: datetime, file: str, *, whole: bool = True) -> None:
        uid, target = new_uid(), FIRMWARE + file
        identity = self.ledger.fetching(uid, "GET", target, f"10.0.0.{phone}", at)
        exchange = Exchange(
            "live", 0, f"10.0.0.{phone}:1037", "s:80", at, at, Request("GET", target), Response(200), complete=whole,
            facts=({"fact": "firmware-fetch"},),
        )  # fmt: skip
        self.ledger.ended(identity, exchange)
        self.add(exchange, uid)

    def add(self, exchange: Exchange, uid: str) -> None:
        done = threading.Event()
        self.recording.add(exchange, lambda _recorded: done.set(), uid)
        assert done.wait(60)

    def close(self) -> None:
        self.ledger.close()
        self.recording.close()


@contextmanager
def shim_at(folder: Path, limits: str = "", *, in_memory: bool = True) -> Iterator[Shim]:
    with closing(Shim(folder, OFFER_NEXT + limits, in_memory=in_memory)) as shim:
        yield shim


def acts(checked: Checked) -> bool:
    return Check.may_act(checked)


@pytest.mark.parametrize(
    ("limit", "phones", "given_to", "later"),
    [
        ("per_phone_per_day = 2", [1, 2, 1, 2, 1, 2], {1: 2, 2: 2}, []),
        ("concurrent_downloads = 2", [1, 2, 3, 4], {1: 1, 2: 1}, [1, 2]),  # each in the place it holds already
        ("fleet_undecided = 3", [1, 2, 3, 4], {1: 1, 2: 1, 3: 1}, []),
    ],
)
def test_limits_hold_for_checks_at_the_same_moment_and_over_a_kill(
    tmp_path: Path, limit: str, phones: list[int], given_to: dict[int, int], later: list[int]
) -> None:
    async def run(shim: Shim) -> Counter[int]:
        decided = await asyncio.gather(*map(shim.ask, phones))
        return Counter(phone for phone, checked in zip(phones, decided, strict=True) if acts(checked))

    with shim_at(tmp_path, f"limits.{limit}\n") as shim:
        assert asyncio.run(run(shim)) == given_to
    # None of these exchanges was ever recorded: what was promised counts as made.
    with shim_at(tmp_path, f"limits.{limit}\n") as shim:
        assert sorted(asyncio.run(run(shim))) == later


def test_a_phone_is_read_once_and_the_fleet_at_the_start(tmp_path: Path) -> None:
    async def run(shim: Shim) -> None:
        for number in range(3):
            await shim.pass_check(1, NOW + number * SECOND)
        await shim.pass_check(2, NOW)

    with shim_at(tmp_path) as shim:
        asyncio.run(run(shim))
        assert isinstance(shim.recording, AtOnce)
        assert shim.recording.asked == ["fleet", "phone", "phone"]


def test_what_cannot_be_reserved_is_not_done_and_uses_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_ledger, "DECIDE_WITHIN", 0.05)

    async def run(shim: Shim) -> None:
        recording = shim.recording
        assert isinstance(recording, AtOnce)
        await shim.pass_check(1, NOW, offered=False)
        recording.silent = True
        late = await shim.ask(1, NOW + SECOND)
        assert "did not answer within" in late.decision.reason
        recording.silent = False
        monkeypatch.setattr(recording, "reserve", lambda _uid, _what, answer: answer(Result(False, "the disk is full")))
        refused = await shim.ask(1, NOW + 2 * SECOND)
        assert refused.decision.reason == "known_history: the history of the phones is not known: the disk is full"
        assert not acts(shim.ledger.decide_now(new_uid(), shim.check(1, NOW + 3 * SECOND)))
        monkeypatch.undo()
        assert acts(await shim.ask(1, NOW + 4 * SECOND))
        assert not acts(await shim.ask(1, NOW + 5 * SECOND))

    with shim_at(tmp_path, "limits.per_phone_per_day = 1\nlimits.concurrent_downloads = 1\n") as shim:
        asyncio.run(run(shim))


def test_where_nothing_can_be_awaited_it_decides_too_once_the_fleet_is_read(tmp_path: Path) -> None:
    async def run(shim: Shim) -> None:
        assert not acts(shim.ledger.decide_now(new_uid(), shim.check(1, NOW)))
        await shim.ledger.look()
        assert acts(shim.ledger.decide_now(new_uid(), shim.check(1, NOW)))
        assert not acts(shim.ledger.decide_now(new_uid(), shim.check(1, NOW + SECOND)))

    with shim_at(tmp_path, "limits.per_phone_per_day = 1\n") as shim:
        asyncio.run(run(shim))


def test_two_processes_at_one_folder_keep_the_limits_together_and_the_last_is_alone_again(tmp_path: Path) -> None:
    async def run(one: Shim) -> None:
        assert acts(await one.ask(1))
        with shim_at(tmp_path, limits) as two:
            held = await two.ask(1, NOW + SECOND)
            assert "has not made room yet" in held.decision.reason
            await one.ledger.look()
            assert not one.lock.alone
            assert acts(await two.ask(1, NOW + 2 * SECOND))
            assert not acts(await one.ask(1, NOW + 3 * SECOND)), "both count what the other has promised"
            assert acts(await one.ask(2, NOW + 3 * SECOND))
            assert not acts(two.ledger.decide_now(new_uid(), two.check(1, NOW + 4 * SECOND)))
        await one.ledger.look()
        assert one.lock.alone
        assert not acts(await one.ask(1, NOW + 5 * SECOND))
        assert acts(await one.ask(2, NOW + 5 * SECOND))
        assert acts(await one.ask(1, NOW + DAY + 3 * SECOND))

    limits = "limits.per_phone_per_day = 2\n"
    with shim_at(tmp_path, limits) as shim:
        asyncio.run(run(shim))


def test_a_history_that_does_not_tell_of_all_exchanges_is_not_decided_by(tmp_path: Path) -> None:
    with shim_at(tmp_path) as shim:
        assert isinstance(shim.recording, AtOnce)
        exchange = Exchange("live", 0, "10.0.0.1:1", "s:80", NOW, NOW, Request("GET", "/"))
        shim.recording.sink.store.add([exchange])  # by whoever does not keep the history
        held = asyncio.run(shim.ask(1))
        assert "still being read from the recording" in held.decision.reason


def test_phones_nothing_is_under_way_with_are_forgotten_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy_addons.sole_history.MOST_REMEMBERED", 2)
    assert MOST_REMEMBERED > 1000

    async def run(shim: Shim) -> None:
        await shim.pass_check(1, NOW)
        for phone in range(2, 6):
            await shim.pass_check(phone, NOW, offered=False)
        histories = shim.ledger.histories
        assert histories is not None
        histories.forget_surplus()  # type: ignore[attr-defined]
        known = {phone.identity[-2:] for phone in histories}
        assert known == {"01", "05"}, "one is on its way, one was heard of last"
        assert not acts(await shim.ask(1, NOW + SECOND))
        assert acts(await shim.ask(3, NOW + SECOND))

    with shim_at(tmp_path, "limits.per_phone_per_day = 1\n") as shim:
        asyncio.run(run(shim))


STEPS = st.lists(
    st.tuples(
        st.integers(1, 4),  # which phone
        st.sampled_from(["check", "check", "check", "catalog", "image", "half an image"]),
        st.sampled_from([STUCK, STUCK, STUCK, INTERIM]),
        st.booleans(),  # whether it tells of a failure
        st.booleans(),  # whether it gets the offer
        st.sampled_from([SECOND, timedelta(minutes=2), timedelta(minutes=20), timedelta(hours=7), DAY]),
        st.integers(0, 6),  # whether the process ends before it
    ),
    max_size=14,
)
LIMITS = """
limits.per_phone_per_day = 2
limits.concurrent_downloads = 2
limits.fleet_undecided = 3
limits.fleet_failure_rate = 0.5
limits.fleet_window = "14d"
limits.fleet_minimum = 2
"""


@given(STEPS)
@settings(max_examples=30, deadline=None)
def test_what_is_decided_in_memory_is_what_is_decided_within_the_database(steps: list[Any]) -> None:
    async def life(folder: Path, *, in_memory: bool) -> list[str]:
        decided, now = [], NOW
        shim = Shim(folder, OFFER_NEXT + LIMITS, in_memory=in_memory)
        for phone, what, version, failed, offered, later, ends in steps:
            now += later
            if not ends:
                shim.close()
                shim = Shim(folder, OFFER_NEXT + LIMITS, in_memory=in_memory)
            if what == "check":
                decided.append(await shim.pass_check(phone, now, offered=offered, version=version, failed=failed))
            else:
                shim.fetch(phone, now, "CPE.cat" if what == "catalog" else "CPE.nbt", whole=what != "half an image")
        shim.close()
        return decided

    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        assert asyncio.run(life(Path(one), in_memory=True)) == asyncio.run(life(Path(two), in_memory=False))


def test_reservations_are_what_the_writer_is_told(tmp_path: Path) -> None:
    reserved: list[Reservation] = []

    async def run(shim: Shim) -> None:
        reserve = shim.recording.reserve

        def listening(uid: str, what: Reservation, answer: Answer) -> None:
            reserved.append(what)
            reserve(uid, what, answer)

        shim.recording.reserve = listening  # type: ignore[method-assign,assignment]
        await shim.pass_check(1, NOW)
        shim.rewriter = Rewriter(shim.rewriter.rules, shim.rewriter.vocabulary, 1 << 20, dry_run=True)
        await shim.pass_check(2, NOW, offered=False)
        census = await asyncio.to_thread(lambda: shim.ledger.histories and shim.ledger.histories.census.counts())
        assert census == {("offered", STUCK): 1, ("eligible", STUCK): 1}
        assert isinstance(shim.recording, AtOnce)
        assert shim.recording.asked[-1] == Question("census").name

    with shim_at(tmp_path) as shim:
        asyncio.run(run(shim))
    assert [(one.identity, one.rule, one.path) for one in reserved] == [("mac:00:04:f2:00:00:01", "stuck", "cx700")]
