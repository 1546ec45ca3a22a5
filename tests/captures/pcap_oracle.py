"""A second opinion on written captures: scapy takes the packets apart, h11 the messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import h11
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.utils import RawPcapNgReader

Key = tuple[str, int, str, int]


@dataclass
class Dialogue:
    """One TCP connection as seen in the file."""

    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)
    flags: list[str] = field(default_factory=list)
    holes: list[int] = field(default_factory=list)
    largest: int = 0


def read_dialogues(path: Path) -> list[tuple[Key, Dialogue]]:
    """All connections in the order of their SYN; asserts on checksums, sequence and acknowledgement numbers."""
    found: list[tuple[Key, Dialogue]] = []
    live: dict[Key, Dialogue] = {}
    expected: dict[Key, int] = {}
    with RawPcapNgReader(str(path)) as reader:
        packets = [raw for raw, _ in reader]
    for raw in packets:
        packet = (IP if raw[0] >> 4 == 4 else IPv6)(raw)
        assert rebuilt(packet) == raw
        tcp = packet[TCP]
        assert len(raw) <= 1500
        key, reverse = (packet.src, tcp.sport, packet.dst, tcp.dport), (packet.dst, tcp.dport, packet.src, tcp.sport)
        flags = str(tcp.flags)
        data = bytes(tcp.payload)
        if flags == "S":
            live[key] = Dialogue()
            found.append((key, live[key]))
        elif "S" not in flags:
            owner = live.get(key) or live[reverse]
            # A hole shows where its receiver acknowledges it or where its sender goes on.
            for side, number in ((key, tcp.seq), (reverse, tcp.ack)):
                if hole := (number - expected[side]) % 2**32:
                    assert hole < 2**31
                    owner.holes.append(hole)
                    expected[side] = number
        owner = live.get(key) or live[reverse]
        owner.flags.append(flags)
        owner.largest = max(owner.largest, len(data))
        (owner.up if key in live else owner.down).extend(data)
        expected[key] = (tcp.seq + len(data) + ("S" in flags) + ("F" in flags)) % 2**32
    return found


def rebuilt(packet: IP | IPv6) -> bytes:
    """The packet with lengths and checksums computed by scapy."""
    copy = packet.copy()
    for layer, names in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum", "dataofs"))):
        if layer in copy:
            for name in names:
                setattr(copy[layer], name, None)
    return bytes(copy)


def read_messages(dialogue: Dialogue) -> list[tuple[h11.Request, bytes, h11.Response, bytes]]:
    """The exchanges of a connection without holes, as h11 reads them."""
    server, client = h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)
    server.receive_data(bytes(dialogue.up))
    client.receive_data(bytes(dialogue.down))
    if "FA" in dialogue.flags:
        client.receive_data(b"")
    exchanges = []
    while isinstance(request := server.next_event(), h11.Request):
        # Tell both sides what the other said, so that HEAD, CONNECT and the version are known to them.
        client.send(request)
        asked = body_of(server)
        client.send(h11.EndOfMessage() if b"transfer-encoding" in dict(request.headers) else h11.Data(asked))
        if client.our_state is h11.SEND_BODY:
            client.send(h11.EndOfMessage())
        response = client.next_event()
        while isinstance(response, h11.InformationalResponse):
            response = client.next_event()
        assert isinstance(response, h11.Response)
        answer = body_of(client)
        exchanges.append((request, asked, response, answer))
        server.send(h11.Response(status_code=response.status_code, headers=response.headers, reason=response.reason))
        if server.our_state is h11.SEND_BODY and answer:
            server.send(h11.Data(answer))
        server.send(h11.EndOfMessage())
        if client.our_state is not h11.DONE or client.their_state is not h11.DONE:
            break
        server.start_next_cycle()
        client.start_next_cycle()
    return exchanges


def body_of(connection: h11.Connection) -> bytes:
    """The body that follows, to its end."""
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return body
