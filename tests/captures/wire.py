"""Packets and packet files made by hand with `struct`: what the readers are tested on, shape by shape."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
START = 1_600_000_000_000_000_000  # ns


@dataclass(frozen=True)
class Packet:
    """A frame with its time; `wire` is its length before the capture cut it."""

    data: bytes
    time: int = START
    wire: int | None = None


def tcp(
    payload: bytes = b"", *, sport: int = 5000, dport: int = 80, seq: int = 0, ack: int = 0, flags: int = ACK
) -> bytes:
    return struct.pack(">HHIIBBHHH", sport, dport, seq % 2**32, ack % 2**32, 0x50, flags, 65535, 0, 0) + payload


def udp(payload: bytes, sport: int = 68, dport: int = 67) -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def ipv4(
    payload: bytes,
    source: str = "10.0.0.1",
    target: str = "10.0.0.2",
    *,
    protocol: int = 6,
    fragment: int = 0,
    ident: int = 1,
    total: int | None = None,
    options: bytes = b"",
) -> bytes:
    header = 20 + len(options)
    total = header + len(payload) if total is None else total
    fields = (0x40 | header // 4, 0, total, ident, fragment, 64, protocol, 0)
    addresses = ip_address(source).packed + ip_address(target).packed
    return struct.pack(">BBHHHBBH", *fields) + addresses + options + payload


def ipv6(
    payload: bytes, source: str = "fd00::1", target: str = "fd00::2", *, following: int = 6, length: int | None = None
) -> bytes:
    length = len(payload) if length is None else length
    return (
        struct.pack(">IHBB", 6 << 28, length, following, 64)
        + ip_address(source).packed
        + ip_address(target).packed
        + payload
    )


def ethernet(payload: bytes, ethertype: int = 0x0800, vlans: Iterable[tuple[int, int]] = ()) -> bytes:
    tags = b"".join(struct.pack(">HH", kind, number) for kind, number in vlans)
    return bytes.fromhex("020000000002020000000001") + tags + struct.pack(">H", ethertype) + payload


def pcap(
    packets: Iterable[Packet], *, link: int = 1, order: str = "<", nano: bool = False, modified: bool = False
) -> bytes:
    magic = 0xA1B23C4D if nano else 0xA1B2CD34 if modified else 0xA1B2C3D4
    out = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link)]
    for packet in packets:
        seconds, fraction = divmod(packet.time, 1_000_000_000)
        wire = len(packet.data) if packet.wire is None else packet.wire
        out.append(struct.pack(f"{order}IIII", seconds, fraction if nano else fraction // 1000, len(packet.data), wire))
        out += [bytes(8) if modified else b"", packet.data]
    return b"".join(out)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(f"{order}II", kind, len(body) + 12) + body + struct.pack(f"{order}I", len(body) + 12)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def interface(link: int = 1, *, snap: int = 0, options: bytes = b"", order: str = "<") -> bytes:
    return block(1, struct.pack(f"{order}HHI", link, 0, snap) + options, order)


def enhanced(data: bytes, ticks: int = 0, *, number: int = 0, wire: int | None = None, order: str = "<") -> bytes:
    lengths = len(data), len(data) if wire is None else wire
    return block(6, struct.pack(f"{order}5I", number, ticks >> 32, ticks & 0xFFFFFFFF, *lengths) + data, order)


@dataclass
class Talk:
    """One TCP connection over IPv4 in Ethernet frames. What the client and the server say comes as whole segments."""

    sport: int = 5000
    client_isn: int = 1000
    server_isn: int = 9000
    mss: int = 1460
    packets: list[Packet] = field(default_factory=list)
    time: int = START

    def __post_init__(self) -> None:
        self.client_next = self.client_isn
        self.server_next = self.server_isn

    def add(self, segment: bytes, *, up: bool) -> None:
        addresses = ("10.0.0.1", "10.0.0.2") if up else ("10.0.0.2", "10.0.0.1")
        self.packets.append(Packet(ethernet(ipv4(segment, *addresses)), self.time))
        self.time += 1_000_000

    def open(self) -> Talk:
        self.client(flags=SYN)
        self.server(flags=SYN | ACK)
        return self.client()

    def client(self, payload: bytes = b"", flags: int = ACK) -> Talk:
        for piece in _pieces(payload, self.mss):
            ports = {"sport": self.sport, "dport": 80}
            self.add(tcp(piece, **ports, seq=self.client_next, ack=self.server_next, flags=flags), up=True)
            self.client_next += len(piece) + bool(flags & (SYN | FIN))
        return self

    def server(self, payload: bytes = b"", flags: int = ACK) -> Talk:
        for piece in _pieces(payload, self.mss):
            ports = {"sport": 80, "dport": self.sport}
            self.add(tcp(piece, **ports, seq=self.server_next, ack=self.client_next, flags=flags), up=False)
            self.server_next += len(piece) + bool(flags & (SYN | FIN))
        return self

    def close(self) -> Talk:
        return self.server(flags=FIN | ACK).client(flags=FIN | ACK).server()


def _pieces(payload: bytes, size: int) -> list[bytes]:
    return [payload[start : start + size] for start in range(0, len(payload), size)] or [b""]


def request(target: str = "/file.cab", method: str = "GET", body: bytes = b"", extra: str = "") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {target} HTTP/1.1\r\nHost: ucupdates-r2\r\n{length}{extra}\r\n".encode() + body


def answer(body: bytes = b"", status: int = 200, extra: str = "") -> bytes:
    return f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


def cut(packet: Packet, size: int) -> Packet:
    """The packet as a capture with this snap length holds it."""
    return replace(packet, data=packet.data[:size], wire=len(packet.data))


def written(folder: Path, data: bytes, name: str = "test.pcap") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def payload_of(packet: Packet) -> bytes:
    return packet.data[54:]


def with_vlan(packets: Sequence[Packet], *numbers: int) -> list[Packet]:
    tags = b"".join(struct.pack(">HH", 0x8100, number) for number in numbers)
    return [replace(one, data=one.data[:12] + tags + one.data[12:]) for one in packets]
