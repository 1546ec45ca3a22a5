"""The first look at a capture whose TLS is to be decrypted: where TLS is, and how its connections fared.

tshark gives the bytes it has decrypted and is silent about the rest: that bytes are missing, and how a connection
ended. The reassembly of the encrypted connections knows both.

TLS begins with the first bytes of a connection, or later: behind CONNECT, where a proxy stands between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from captures.tcp import Connection, Endpoints, Sink

MAX_PORTS = 100  # that are named to tshark as TLS
MAX_KEPT = 10_000  # connections whose fate is kept
MAX_HOLES = 100  # of one direction; nothing is decrypted behind the first one in its data

_CLIENT_HELLO = 1

Pair = frozenset[tuple[bytes, int]]  # both ends of a connection: address and port


class Hole(NamedTuple):
    """Bytes that are missing, and when the first one behind them came."""

    size: int
    behind: int | None


class Wire:
    """One direction of a connection, as it came. `how` it ended, and when, is what a `Sink` is told."""

    __slots__ = ("_carrier", "ended", "holes", "how")

    def __init__(self, carrier: Carrier) -> None:
        self.how = "open"
        self.ended = 0
        self.holes: list[Hole] = []
        self._carrier = carrier

    def lost_behind(self, moment: int) -> int:
        """How many bytes are missing in the first hole behind what came at `moment`; 0 if there is none.

        An earlier one is none to tshark, which has seen those bytes in another network: it reads nothing behind a hole.
        """
        return next((hole.size for hole in self.holes if hole.behind is None or hole.behind > moment), 0)

    # The sink of a TCP direction.

    def data(self, data: bytes, time: int, _ack: int) -> None:
        """Look whether TLS begins here, if it has not."""
        if self.holes and self.holes[-1].behind is None:
            self.holes[-1] = self.holes[-1]._replace(behind=time)
        if self._carrier.look is not None and _asks(data):
            self._carrier.look.tunnel(self._carrier, time)

    def hole(self, size: int, _time: int) -> None:
        """Keep it in mind, within the bound."""
        if self.holes and self.holes[-1].behind is None:
            self.holes[-1] = Hole(self.holes[-1].size + size, None)
        elif len(self.holes) < MAX_HOLES:
            self.holes.append(Hole(size, None))

    def conflict(self, _size: int) -> None:
        """It is counted where the capture is read."""

    def end(self, how: str, time: int) -> None:
        """Keep in mind how and when."""
        self.how, self.ended = how, time


class Carrier:
    """A connection, and its directions in the order of its ends. It has a `look` while that waits for TLS in it."""

    __slots__ = ("began", "endpoints", "look", "wires")

    def __init__(self, endpoints: Endpoints, look: TlsLook) -> None:
        self.endpoints = endpoints
        self.look: TlsLook | None = look
        self.wires = Wire(self), Wire(self)
        self.began = 0  # when its TLS did


class TlsLook:
    """Finds TLS: a claim on connections. `ports` are those of its servers, `proxies` those of connections that begin
    with something else.
    """

    def __init__(self) -> None:
        self.ports: set[int] = set()
        self.proxies: set[int] = set()
        self.connections = 0
        self.tunnels = 0  # those of the connections whose first bytes are something else
        self._kept = 0
        self._carriers: dict[Pair, list[Carrier]] = {}

    def claim(self, connection: Connection, side: int, data: bytes) -> tuple[Sink, Sink]:
        """Look at the first bytes of a connection, and take it off its reader."""
        carrier = Carrier(connection.endpoints, self)
        hello = data[0] == 0x16 and data[1:2] == b"\3"
        old_hello = data[0] & 0x80 and data[2:4] == b"\1\3"  # RFC 5246 appendix E.2
        if hello or old_hello or (data[0] in range(0x14, 0x18) and data[1:2] == b"\3"):
            asks = bool(old_hello) or data[5:6] == bytes((_CLIENT_HELLO,))
            ends = connection.endpoints
            ports = ends.source_port, ends.target_port
            if len(self.ports) < MAX_PORTS and (hello or old_hello):
                self.ports.add(ports[1 - side] if asks else ports[side])
            self._keep(carrier, connection.last_time)
        return carrier.wires

    def tunnel(self, carrier: Carrier, time: int) -> None:
        """TLS begins in a connection that began with something else."""
        self.tunnels += 1
        self.proxies |= {carrier.endpoints.source_port, carrier.endpoints.target_port}
        self._keep(carrier, time)

    def carrier(self, pairs: Iterable[Pair], moment: int) -> Carrier | None:
        """The connection between one of these pairs of ends that carried what TLS said at `moment`, if it was kept."""
        found: Carrier | None = None
        for pair in pairs:
            for one in self._carriers.get(pair, ()):
                if found is None or found.began < one.began <= moment:
                    found = one
        return found

    def _keep(self, carrier: Carrier, time: int) -> None:
        carrier.look = None
        carrier.began = time
        self.connections += 1
        if self._kept < MAX_KEPT:
            self._kept += 1
            ends = carrier.endpoints
            pair = frozenset(((ends.source, ends.source_port), (ends.target, ends.target_port)))
            self._carriers.setdefault(pair, []).append(carrier)


def _asks(data: bytes) -> bool:
    """Whether a piece begins with a ClientHello, of SSL 3 or later."""
    return data[0] == 0x16 and data[1:2] == b"\3" and data[5:6] == bytes((_CLIENT_HELLO,)) and data[9:10] == b"\3"
