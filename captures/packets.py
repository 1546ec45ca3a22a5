"""Packet captures in, exchanges out.

Most packets of a capture are TCP over IPv4 without options in plain Ethernet frames. One `struct` call takes those
apart; everything else goes the long way through `link` and `ip`. Both ways end in the same reassembly, and a packet
that is odd in any respect takes the long one.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from captures import link
from captures.bootstrap import Bootstrap, Datagram
from captures.http_conversation import Claim, Conversation
from captures.ip import TCP, UDP, Defragmenter, Segment
from captures.items import DECRYPTED, CaptureSummary, Observation
from captures.open_exchange import Finished, PlainItem, Recorder
from captures.packet_files import Packet, PacketFile, open_packets
from captures.reading_ahead import read_ahead, worth_two_processes
from captures.tcp import AnotherConnection, Connection, Endpoints, Sink, TcpSegment, TcpTable
from captures.tunnels import MAX_DEPTH, UNREAD_PORTS, inner_frame, unread_tunnel

if TYPE_CHECKING:
    from captures.items import Item
    from captures.objects import ObjectJoiner
    from captures.read_options import ReadOptions
    from captures.tls_decryption import Decryption

# Ethernet type; IPv4 version and header length, total length, fragment field, protocol, addresses and ports together;
# TCP sequence and acknowledgement number, header length, flags.
_PLAIN = struct.Struct(">12xHBxHxxHxBxx12sIIBB")
_TCP = struct.Struct(">IIBB")
_SHORTEST = _PLAIN.size


Datagrams = Callable[[Datagram], Iterable[Observation]]


def read(path: Path, options: ReadOptions) -> Iterator[Item]:
    """The exchanges of a capture file, the objects joined from them, the account. Raises `CaptureError`."""
    if worth_two_processes(path) and not _decrypts(path, options):
        return map(item_of, read_ahead(read_plain, path, options))
    return map(item_of, read_plain(path, options))


def _decrypts(path: Path, options: ReadOptions) -> bool:
    """Whether there are TLS secrets: tshark would run once for each of two processes."""
    if options.keylog or options.tls_key:
        return True
    with open_packets(path) as file:
        next(file.packets, None)  # the secrets of a pcapng file come before its packets
        return bool(file.secrets)


def item_of(item: PlainItem) -> Item:
    """What is shown of it."""
    return item.exchange() if isinstance(item, Finished) else item


def read_plain(path: Path, options: ReadOptions) -> Generator[PlainItem, None, None]:
    """The same, exchanges as plain values."""
    with open_packets(path, options.progress) as file:
        reader = full_reader(str(path), options)
        try:
            packets = file.packets
            if file.format.startswith("pcapng"):  # its secrets come before its packets
                packets = chain(list(islice(packets, 1)), packets)
            decryption = _decrypted(path, options) if options.keylog or options.tls_key or file.secrets else None
            reader.recorder.joiner.read_again = lambda joiner: _read_again(path, options, decryption, joiner)
            if decryption is None:
                yield from reader.read(packets)
                decryption = _decrypted(path, options, file.secrets) if file.secrets else None
                packets = iter(())
            if decryption is None:
                yield from reader.finish(file)
            else:
                yield from _with_decrypted(reader, file, packets, decryption)
        finally:
            reader.close()


def _with_decrypted(
    reader: PacketReader, file: PacketFile, packets: Iterator[Packet], decryption: Decryption
) -> Iterator[PlainItem]:
    """The items of a capture with the decrypted connections among its packets."""

    def items() -> Iterator[PlainItem]:
        yield from reader.read(decryption.among(packets, reader.table))
        reader.counts["TCP connections"] -= len(decryption.connections)  # they were counted already
        if decryption.tunnels:
            reader.counts["TLS connections"] += decryption.tunnels
        file.problems.extend(decryption.problems)
        yield from reader.finish(file)

    for item in items():
        if isinstance(item, Finished) and item.connection in decryption.connections:
            remark = decryption.connections[item.connection]
            problems = (*item.problems, remark) if remark and not item.complete else item.problems
            yield item._replace(facts=(DECRYPTED,), problems=problems)
        else:
            yield item


def _read_again(path: Path, options: ReadOptions, decryption: Decryption | None, joiner: ObjectJoiner) -> None:
    """Give the joiner the answers it has found out to be parts."""
    with open_packets(path, options.progress) as file:
        reader = full_reader(str(path), replace(options, hold=0, bodies=None))
        reader.recorder.joiner = joiner
        packets = decryption.among(file.packets, reader.table) if decryption else file.packets
        for _ in reader.read(packets):
            pass
        reader.table.close(0)


def _decrypted(path: Path, options: ReadOptions, late: Iterable[bytes] = ()) -> Decryption | None:
    """What tshark decrypts, if there is TLS: that takes a look at the whole capture. `late` are secrets at its end."""
    from captures.tls_decryption import Decryption  # noqa: PLC0415 - only where there are secrets
    from captures.tls_look import TlsLook  # noqa: PLC0415

    tls = TlsLook()
    with open_packets(path) as file:
        look = PacketReader(str(path), replace(options, hold=0, bodies=None), claims=(tls.claim,))
        for _ in look.read(file.packets):
            pass
        look.close()
    return Decryption(path, options.keylog, options.tls_key, tls, late) if tls.connections else None


def full_reader(capture: str, options: ReadOptions, *, ordered: bool = True) -> PacketReader:
    """A reader of HTTP, and of what leads a phone there."""
    bootstrap = Bootstrap(capture, secrets=options.secrets)
    claims = (bootstrap.claim,)
    reader = PacketReader(capture, options, ordered=ordered, datagrams=bootstrap.datagram, claims=claims)
    bootstrap.observe = reader.recorder.observe
    return reader


class PacketReader:
    """Reads packets of any origin: a file, or an interface."""

    def __init__(
        self,
        capture: str,
        options: ReadOptions,
        *,
        ordered: bool = True,
        datagrams: Datagrams | None = None,
        claims: tuple[Claim, ...] = (),
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.recorder = Recorder(capture, options.hold, options.bodies, self.counts, ordered=ordered)
        self.table = TcpTable(self._converse, self.counts)
        self._defragmenter = Defragmenter(self.counts)
        self._datagrams = datagrams
        self._claims = claims
        self._last_time = 0
        self._understood = False  # whether there was any TCP or UDP

    def read(self, packets: Iterable[Packet]) -> Iterator[PlainItem]:
        """The exchanges, as they are finished."""
        unpack, halves, ready = _PLAIN.unpack_from, self.table.halves, self.recorder.ready
        count = acknowledgements = 0
        time = 0
        for packet in packets:
            count += 1
            time, link_type, data, start, end, _wire = packet
            if link_type == link.ETHERNET and end - start >= _SHORTEST:
                kind, version, total, fragment, protocol, key, sequence, ack, offset, flags = unpack(data, start)
                if kind == 0x0800 and version == 0x45 and protocol == TCP and not fragment & 0x3FFF and not flags & 7:
                    first = start + 34 + (offset >> 4) * 4
                    last = start + 14 + total
                    if first < last <= end and offset >= 0x50:
                        half = halves.get(key)
                        if half is not None:
                            try:
                                half.receive(sequence, data[first:last], time, ack)
                            except AnotherConnection:
                                yield from self._packet(packet)
                            while ready:
                                yield ready.popleft()
                            continue
                    elif first == last and key in halves:
                        acknowledgements += 1
                        continue
            yield from self._packet(packet)
        self.counts["packets"] += count
        self.counts["TCP segments without data"] += acknowledgements
        self._last_time = time

    def finish(self, file: PacketFile) -> Iterator[PlainItem]:
        """What the end of the capture brings: what was still open, the joined objects, the account."""
        self.table.close(self._last_time)
        self.recorder.flush()
        yield from self._drain()
        yield from self.recorder.joiner.finished()
        if self._defragmenter.waiting:
            self.counts["IP datagrams with missing fragments"] += self._defragmenter.waiting
        problems = [*file.problems]
        for number in sorted(link_type for name in self.counts if (link_type := _link_type_of(name)) is not None):
            problems.append(f"packets of link type {number} are not read")
        unread = [f"{self.counts[name]} {name}" for name in _PASSED_OVER if name in self.counts]
        if unread and not self._understood and not self.counts["observations"]:
            problems.append(f"nothing in this capture is read: {', '.join(unread)}")
        told = tuple(problems)
        yield CaptureSummary(self.recorder.capture, file.format, self.counts, told, file.damaged, partial=bool(told))

    def close(self) -> None:
        """Let go of all files, where the reading was given up before its end."""
        self.table.close(self._last_time)
        self.recorder.joiner.close()

    def _drain(self) -> Iterator[PlainItem]:
        ready = self.recorder.ready
        while ready:
            yield ready.popleft()

    def _packet(self, packet: Packet, outer: bytes = b"", depth: int = 0) -> Iterator[PlainItem]:
        """The long way of one packet; `outer` is the network of the tunnel it came through, if any."""
        time, link_type, data, start, end, wire = packet
        found = link.find_ip(link_type, data, start, end)
        if found is None:
            known = link.is_read(link_type)
            self.counts["packets that are not IP" if known else f"{_UNREAD}{link_type}"] += 1
            return
        first, last, network = found
        network = outer + network
        segment = self._defragmenter.segment(data, first, last, max(start + wire, last), network)
        if segment is None:
            return
        if segment.protocol == TCP:
            self._understood = True
            self._tcp(segment, time, packet, network)
            yield from self._drain()
        elif (inner := inner_frame(segment)) is not None:
            self.counts["packets in tunnels"] += 1
            if depth < MAX_DEPTH:
                start, wire = inner.start, segment.claimed - inner.start
                frame = time, inner.link_type, segment.data, start, max(start, segment.end), wire
                yield from self._packet(frame, network + inner.network, depth + 1)
            else:
                self.counts["packets in too many tunnels"] += 1
        elif segment.protocol == UDP:
            if name := unread_tunnel(segment):
                self.counts[f"packets in {name} tunnels"] += 1
            else:
                self._understood = True
            yield from self._udp(segment, time, packet)
        else:
            self.counts["packets of other protocols"] += 1

    def _tcp(self, segment: Segment, time: int, packet: Packet, network: bytes) -> None:
        _protocol, source, target, data, start, end, claimed = segment
        if end - start < 20:
            self.counts["TCP headers cut short"] += 1
            return
        sequence, ack, offset, flags = _TCP.unpack_from(data, start + 4)
        first = start + (offset >> 4) * 4
        if offset < 0x50 or first > claimed:
            self.counts["malformed TCP headers"] += 1
            return
        source_port, target_port = data[start : start + 2], data[start + 2 : start + 4]
        keys = (
            network + source + target + source_port + target_port,
            network + target + source + target_port + source_port,
        )

        def endpoints() -> Endpoints:
            macs = link.mac_addresses(packet[1], packet[2], packet[3], packet[4])
            ports = int.from_bytes(source_port, "big"), int.from_bytes(target_port, "big")
            return Endpoints(source, target, *ports, network, macs)

        payload = data[first:end]
        missing = claimed - max(first, end)
        self.table.segment(keys, TcpSegment(sequence, ack, flags, payload, missing, time), endpoints)

    def _udp(self, segment: Segment, time: int, packet: Packet) -> Iterator[PlainItem]:
        self.counts["UDP datagrams"] += 1
        data, start, end = segment.data, segment.start, segment.end
        if self._datagrams is None or end - start < 8:
            return
        source_port, target_port, length = struct.unpack_from(">HHH", data, start)
        payload = data[start + 8 : min(end, start + length) if length >= 8 else end]
        mac = link.mac_addresses(packet[1], packet[2], packet[3], packet[4])[0]
        datagram = Datagram(time, segment.source, segment.target, source_port, target_port, payload, mac)
        for observation in self._datagrams(datagram):
            self.recorder.observe(observation)
        yield from self._drain()

    def _converse(self, connection: Connection) -> tuple[Sink, Sink]:
        return Conversation(connection, self.recorder, _shown, self._claims).preludes


_UNREAD = "packets of unread link type "
_PASSED_OVER = (
    "packets that are not IP",
    "packets of other protocols",
    "packets in too many tunnels",
    *(f"packets in {name} tunnels" for name in UNREAD_PORTS.values()),
)


def _link_type_of(name: str) -> int | None:
    return int(name.removeprefix(_UNREAD)) if name.startswith(_UNREAD) else None


def _shown(address: bytes) -> str:
    return str(ip_address(address))
