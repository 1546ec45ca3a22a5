"""Windows FILETIME ([MS-DTYP] 2.3.3): 100 ns ticks since 1601-01-01 00:00 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_TICKS_PER_SECOND = 10_000_000
_LAST = datetime(9999, 12, 31, tzinfo=UTC)
MAX_TICKS = int((_LAST - _EPOCH).total_seconds()) * _TICKS_PER_SECOND  # later ones cannot be written with four digits


def rfc3339(ticks: int) -> str | None:
    """The time with its seven decimals (`2016-12-08T09:39:41.1055837Z`); None beyond the year 9999."""
    if not 0 <= ticks <= MAX_TICKS:
        return None
    seconds, fraction = divmod(ticks, _TICKS_PER_SECOND)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:07d}Z".rjust(28, "0")
