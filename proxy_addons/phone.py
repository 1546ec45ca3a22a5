"""A phone as its update check describes it, the upgrade path of its kind, and how the two are compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dissectors.frozen import constructor
from dissectors.update_status import LastUpdateStatus
from dissectors.version import Version

IDENTITY = ("device_type", "vendor", "model", "revision", "locale")
MAX_REMEMBERED = 200  # characters of what a phone says it is

Identity = tuple[str, ...]


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


made_phone = constructor(Phone)


@dataclass(frozen=True, slots=True)
class UpgradePath:
    """A device family and the versions it goes through, oldest first."""

    name: str
    device_type: str
    vendor: str
    model: str
    revision: str
    locale: str
    waypoints: tuple[Version, ...]
    required: frozenset[Version] = frozenset()
    update_type: str = "CPE"

    def next_after(self, version: Version) -> Version | None:
        """The first waypoint above a version."""
        return next((waypoint for waypoint in self.waypoints if waypoint > version), None)


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


def identity_of_path(path: UpgradePath) -> Identity:
    """What a path is for, in the form identities are compared in."""
    return _identity(path.device_type, path.vendor, path.model, path.revision, path.locale)


def identity_of_phone(phone: Phone) -> Identity:
    """What a phone is; what it does not tell is blank, as no path is."""
    told = (phone.device_type or "", phone.vendor or "", phone.model or "", phone.revision or "", phone.locale or "")
    return _of_many(*told) if sum(map(len, told)) > MAX_REMEMBERED else _identity(*told)


def _of_many(*told: str | None) -> Identity:
    return tuple(folded(part or "") for part in told)


_identity = lru_cache(1024)(_of_many)  # thousands of phones are of a few kinds


def folded(text: str) -> str:
    """Without the differences that do not count: letter case and surrounding white space."""
    return text.strip().casefold()
