"""MAC addresses in the notations people and servers write (protocol.md section 1.1)."""

from __future__ import annotations

import re
from functools import lru_cache

MAX_REMEMBERED = 40  # characters

_SEPARATORS = re.compile(r"[-:. \t]")
_DIGITS = re.compile(r"[0-9a-f]{12}", re.ASCII)


def normal_mac(text: str) -> str | None:
    """`00:04:f2:00:01:76` for `0004F2000176`, `00-04-F2-00-01-76` and the like; None for anything else."""
    return _remembered(text) if len(text) <= MAX_REMEMBERED else _normal_mac(text)


def _normal_mac(text: str) -> str | None:
    digits = _SEPARATORS.sub("", text).lower().removeprefix("0x")
    if _DIGITS.fullmatch(digits) is None:
        return None
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


_remembered = lru_cache(maxsize=1024)(_normal_mac)  # of one check it is asked several times
