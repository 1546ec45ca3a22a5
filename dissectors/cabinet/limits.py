"""What a cabinet may cost its reader, in one visible place.

The format itself bounds counts (16 bits) and sizes (32 bits), but not their products: overlapping members, folders
that share data blocks and blocks that inflate beyond what they declare all multiply. Every such product is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dissectors.errors import LimitExceeded

MAX_OUTPUT = 2 * 1024**3
"""Bytes decoded in one pass, and bytes all wanted members together may declare."""
MAX_BLOCKS = 65535
"""Data blocks walked in one cabinet or set."""
MAX_MEMBERS = 65535
"""Members of one cabinet or set."""
MAX_NAME = 255
"""Bytes of a name without its NUL ([MS-CAB] 2.2 and 2.4: 256 with it)."""
BLOCK_OUTPUT = 32768
"""Bytes a data block decodes to at most."""
BLOCK_INPUT = 32768 + 6144
"""Compressed bytes of a data block at most, of whatever compression."""
OVERLAP = 4
"""How often the members of a folder together may claim the folder's size."""
MAX_SIGNATURE = 16 * 1024**2
"""Bytes of an appended signature."""
MAX_VOLUMES = 1024
"""Cabinets in a set."""
MAX_CANDIDATES = 4096
"""Places that look like a cabinet, tried while searching a larger file."""


def never() -> bool:
    """The clock of a caller who does not mind the time."""
    return False


@dataclass(frozen=True, slots=True)
class Budget:
    """What one pass may cost: bytes of output, blocks, members, and time by the caller's own clock."""

    output: int = MAX_OUTPUT
    blocks: int = MAX_BLOCKS
    members: int = MAX_MEMBERS
    expired: Callable[[], bool] = never

    def check_time(self, offset: int) -> None:
        """Raise LimitExceeded when the caller's time is over."""
        if self.expired():
            raise LimitExceeded(offset, "an end within the time allowed", "time is over")
