"""Each interlock holds what it is for, and lets the same phone through where its cause is gone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dissectors.mac_address import normal_mac
from dissectors.update_status import LastUpdateStatus
from dissectors.version import Version
from proxy_addons import interlocks
from proxy_addons.history import DAY, INSTALL_WITHIN, OFFER_LEASE, Download, Histories, identity_of
from proxy_addons.interlocks import INTERLOCKS, Plan
from proxy_addons.policy import Decision, Phone, Situation, decide
from proxy_addons.rules import Rule, Rules
from tests.bodies import OFFER_NEXT, REPORT_ZERO, RULES

NOW = datetime(2026, 1, 5, 23, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
OLD, INTERIM = Version(1, 0, 522, 73), Version(1, 0, 522, 103)
STUCK = Phone(
    "UCPhone", "Polycom", "CX700", "A", "ENU", OLD, normal_mac("0004F2000176"), "07823-A345", address="10.1.2.3"
)
BOTH = pytest.mark.parametrize("way", [REPORT_ZERO, OFFER_NEXT])


def phone(number: int) -> Phone:
    return replace(
        STUCK, mac=f"00:04:f2:01:{number >> 8:02x}:{number & 255:02x}", address=f"10.2.{number >> 8}.{number & 255}"
    )


def name_of(one: Phone) -> str:
    name = identity_of(one.mac, one.serial, one.address)
    assert name is not None
    return name


class Fleet:
    """A history that is fed the way the proxy does it."""

    def __init__(self, text: str) -> None:
        self.rules = Rules.parse(text.encode())
        self.histories = Histories()

    def check(self, one: Phone, now: datetime, *, offered: bool = True) -> Decision:
        """One update check and its answer."""
        decision = self.ask(one, now)
        rule = decision.rule.name if decision.rule and decision.action in {"report", "offer"} else ""
        if rule:
            self.histories.answered(
                name_of(one), now, rule=rule, path="cx700", offers=offered, version=INTERIM if offered else None
            )
        return decision

    def ask(self, one: Phone, now: datetime) -> Decision:
        """The check alone."""
        self.histories.checked(name_of(one), now, version=one.version, address=one.address, status=one.status)
        decision = decide(self.rules, one, Situation(now, self.histories))
        rule = decision.rule.name if decision.rule and decision.action in {"report", "offer"} else ""
        self.histories.decided(name_of(one), now, decision.action, rule, "cx700" if rule else "")
        return decision

    def fetch(self, one: Phone, now: datetime, *, complete: bool = True, file: str = "CPE.nbt") -> None:
        identity = self.histories.fetching(one.address or "", INTERIM, now)
        assert identity == name_of(one)
        self.histories.fetched(identity, now, Download(now, INTERIM, file, complete))


def holds(decision: Decision, interlock: str, *words: str) -> None:
    assert decision.action == "hold", decision
    assert decision.report is None
    assert decision.offer is None
    assert decision.reason.startswith(f"{interlock}: "), decision.reason
    for word in words:
        assert word in decision.reason


@BOTH
def test_the_kill_switch(way: str) -> None:
    rules = Rules.parse((way + 'then.request_headers.set = { X-A = "1" }\n').encode())
    decision = decide(rules, STUCK, Situation(NOW, stopped="the file /run/stop is there"))
    holds(decision, "kill_switch", "/run/stop")
    assert decision.request_headers.set == ()
    assert decide(rules, STUCK, Situation(NOW)).action in {"report", "offer"}
    marking = Rules.parse(b'[[rule]]\nname = "x"\nthen.response_headers.set = { X-A = "1" }\n')
    assert decide(marking, STUCK, Situation(NOW)).response_headers.set == (("X-A", "1"),)
    assert decide(marking, STUCK, Situation(NOW, stopped="signal")).response_headers.set == ()


@BOTH
@pytest.mark.parametrize("part", ["device_type", "vendor", "model", "revision", "locale"])
def test_a_device_of_another_kind_is_held_even_if_a_rule_had_matched(way: str, part: str) -> None:
    rule = Rules.parse(way.encode()).rules[0]
    changed: dict[str, Any] = {part: "Other"}
    other = replace(STUCK, **changed)
    plan = Plan(rule, other, INTERIM, True, Situation(NOW))
    assert part in (interlocks.device_identity(plan) or "")
    assert interlocks.device_identity(replace(plan, rule=replace(rule, path=None))) == "no upgrade path"
    assert interlocks.device_identity(replace(plan, phone=STUCK)) is None


@BOTH
def test_a_phone_without_a_name_of_its_own(way: str) -> None:
    nameless = replace(STUCK, mac=None, serial=None)
    holds(decide(Rules.parse(way.encode()), nameless, Situation(NOW)), "phone_identity", "neither MAC")
    allowed = Rules.parse((way + "allow_address_identity = true\n").encode())
    assert decide(allowed, nameless, Situation(NOW)).action in {"report", "offer"}
    holds(decide(allowed, replace(nameless, address=None), Situation(NOW)), "phone_identity", "not even")


@BOTH
def test_an_unknown_history_means_no_offer(way: str) -> None:
    holds(decide(Rules.parse(way.encode()), STUCK, Situation(NOW, None)), "known_history")


@BOTH
def test_an_unknown_time_means_no_offer_where_there_are_limits(way: str) -> None:
    limited = Rules.parse((way + "limits.per_phone_per_day = 1\n").encode())
    holds(decide(limited, STUCK), "known_time")
    assert decide(limited, STUCK, Situation(NOW)).action in {"report", "offer"}


def test_downgrades_and_required_waypoints() -> None:
    newer = replace(STUCK, version=Version(2, 0, 0, 0))
    down = RULES.replace('"< 1.0.522.101"', '"> 1.0.522.103"') + 'then.offer = "1.0.522.103"\n'
    holds(Fleet(down).check(newer, NOW), "downgrade", "1.0.522.103 would be a downgrade from 2.0.0.0")
    assert Fleet(down + "allow_downgrade = true\n").check(newer, NOW).action == "offer"
    skipping = RULES + 'then.offer = "3.5.6907.222"\n'
    holds(Fleet(skipping).check(STUCK, NOW), "required_waypoint", "1.0.522.103")
    assert Fleet(skipping.replace('required = ["1.0.522.103"]', "required = []")).check(STUCK, NOW).action == "offer"


@BOTH
def test_the_time_window(way: str) -> None:
    fleet = Fleet(way + 'when.window = "22:00-05:00"\n')
    assert fleet.check(STUCK, NOW).action in {"report", "offer"}
    holds(fleet.check(STUCK, NOW + 7 * HOUR), "time_window", "22:00-05:00", "06:00")
    holds(decide(fleet.rules, STUCK), "time_window", "not known")


@BOTH
def test_the_staged_rollout(way: str) -> None:
    listed = Fleet(way + 'scope.mac = ["0004F2000176"]\nscope.serial = ["AB37_679e"]\n')
    assert listed.check(STUCK, NOW).action in {"report", "offer"}
    assert listed.check(replace(phone(1), serial="ab37_679E"), NOW).action in {"report", "offer"}
    holds(listed.check(phone(1), NOW), "staged_rollout", "not one of those in scope")
    nobody = Fleet(way + 'scope.mac = ["0004F2000176"]\nwhen.percentage = 0\n')
    assert nobody.check(STUCK, NOW).action in {"report", "offer"}
    holds(nobody.check(phone(1), NOW), "staged_rollout", "0 %")
    half = Fleet(way + "when.percentage = 50\n")
    first = [half.check(phone(number), NOW).action != "hold" for number in range(400)]
    again = [decide(half.rules, phone(number), Situation(NOW)).action != "hold" for number in range(400)]
    assert first == again
    assert 150 < sum(first) < 250


@BOTH
def test_a_phone_that_kept_its_old_version_after_a_full_download(way: str) -> None:
    fleet = Fleet(way)
    assert fleet.check(STUCK, NOW).action in {"report", "offer"}
    fleet.fetch(STUCK, NOW + MINUTE)
    holds(fleet.check(STUCK, NOW + HOUR), "failed_waypoint", "has not installed it yet")
    later = NOW + INSTALL_WITHIN + HOUR
    holds(fleet.check(STUCK, later), "failed_waypoint", "1.0.522.103", "still runs the old version")
    holds(fleet.check(STUCK, later + timedelta(days=20)), "failed_waypoint")
    assert fleet.check(phone(2), later).action in {"report", "offer"}
    assert fleet.histories.get(name_of(STUCK)).state == "failed"


@BOTH
def test_a_phone_that_says_its_update_failed(way: str) -> None:
    fleet = Fleet(way)
    bad = replace(STUCK, status=LastUpdateStatus.parse("12002;0"))
    assert fleet.check(bad, NOW).action in {"report", "offer"}  # whatever failed, it was no update of ours
    holds(fleet.check(bad, NOW + HOUR), "failed_waypoint", "12002;0")


@BOTH
def test_a_phone_that_downloads_again_and_again(way: str) -> None:
    fleet = Fleet(way)
    fleet.check(STUCK, NOW)
    for minute in (1, 2):
        fleet.fetch(STUCK, NOW + minute * MINUTE, complete=False)
    assert not fleet.histories.get(name_of(STUCK)).failures
    for minute in (3, 4):
        fleet.fetch(STUCK, NOW + minute * MINUTE)
    holds(fleet.check(STUCK, NOW + HOUR), "failed_waypoint", "fetched CPE.nbt again")


@BOTH
def test_a_phone_that_goes_back_to_its_old_version(way: str) -> None:
    fleet = Fleet(way)
    fleet.check(STUCK, NOW)
    fleet.fetch(STUCK, NOW + MINUTE)
    fleet.check(replace(STUCK, version=INTERIM), NOW + HOUR)
    assert fleet.histories.get(name_of(STUCK)).reached
    # A check that is told late says nothing of what it runs now.
    fleet.histories.checked(name_of(STUCK), NOW + 2 * MINUTE, version=STUCK.version)
    assert not fleet.histories.get(name_of(STUCK)).failures
    holds(fleet.check(STUCK, NOW + 2 * HOUR), "failed_waypoint", "went back to 1.0.522.73")


def test_so_many_failures_are_allowed_and_another_waypoint_is_a_new_chance() -> None:
    fleet = Fleet(OFFER_NEXT + "limits.stop_after_failures = 2\n")
    bad = replace(STUCK, status=LastUpdateStatus.parse("12002;0"))
    actions = [fleet.check(bad, NOW + number * HOUR).action for number in range(4)]
    assert actions == ["offer", "offer", "hold", "hold"]
    other = Fleet(OFFER_NEXT.replace('"1.0.522.103"', '"1.0.522.101"'))
    other.histories = fleet.histories
    assert other.check(replace(bad, status=None), NOW + 5 * HOUR).action == "offer"


@BOTH
def test_the_limit_of_one_phone(way: str) -> None:
    fleet = Fleet(way + "limits.per_phone_per_day = 2\n")
    actions = [fleet.check(STUCK, NOW + number * HOUR).action for number in range(4)]
    assert actions[2:] == ["hold", "hold"]
    assert "hold" not in actions[:2]
    holds(fleet.check(STUCK, NOW + 4 * HOUR), "daily_limit", "2 offers", "limit is 2")
    assert fleet.check(phone(1), NOW + 4 * HOUR).action != "hold"
    assert fleet.check(STUCK, NOW + DAY).action != "hold"


def test_reports_that_lead_to_no_offer_do_not_count() -> None:
    fleet = Fleet(REPORT_ZERO + "limits.per_phone_per_day = 1\n")
    for number in range(5):
        assert fleet.check(STUCK, NOW + number * MINUTE, offered=False).action == "report"
    # Two checks under way at a time: the second waits for what comes of the first.
    assert fleet.ask(STUCK, NOW + HOUR).action == "report"
    holds(fleet.ask(STUCK, NOW + HOUR), "daily_limit")


@BOTH
def test_the_breaker(way: str) -> None:
    fleet = Fleet(way + 'limits.fleet_failure_rate = 0.5\nlimits.fleet_minimum = 4\nlimits.fleet_window = "2d"\n')
    everyone = [phone(number) for number in range(8)]
    for one in everyone[:6]:
        assert fleet.check(one, NOW).action != "hold"
    for one in everyone[:2]:
        fleet.check(replace(one, version=INTERIM), NOW + HOUR)
    for one in everyone[2:4]:
        fleet.check(replace(one, status=LastUpdateStatus.parse("12002;0")), NOW + HOUR)
    assert fleet.check(everyone[6], NOW + HOUR).action != "hold"  # half of four is not over half
    fleet.check(replace(everyone[4], status=LastUpdateStatus.parse("12002;0")), NOW + HOUR)
    holds(fleet.check(everyone[7], NOW + HOUR), "fleet_breaker", "3 of 5 attempts on path cx700")
    assert fleet.check(everyone[7], NOW + timedelta(days=2, hours=1)).action != "hold"


def test_the_breaker_waits_for_enough_outcomes() -> None:
    fleet = Fleet(OFFER_NEXT + "limits.fleet_failure_rate = 0\n")
    bad = LastUpdateStatus.parse("12002;0")
    for number in range(5):
        assert fleet.check(phone(number), NOW).action == "offer"
    for number in range(5):
        assert fleet.check(phone(10 + number), NOW + MINUTE).action == "offer"
        fleet.check(replace(phone(number), status=bad), NOW + MINUTE)
    holds(fleet.check(phone(20), NOW + MINUTE), "fleet_breaker", "5 of 5")


@BOTH
def test_attempts_that_have_not_ended(way: str) -> None:
    fleet = Fleet(way + "limits.fleet_undecided = 3\n")
    one, two, three, four = (phone(number) for number in range(4))
    assert fleet.check(one, NOW).action != "hold"
    assert fleet.check(two, NOW).action != "hold"
    assert fleet.ask(three, NOW).action != "hold"  # its answer is still on its way
    holds(fleet.check(four, NOW), "undecided_attempts", "3 attempts on path cx700", "limit is 3")
    # A report that leads to no offer is no attempt.
    fleet.histories.answered(name_of(three), NOW, rule="stuck", path="cx700", offers=False, version=None)
    assert fleet.check(four, NOW).action != "hold"
    holds(fleet.check(three, NOW), "undecided_attempts")
    # A phone that is heard of and has not got the firmware makes room for itself; one that has it does not.
    fleet.fetch(one, NOW + MINUTE, complete=False)
    assert fleet.check(one, NOW + HOUR).action != "hold"
    fleet.fetch(one, NOW + HOUR + MINUTE)
    holds(fleet.check(one, NOW + 2 * HOUR), "failed_waypoint", "not installed it yet")
    holds(fleet.check(three, NOW + 2 * HOUR), "undecided_attempts")
    # A phone that is never heard of again keeps its place: a bad image may have killed it.
    holds(fleet.check(three, NOW + timedelta(days=20)), "undecided_attempts")
    fleet.check(replace(one, version=INTERIM), NOW + timedelta(days=20))  # that one worked
    assert fleet.check(three, NOW + timedelta(days=20)).action != "hold"
    fleet.check(replace(two, status=LastUpdateStatus.parse("12002;0")), NOW + timedelta(days=20))  # and that failed
    assert fleet.check(phone(5), NOW + timedelta(days=20)).action != "hold"
    holds(fleet.check(phone(6), NOW + timedelta(days=20)), "undecided_attempts")


@BOTH
def test_so_many_downloads_at_one_time(way: str) -> None:
    fleet = Fleet(way + "limits.concurrent_downloads = 2\n")
    one, two, three = phone(1), phone(2), phone(3)
    assert fleet.check(one, NOW).action != "hold"
    assert fleet.ask(two, NOW).action != "hold"  # its answer is still on its way, its place is taken
    holds(fleet.check(three, NOW), "concurrent_downloads", "2 phones", "limit is 2")
    assert fleet.check(one, NOW + MINUTE).action != "hold"  # a place of its own is no obstacle
    fleet.histories.answered(name_of(two), NOW, rule="stuck", path="cx700", offers=False, version=None)
    assert fleet.check(three, NOW + MINUTE).action != "hold"
    # A download keeps its place however long it takes; an offer that nobody takes up, for a while only.
    identity = fleet.histories.fetching(one.address or "", INTERIM, NOW + 2 * MINUTE)
    assert identity == name_of(one)
    late = NOW + MINUTE + OFFER_LEASE
    assert fleet.check(two, late).action != "hold"
    holds(fleet.check(three, late), "concurrent_downloads")
    fleet.histories.fetched(identity, late, Download(late, INTERIM, "CPE.nbt", True))
    holds(fleet.check(three, late), "concurrent_downloads")  # the catalog may follow
    assert fleet.check(three, late + 2 * MINUTE).action != "hold"


def test_files_that_are_not_upstream() -> None:
    asked: list[Version] = []
    complaints = [None, "CPE.cat: the server answers 404"]

    def look(_rule: Rule, version: Version) -> str | None:
        asked.append(version)
        return complaints[-1]

    offering = Rules.parse(OFFER_NEXT.replace("check_files = false", "").encode())
    holds(decide(offering, STUCK, Situation(NOW, files=look)), "files_upstream", "CPE.cat", "404")
    complaints.pop()
    assert decide(offering, STUCK, Situation(NOW, files=look)).action == "offer"
    assert asked == [INTERIM, INTERIM]
    assert decide(offering, STUCK, Situation(NOW)).action == "offer"  # nobody there to be asked
    complaints.append("gone")
    # A report leaves it to the server unless told otherwise; an offer does not, unless told otherwise.
    assert decide(Rules.parse(REPORT_ZERO.encode()), STUCK, Situation(NOW, files=look)).action == "report"
    waiting = Rules.parse((REPORT_ZERO + "check_files = true\n").encode())
    holds(decide(waiting, STUCK, Situation(NOW, files=look)), "files_upstream", "gone")
    assert asked == [INTERIM] * 3
    assert decide(Rules.parse(OFFER_NEXT.encode()), STUCK, Situation(NOW, files=look)).action == "offer"


def test_every_interlock_is_tested_here() -> None:
    text = Path(__file__).read_text()
    named = {
        lock.__name__: f'"{lock.__name__}"' in text or f"interlocks.{lock.__name__}(" in text for lock in INTERLOCKS
    }
    assert all(named.values()), named
