"""Classic pcap (draft-ietf-opsawg-pcap): both byte orders, micro- and nanoseconds, Kuznetzov's longer records."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from captures.packet_files.common import MAX_PACKET, Packet, PacketFile, Window

# First four bytes -> (byte order, nanoseconds per tick, bytes of a record header).
MAGICS = {
    b"\xa1\xb2\xc3\xd4": (">", 1000, 16),
    b"\xd4\xc3\xb2\xa1": ("<", 1000, 16),
    b"\xa1\xb2\x3c\x4d": (">", 1, 16),
    b"\x4d\x3c\xb2\xa1": ("<", 1, 16),
    b"\xa1\xb2\xcd\x34": (">", 1000, 24),  # Kuznetzov: interface, protocol and packet type follow the lengths
    b"\x34\xcd\xb2\xa1": ("<", 1000, 24),
}
FILE_HEADER = 24
LINK_TYPE_MASK = 0xFFFF  # the upper bits of the field tell the length of the frame check sequence


def packets(window: Window, file: PacketFile) -> Iterator[Packet]:
    """The packets of a file whose first bytes are one of `MAGICS`."""
    order, tick, header_size = MAGICS[window.data[:4]]
    if window.need(0, FILE_HEADER) is None:
        return file.damage(len(window.data), f"a file header of {FILE_HEADER} bytes", "the end of the file")
    link_type = struct.unpack_from(f"{order}20xI", window.data)[0] & LINK_TYPE_MASK
    unpack = struct.Struct(f"{order}IIII").unpack_from
    position = FILE_HEADER
    while True:
        data = window.data
        size = len(data)
        while (start := position + header_size) <= size:
            seconds, fraction, captured, wire = unpack(data, position)
            end = start + captured
            if end > size:
                break
            if captured > MAX_PACKET:
                return file.damage(window.offset + position, f"a packet of at most {MAX_PACKET} bytes", str(captured))
            yield seconds * 1_000_000_000 + fraction * tick, link_type, data, start, end, wire
            position = end
        if start <= size and captured > MAX_PACKET:
            return file.damage(window.offset + position, f"a packet of at most {MAX_PACKET} bytes", str(captured))
        if not window.more(position):
            if position < size and not file.damaged:
                file.damage(window.offset + position, "a whole packet", f"{size - position} bytes and the end")
            return None
        position = 0
