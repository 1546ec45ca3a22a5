"""A phone as its update check describes it, and the comparison with what a rule is for."""

from __future__ import annotations

from dataclasses import dataclass

from dissectors.update_status import LastUpdateStatus
from dissectors.version import Version
from proxy_addons.rule_index import folded, identity_of_path, identity_of_phone
from proxy_addons.rules import IDENTITY, UpgradePath


@dataclass(frozen=True, slots=True)
class Phone:
    """What an update check says about its sender; `mac` in the form of `normal_mac`, `address` the client's, `user` who
    signs in there, where that is to be kept.
    """

    device_type: str | None = None
    vendor: str | None = None
    model: str | None = None
    revision: str | None = None
    locale: str | None = None
    version: Version | None = None
    mac: str | None = None
    serial: str | None = None
    address: str | None = None
    status: LastUpdateStatus | None = None
    user: str | None = None


def identity_mismatch(path: UpgradePath, phone: Phone) -> str | None:
    """Which of the five parts of the identity differs from what a path is for, None where none does."""
    if identity_of_path(path) == identity_of_phone(phone):
        return None
    for part in IDENTITY:
        wanted, found = getattr(path, part), getattr(phone, part)
        if found is None or not same(wanted, found):
            return f"{part} is {found or 'not told'}, the path wants {wanted}"
    return None


def same(one: str, other: str) -> bool:
    """Equal but for letter case and surrounding white space."""
    return folded(one) == folded(other)
