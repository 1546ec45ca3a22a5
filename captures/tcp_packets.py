"""TCP segments in IP packets, made from bytes: one synthetic connection with two ends.

The packets are raw IP (no link layer: a made-up MAC address would be a lie). Field layouts: RFC 791 section 3.1,
RFC 8200 section 3, RFC 9293 section 3.1. Checksums are right; the sum over a segment is one big-integer remainder, as
the ones' complement sum of 16-bit words is the value modulo 65535 (RFC 1071).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

MSS = {4: 1460, 6: 1440}  # what fits into 1500 bytes of IPv4 or IPv6
WINDOW = 65535  # bytes; the receiver acknowledges every second segment, so it is never exceeded

_TCP = struct.Struct("!HHIIBBHHH")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_TTL = 64
_PROTOCOL_TCP = 6
_DONT_FRAGMENT = 0x4000


class Endpoint(NamedTuple):
    """One end: an address in 4 or 16 network-order bytes, and a port."""

    address: bytes
    port: int

    @classmethod
    def of(cls, address: str, port: int) -> Endpoint:
        """From an address in text; raises ValueError for anything but an IP address."""
        return cls(ipaddress.ip_address(address).packed, port)

    def as_ipv6(self) -> Endpoint:
        """The IPv4-mapped address, for a connection whose other end has IPv6 only."""
        return self if len(self.address) == 16 else Endpoint(bytes(10) + b"\xff\xff" + self.address, self.port)


@dataclass(slots=True)
class _Side:
    """One direction: what is constant in its packets, and its next sequence number."""

    source: Endpoint
    target: Endpoint
    sequence: int
    pseudo: int = 0  # the pseudo-header's sum without the length
    ident: int = 0  # IPv4 identification
    unacknowledged: int = 0  # segments since the other end's last acknowledgement

    def __post_init__(self) -> None:
        self.pseudo = int.from_bytes(self.source.address + self.target.address) + _PROTOCOL_TCP


@dataclass(slots=True)
class Connection:
    """The two ends' sequence numbers; every method gives the packets that go out, in order.

    Sequence numbers start at `first_sequence` (client) and an unrelated value (server) and wrap at 2^32.
    """

    client: Endpoint
    server: Endpoint
    first_sequence: int
    _up: _Side = field(init=False)
    _down: _Side = field(init=False)

    def __post_init__(self) -> None:
        client, server = self.client, self.server
        if len(client.address) != len(server.address):
            client, server = client.as_ipv6(), server.as_ipv6()
        self._up = _Side(client, server, self.first_sequence % 2**32)
        self._down = _Side(server, client, (self.first_sequence * 2654435761 + 97) % 2**32)

    @property
    def mss(self) -> int:
        """Payload bytes in a full segment."""
        return MSS[6 if len(self._up.source.address) == 16 else 4]

    def open(self) -> Iterator[bytes]:
        """The three-way handshake."""
        option = struct.pack("!BBH", 2, 4, self.mss)
        yield self._packet(self._up, self._down, SYN, options=option)
        self._up.sequence = (self._up.sequence + 1) % 2**32
        yield self._packet(self._down, self._up, SYN | ACK, options=option)
        self._down.sequence = (self._down.sequence + 1) % 2**32
        yield self._packet(self._up, self._down, ACK)

    def send(self, from_client: bool, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Data in full segments whatever the size of the pieces, each second one acknowledged; the last has PSH."""
        here, there = self._ends(from_client)
        mss = self.mss
        rest = b""
        for piece in pieces:
            data = rest + piece if rest else piece
            # One byte stays behind, so that the last segment is known to be the last.
            whole = max(len(data) - 1, 0) // mss * mss
            for start in range(0, whole, mss):
                yield from self._segment(here, there, data[start : start + mss], ACK)
            rest = data[whole:]
        if rest:
            yield from self._segment(here, there, rest, ACK | PSH)
        if here.unacknowledged:
            here.unacknowledged = 0
            yield self._packet(there, here, ACK)

    def skip(self, from_client: bool, size: int) -> None:
        """Leave bytes out, as a capture does that has lost them; sizes of 2^31 and over are beyond what TCP tells."""
        here, _ = self._ends(from_client)
        here.sequence = (here.sequence + size) % 2**32

    def close(self, from_client: bool = True) -> Iterator[bytes]:
        """Both ends finish, one of them first."""
        here, there = self._ends(from_client)
        for near, far in ((here, there), (there, here)):
            yield self._packet(near, far, FIN | ACK)
            near.sequence = (near.sequence + 1) % 2**32
        yield self._packet(here, there, ACK)

    def reset(self, from_client: bool) -> Iterator[bytes]:
        """One end breaks the connection."""
        here, there = self._ends(from_client)
        yield self._packet(here, there, RST | ACK)

    def _ends(self, from_client: bool) -> tuple[_Side, _Side]:
        return (self._up, self._down) if from_client else (self._down, self._up)

    def _segment(self, here: _Side, there: _Side, payload: bytes, flags: int) -> Iterator[bytes]:
        yield self._packet(here, there, flags, payload)
        here.sequence = (here.sequence + len(payload)) % 2**32
        here.unacknowledged += 1
        if here.unacknowledged == 2:
            here.unacknowledged = 0
            yield self._packet(there, here, ACK)

    @staticmethod
    def _packet(here: _Side, there: _Side, flags: int, payload: bytes = b"", options: bytes = b"") -> bytes:
        ports = here.source.port, here.target.port
        acknowledged = there.sequence if flags & ACK else 0
        offset = (20 + len(options)) // 4 << 4
        header = _TCP.pack(*ports, here.sequence, acknowledged, offset, flags, WINDOW, 0, 0) + options
        size = len(header) + len(payload)
        body = int.from_bytes(payload) << (len(payload) % 2 * 8)
        total = here.pseudo + size + int.from_bytes(header) + body
        segment = header[:16] + _complement(total).to_bytes(2) + header[18:] + payload
        if len(here.source.address) == 16:
            return _IPV6.pack(6 << 28, size, _PROTOCOL_TCP, _TTL, here.source.address, here.target.address) + segment
        here.ident = (here.ident + 1) % 2**16
        fixed = 0x45, 0, 20 + size, here.ident, _DONT_FRAGMENT, _TTL, _PROTOCOL_TCP
        checksum = _complement(int.from_bytes(_IPV4.pack(*fixed, 0, here.source.address, here.target.address)))
        return _IPV4.pack(*fixed, checksum, here.source.address, here.target.address) + segment


def _complement(total: int) -> int:
    """The checksum over words whose concatenation (or sum of such) is `total`, which is not zero."""
    return 0xFFFF - (total % 0xFFFF or 0xFFFF)
