"""Limits hold whoever decides at the same time, and whatever becomes of the database."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from captures.base_recording import new_uid
from captures.database_url import Place
from captures.exchange import Body, Exchange, Fact, Request, Response
from captures.recording import Recording
from captures.schema import PHONES, RESERVATIONS
from dissectors.version import Version
from dissectors.vocabulary import Vocabulary
from proxy_addons import ledger as ledger_module
from proxy_addons.check import Check
from proxy_addons.history import DAY, OFFER_LEASE
from proxy_addons.ledger import WORKERS, Deciding, Ledger
from proxy_addons.rewriter import Checked, Rewriter
from proxy_addons.rules import Rules
from proxy_addons.stored_history import FETCH_LEASE, PhoneProjection, prune
from tests.bodies import CHECK_TARGET, INTERIM, OFFER_NEXT, answer_body, check_body
from tests.captures.test_recording import Acknowledged

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FIRMWARE = f"/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/{INTERIM}/CPE/CPE.nbt"


class Shim:
    """What a shim has of all this: a recording and a ledger."""

    def __init__(self, place: Place, rules: str, state: Path) -> None:
        self.recording = Recording(place, projection=PhoneProjection(), state=state)
        self.ledger = Ledger(self.recording, self.recording.store)
        self.rewriter = Rewriter(Rules.parse(rules.encode()), Vocabulary.default(), 1 << 20)

    def check(self, phone: int, at: datetime = NOW, version: str = "1.0.522.73") -> Check:
        mac = f"0004F20{phone:05X}"
        return Check(
            self.rewriter, (check_body(version, mac), (), f"10.0.{phone >> 8}.{phone & 255}"), at, "", None, None
        )

    async def decide(self, phone: int, at: datetime = NOW, uid: str | None = None) -> Checked:
        check = self.check(phone, at)
        assert check.may_act(check.now())
        return await self.ledger.decide(uid or new_uid(), check)

    def ask(self, phone: int, at: datetime = NOW, uid: str | None = None) -> Checked:
        return asyncio.run(self.decide(phone, at, uid))

    def record(self, phone: int, checked: Checked, uid: str, *, offered: bool, at: datetime = NOW) -> None:
        """The exchange of a check that was decided, and what came of it."""
        facts: list[Fact] = list(checked.body.facts)
        offers = [{"empty": False, "offered_version": INTERIM}] if offered else []
        facts.append({"fact": "update-answer", "offers": offers})
        client = f"10.0.{phone >> 8}.{phone & 255}:1037"
        answer = Response(200, body=Body.of(answer_body()))
        given = replace(answer, body=Body.of(answer_body("http://server/", INTERIM))) if offered else None
        exchange = Exchange("live", 0, client, "s:80", at, at, Request("POST", CHECK_TARGET), answer)
        exchange = replace(exchange, rewritten_response=given, facts=tuple(facts))
        self.add(exchange, uid)

    def add(self, exchange: Exchange, uid: str) -> None:
        done = Acknowledged()
        self.recording.add(exchange, done, uid)
        assert done.wait()

    def close(self) -> None:
        self.ledger.close()
        self.recording.close()


@contextmanager
def shims(place: Place, rules: str, state: Path, number: int = 2) -> Iterator[list[Shim]]:
    with ExitStack() as stack:
        found = []
        for one in range(number):
            found.append(Shim(place, rules, state / str(one)))
            stack.callback(found[-1].close)
        yield found


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about counts; a loaded machine may take its time."""
    monkeypatch.setattr(ledger_module, "DECIDE_WITHIN", 60.0)


def acts(checked: Checked) -> bool:
    return Check.may_act(checked)


