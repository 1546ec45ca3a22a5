"""What the fleet's limits count. A decision asks for each of these, so none of them looks at every phone."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta

from proxy_addons.rules import MAX_OUTCOMES_KEPT

FEW = 64  # ends of places that are not worth a look


@dataclass(slots=True)
class _Place:
    """A phone's place among the downloads of a rule: kept while files are being fetched, else until a time."""

    rule: str
    until: datetime
    active: int = 0


class Places:
    """The phones that hold a place among the downloads of a rule."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._taken: Counter[str] = Counter()
        self._ends: list[tuple[datetime, str]] = []  # a heap; an end may have been put off meanwhile

    def take(self, identity: str, rule: str, until: datetime, now: datetime) -> None:
        """A phone takes a place; one it had under another rule is left."""
        self._prune(now)
        before = self._places.get(identity)
        if before is not None:
            self._taken[before.rule] -= 1
        self._places[identity] = _Place(rule, until, before.active if before else 0)
        self._taken[rule] += 1
        self._ends_at(until, identity)

    def begin(self, identity: str, now: datetime) -> None:
        """A phone with a place fetches a file."""
        self._prune(now)
        if place := self._places.get(identity):
            place.active += 1

    def end(self, identity: str, until: datetime) -> None:
        """That file has ended; the place is kept for the next one until a time."""
        if place := self._places.get(identity):
            place.active = max(0, place.active - 1)
            place.until = until
            self._ends_at(until, identity)

    def leave(self, identity: str) -> None:
        """A phone gives up its place, unless it is fetching."""
        place = self._places.get(identity)
        if place is not None and not place.active:
            del self._places[identity]
            self._taken[place.rule] -= 1

    def count(self, rule: str, now: datetime, besides: str | None = None) -> int:
        """How many places of a rule are taken, one phone left out."""
        self._prune(now)
        own = self._places.get(besides or "")
        return self._taken[rule] - (own is not None and own.rule == rule)

    def _ends_at(self, until: datetime, identity: str) -> None:
        if len(self._ends) > 2 * len(self._places) + FEW:  # most are of places that were left or put off
            self._ends = [(place.until, name) for name, place in self._places.items()]
            heapq.heapify(self._ends)
        heapq.heappush(self._ends, (until, identity))

    def _prune(self, now: datetime) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, identity = heapq.heappop(self._ends)
            place = self._places.get(identity)
            if place is not None and place.until <= now:
                self.leave(identity)


class Outcomes:
    """How the attempts on one upgrade path ended, the newest of them."""

    def __init__(self) -> None:
        self._times: list[datetime] = []
        self._failed: list[int] = [0]  # how many of the first n, by n

    def add(self, at: datetime, *, worked: bool) -> None:
        """An attempt has ended."""
        # What ended a moment earlier may be told a moment later: the order of telling is the order kept.
        self._times.append(max(at, self._times[-1]) if self._times else at)
        self._failed.append(self._failed[-1] + (not worked))
        if len(self._times) >= 2 * MAX_OUTCOMES_KEPT:
            del self._times[:MAX_OUTCOMES_KEPT], self._failed[:MAX_OUTCOMES_KEPT]

    def within(self, now: datetime, span: timedelta) -> tuple[int, int]:
        """How many of those within a span of time failed, and how many there are."""
        first = max(bisect_right(self._times, now - span), len(self._times) - MAX_OUTCOMES_KEPT)
        return self._failed[-1] - self._failed[first], len(self._times) - first


class Undecided:
    """The phones on an upgrade path of which is not known yet how their attempt will end; each with the time of it."""

    def __init__(self) -> None:
        self._since: dict[str, datetime] = {}  # in the order of the times

    def add(self, identity: str, now: datetime) -> None:
        """A phone is given something; one that has been is so since then."""
        self._since.setdefault(identity, now)

    def drop(self, identity: str) -> None:
        """It is known."""
        self._since.pop(identity, None)

    def count(self, after: datetime) -> int:
        """How many there are that were given it after a time; the others are forgotten."""
        while self._since:
            identity = next(iter(self._since))
            if self._since[identity] > after:
                break
            del self._since[identity]
        return len(self._since)
