"""What was decrypted of one connection, as calls that put it into a table of connections.

The pieces have times and no sequence numbers; the calls make some up. A hole has no place among those, as nobody knows
how much was said in it: it is told directly to what reads the direction, and so is the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from captures.tcp import SYN, Endpoints, TcpSegment, TcpTable
from captures.tls_look import Wire

SLACK = 1000  # nanoseconds: tshark's times of pieces are floating-point numbers

Call = Callable[[TcpTable], None]


class Piece(NamedTuple):
    """What one side said in a packet; the time is in nanoseconds since 1970."""

    side: int
    packet: int
    time: int
    data: bytes


class Fate(NamedTuple):
    """How the decrypted part of a direction ends: `lost` bytes are missing behind it; `ended` is when its connection
    did, None if the capture does not show that. `in_part` says that it is more than was decrypted, without a hole.
    """

    lost: int
    how: str
    ended: int | None
    in_part: bool

    @property
    def remark(self) -> str:
        """Why not all is known, or nothing."""
        if self.lost:
            return f"{self.lost} bytes of the TLS connection are missing: what follows them cannot be decrypted"
        return "the TLS connection is decrypted in part only" if self.in_part else ""


def fate_of(wire: Wire | None, last: Piece | None, closed: int | None, latest: int) -> Fate:
    """The fate of a direction with this last piece. At the time `closed` it said that this was all, in the packet
    `latest` something that may not be among the pieces.
    """
    if closed is not None:
        return Fate(0, "closed", closed, in_part=False)
    packet, time = (last.packet, last.time) if last else (0, 0)
    lost = wire.lost_behind(time - SLACK) if wire else 0
    in_part = not lost and latest > packet
    if wire is None or wire.how == "open":
        return Fate(lost, "open", None, in_part)
    return Fate(lost, "open" if lost or in_part else wire.how, wire.ended, in_part)


def calls(
    number: int, ends: Endpoints, pieces: Sequence[Piece], fates: Sequence[Fate], opened: Callable[[TcpTable], None]
) -> Iterator[tuple[int, Call]]:
    """The calls in their order, with their times; without `fates` the connection goes on. `opened` is the first's."""
    there, back = b"tls>%d" % number, b"tls<%d" % number
    keys = ((there, back), (back, there))
    first, last = min(piece.time for piece in pieces), max(piece.time for piece in pieces)

    def put(side: int, segment: TcpSegment) -> Call:
        return lambda table: table.segment(keys[side], segment, lambda: ends)

    def told(side: int, fate: Fate) -> Iterator[tuple[int, Call]]:
        ended = None if fate.ended is None else max(fate.ended, last)

        def call(table: TcpTable) -> None:
            half = table.halves.get(keys[side][0])
            if half is None:  # it was given up for memory
                return
            if fate.lost:
                half.deliver()
                half.sink.hole(fate.lost, last)
            if ended is not None:
                half.connection.ended(half, fate.how, ended)

        yield last if ended is None else ended, call

    def open_it(table: TcpTable) -> None:
        for side in (0, 1):
            put(side, TcpSegment(0, 0, SYN, b"", 0, first))(table)
        opened(table)

    yield first, open_it
    at = [1, 1]
    for side, _, time, data in pieces:
        yield time, put(side, TcpSegment(at[side], at[1 - side], 0, data, 0, time))
        at[side] += len(data)
    for side, fate in enumerate(fates):
        yield from told(side, fate)