def all_at_once(shims: list[Shim], phones: list[int]) -> list[tuple[int, Checked]]:
    """Every shim is asked about every phone at the same moment, each from an event loop of its own."""
    together = threading.Barrier(len(shims))
    decided: list[tuple[int, Checked]] = []

    def ask(shim: Shim) -> None:
        async def run() -> None:
            together.wait()
            answers = await asyncio.gather(*(shim.decide(phone) for phone in phones))
            decided.extend(zip(phones, answers, strict=True))

        asyncio.run(run())

    threads = [threading.Thread(target=ask, args=(shim,)) for shim in shims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return decided


def test_two_shims_together_never_give_a_phone_more_than_its_limit(place: Place, tmp_path: Path) -> None:
    with shims(place, OFFER_NEXT + "limits.per_phone_per_day = 2\n", tmp_path) as both:
        decided = all_at_once(both, [1, 2, 3, 1, 2, 3, 1, 2, 3])
    given = Counter(phone for phone, checked in decided if acts(checked))
    assert given == {1: 2, 2: 2, 3: 2}
    reasons = {checked.decision.reason for _, checked in decided if not acts(checked)}
    assert all(reason.startswith("daily_limit: ") for reason in reasons), reasons


@pytest.mark.parametrize(
    ("limit", "holds"),
    [("concurrent_downloads = 4", "concurrent_downloads"), ("fleet_undecided = 4", "undecided_attempts")],
)
def test_nor_the_fleet(place: Place, tmp_path: Path, limit: str, holds: str) -> None:
    with shims(place, f"{OFFER_NEXT}limits.{limit}\n", tmp_path) as both:
        decided = all_at_once(both, list(range(12)))
        phones = {phone for phone, checked in decided if acts(checked)}
        assert len(phones) == 4
        assert {checked.decision.reason.partition(":")[0] for _, checked in decided if not acts(checked)} == {holds}
        # What they were given is recorded by one shim, and both still count it.
        for shim in both:
            assert not acts(shim.ask(99))


def test_an_offer_is_counted_once_whether_it_is_recorded_or_not(place: Place, tmp_path: Path) -> None:
    with shims(place, OFFER_NEXT + "limits.per_phone_per_day = 3\n", tmp_path) as (one, two):
        kept = new_uid()
        made = one.ask(1, uid=kept)
        assert acts(made)
        two.record(1, made, kept, offered=True)
        assert reserved(one) == 0
        assert acts(two.ask(1, NOW + SECOND)), "one shim is killed before it has recorded this"
        nothing = new_uid()
        came_to_nothing = one.ask(1, NOW + 2 * SECOND, nothing)
        assert acts(came_to_nothing)
        assert not acts(two.ask(1, NOW + 3 * SECOND))
        one.record(1, came_to_nothing, nothing, offered=False, at=NOW + 3 * SECOND)
        assert acts(two.ask(1, NOW + 4 * SECOND))
        assert reserved(one) == 2
        assert not acts(one.ask(1, NOW + 5 * SECOND))
        # What nobody ever told the end of counts for a day.
        assert acts(one.ask(1, NOW + DAY + 2 * SECOND))


def reserved(shim: Shim) -> int:
    with shim.recording.store.engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(RESERVATIONS)).scalar_one())


def test_a_place_is_held_while_a_file_is_fetched_and_no_longer(place: Place, tmp_path: Path) -> None:
    with shims(place, OFFER_NEXT + "limits.concurrent_downloads = 1\n", tmp_path) as (one, two):
        uid, file = new_uid(), new_uid()
        one.record(1, one.ask(1, uid=uid), uid, offered=True)
        one.ledger.fetching(file, "GET", FIRMWARE, "10.0.0.1", NOW + SECOND)
        late = NOW + OFFER_LEASE + SECOND
        one.record(3, one.check(3).unknown("it only asks"), new_uid(), offered=False)  # so the beginning is in
        assert not acts(two.ask(2, late)), "it is still being fetched, by way of the other shim"
        ended = Exchange("live", 0, "10.0.0.1:1037", "s:80", NOW, late, Request("GET", FIRMWARE), Response(200))
        fact = {"fact": "firmware-fetch"}
        one.add(ended.with_facts((fact,)), file)
        assert not acts(two.ask(2, late + SECOND)), "there may be another file"
        assert acts(two.ask(2, late + timedelta(minutes=1)))


def test_a_place_whose_shim_is_gone_comes_free_again(place: Place, tmp_path: Path) -> None:
    with shims(place, OFFER_NEXT + "limits.concurrent_downloads = 1\n", tmp_path) as (one, two):
        assert acts(one.ask(1))  # and is killed
        assert not acts(two.ask(2, NOW + OFFER_LEASE - SECOND))
        at = NOW + OFFER_LEASE
        uid = new_uid()
        two.record(2, two.ask(2, at, uid), uid, offered=True, at=at)
        two.ledger.fetching(new_uid(), "GET", FIRMWARE, "10.0.0.2", at + SECOND)  # and is killed, too
        one.record(3, one.check(3).unknown("it only asks"), new_uid(), offered=False)
        two.record(3, two.check(3).unknown("it only asks"), new_uid(), offered=False)
        assert not acts(one.ask(1, at + FETCH_LEASE - SECOND))
        two.record(2, two.check(2, at).unknown("it only asks"), new_uid(), offered=False, at=at + 2 * OFFER_LEASE)
        assert acts(one.ask(1, at + 3 * OFFER_LEASE)), "a phone that asks again fetches no longer"


def test_a_failure_another_shim_was_told_of_opens_the_breaker(place: Place, tmp_path: Path) -> None:
    limits = "limits.fleet_failure_rate = 0.5\nlimits.fleet_minimum = 1\n"
    with shims(place, OFFER_NEXT + limits, tmp_path) as (one, two):
        uid = new_uid()
        one.record(1, one.ask(1, uid=uid), uid, offered=True)
        failed = check_body(mac="0004F2000001").replace(
            b"<Modules>", b"<LastUpdateStatus>0x80072ee2;0</LastUpdateStatus><Modules>"
        )
        check = Check(one.rewriter, (failed, (), "10.0.0.1"), NOW + SECOND, "", None, None)
        told = asyncio.run(one.ledger.decide(new_uid(), check))
        assert told.decision.reason.startswith("failed_waypoint: ")
        held = two.ask(2, NOW + 2 * SECOND)  # although the exchange of that check is not recorded yet
        assert held.decision.reason.startswith("fleet_breaker: "), held.decision.reason


