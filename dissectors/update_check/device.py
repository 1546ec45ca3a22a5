"""What identifies a phone (protocol.md section 1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dissectors.errors import DissectError
from dissectors.mac_address import normal_mac
from dissectors.redaction import REDACTED
from dissectors.update_check.findings import Findings, Record, record
from dissectors.update_status import LastUpdateStatus
from dissectors.vocabulary import DEVICE_FIELDS
from dissectors.xml_body import Field


def value(one: Field | None) -> str | None:
    """The value of a field; None where it is absent."""
    return None if one is None else one.value


def device_fields(found: Findings) -> Record:
    """The device fields of a body, by the names of `Device`."""
    return record(found, found.single, DEVICE_FIELDS)


@dataclass(frozen=True, slots=True)
class Device:
    """What identifies a phone; echoed by some answers."""

    device_type: Field | None = None
    mac: Field | None = None
    serial: Field | None = None
    vendor: Field | None = None
    model: Field | None = None
    revision: Field | None = None
    locale: Field | None = None
    user: Field | None = None
    last_update_status: Field | None = None

    @property
    def mac_address(self) -> str | None:
        """The MAC address as `00:04:f2:00:01:76`, None where there is none or it cannot be read."""
        return normal_mac(self.mac.value) if self.mac else None

    @property
    def update_status(self) -> LastUpdateStatus | None:
        """The last update status, None where there is none or it cannot be read."""
        try:
            return LastUpdateStatus.parse(self.last_update_status.value) if self.last_update_status else None
        except DissectError:
            return None

    def to_json(self, secrets: bool = False) -> dict[str, Any]:
        """Plain values; the user's name only with `secrets`."""
        result: dict[str, Any] = {}
        for name in DEVICE_FIELDS:
            one: Field | None = getattr(self, name)
            result[name] = None if one is None else one.value
        if result["user"] and not secrets:
            result["user"] = REDACTED
        status = self.update_status
        result["mac_address"] = self.mac_address
        result["update_status"] = None if status is None else status.to_json()
        return result
