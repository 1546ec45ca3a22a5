"""What is kept of connections that carry TLS."""

from __future__ import annotations

from collections import Counter

from captures.tcp import NOBODY, Connection, Endpoints, TcpTable
from captures.tls_look import MAX_HOLES, TlsLook, Wire

ENDS = Endpoints(bytes(4), bytes((1, 1, 1, 1)), 5000, 443, b"", ("", ""))
PAIR = frozenset({(ENDS.source, 5000), (ENDS.target, 443)})
HELLO = b"\x16\3\1\0\x30\1\0\0\x2c\3\3" + bytes(32)


def test_the_connection_is_the_last_one_that_had_begun() -> None:
    look = TlsLook()
    table = TcpTable(lambda _connection: (NOBODY, NOBODY), Counter())
    wires = []
    for number, time in enumerate((100, 200, 300)):
        connection = Connection(number, ENDS, table)
        connection.last_time = time
        wires.append(look.claim(connection, 0, HELLO))
    found = [look.carrier([PAIR], moment) for moment in (50, 150, 250, 9999)]
    assert [one and one.wires for one in found] == [wires[0], *wires]
    assert look.carrier([frozenset({(ENDS.source, 5001), (ENDS.target, 443)})], 150) is None


def test_holes_are_kept_within_a_bound() -> None:
    wire = Wire()
    for time in range(1000, 1000 + 2 * MAX_HOLES):
        wire.hole(3, time)
        wire.hole(4, time)
        wire.data(b"x", time, 0)
    assert len(wire.holes) == MAX_HOLES
    assert (wire.lost_behind(0), wire.lost_behind(1000 + 2 * MAX_HOLES)) == (7, 0)