def test_an_answer_that_comes_too_late_offers_nothing_and_uses_up_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shims(place, OFFER_NEXT + "limits.per_phone_per_day = 1\n", tmp_path, 1) as (shim,):
        shim.ask(2)
        go_on, at_work = threading.Event(), threading.Event()
        reserve = Deciding.reserve

        def slow(*args: Any) -> None:
            reserve(*args)
            at_work.set()
            assert go_on.wait(60)

        with monkeypatch.context() as patched:
            patched.setattr(Deciding, "reserve", slow)
            patched.setattr(ledger_module, "DECIDE_WITHIN", 0.05)
            late = shim.ask(1)
            assert at_work.wait(60)
            go_on.set()
        assert "did not answer within" in late.decision.reason
        assert acts(shim.ask(1)), "the late one was rolled back"


def test_a_decision_that_is_given_up_offers_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's ledger is closed as soon as its process is alone with it; what waits is answered all the same."""
    with shims(place, OFFER_NEXT, tmp_path, 1) as (shim,):
        go_on, at_work = threading.Event(), threading.Event()
        reserve = Deciding.reserve

        def slow(*args: Any) -> None:
            at_work.set()
            assert go_on.wait(60)
            reserve(*args)

        async def run() -> list[Checked]:
            asked = [asyncio.ensure_future(shim.decide(phone)) for phone in range(WORKERS + 2)]
            while not at_work.is_set():
                await asyncio.sleep(0.01)
            shim.ledger.close()
            go_on.set()
            return await asyncio.gather(*asked)

        monkeypatch.setattr(Deciding, "reserve", slow)
        given_up = [one for one in asyncio.run(run()) if "was given up" in one.decision.reason]
        assert given_up
        assert all(one.decision.action == "hold" for one in given_up)


def test_a_database_that_fails_offers_nothing(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise sa.exc.OperationalError("", None, Exception("the disk is gone"))

    with shims(place, OFFER_NEXT, tmp_path, 1) as (shim,), monkeypatch.context() as patched:
        patched.setattr(Deciding, "reserve", broken)
        held = shim.ask(1)
        assert held.decision.action == "hold"
        assert held.decision.reason == "known_history: the history of the phones is not known: the disk is gone"


def test_where_nothing_can_be_awaited_only_a_database_of_this_machine_is_asked(place: Place, tmp_path: Path) -> None:
    with shims(place, OFFER_NEXT, tmp_path, 1) as (shim,):
        found = shim.ledger.decide_now(new_uid(), shim.check(1))
        assert acts(found) is isinstance(place, Path)


def test_a_dry_run_uses_up_nothing(place: Place, tmp_path: Path) -> None:
    with shims(place, OFFER_NEXT + "limits.per_phone_per_day = 1\n", tmp_path, 1) as (shim,):
        shim.rewriter = Rewriter(shim.rewriter.rules, shim.rewriter.vocabulary, 1 << 20, dry_run=True)
        assert acts(shim.ask(1))
        assert acts(shim.ask(1))
        assert reserved(shim) == 0


def test_what_is_long_ago_or_too_much_is_removed(place: Place, tmp_path: Path) -> None:
    with shims(place, OFFER_NEXT, tmp_path, 1) as (shim,):
        for number, days in enumerate((0, 40, 41, 42, 43)):
            at = NOW + timedelta(days=days)
            shim.record(number, shim.check(number).unknown("it only asks"), new_uid(), offered=False, at=at)
        assert acts(shim.ask(9))
        with shim.recording.store.engine.begin() as connection:
            prune(connection, 3)
            left = sorted(connection.execute(sa.select(PHONES.c.identity)).scalars())
        assert left == [f"mac:00:04:f2:00:00:0{number}" for number in (2, 3, 4)]
        assert reserved(shim) == 0
        assert shim.ledger.histories.get(left[0]).version == Version(1, 0, 522, 73)


def test_phones_of_the_future_cost_the_others_nothing(place: Place, tmp_path: Path) -> None:
    with shims(place, OFFER_NEXT, tmp_path, 1) as (shim,):
        for number, days in enumerate((0, 1, 2, 365)):
            at = NOW + timedelta(days=days)
            shim.record(number, shim.check(number).unknown("it only asks"), new_uid(), offered=False, at=at)
        with shim.recording.store.engine.begin() as connection:
            prune(connection)
            assert len(list(connection.execute(sa.select(PHONES.c.identity)).scalars())) == 4
