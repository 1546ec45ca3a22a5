"""The AV_PAIR list: TargetInfo of a challenge, and again inside an NTLMv2 response ([MS-NLMP] 2.2.2.1)."""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

from construct import Bytes, ConstructError, Int16ul, Struct, this

from dissectors.errors import DissectError, LimitExceeded
from dissectors.filetime import rfc3339

MAX_AV_PAIRS = 64  # ten ids are defined, each comes once

_AV_PAIR = Struct(
    "id" / Int16ul,
    "length" / Int16ul,
    "value" / Bytes(this.length),
)


class AvId(enum.IntEnum):
    """Names of the specification."""

    MsvAvEOL = 0
    MsvAvNbComputerName = 1
    MsvAvNbDomainName = 2
    MsvAvDnsComputerName = 3
    MsvAvDnsDomainName = 4
    MsvAvDnsTreeName = 5
    MsvAvFlags = 6
    MsvAvTimestamp = 7
    MsvAvSingleHost = 8
    MsvAvTargetName = 9
    MsvAvChannelBindings = 10


_NAMES = {int(id_): id_.name for id_ in AvId}
_TEXT = {1, 2, 3, 4, 5, 9}  # always Unicode, whatever the flags say


class AvPair(NamedTuple):
    """One pair; `value` is the bytes as sent."""

    id: int
    value: bytes

    @property
    def name(self) -> str:
        """Name of the specification, or the number."""
        return _NAMES.get(self.id, f"{self.id}")

    @property
    def text(self) -> str:
        """The value as UTF-16 text; broken code units become U+FFFD."""
        return self.value.decode("utf-16-le", "replace")

    def to_json(self) -> dict[str, Any]:
        """`id`, `name`, `value`: text, number (flags), RFC 3339 (timestamp) or hexadecimal digits."""
        shown: Any = self.value.hex()
        if self.id in _TEXT:
            shown = self.text
        elif self.id == AvId.MsvAvFlags and len(self.value) == 4:
            shown = int.from_bytes(self.value, "little")
        elif self.id == AvId.MsvAvTimestamp and len(self.value) == 8:
            shown = rfc3339(int.from_bytes(self.value, "little")) or shown
        return {"id": self.id, "name": self.name, "value": shown}


def parse_av_pairs(data: bytes, start: int = 0) -> tuple[AvPair, ...]:
    """Read pairs up to MsvAvEOL, which is not returned; what follows it (padding) is ignored. Raises `DissectError`.

    `start` is only added to the offsets of errors.
    """
    pairs: list[AvPair] = []
    offset = 0
    while True:
        try:
            pair = _AV_PAIR.parse(data[offset : offset + 4 + 0xFFFF])
        except ConstructError:
            raise DissectError(start + offset, "an AV pair", f"{len(data) - offset} bytes left") from None
        if pair.id == AvId.MsvAvEOL:
            return tuple(pairs)
        if len(pairs) >= MAX_AV_PAIRS:
            raise LimitExceeded(start + offset, f"at most {MAX_AV_PAIRS} AV pairs", "more")
        pairs.append(AvPair(pair.id, bytes(pair.value)))
        offset += 4 + pair.length


def build_av_pairs(pairs: tuple[AvPair, ...]) -> bytes:
    """The list with its MsvAvEOL; values of 65,535 bytes at most."""
    listed = (*pairs, AvPair(AvId.MsvAvEOL, b""))
    return b"".join(_AV_PAIR.build({"id": id_, "length": len(value), "value": value}) for id_, value in listed)
