"""The few pcapng blocks that a writer of packets needs (draft-ietf-opsawg-pcapng, sections 4.1 to 4.3).

Little-endian, one interface of link type RAW (IP without a link layer), times in microseconds.
"""

from __future__ import annotations

import struct

LINKTYPE_RAW = 101
MADE_BY = "packets made by upshim"  # in the comment of a section of ours

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_COMMENT, _APPLICATION, _NAME, _DESCRIPTION = 1, 4, 2, 3
_HEAD = struct.Struct("<II")
_PACKET_HEAD = struct.Struct("<IIIIIII")


def section(application: str, comment: str) -> bytes:
    """The section header; its length is left open, as the file grows."""
    fixed = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)
    return _block(_SECTION, fixed + _option(_APPLICATION, application) + _option(_COMMENT, comment) + bytes(4))


def interface(name: str, description: str) -> bytes:
    """The interface the packets belong to (number 0), without a length limit."""
    fixed = struct.pack("<HHI", LINKTYPE_RAW, 0, 0)
    return _block(_INTERFACE, fixed + _option(_NAME, name) + _option(_DESCRIPTION, description) + bytes(4))


def packet(data: bytes, microseconds: int, comment: str = "") -> bytes:
    """One packet, at a time since 1970."""
    options = _option(_COMMENT, comment) + bytes(4) if comment else b""
    size = len(data)
    padding = -size % 4
    total = 32 + size + padding + len(options)
    high, low = microseconds >> 32, microseconds & 0xFFFFFFFF
    head = _PACKET_HEAD.pack(_PACKET, total, 0, high, low, size, size)
    return b"".join((head, data, bytes(padding), options, total.to_bytes(4, "little")))


def _block(kind: int, body: bytes) -> bytes:
    total = 12 + len(body)
    return _HEAD.pack(kind, total) + body + total.to_bytes(4, "little")


def _option(code: int, text: str) -> bytes:
    value = text.encode()
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
