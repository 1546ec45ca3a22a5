"""Hexadecimal digits in the notations people paste, and back.

Read: plain digits, wrapped lines (DHCPUtil wraps inside a byte), Cisco's dotted groups, colons, commas, spaces, dashes,
`0x` before the whole or before each byte, backslash-x escapes, the registry's `hex:01,0c`. Where every group is one
byte, single digits are bytes (`1:c:4d`, as ISC's tools print).
"""

from __future__ import annotations

import re
from typing import Literal

from dissectors.errors import DissectError, LimitExceeded

MAX_TEXT = 1 << 16  # characters; an option has 510 digits

Notation = Literal["plain", "colon", "dotted"]

_PREFIX = re.compile(r"\s*hex(?:\([0-9a-f]+\))?:", re.IGNORECASE)
_SEPARATORS = re.compile(r"[\s.:,;_\-\"'\\]+|(?<![0-9A-Fa-f])0?[xX](?=[0-9A-Fa-f])")
_NOT_HEX = re.compile(r"[^0-9A-Fa-f]")


def parse_hex(text: str) -> bytes:
    """The bytes. Raises `DissectError`; its offset counts characters of `text`."""
    if len(text) > MAX_TEXT:
        raise LimitExceeded(0, f"at most {MAX_TEXT} characters", f"{len(text)}")
    prefix = _PREFIX.match(text)
    start = prefix.end() if prefix else 0
    groups = [group for group in _SEPARATORS.split(text[start:]) if group]
    for group in groups:
        if bad := _NOT_HEX.search(group):
            raise DissectError(text.find(group, start) + bad.start(), "hexadecimal digits", repr(bad[0]))
    if not groups:
        raise DissectError(0, "hexadecimal digits", "none")
    if len(groups) > 1 and all(len(group) <= 2 for group in groups):
        groups = [group.zfill(2) for group in groups]
    digits = "".join(groups)
    if len(digits) % 2:
        raise DissectError(len(text), "an even number of hexadecimal digits", f"{len(digits)}")
    return bytes.fromhex(digits)


def format_hex(data: bytes, notation: Notation = "plain") -> str:
    """Digits as DHCPUtil prints them (plain, upper case), with colons, or in Cisco's dotted groups of four."""
    if notation == "colon":
        return data.hex(":")
    if notation == "dotted":
        digits = data.hex()
        return ".".join(digits[at : at + 4] for at in range(0, len(digits), 4))
    return data.hex().upper()
