from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dissectors.mac_address import normal_mac
from dissectors.version import Version
from proxy_addons.phone import IDENTITY
from proxy_addons.policy import Phone, decide, package_url
from proxy_addons.rules import Rules
from tests.bodies import OFFER_NEXT, REPORT_ZERO, RULES

STUCK = Phone(
    "UCPhone", "Polycom", "CX700", "A", "ENU", Version(1, 0, 522, 73), normal_mac("0004F2000176"), "07823-A345"
)


def rules(text: str) -> Rules:
    return Rules.parse(text.encode())


def test_a_stuck_phone_is_reported_as_zero_until_it_runs_the_interim() -> None:
    decision = decide(rules(REPORT_ZERO), STUCK)
    assert decision.action == "report"
    assert decision.report is not None
    assert decision.report.version.is_zero
    for version in (Version(1, 0, 522, 103), Version(3, 5, 6907, 222)):
        assert decide(rules(REPORT_ZERO), replace(STUCK, version=version)).action == "leave"


def test_next_is_the_first_waypoint_above_what_is_reported() -> None:
    decision = decide(rules(OFFER_NEXT), STUCK)
    assert decision.offer is not None
    assert decision.offer.version == Version(1, 0, 522, 103)
    assert decision.to_json()["version"] == "1.0.522.103"


@pytest.mark.parametrize("part", IDENTITY)
@pytest.mark.parametrize("other", [None, "Other", ""])
def test_another_device_is_never_touched(part: str, other: str | None) -> None:
    changed: dict[str, Any] = {part: other}
    for text in (REPORT_ZERO, OFFER_NEXT):
        assert decide(rules(text), replace(STUCK, **changed)).action == "leave"


def test_letter_case_of_the_identity_does_not_matter() -> None:
    assert decide(rules(REPORT_ZERO), replace(STUCK, vendor="POLYCOM")).action == "report"


def test_a_phone_without_a_version_is_left_alone() -> None:
    assert decide(rules(REPORT_ZERO), replace(STUCK, version=None)).action == "leave"


def test_lists_of_phones() -> None:
    listed = rules(REPORT_ZERO + 'when.mac = ["0004f2000176"]\n')
    assert decide(listed, STUCK).action == "report"
    assert decide(listed, replace(STUCK, mac=normal_mac("0004F2000177"))).action == "leave"
    assert decide(listed, replace(STUCK, mac=None)).action == "leave"
    serials = rules(REPORT_ZERO + 'when.serial = ["07823-a345"]\n')
    assert decide(serials, STUCK).action == "report"
    assert decide(serials, replace(STUCK, serial=None)).action == "leave"


@pytest.mark.parametrize(
    ("address", "action"),
    [("10.1.255.1", "report"), ("::ffff:10.1.0.1", "report"), ("fe80::1%eth0", "report"), ("10.2.0.1", "leave"),
     ("fe90::1", "leave"), (None, "leave"), ("", "leave")],
)  # fmt: skip
def test_subnets(address: str | None, action: str) -> None:
    branch = rules(REPORT_ZERO + 'when.subnet = ["10.1.0.0/16", "fe80::/16"]\n')
    assert decide(branch, replace(STUCK, address=address)).action == action


def test_a_rule_that_is_held_makes_no_way_for_the_next() -> None:
    second = REPORT_ZERO[REPORT_ZERO.index("[[rule]]") :].replace('"stuck"', '"second"')
    text = REPORT_ZERO + 'scope.mac = ["000000000001"]\n'
    decision = decide(rules(text + second), STUCK)
    assert decision.action == "hold"
    assert decision.rule is not None
    assert decision.rule.name == "stuck"
    assert decision.to_json()["path"] == "cx700"


def test_a_required_waypoint_is_not_skipped() -> None:
    skipping = rules(RULES + 'then.offer = "3.5.6907.222"\n')
    decision = decide(skipping, STUCK)
    assert decision.action == "hold"
    assert "would skip the required waypoint 1.0.522.103" in decision.reason


def test_a_downgrade_must_be_allowed_by_name() -> None:
    text = RULES.replace('"< 1.0.522.101"', '"> 1.0.522.103"') + 'then.offer = "1.0.522.103"\n'
    newer = replace(STUCK, version=Version(2, 0, 0, 0))
    assert "downgrade" in decide(rules(text), newer).reason
    assert decide(rules(text + "allow_downgrade = true\n"), newer).action == "offer"


def test_past_the_last_waypoint_there_is_nothing_to_offer() -> None:
    text = OFFER_NEXT.replace("< 1.0.522.101", "> 0.0.0.0")
    assert decide(rules(text), replace(STUCK, version=Version(3, 5, 6907, 222))).action == "leave"


def test_the_first_matching_rule_decides() -> None:
    observing = RULES.replace('name = "stuck"', 'name = "watch"') + "then.observe = true\n"
    second = REPORT_ZERO[REPORT_ZERO.index("[[rule]]") :]
    decision = decide(rules(observing + second), STUCK)
    assert decision.action == "observe"
    assert decision.rule is not None
    assert decision.rule.name == "watch"


def test_the_documented_layout() -> None:
    path = rules(RULES + "then.observe = true").paths[0]
    url = package_url(path, Version(1, 0, 522, 101), "pool01.contoso.com", external=False)
    assert url == "http://pool01.contoso.com/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.101/CPE"
    assert package_url(path, Version(1, 0, 522, 101), "x", external=True).startswith("https://x/DeviceUpdateFiles_Ext/")
