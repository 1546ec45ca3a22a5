"""What a reader of captures is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from captures.bodies import BodyFiles

HOLD = 1 << 20  # a body up to this size is held in memory with its exchange


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a reader is asked for. `bodies`: every body is also kept there; larger ones than `hold` are only hashed.

    `secrets`: facts of other protocols than HTTP name SIP users too. `progress` is told of bytes read from a file.
    """

    hold: int = HOLD
    bodies: BodyFiles | None = None
    keylog: Path | None = None
    tls_key: Path | None = None  # RSA, PEM
    secrets: bool = False
    progress: Callable[[int], None] | None = None
