"""One test for each documented rule (protocol.md sections 2.3, 2.4 and 9)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dissectors.version import Version
from tools.update_server.packages import CX700
from tools.update_server.rules import DeviceKey, IdentifierType, Rule, RuleBook, TestDevice, approve_highest

BRIDGE = Version.parse("1.0.522.101")
R2 = Version.parse("3.5.6907.35")
NEWER = Version.parse("3.5.6907.222")
MAC = "00-04-F2-00-01-76"


def offered(rule: Rule, key: DeviceKey = CX700, mac: str = "", serial: str = "", *devices: TestDevice) -> list[Version]:
    return [wanted.version for wanted in RuleBook((rule,), devices).wanted(key, mac, serial)]


@pytest.mark.parametrize("part", DeviceKey._fields)
def test_a_rule_is_keyed_on_every_part_of_the_device(part: str) -> None:
    assert offered(Rule(CX700, approved_version=R2)) == [R2]
    assert offered(Rule(CX700, approved_version=R2), CX700._replace(**{part: "other"})) == []


def test_the_vendor_is_compared_without_case() -> None:
    assert offered(Rule(CX700, approved_version=R2), CX700._replace(brand="POLYCOM")) == [R2]
    assert offered(Rule(CX700, approved_version=R2), CX700._replace(model="cx700")) == []


def test_a_pending_version_goes_to_test_devices_only() -> None:
    rule = Rule(CX700, approved_version=BRIDGE, pending_version=R2)
    device = TestDevice(IdentifierType.MAC_ADDRESS, "0004f2000176")
    assert offered(rule, CX700, MAC, "", device) == [R2]
    assert offered(rule, CX700, "00-04-F2-00-01-77", "", device) == [BRIDGE]
    assert offered(rule, CX700, "", "", device) == [BRIDGE]
    assert offered(Rule(CX700, pending_version=R2)) == []


@pytest.mark.parametrize("sent", ["0004F2000176", "00:04:f2:00:01:76", "00-04-F2-00-01-76"])
def test_a_test_device_is_known_by_its_mac_in_any_notation(sent: str) -> None:
    assert TestDevice(IdentifierType.MAC_ADDRESS, MAC).is_device(sent, "")


def test_a_test_device_is_known_by_its_serial_number() -> None:
    device = TestDevice(IdentifierType.SERIAL_NUMBER, "07823-A345")
    assert device.is_device("", "07823-A345")
    assert not device.is_device("", "")
    assert not device.is_device("07823-A345", "AB37_679e")


def test_a_test_device_without_a_pending_version_gets_the_approved_one() -> None:
    device = TestDevice(IdentifierType.MAC_ADDRESS, MAC)
    assert offered(Rule(CX700, approved_version=R2), CX700, MAC, "", device) == [R2]


def test_approve_moves_pending_to_approved_and_approved_to_restore() -> None:
    rule = Rule(CX700, approved_version=BRIDGE, pending_version=R2).approve()
    assert (rule.approved_version, rule.pending_version, rule.restore_version) == (R2, None, BRIDGE)
    with pytest.raises(ValueError, match="pending"):
        rule.approve()


def test_reset_rejects_pending_and_test_devices_go_back() -> None:
    rule = Rule(CX700, approved_version=BRIDGE, pending_version=R2).reset()
    assert rule == Rule(CX700, approved_version=BRIDGE)
    assert rule.version_for(test_device=True) == BRIDGE


def test_restore_rolls_back_to_the_version_before() -> None:
    rule = Rule(CX700, approved_version=R2, restore_version=BRIDGE).restore()
    assert offered(rule) == [BRIDGE]


def test_restore_without_a_version_before_offers_nothing() -> None:
    assert offered(Rule(CX700, approved_version=R2).restore()) == []


def test_a_roundtable_gets_an_update_as_soon_as_it_is_uploaded() -> None:
    key = DeviceKey("RoundTable", "Microsoft", "RTM", "A", "ENU")
    assert offered(Rule(key, pending_version=R2), key) == [R2]


def test_a_version_has_at_most_twenty_characters() -> None:
    Rule(CX700, approved_version=Version(99999, 9999, 9999, 9999))
    with pytest.raises(ValueError, match="20 characters"):
        Rule(CX700, approved_version=Version(99999, 9999, 9999, 99999))


def test_rules_of_several_update_types_are_independent() -> None:
    book = RuleBook((Rule(CX700, "CPE", R2), Rule(CX700, "EBoot", BRIDGE)))
    assert [(wanted.rule.update_type, wanted.version) for wanted in book.wanted(CX700)] == [
        ("CPE", R2),
        ("EBoot", BRIDGE),
    ]


def test_a_rule_is_exchanged_in_its_place() -> None:
    first, second = Rule(CX700, "CPE", pending_version=R2), Rule(CX700, "EBoot", BRIDGE)
    book = RuleBook((first, second)).replaced(first, first.approve())
    assert book.rules == (replace(first, approved_version=R2, pending_version=None), second)
    with pytest.raises(ValueError, match="not in"):
        book.replaced(first, second)


def test_by_default_the_highest_version_found_is_approved() -> None:
    found = [(CX700, "CPE", R2), (CX700, "CPE", NEWER), (CX700, "CPE", BRIDGE), (CX700, "EBoot", BRIDGE)]
    assert approve_highest(found) == (Rule(CX700, "CPE", NEWER), Rule(CX700, "EBoot", BRIDGE))


@pytest.mark.parametrize("identifier", ["", "0004F20001", "nonsense"])
def test_a_test_device_needs_an_identifier_of_its_type(identifier: str) -> None:
    with pytest.raises(ValueError, match="MAC"):
        TestDevice(IdentifierType.MAC_ADDRESS, identifier)
    with pytest.raises(ValueError, match="identifier"):
        TestDevice(IdentifierType.SERIAL_NUMBER, " ")
