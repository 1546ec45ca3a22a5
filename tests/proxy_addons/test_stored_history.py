"""The history in a database is, after every batch, the one that is built from the exchanges in memory."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captures.database_url import Place
from captures.exchange import Body, Exchange, Fact, Request, Response
from captures.facts import facts_of
from captures.schema import METADATA, OUTCOMES, PHONES, STATE, VERSION
from captures.store import Store
from proxy_addons.history import DAY, Histories
from proxy_addons.history_rows import from_row, to_row
from proxy_addons.ledger import StoredHistories
from proxy_addons.phone_events import rebuild
from proxy_addons.stored_history import PhoneProjection

START = datetime(2026, 11, 23, 9, tzinfo=UTC)
MACS = ("00:04:f2:00:00:01", "00:04:f2:00:00:01", "00:04:f2:00:00:02", None)
STEPS = (timedelta(seconds=1), timedelta(seconds=2), timedelta(minutes=10), timedelta(hours=7))
ADDRESSES = ("10.0.0.1", "10.0.0.2")
VERSIONS = ("1.0.522.73", "1.0.522.103", "3.5.6907.222")
FOLDER = "/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU"


def check(draw: st.DrawFn) -> tuple[Request, Response | None, list[Fact]]:
    status = draw(st.sampled_from([None, "0x0;200", "0x80072ee2;0"]))
    facts: list[Fact] = [
        {
            "fact": "update-check",
            "mac_address": draw(st.sampled_from(MACS)),
            "serial": draw(st.sampled_from([None, "07823\0A\ud800"])),
            "modules": [{"version": draw(st.sampled_from(VERSIONS))}],
            "update_status": status and {"text": status},
        }
    ]
    if draw(st.integers(0, 3)):
        action = draw(st.sampled_from(["report", "offer", "hold"]))
        acts = action in {"report", "offer"}
        facts.append(
            {
                "fact": "decision",
                "action": action,
                "rule": "stuck" if acts else None,
                "path": draw(st.sampled_from(["cx700", "other"])) if acts else None,
                "version": draw(st.sampled_from(VERSIONS)) if acts else None,
                "dry_run": draw(st.integers(0, 5)) == 5,
            }
        )
    if draw(st.integers(0, 3)):
        offers = [{"empty": False, "offered_version": draw(st.sampled_from(VERSIONS))}] * draw(
            st.sampled_from([0, 1, 1])
        )
        facts.append({"fact": "update-answer", "offers": offers})
    return Request("POST", "/RequestHandler/ucdevice.upx"), Response(200), facts


def fetch(draw: st.DrawFn) -> tuple[Request, Response | None, list[Fact]]:
    file = draw(st.sampled_from(["CPE.nbt", "CPE.cat"]))
    target = f"{FOLDER}/{draw(st.sampled_from(VERSIONS))}/CPE/{file}"
    return Request("GET", target), draw(st.sampled_from([None, Response(200), Response(404)])), []


@st.composite
def lives(draw: st.DrawFn) -> list[list[Exchange]]:
    """Batches of exchanges as they are recorded, in the order they ended."""
    now, batches = START, []
    for size in draw(st.lists(st.integers(1, 4), min_size=1, max_size=5)):
        batch = []
        for _ in range(size):
            request, response, facts = draw(st.sampled_from([check, check, fetch]))(draw)
            began, now = now, now + draw(st.sampled_from(STEPS))
            client = f"{draw(st.sampled_from(ADDRESSES))}:5000"
            exchange = Exchange("", 0, client, "10.9.9.9:80", began, now, request, response)
            if draw(st.integers(0, 3)):  # what was decided was done
                other = Body.of(b"rewritten")
                exchange = replace(
                    exchange,
                    rewritten_request=replace(request, body=other),
                    rewritten_response=response and replace(response, body=other),
                )
            batch.append(exchange.with_facts((*facts, *(() if facts else facts_of(exchange)))))
        batches.append(batch)
    return batches


def contents(store: Store) -> tuple[dict[str, Any], set[tuple[Any, ...]]]:
    with store.engine.connect() as connection:
        phones = {row.identity: row.history for row in connection.execute(sa.select(PHONES))}
        outcomes = {(row.path, row.at, row.worked) for row in connection.execute(sa.select(OUTCOMES))}
    return phones, outcomes


class Remembering(Histories):
    """Keeps what the database keeps of the fleet, for the comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: set[tuple[Any, ...]] = set()

    def _outcome(self, path: str, now: datetime, *, worked: bool, identity: str = "") -> None:
        super()._outcome(path, now, worked=worked, identity=identity)
        if path:
            self.ended.add((path, (now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1), worked))


@given(lives())
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_what_is_kept_is_what_is_built_again(place: Place, batches: list[list[Exchange]]) -> None:
    projection = PhoneProjection()
    with closing(Store.create(place)) as store:
        with store.engine.begin() as connection:
            for table in reversed(METADATA.sorted_tables):
                if sa.inspect(connection).has_table(table.name):
                    rows = table.delete()
                    connection.execute(rows if table is not STATE else rows.where(STATE.c.name != VERSION))
        # Now and then by somebody who does not keep the history, for whom it is made up.
        for number, batch in enumerate(batches):
            store.add(
                batch,
                [f"{number}/{position}" for position in range(len(batch))],
                None if number % 3 == 1 else projection,
            )
            while store.fold_rest(projection):
                pass
            so_far = Histories()
            rebuild(so_far, (exchange for one in batches[: number + 1] for exchange in one))
            assert StoredHistories(store.engine).downloading("stuck", batch[-1].ended) == so_far.downloading(
                "stuck", batch[-1].ended
            )
        assert store.folded
        rebuilt = Remembering()
        rebuild(rebuilt, (exchange for batch in batches for exchange in batch))
        phones, outcomes = contents(store)
        assert phones == {phone.identity: to_row(phone) for phone in rebuilt}
        assert {identity: from_row(identity, row) for identity, row in phones.items()} == {
            phone.identity: clean(phone) for phone in rebuilt
        }
        assert outcomes == rebuilt.ended
        now = batches[-1][-1].ended
        stored = StoredHistories(store.engine)
        assert stored.census.counts() == rebuilt.census.counts()
        assert len(stored) == len(rebuilt)
        for path in ("cx700", "other"):
            assert stored.undecided(path, now) == rebuilt.undecided(path, now)
            assert stored.outcomes(path, now, DAY)[1] == len(
                {one for one in rebuilt.ended if one[0] == path and recent(one[1], now)}
            )


def test_facts_nobody_understands_cost_neither_the_record_nor_other_phones(place: Place) -> None:
    faults: list[Exception] = []
    good: Fact = {"fact": "update-check", "mac_address": MACS[0], "serial": None, "modules": []}
    with closing(Store.create(place)) as store:
        exchange = Exchange("", 0, "10.0.0.1:5000", "s:80", START, START, Request("POST", "/"))
        bad = exchange.with_facts(({**good, "modules": 7, "mac_address": MACS[2]},))
        older = exchange.with_facts(({"fact": "update-check", "mac_address": MACS[1]},))
        store.add([bad, older, exchange.with_facts((good,))], projection=PhoneProjection(faults.append))
        assert len(list(store.exchanges())) == 3
        assert StoredHistories(store.engine).get(f"mac:{MACS[0]}").checks == 1
    assert [type(fault) for fault in faults] == [TypeError, KeyError]


def recent(at: int, now: datetime) -> bool:
    return at > (now - DAY - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def clean(phone: Any) -> Any:
    phone.counted = None
    return phone
