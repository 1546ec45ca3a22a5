from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dissectors.update_status import LastUpdateStatus
from dissectors.version import Version
from proxy_addons.census import OTHER, Census
from proxy_addons.history import Download, Histories

NOW = datetime(2026, 1, 5, tzinfo=UTC)
VERSIONS = [Version(1, 0, 522, 73), Version(1, 0, 522, 103), Version(3, 5, 6907, 222)]

phones = st.sampled_from(["mac:a", "mac:b", "mac:c", "mac:d"])
versions = st.sampled_from(VERSIONS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("check"), phones, st.none() | versions, st.sampled_from([None, "0x0;200", "0x80072ee7;0"])),
        st.tuples(st.just("decide"), phones, st.sampled_from(["leave", "hold", "report", "offer"])),
        st.tuples(st.just("answer"), phones, st.none() | versions),
        st.tuples(st.just("fetch"), phones, versions, st.sampled_from(["CPE.nbt", "CPE.cat"]), st.booleans()),
    ),
    max_size=60,
)


@given(steps)
def test_it_says_what_counting_all_phones_would_say(story: list[tuple[object, ...]]) -> None:
    histories = Histories(most=3)
    for number, (what, identity, *rest) in enumerate(story):
        now = NOW + timedelta(hours=number)
        match what, rest:
            case "check", (version, status):
                told = LastUpdateStatus.parse(status) if status else None  # type: ignore[arg-type]
                histories.checked(identity, now, version=version, address=f"10.0.0.{identity}", status=told)  # type: ignore[arg-type]
            case "decide", (action,):
                histories.decided(identity, now, action, "rule")  # type: ignore[arg-type]
            case "answer", (version,):
                histories.answered(identity, now, rule="rule", path="p", offers=version is not None, version=version)  # type: ignore[arg-type]
            case "fetch", (version, file, complete):
                fetched = histories.fetching(f"10.0.0.{identity}", version, now)  # type: ignore[arg-type]
                if fetched is not None:
                    histories.fetched(fetched, now, Download(now, version, file, complete))  # type: ignore[arg-type]
    # What nothing was ever said of has no state to be counted by.
    counted = Counter((phone.state, str(phone.version or "unknown")) for phone in histories if phone.counted)
    assert histories.census.counts() == counted
    assert len(counted) or not any(what == "check" for what, *_ in story)


def test_versions_that_phones_make_up_are_one() -> None:
    census = Census(most=2)
    labels = [census.move(None, "current", version) for version in ("1", "2", "3", "4", "1")]
    assert census.counts() == {("current", "1"): 2, ("current", "2"): 1, ("current", OTHER): 2}
    assert census.move(labels[1], "failed", "2") == ("failed", "2")
    assert census.move(("failed", "2"), None) is None
    assert census.move(labels[2], "current", "3") == ("current", "3")  # a place has become free
    assert census.counts() == {("current", "1"): 2, ("current", "3"): 1, ("current", OTHER): 1}
