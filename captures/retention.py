"""How long a recording keeps what it holds: pure decisions, by age and by size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

INTERVAL = timedelta(hours=1)  # between looks at what may go
GRACE = timedelta(minutes=10)  # a body is written before the row that needs it: this long nobody may need it


@dataclass(frozen=True, slots=True)
class Keep:
    """What is kept; None: without limit."""

    days: float | None = None
    bytes: int | None = None

    def __bool__(self) -> bool:
        return self.days is not None or self.bytes is not None

    def older_than(self, now: datetime) -> datetime | None:
        """What ended before this time may go."""
        return None if self.days is None else now - timedelta(days=self.days)


class Expired(NamedTuple):
    """What was removed: exchanges, the last of them, body files and their bytes."""

    exchanges: int = 0
    through: int = 0
    bodies: int = 0
    bytes: int = 0


class Kept(NamedTuple):
    """What one exchange takes: bytes of its rows, and its body files with their sizes."""

    exchange: int
    size: int
    bodies: Mapping[str, int]


def due(last: datetime | None, now: datetime) -> bool:
    """Whether it is time for the next look; a clock that was set back is no reason to wait for it."""
    return last is None or not timedelta(0) <= now - last < INTERVAL


def beyond(newest_first: Iterable[Kept], max_bytes: int) -> int:
    """The index through which exchanges must go for the rest to fit; 0 where all fit. A shared body counts once."""
    total = 0
    seen: set[str] = set()
    for kept in newest_first:
        new = {sha256: size for sha256, size in kept.bodies.items() if sha256 not in seen}
        total += kept.size + sum(new.values())
        if total > max_bytes:
            return kept.exchange
        seen |= new.keys()
    return 0
