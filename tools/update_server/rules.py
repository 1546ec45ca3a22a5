"""Who is offered what: the documented rules of the Device Update Service (protocol.md sections 2.3, 2.4 and 9).

Values only, no clock and no file: an operation gives a new rule or a new book.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from dissectors.mac_address import normal_mac
from dissectors.version import Version

MAX_VERSION_TEXT = 20  # ApprovedVersion of the WMI class holds no more characters
ROUND_TABLE = "RoundTable"


class DeviceKey(NamedTuple):
    """What an update is keyed on. `brand` is the request's vendor; its case does not matter, `Polycom` is `POLYCOM`."""

    device_type: str
    brand: str
    model: str
    revision: str
    locale: str

    def same_device(self, other: DeviceKey) -> bool:
        """True where both name the same kind of device."""
        return self._replace(brand=self.brand.casefold()) == other._replace(brand=other.brand.casefold())

    def __str__(self) -> str:
        return "/".join(part or "-" for part in self)


@dataclass(frozen=True, slots=True)
class Rule:
    """One device update rule. A newly imported update is pending; None is a blank version."""

    key: DeviceKey
    update_type: str = "CPE"
    approved_version: Version | None = None
    pending_version: Version | None = None
    restore_version: Version | None = None

    def __post_init__(self) -> None:
        for version in (self.approved_version, self.pending_version, self.restore_version):
            if len(str(version or "")) > MAX_VERSION_TEXT:
                raise ValueError(f"a version of at most {MAX_VERSION_TEXT} characters, not {version}")

    def approve(self) -> Rule:
        """Pending becomes approved, approved becomes the version to restore. Raises `ValueError` with none pending."""
        if self.pending_version is None:
            raise ValueError(f"no version of {self.key} is pending")
        return replace(
            self,
            approved_version=self.pending_version,
            pending_version=None,
            restore_version=self.approved_version,
        )

    def reset(self) -> Rule:
        """Reject the pending version; test devices go back to the approved one at their next check."""
        return replace(self, pending_version=None)

    def restore(self) -> Rule:
        """Roll back to the version approved before; without one, nothing is offered any more."""
        return replace(self, approved_version=self.restore_version, restore_version=None)

    def version_for(self, *, test_device: bool) -> Version | None:
        """The version such a device shall have; None where the rule has nothing for it."""
        # A RoundTable gets an update as soon as it is uploaded, approved or not.
        sees_pending = test_device or self.key.device_type == ROUND_TABLE
        return (self.pending_version if sees_pending else None) or self.approved_version


class IdentifierType(enum.Enum):
    """How a test device is named."""

    MAC_ADDRESS = "MACAddress"
    SERIAL_NUMBER = "SerialNumber"


@dataclass(frozen=True, slots=True)
class TestDevice:
    """A device that gets pending updates. A MAC may be written in any notation."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    identifier_type: IdentifierType
    identifier: str
    name: str = ""

    def __post_init__(self) -> None:
        if self.identifier_type is IdentifierType.MAC_ADDRESS and normal_mac(self.identifier) is None:
            raise ValueError(f"not a MAC address: {self.identifier!r}")
        if not self.identifier.strip():
            raise ValueError("a test device needs an identifier")

    def is_device(self, mac: str, serial: str) -> bool:
        """True where the request's MAC or serial is this device's."""
        if self.identifier_type is IdentifierType.MAC_ADDRESS:
            return normal_mac(mac) == normal_mac(self.identifier)
        return serial.strip() == self.identifier.strip()


class Wanted(NamedTuple):
    """A version a device shall have, and the rule that says so."""

    rule: Rule
    version: Version
    test_device: bool


@dataclass(frozen=True, slots=True)
class RuleBook:
    """All rules and test devices of one service."""

    rules: tuple[Rule, ...] = ()
    test_devices: tuple[TestDevice, ...] = ()

    def wanted(self, key: DeviceKey, mac: str = "", serial: str = "") -> list[Wanted]:
        """What the device shall have, one entry for each update type; whether it has it already is not asked here."""
        test_device = any(device.is_device(mac, serial) for device in self.test_devices)
        found = []
        for rule in self.rules:
            version = rule.version_for(test_device=test_device)
            if version is not None and rule.key.same_device(key):
                found.append(Wanted(rule, version, test_device))
        return found

    def replaced(self, old: Rule, new: Rule) -> RuleBook:
        """The book with one rule exchanged. Raises `ValueError` where the old one is not in it."""
        at = self.rules.index(old)
        return replace(self, rules=(*self.rules[:at], new, *self.rules[at + 1 :]))

    def rules_for(self, key: DeviceKey) -> list[Rule]:
        """The rules of one kind of device."""
        return [rule for rule in self.rules if rule.key.same_device(key)]


def approve_highest(found: Iterable[tuple[DeviceKey, str, Version]]) -> tuple[Rule, ...]:
    """One rule for each device and update type among the packages found, its highest version approved."""
    highest: dict[tuple[DeviceKey, str], Version] = {}
    for key, update_type, version in found:
        highest[key, update_type] = max(version, highest.get((key, update_type), version))
    return tuple(Rule(key, update_type, version) for (key, update_type), version in sorted(highest.items()))
