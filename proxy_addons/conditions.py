"""The parts of a rule that say when it acts: version ranges, windows of time, staged rollout, limits."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from dissectors import DissectError
from dissectors.version import ZERO, Version

_CONSTRAINT = re.compile(r"(<=|>=|!=|<|>|==?)?\s*([\d.]+)")
_WINDOW = re.compile(r"(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)(\s+UTC)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Constraints that must all hold, such as `>= 1.0.199.123, < 1.0.522.101`."""

    constraints: tuple[tuple[str, Version], ...] = ()

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Read constraints separated by commas; a bare version means that version. Raises `DissectError`."""
        constraints = []
        for part in text.split(","):
            match = _CONSTRAINT.fullmatch(part.strip())
            if match is None:
                raise DissectError(0, "a constraint such as '< 1.0.522.101'", repr(part.strip()))
            constraints.append(((match[1] or "=").replace("==", "="), Version.parse(match[2])))
        found = cls(tuple(constraints))
        if found.empty:
            raise DissectError(0, "constraints that a version can meet", repr(text.strip()))
        return found

    @property
    def empty(self) -> bool:
        """Whether no version lies within, as far as the bounds tell."""
        bounds = [bound for _, bound in self.constraints]
        beside = [Version(*bound[:3], bound.qfe + step) for bound in bounds for step in (0, 1)]
        return not any(version in self for version in (ZERO, *beside))

    def __contains__(self, version: Version) -> bool:
        holds = {
            "<": version.__lt__,
            "<=": version.__le__,
            ">": version.__gt__,
            ">=": version.__ge__,
            "=": version.__eq__,
            "!=": version.__ne__,
        }
        return all(holds[operator](bound) for operator, bound in self.constraints)

    def __str__(self) -> str:
        return ", ".join(f"{operator} {bound}" for operator, bound in self.constraints)


@dataclass(frozen=True, slots=True)
class Window:
    """A time of day, `22:00-05:00` (local time) or `22:00-05:00 UTC`; the end is not part of it."""

    begin: time
    end: time
    utc: bool = False

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read a window; one that ends before it begins goes over midnight. Raises `DissectError`."""
        match = _WINDOW.fullmatch(text.strip())
        expected = "a time of day such as '22:00-05:00' (local time) or '22:00-05:00 UTC'"
        if match is None:
            raise DissectError(0, expected, repr(text[:40]))
        try:
            begin, end = time(int(match[1]), int(match[2])), time(int(match[3]) % 24, int(match[4]))
        except ValueError:
            raise DissectError(0, expected, repr(text[:40])) from None
        if match[3] == "24" and match[4] != "00":
            raise DissectError(0, expected, repr(text[:40]))
        if begin == end:
            raise DissectError(0, "a window with a beginning and another end", repr(text[:40]))
        return cls(begin, end, match[5] is not None)

    def __contains__(self, moment: datetime) -> bool:
        """Whether an aware time lies within; local time is what the time itself carries as its zone."""
        clock = (moment.astimezone(UTC) if self.utc else moment).time()
        if self.begin < self.end:
            return self.begin <= clock < self.end
        return clock >= self.begin or clock < self.end

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M} {'UTC' if self.utc else 'local time'}"


@dataclass(frozen=True, slots=True)
class Rollout:
    """Who comes first: the listed phones always, the others by percentage (none of them where it is None).

    A phone's place among the hundred is a hash of the rule's name and the phone's identity: raising the percentage
    adds phones and never drops one, and two rules do not pick the same phones.
    """

    macs: frozenset[str] = frozenset()
    serials: frozenset[str] = frozenset()
    percentage: float | None = None

    def lists(self, mac: str | None, serial: str | None) -> bool:
        """Whether a phone is one of the listed ones."""
        return mac in self.macs or (serial or "").strip().casefold() in self.serials

    def reaches(self, rule: str, identity: str) -> bool:
        """Whether the percentage takes a phone in."""
        return self.percentage is not None and place(rule, identity) < self.percentage


def place(rule: str, identity: str) -> float:
    """A phone's place in a rule's rollout, from 0 up to but not including 100; the same on every machine."""
    digest = hashlib.sha256(f"{rule}\0{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100


@dataclass(frozen=True, slots=True)
class Limits:
    """What stops a rule although it matches; None where nothing does."""

    per_phone_per_day: int | None = None
    stop_after_failures: int = 1
    fleet_failure_rate: float | None = None
    fleet_window: timedelta = timedelta(hours=24)
    fleet_minimum: int = 5
    fleet_undecided: int | None = None
    concurrent_downloads: int | None = None


NO_LIMITS = Limits()
UNDECIDED = 50  # attempts of which a breaker does not know yet how they end, unless its rule says otherwise
