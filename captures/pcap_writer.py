"""A capture file made from exchanges: what a sniffer would have seen, had the wire been open to it.

The file is pcapng, because classic pcap has no place to say that its packets are synthetic: the first packet of every
message carries the comment `synthetic; decrypted=...; modified=...`. Each client connection becomes one TCP connection
with a handshake, full-sized acknowledged segments and an orderly end. Nothing is invented to fill holes: a body that
was not kept is a gap in the sequence numbers, a message that was cut off ends in a reset.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Self

from captures import http_wire, pcapng_blocks
from captures.exchange import Exchange, Request, Response, header
from captures.http_wire import Bodies, Gap, Leg, Message, no_bodies
from captures.private_file import private_file
from captures.tcp_packets import Connection, Endpoint

MAX_OPEN = 4096  # connections; the one idle for longest is closed in the file when another comes
MAX_GAP = 2**30  # bytes; sequence numbers cannot tell a larger one

ADDRESS_UNKNOWN = "addresses unknown, documentation addresses in their place"
CUT_OFF = "messages cut off"
FAULT_LOST = "faults of messages, now read as whole ones"
PORT_CHANGED = "port 443 written as 80, since TLS is taken off"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

# RFC 5737: addresses that stand for none. Port 443 would make readers look for TLS in what is decrypted here.
UNKNOWN_CLIENT = "192.0.2.1"
UNKNOWN_SERVER = "198.51.100.1"
HTTPS, HTTP = 443, 80
EPHEMERAL = range(49152, 65536)


@dataclass(slots=True)
class _Open:
    """A connection that is open in the file."""

    packets: Connection
    name: str
    at: int  # microseconds of its last packet


class PcapWriter:
    """Writes exchanges as packets; `leg` says which side's messages where upshim changed them.

    Not for several threads at once. A failing stream raises its OSError, and what was written before is readable.
    """

    def __init__(self, stream: BinaryIO, *, leg: Leg = "phone", application: str = "upshim") -> None:
        self._stream = stream
        self._leg = leg
        self._open: OrderedDict[tuple[str, str], _Open] = OrderedDict()
        self._opened = 0
        told = f"synthetic: {pcapng_blocks.MADE_BY} from recorded HTTP exchanges, {leg} side; not seen on a wire"
        stream.write(pcapng_blocks.section(application, told))
        stream.write(pcapng_blocks.interface("upshim", "synthetic connections, TLS taken off"))
        stream.flush()

    @classmethod
    def create(cls, path: Path, *, leg: Leg = "phone", application: str = "upshim") -> Self:
        """A writer into a new file that only its owner can read: bodies and headers may hold credentials."""
        return cls(private_file(path), leg=leg, application=application)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, exchange: Exchange, bodies: Bodies = no_bodies) -> tuple[str, ...]:
        """Write one exchange; returns what could not be written as it was (the notes of `http_wire` and here).

        Bodies that the exchange does not hold are asked from `bodies` and read in pieces. Exchanges of one connection
        come in their order; a connection is one as long as its endpoints and its name are the same.
        """
        request, response = http_wire.messages_of(exchange, self._leg)
        notes = [http_wire.MAC_LOST] * bool(exchange.client_mac) + [PORT_CHANGED] * (_port(exchange.server) == HTTPS)
        lonely = not request.method  # an answer whose request was not captured
        if lonely:
            self.close_connection(exchange.client, exchange.server, exchange.started)
        state = self._connect(exchange, notes)
        interim = [http_wire.interim_head(*each) for each in response.interim] if response else []
        continued = interim.pop(0) if response and _continues(request, response) else None
        whole = lonely or self._request(state, exchange, continued, bodies, notes)
        self._touch(state, exchange.ended if response is None else exchange.response_started or exchange.ended)
        for head in interim:
            self._packets(state, state.packets.send(False, (head,)))
        answer = self._response(state, exchange, bodies, notes) if response else None
        if response is None or answer is None or not whole:
            # The next answer on this connection would be taken for one of this exchange.
            self._packets(state, state.packets.reset(from_client=not whole))
            del self._open[exchange.client, exchange.server]
            notes += [CUT_OFF] * (response is not None or not whole)
            return self._flushed(notes)
        notes += [FAULT_LOST] * (not exchange.complete and not lonely)
        if lonely or answer.until_close or http_wire.ends_connection(request, response):
            self._packets(state, state.packets.close(from_client=False))
            del self._open[exchange.client, exchange.server]
        return self._flushed(notes)

    def _flushed(self, notes: list[str]) -> tuple[str, ...]:
        self._stream.flush()
        return tuple(notes)

    def close_connection(self, client: str, server: str, at: datetime | None = None) -> None:
        """Close a client's connection, if it is open, at a time not before its last packet."""
        state = self._open.pop((client, server), None)
        if state is not None:
            self._touch(state, at or EPOCH)
            self._packets(state, state.packets.close())
            self._stream.flush()

    def close(self) -> None:
        """Close every open connection and the stream."""
        try:
            for client, server in list(self._open):
                self.close_connection(client, server)
        finally:
            self._stream.close()

    def _connect(self, exchange: Exchange, notes: list[str]) -> _Open:
        key = exchange.client, exchange.server
        name = exchange.connection
        state = self._open.get(key)
        if state is not None and state.name == name and not _unknown(exchange.client):
            self._open.move_to_end(key)
            self._touch(state, exchange.started)
            return state
        self.close_connection(*key, exchange.started)
        if len(self._open) >= MAX_OPEN:
            self.close_connection(*next(iter(self._open)))
        client = self._endpoint(exchange.client, UNKNOWN_CLIENT, EPHEMERAL[self._opened % len(EPHEMERAL)], notes)
        server = self._endpoint(exchange.server, UNKNOWN_SERVER, HTTP, notes)
        if server.port == HTTPS:
            server = server._replace(port=HTTP)
        first = zlib.crc32(f"{self._opened} {client} {server}".encode())
        self._opened += 1
        state = self._open[key] = _Open(Connection(client, server, first), name, _microseconds(exchange.started))
        self._packets(state, state.packets.open())
        return state

    def _endpoint(self, shown: str, unknown: str, port: int, notes: list[str]) -> Endpoint:
        address, _, number = shown.rpartition(":")
        known = int(number) if number.isdecimal() and 0 < int(number) < 65536 else port
        try:
            if not _unknown(shown):
                return Endpoint.of(address.strip("[]"), known)
        except ValueError:
            pass
        if ADDRESS_UNKNOWN not in notes:
            notes.append(ADDRESS_UNKNOWN)
        return Endpoint.of(unknown, known)

    def _request(
        self, state: _Open, exchange: Exchange, continued: bytes | None, bodies: Bodies, notes: list[str]
    ) -> bool:
        """Send the request, with the answer `100 Continue` before its body; returns whether it is whole."""
        request, response = http_wire.messages_of(exchange, self._leg)
        complete = http_wire.request_whole(exchange, request, response)
        asked = http_wire.request_message(request, complete=complete, bodies=bodies)
        notes += asked.notes
        ended = exchange.request_ended or exchange.started
        comment = _comment(exchange, changed=self._leg == "server" and exchange.rewritten_request is not None)
        if continued is None:
            return self._send(state, True, asked, ended, comment)
        self._packets(state, state.packets.send(True, (asked.head,)), comment)
        self._packets(state, state.packets.send(False, (continued,)))
        self._touch(state, ended)
        return self._send(state, True, replace(asked, head=b""), ended)

    def _response(self, state: _Open, exchange: Exchange, bodies: Bodies, notes: list[str]) -> Message | None:
        """Send the answer; returns it if it is whole."""
        request, response = http_wire.messages_of(exchange, self._leg)
        if response is None:
            return None
        answer = http_wire.response_message(response, request.method, complete=exchange.complete, bodies=bodies)
        notes += answer.notes
        comment = _comment(exchange, changed=self._leg == "phone" and exchange.rewritten_response is not None)
        return answer if self._send(state, False, answer, exchange.ended, comment) else None

    def _send(self, state: _Open, from_client: bool, message: Message, ended: datetime, comment: str = "") -> bool:
        """Send a message; returns whether it has its end.

        The first packet goes out at the time the connection has come to, the others when the message ended: nothing
        is known of the time between. An answer of one packet has only its end.
        """
        if not from_client and message.length is not None and len(message.head) + message.length <= state.packets.mss:
            self._touch(state, ended)
        pieces = chain((message.head,), message.body)
        sent = -len(message.head)
        while True:
            stretch = _Stretch(pieces)
            packets = state.packets.send(from_client, stretch)
            self._packets(state, islice(packets, 1), comment)
            self._touch(state, ended)
            self._packets(state, packets)
            sent += stretch.size
            if stretch.gap is None:
                break
            if stretch.gap.size > MAX_GAP:
                return False
            state.packets.skip(from_client, stretch.gap.size)
            sent += stretch.gap.size
            comment = ""
        return (message.complete or message.length is not None) and message.length in {None, sent}

    def _packets(self, state: _Open, packets: Iterable[bytes], comment: str = "") -> None:
        write, at = self._stream.write, state.at
        for data in packets:
            write(pcapng_blocks.packet(data, at, comment))
            comment = ""

    def _touch(self, state: _Open, moment: datetime) -> None:
        state.at = max(state.at, _microseconds(moment))


class _Stretch:
    """The pieces up to the next gap, and then their `size` and that `gap`, if there was one."""

    def __init__(self, pieces: Iterator[bytes | Gap]) -> None:
        self._pieces = pieces
        self.size = 0
        self.gap: Gap | None = None

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Gap):
                self.gap = piece
                return
            self.size += len(piece)
            yield piece


def _continues(request: Request, response: Response) -> bool:
    expects = (header(request.headers, "expect") or "").lower() == "100-continue"
    return expects and bool(response.interim) and response.interim[0][0] == 100


def _comment(exchange: Exchange, *, changed: bool) -> str:
    decrypted = _port(exchange.server) == HTTPS
    return f"synthetic; decrypted={'yes' if decrypted else 'no'}; modified={'yes' if changed else 'no'}"


def _unknown(shown: str) -> bool:
    address = shown.rpartition(":")[0].strip("[]")
    return address in {"", "0.0.0.0", "::"}


def _port(shown: str) -> int:
    number = shown.rpartition(":")[2]
    return int(number) if number.isdecimal() else 0


def _microseconds(moment: datetime) -> int:
    return max((moment.astimezone(UTC) - EPOCH) // MICROSECOND, 0)
