"""Snoop version 2 (RFC 1761), written by Solaris."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from captures.packet_files.common import ETHERNET, MAX_PACKET, Packet, PacketFile, Window

MAGIC = b"snoop\0\0\0"
FILE_HEADER = 16
RECORD = struct.Struct(">6I")  # original, included and record length; drops; seconds, microseconds
LINK_TYPES = {4: ETHERNET}


def packets(window: Window, file: PacketFile) -> Iterator[Packet]:
    """The packets of a file that starts with `MAGIC`."""
    if window.need(0, FILE_HEADER) is None:
        return file.damage(len(window.data), f"a file header of {FILE_HEADER} bytes", "the end of the file")
    version, link = struct.unpack_from(">II", window.data, len(MAGIC))
    if version != 2 or link not in LINK_TYPES:
        return file.damage(8, "snoop version 2 of Ethernet (4)", f"version {version} of link type {link}")
    position = FILE_HEADER
    while (at := window.need(position, RECORD.size)) is not None:
        wire, captured, length, _drops, seconds, micros = RECORD.unpack_from(window.data, at)
        if not captured <= length - RECORD.size <= MAX_PACKET:
            return file.damage(window.offset + at, "record and packet length in keeping", f"{length} and {captured}")
        placed = window.need(at, length)
        if placed is None:
            if not file.damaged:
                file.damage(window.offset + at, f"a record of {length} bytes", "the end of the file")
            return None
        start = placed + RECORD.size
        time = seconds * 1_000_000_000 + micros * 1000
        yield time, LINK_TYPES[link], window.data, start, start + captured, wire
        position = placed + length
    if position < len(window.data) and not file.damaged:
        file.damage(window.offset + position, "a whole record", "the end of the file")
    return None
