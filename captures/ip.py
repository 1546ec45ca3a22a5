"""From an IP packet to the transport segment in it: IPv4, IPv6 with its extension headers, fragments, tunnels.

Source: RFC 791, RFC 8200, RFC 6946 (atomic fragments). Fragments are put together within fixed bounds, the first copy
of a byte wins (RFC 5722 would drop overlapping IPv6 fragments; a capture is read for what it may have meant).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_DATAGRAMS = 1024  # datagrams whose fragments are waited for
MAX_FRAGMENTS = 256  # fragments of one datagram
MAX_WAITING = 8 << 20  # bytes of all fragments waited for
MAX_TUNNELS = 4  # IP in IP
MAX_EXTENSIONS = 16  # IPv6 extension headers of one packet

HOP_BY_HOP, IP_IN_IP, ROUTING, FRAGMENT, AH, IPV6_IN_IP, DESTINATION = 0, 4, 43, 44, 51, 41, 60
TCP, UDP = 6, 17


class Segment(NamedTuple):
    """A transport segment. `end` is where its captured bytes end, `claimed` where they should, both in `data`."""

    protocol: int
    source: bytes
    target: bytes
    data: bytes
    start: int
    end: int
    claimed: int


@dataclass(slots=True)
class _Datagram:
    protocol: int = 0
    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int = 0
    total: int | None = None


class Defragmenter:
    """Reads IP packets; keeps fragments until their datagram is whole or the bounds drop the oldest one."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._waiting: OrderedDict[bytes, _Datagram] = OrderedDict()
        self._bytes = 0

    def segment(self, data: bytes, start: int, end: int, wire_end: int, network: bytes) -> Segment | None:
        """The segment in an IP packet at `start`. `wire_end` is where the frame ended on the wire, for packets that
        the sender's card was to cut up (length 0); `network` are the VLAN tags, which keep networks apart.
        """
        for _ in range(MAX_TUNNELS + 1):
            if start >= end:
                return None
            version = data[start] >> 4
            if version == 4:
                inner = self._ipv4(data, start, end, wire_end, network)
            elif version == 6:
                inner = self._ipv6(data, start, end, wire_end, network)
            else:
                inner = None
            if inner is None or inner.protocol not in {IP_IN_IP, IPV6_IN_IP}:
                return inner
            data, start, end, wire_end = inner.data, inner.start, inner.end, inner.claimed
        return None

    @property
    def waiting(self) -> int:
        """Datagrams of which fragments are missing."""
        return len(self._waiting)

    def _ipv4(self, data: bytes, start: int, end: int, wire_end: int, network: bytes) -> Segment | None:
        header = (data[start] & 0x0F) * 4
        if header < 20 or start + header > end:
            return self._bad()
        total = data[start + 2] << 8 | data[start + 3]
        claimed = start + total if total else wire_end
        if claimed < start + header:
            return self._bad()
        flags = data[start + 6] << 8 | data[start + 7]
        protocol = data[start + 9]
        source, target = data[start + 12 : start + 16], data[start + 16 : start + 20]
        segment = Segment(protocol, source, target, data, start + header, min(end, claimed), claimed)
        if not flags & 0x3FFF:
            return segment
        key = network + source + target + bytes((protocol,)) + data[start + 4 : start + 6]
        return self._fragment(key, segment, (flags & 0x1FFF) * 8, more=bool(flags & 0x2000))

    def _ipv6(self, data: bytes, start: int, end: int, wire_end: int, network: bytes) -> Segment | None:
        if start + 40 > end:
            return self._bad()
        length = data[start + 4] << 8 | data[start + 5]
        claimed = start + 40 + length if length else max(wire_end, start + 40)
        end = min(end, claimed)
        protocol = data[start + 6]
        source, target = data[start + 8 : start + 24], data[start + 24 : start + 40]
        position = start + 40
        for _ in range(MAX_EXTENSIONS):
            if protocol not in {HOP_BY_HOP, ROUTING, DESTINATION, AH, FRAGMENT}:
                return Segment(protocol, source, target, data, position, end, claimed)
            if position + 8 > end:
                return self._bad()
            following = data[position]
            if protocol == FRAGMENT:
                flags = data[position + 2] << 8 | data[position + 3]
                if flags & 0xFFF9:
                    segment = Segment(following, source, target, data, position + 8, end, claimed)
                    key = network + source + target + data[position + 4 : position + 8]
                    return self._fragment(key, segment, flags & 0xFFF8, more=bool(flags & 1))
                position += 8  # an atomic fragment: the header alone, nothing to wait for
            elif protocol == AH:
                position += (data[position + 1] + 2) * 4
            else:
                position += (data[position + 1] + 1) * 8
            protocol = following
        return self._bad()

    def _bad(self) -> Segment | None:
        self._counts["malformed IP packets"] += 1
        return None

    def _fragment(self, key: bytes, segment: Segment, offset: int, *, more: bool) -> Segment | None:
        self._counts["IP fragments"] += 1
        if segment.end < segment.claimed:
            self._counts["IP fragments cut short"] += 1
            return None
        datagram = self._waiting.setdefault(key, _Datagram())
        piece = segment.data[segment.start : segment.end]
        earlier = datagram.pieces.get(offset, b"")
        if len(piece) > len(earlier) or offset not in datagram.pieces:
            datagram.pieces[offset] = earlier + piece[len(earlier) :]
            datagram.size += len(piece) - len(earlier)
            self._bytes += len(piece) - len(earlier)
        if not offset:
            datagram.protocol = segment.protocol
        if not more:
            datagram.total = offset + len(piece)
        whole = self._whole(datagram)
        if whole is not None:
            self._drop(key)
            return segment._replace(protocol=datagram.protocol, data=whole, start=0, end=len(whole), claimed=len(whole))
        while len(datagram.pieces) > MAX_FRAGMENTS or self._bytes > MAX_WAITING or len(self._waiting) > MAX_DATAGRAMS:
            self._counts["IP datagrams given up"] += 1
            oldest = key if len(datagram.pieces) > MAX_FRAGMENTS else next(iter(self._waiting))
            self._drop(oldest)
            if oldest == key:
                break
        return None

    def _drop(self, key: bytes) -> None:
        self._bytes -= self._waiting.pop(key).size

    @staticmethod
    def _whole(datagram: _Datagram) -> bytes | None:
        if datagram.total is None or datagram.size < datagram.total:
            return None
        out = bytearray()
        for offset in sorted(datagram.pieces):
            if offset > len(out):
                return None
            out += datagram.pieces[offset][len(out) - offset :]
        return bytes(out[: datagram.total]) if len(out) >= datagram.total else None
