from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from proxy_addons.conditions import Rollout, Window, place

CENTRAL_EUROPE = timezone(timedelta(hours=1))
# printf "rule\0mac:00:04:f2:00:01:76" | sha256sum | cut -c-16
PLACE = int("35d7aa10999e8464", 16) / 2**64 * 100


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 1, 5, hour, minute, tzinfo=CENTRAL_EUROPE)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("22:00-05:00", [at(22), at(23, 59), at(0), at(4, 59)], [at(21, 59), at(5), at(12)]),
        ("9:00-17:30", [at(9), at(17, 29)], [at(8, 59), at(17, 30), at(0)]),
        ("21:00-04:00 UTC", [at(22), at(4, 59)], [at(21, 59), at(5)]),
        ("20:00-24:00", [at(20), at(23, 59)], [at(0), at(19, 59)]),
    ],
)
def test_a_window_of_time(text: str, inside: list[datetime], outside: list[datetime]) -> None:
    window = Window.parse(text)
    assert [moment in window for moment in inside] == [True] * len(inside)
    assert [moment in window for moment in outside] == [False] * len(outside)
    assert Window.parse(str(window).removesuffix(" local time")) == window


@pytest.mark.parametrize(
    "text", ["", "22:00", "25:00-05:00", "22:60-05:00", "22:00-22:00", "22:00-05:00 CET", "1:00-24:30"]
)
def test_no_window(text: str) -> None:
    with pytest.raises(DissectError):
        Window.parse(text)


def test_a_window_needs_no_particular_zone() -> None:
    assert datetime(2026, 1, 5, 23, tzinfo=UTC) in Window.parse("22:00-05:00")
    assert datetime(2026, 1, 5, 23, tzinfo=UTC).astimezone(CENTRAL_EUROPE) not in Window.parse("22:00-23:30")


IDENTITIES = [f"mac:00:04:f2:00:{number >> 8:02x}:{number & 255:02x}" for number in range(5000)]


@given(st.floats(0, 100), st.floats(0, 100), st.sampled_from(IDENTITIES))
def test_a_higher_percentage_drops_nobody(one: float, other: float, identity: str) -> None:
    low, high = sorted((one, other))
    if Rollout(percentage=low).reaches("rule", identity):
        assert Rollout(percentage=high).reaches("rule", identity)


@pytest.mark.parametrize("percentage", [0, 1, 25, 50, 100])
def test_the_percentage_is_about_that_share_of_the_fleet(percentage: int) -> None:
    share = sum(Rollout(percentage=percentage).reaches("rule", identity) for identity in IDENTITIES) / 50
    assert share == pytest.approx(percentage, abs=2)
    if percentage in {0, 100}:
        assert share == percentage


def test_a_phones_place_is_the_same_everywhere_and_another_for_another_rule() -> None:
    assert place("rule", "mac:00:04:f2:00:01:76") == pytest.approx(PLACE)
    both = [identity for identity in IDENTITIES if place("one", identity) < 10 and place("two", identity) < 10]
    assert len(both) < 100


def test_listed_phones_come_first() -> None:
    rollout = Rollout(frozenset({"00:04:f2:00:01:76"}), frozenset({"07823-a345"}))
    assert rollout.lists("00:04:f2:00:01:76", None)
    assert rollout.lists(None, " 07823-A345 ")
    assert not rollout.lists(None, None)
    assert not rollout.lists("00:04:f2:00:01:77", "")
    assert not rollout.reaches("rule", "mac:00:04:f2:00:01:76")
