"""What a run of `decode` may show and cost, and what it hands from step to step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dissectors.cabinet import Budget
from dissectors.file_digests import FileDigests

if TYPE_CHECKING:
    from dissectors.certificates import Catalog

MAX_NESTED = 64 << 20
"""Bytes of members kept for a look inside, of all cabinets of one file together."""
MAX_MEMBER = 16 << 20
"""Bytes of one member that is looked into."""
MAX_DEPTH = 3
"""How deep files inside files are decoded."""
MAX_ROWS = 1000
"""Rows of a log shown; all are counted."""


def nothing(_done: int) -> None:
    """The progress of a caller who shows none."""


@dataclass(slots=True)
class Settings:
    """Options of the command line, and the budgets, which all files of a run share.

    `deadline` is of the monotonic clock. `progress` is told how many more bytes have been decoded.
    """

    output: int = 2 << 30
    seconds: float = 300.0
    depth: int = MAX_DEPTH
    nested: int = MAX_NESTED
    rows: int = MAX_ROWS
    secrets: bool = False
    date: datetime = field(default_factory=lambda: datetime.now(UTC))
    domain: str = ""
    extract: str | None = None
    progress: Callable[[int], None] = nothing
    deadline: float = 0.0

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.seconds

    @property
    def budget(self) -> Budget:
        """What the next cabinet may cost."""
        return Budget(output=self.output, expired=self.expired)

    def expired(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.deadline


@dataclass(slots=True)
class Decoded:
    """A file as told: `record` is its line of JSON; digests and catalogs are for the proof across files.

    `files` and `catalogs` are named as people should see them: `update.cab:cpe.nbt`.
    """

    record: dict[str, Any]
    files: list[tuple[str, FileDigests]] = field(default_factory=list)
    catalogs: list[tuple[str, Catalog]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing about it is wrong."""
        return self.record["kind"] != "unknown" and not self.record["problems"]
