"""How long a recording keeps what it holds: pure decisions, by age and by size."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

INTERVAL = timedelta(hours=1)  # between looks at what may go
SHARE = 10  # and as soon as one part in so many of what may be kept was written since the last one,
SMALLEST_SHARE = 1 << 20  # but no less than these bytes
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


@dataclass(slots=True)
class Taken:
    """What exchanges take that are recorded, up to the index `counted`: their rows, and each body once.

    It holds as long as nobody else has removed any: `removals` is how often that was done when it was counted.
    """

    counted: int = 0
    bytes: int = 0
    removals: int = 0


def due(last: datetime | None, now: datetime) -> bool:
    """Whether it is time for the next look; a clock that was set back is no reason to wait for it."""
    return last is None or not timedelta(0) <= now - last < INTERVAL
