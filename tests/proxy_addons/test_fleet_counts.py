"""The counts against the plain way of counting: looking at everything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from proxy_addons import fleet_counts
from proxy_addons.fleet_counts import Outcomes, Places, Undecided
from proxy_addons.rules import MAX_OUTCOMES_KEPT

START = datetime(2026, 1, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans())), st.integers(1, 60))
def test_outcomes_within_a_span(told: list[tuple[int, bool]], span: int) -> None:
    outcomes = Outcomes()
    kept: list[tuple[int, bool]] = []
    for at, worked in told:
        outcomes.add(START + at * SECOND, worked=worked)
        kept.append((max(at, kept[-1][0]) if kept else at, worked))
    within = [worked for at, worked in kept if at > 50 - span]
    assert outcomes.within(START + 50 * SECOND, span * SECOND) == (within.count(False), len(within))


def test_the_newest_outcomes_count() -> None:
    outcomes = Outcomes()
    for number in range(5 * MAX_OUTCOMES_KEPT):
        outcomes.add(START + number * SECOND, worked=number % 4 != 0)
    assert outcomes.within(START + 9 * MAX_OUTCOMES_KEPT * SECOND, timedelta(days=9)) == (
        MAX_OUTCOMES_KEPT // 4,
        MAX_OUTCOMES_KEPT,
    )


Deed = tuple[str, str, str, int]
DEEDS = st.lists(
    st.tuples(
        st.sampled_from(["take", "begin", "end", "leave", "count"]), st.sampled_from("abc"), st.sampled_from("RS"),
        st.integers(0, 5),
    )
)  # fmt: skip


@given(DEEDS)
def test_places(deeds: list[Deed]) -> None:
    with mock.patch.object(fleet_counts, "FEW", 0):  # so that the ends are made anew often
        check_places(deeds)


def check_places(deeds: list[Deed]) -> None:
    places = Places()
    model: dict[str, list[object]] = {}  # identity -> rule, until, active
    now = 0
    for deed, who, rule, seconds in deeds:
        now += seconds
        if deed == "take":
            model = {name: held for name, held in model.items() if held[2] or held[1] > now}  # type: ignore[operator]
            model[who] = [rule, now + 10, model[who][2] if who in model else 0]
            places.take(who, rule, START + (now + 10) * SECOND, START + now * SECOND)
        elif deed == "begin":
            model = {name: held for name, held in model.items() if held[2] or held[1] > now}  # type: ignore[operator]
            if who in model:
                model[who][2] += 1  # type: ignore[operator]
            places.begin(who, START + now * SECOND)
        elif deed == "end":
            if who in model:
                model[who][1:] = [now + 3, max(0, model[who][2] - 1)]  # type: ignore[operator]
            places.end(who, START + (now + 3) * SECOND)
        elif deed == "leave":
            if who in model and not model[who][2]:
                del model[who]
            places.leave(who)
        else:
            model = {name: held for name, held in model.items() if held[2] or held[1] > now}  # type: ignore[operator]
            wanted = sum(held[0] == rule for name, held in model.items() if name != who)
            assert places.count(rule, START + now * SECOND, who) == wanted


def test_ends_of_places_that_were_left_are_not_kept() -> None:
    places = Places()
    for number in range(1000):
        places.take("a", "R", START + timedelta(minutes=15, seconds=number), START + number * SECOND)
        places.leave("a")
    assert len(places._ends) <= 2 * fleet_counts.FEW


def test_undecided_since_the_first_time() -> None:
    undecided = Undecided()
    for at, identity in ((0, "a"), (1, "b"), (5, "a"), (6, "c")):
        undecided.add(identity, START + at * SECOND)
    assert undecided.count(START - SECOND) == 3
    undecided.drop("c")
    undecided.drop("never seen")
    assert undecided.count(START) == 1
    assert undecided.count(START - SECOND) == 1  # what was forgotten stays so
