"""Firmware versions (protocol.md section 6.2): Major.Minor.Build.Qfe, ordered numerically."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from dissectors.errors import DissectError

# A part is a Windows file-version part in every version seen; twice the digits leaves room for oddities.
MAX_PART = 0xFFFFFFFF
MAX_REMEMBERED = 50  # characters
_FORM = re.compile(r"(\d{1,10})\.(\d{1,10})\.(\d{1,10})\.(\d{1,10})", re.ASCII)


class Version(NamedTuple):
    """Four numbers; compares as a tuple, prints as it is written on the wire (`3.5.6907.222`)."""

    major: int
    minor: int
    build: int
    qfe: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read `Major.Minor.Build.Qfe`; white space around it is allowed. Raises `DissectError`."""
        return _remembered(text) if len(text) <= MAX_REMEMBERED else _parse(text)

    @property
    def is_zero(self) -> bool:
        """True for 0.0.0.0, which a phone reports when nothing is installed (protocol.md section 3.2)."""
        return not any(self)

    def __str__(self) -> str:
        return ".".join(map(str, self))


def _parse(text: str) -> Version:
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise DissectError(0, "a version such as 3.5.6907.222", repr(text[:40]))
    parts = [int(part) for part in match.groups()]
    if max(parts) > MAX_PART:
        raise DissectError(0, f"version parts up to {MAX_PART}", repr(text[:40]))
    return Version(*parts)


_remembered = lru_cache(maxsize=1024)(_parse)  # thousands of phones run a few of them

ZERO = Version(0, 0, 0, 0)
