"""TCP reassembly that says what it does not know (RFC 9293; serial arithmetic as in RFC 1982).

One `Half` per direction turns segments into bytes in order. The rules of this file:

- The first copy of a byte wins; a later copy that differs is reported as a conflict. Keep-alive probes (one byte of
  anything before the next expected one) are therefore harmless.
- A segment that comes early waits. Waiting is bounded in segments and bytes, per direction and in all; past a bound, at
  the end of the connection and at the end of the capture, what is missing becomes an explicit hole. Nothing is ever
  filled with zeros, and a far-off sequence number allocates nothing.
- Bytes that the capture cut off (snap length) are holes of their own.
- A SYN that does not repeat the first one starts a new connection on the same addresses. So does data that cannot be of
  the connection known: behind its end, or far off in both directions (`AnotherConnection`).
- A network (VLAN tags) may show one direction, and another network the other: what acknowledges it belongs to it.
- A sink inside a long body says how much `room` it has, and gets those bytes in larger pieces.
- A reset ends a connection once nothing more has come for a while: what was on its way then still belongs to it.
- ACKs never declare a hole: in a reordered capture they come before the bytes they acknowledge.

Costs: constant per segment in order, logarithmic search for one that waits, a fixed window for comparing repeats.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, Protocol

MASK = 0xFFFFFFFF
FIN, SYN, RST, ACK = 1, 2, 4, 16

MAX_SEGMENTS = 4096  # waiting segments of one direction
MAX_BYTES = 4 << 20  # waiting bytes of one direction
MAX_TOTAL = 64 << 20  # waiting bytes in all
MAX_CONNECTIONS = 15_000  # connections remembered, 7 KB each; past it, those silent for longest are ended
COLLECTED = 64  # segments put together where the sink has room for them
# Delivered segments kept per direction to compare repeats with, for connections opened while so many are open.
REMEMBERED = ((1000, 16), (5000, 4), (MAX_CONNECTIONS, 1))
REMEMBERED_SIZE = 2048  # larger ones (cut up only by the sender's card) are not kept
RESET_WINDOW = 1 << 20  # a reset further off than this is not believed
NEAR = 16 << 20  # what is no further off, in either direction, is of the same connection
LARGEST_WINDOW = 1 << 30  # RFC 7323: nothing is sent again, or early, over a larger distance
LINGERING = 5_000_000_000  # nanoseconds of silence behind a reset until it has ended the connection


class Sink(Protocol):
    """What takes one direction of a connection. Times are nanoseconds since 1970."""

    def data(self, data: bytes, time: int, ack: int, /) -> None:
        """The next bytes; `ack` is the acknowledgement number they came with."""

    def hole(self, size: int, time: int, /) -> None:
        """Bytes that are missing here."""

    def conflict(self, size: int, /) -> None:
        """A repeat differed from the bytes delivered or waiting; the first copy stands."""

    def end(self, how: str, time: int, /) -> None:
        """Nothing follows: "closed", "reset", or "open" where the capture does not show the end."""


class Endpoints(NamedTuple):
    """Who talks on a connection: the side seen first, then the other. `macs` are empty where the link has none."""

    source: bytes
    target: bytes
    source_port: int
    target_port: int
    network: bytes
    macs: tuple[str, str]


class TcpSegment(NamedTuple):
    """What reassembly needs of a segment; the capture cut off `missing` bytes at the end of its data."""

    sequence: int
    ack: int
    flags: int
    data: bytes
    missing: int
    time: int


class AnotherConnection(Exception):
    """The segment belongs to a connection that is not known yet; the one it was taken for is forgotten."""


@dataclass(slots=True)
class Waiting:
    """A segment before which something is missing; `end` - `start` exceeds the data where the capture cut it."""

    start: int
    end: int
    data: bytes
    time: int
    ack: int


class Half:
    """One direction: `next` is the sequence number expected, `position` the same place counted from the first byte."""

    __slots__ = (
        "_collected",
        "_collected_time",
        "_counts",
        "_initial",
        "_remembered",
        "_table",
        "connection",
        "data",
        "ended",
        "fin",
        "next",
        "position",
        "room",
        "sink",
        "started",
        "waiting",
        "waiting_bytes",
    )

    def __init__(self, connection: Connection, table: TcpTable) -> None:
        self.connection = connection
        self.next = -1
        self.position = 0
        self.started = False
        self.ended = False
        self.fin: int | None = None
        self.waiting: list[Waiting] = []
        self.waiting_bytes = 0
        self.sink: Sink
        self.data: Callable[[bytes, int, int], None]
        self.room = 0  # so many bytes the sink takes in any pieces: segments are put together up to there
        self._collected: list[bytes] = []
        self._collected_time = 0
        self._initial: int | None = None
        self._remembered: deque[tuple[int, bytes]] = deque(maxlen=table.remembered())
        self._table = table
        self._counts = table.counts

    def attach(self, sink: Sink) -> None:
        """Send what comes to this sink."""
        self.sink = sink
        self.data = sink.data

    def synchronise(self, sequence: int) -> bool:
        """Take a SYN; false if it belongs to another connection on the same addresses."""
        if self.started:
            if self._initial is None and (self.next - self.position) & MASK == (sequence + 1) & MASK:
                self._initial = sequence  # it was overtaken by the first data
            return self._initial == sequence
        if not self.connection.open_halves:
            return False
        self._initial = sequence
        self.next = (sequence + 1) & MASK
        self.started = True
        return True

    def receive(self, sequence: int, data: bytes, time: int, ack: int, missing: int = 0) -> None:
        """Take the bytes of a segment, of which the capture cut off `missing` at the end.

        Raises `AnotherConnection` where they are of none that is known.
        """
        if sequence == self.next and not self.waiting and not missing:
            size = len(data)
            self.next = (sequence + size) & MASK
            self.position += size
            if size <= REMEMBERED_SIZE:
                self._remembered.append((sequence, data))
            if size < self.room:
                self.room -= size
                self._collected.append(data)
                self._collected_time = time
                if len(self._collected) >= COLLECTED:
                    self.deliver()
                return
            if self._collected:
                self.deliver()
            self.connection.last_time = time
            self.data(data, time, ack)
            return
        self._place(sequence, data, time, ack, missing)

    def deliver(self) -> None:
        """Hand on what was put together, which is inside of `room`."""
        if self._collected:
            data = b"".join(self._collected)
            self._collected.clear()
            self.connection.last_time = max(self.connection.last_time, self._collected_time)
            self.data(data, self._collected_time, 0)

    def finish(self, sequence: int, time: int) -> None:
        """Take a FIN that follows the byte before `sequence`."""
        distance = self._distance(sequence)
        reached = self.fin is not None and self.fin <= self.position
        if self.started and distance >= 0 and not reached:  # else it is a stray one: data has come from behind it
            self.fin = self.position + distance
            self._drain(time)

    def position_of(self, sequence: int) -> int | None:
        """Where a sequence number is, counted from the first byte; None where that cannot be told."""
        if not self.started:
            return None
        position = self.position + self._distance(sequence)
        # The number after the FIN is the same place: nothing can start behind it.
        return position if position >= 0 else None

    def release(self, time: int) -> None:
        """Give up the first missing bytes: a hole, then what has waited behind it."""
        if self.waiting:
            self._hole(self.waiting[0].start - self.position, time)
            self._drain(time)

    def flush(self, time: int) -> None:
        """Give up everything that is missing."""
        self.deliver()
        while self.waiting:
            self.release(time)
        if self.fin is not None and self.fin > self.position:
            self._hole(self.fin - self.position, time)

    def forget(self) -> None:
        """Let go of what waits, and of what repeats were compared with."""
        self._table.waiting_bytes -= self.waiting_bytes
        self.waiting_bytes = 0
        self.waiting.clear()
        self._remembered.clear()

    def _distance(self, sequence: int) -> int:
        return ((sequence - self.next + 0x80000000) & MASK) - 0x80000000

    def _place(self, sequence: int, data: bytes, time: int, ack: int, missing: int) -> None:
        """A segment that is first, early, repeated, overlapping or cut."""
        self.deliver()
        length = len(data) + missing
        distance = self._distance(sequence) if self.started else 0
        odd = self.ended or self.fin is not None or not -NEAR <= distance <= NEAR
        if odd and self._is_of_another(distance, length, ack):
            self._table.part(self.connection)
        self.connection.last_time = time
        if self.ended:
            name = "repeated segments" if distance + length <= 0 else "segments behind the end of their direction"
            self._counts[name] += 1
            return
        if not self.started:
            self.started = True
            self.next = sequence
        if distance < 0:
            self._repeated(sequence, data)
            if distance + length <= 0:
                return
            data, length, distance = data[-distance:], length + distance, 0
        elif distance:
            self._counts["early segments"] += 1
        self._store(self.position + distance, data, length, time, ack)
        self._drain(time)
        while self.waiting and (
            len(self.waiting) > MAX_SEGMENTS
            or self.waiting_bytes > MAX_BYTES
            or self._table.waiting_bytes > self._table.max_waiting
        ):
            self._counts["gaps given up for memory"] += 1
            self.release(time)

    def _is_of_another(self, distance: int, length: int, ack: int) -> bool:
        """Whether such a segment can only be of another connection, whose SYN the capture does not have."""
        place = self.position + distance
        if self.fin is not None and place > self.fin:
            return True
        connection = self.connection
        peer = connection.halves[1 - connection.halves.index(self)]
        far_ack = peer.started and abs(peer._distance(ack)) > NEAR
        if not connection.open_halves:  # a repeat is all that may come
            return place < 0 or place + length > self.position or far_ack
        if peer.started:  # a gap moves one direction, another connection both
            return abs(distance) > NEAR and far_ack
        return abs(distance) > LARGEST_WINDOW

    def _repeated(self, sequence: int, data: bytes) -> None:
        self._counts["repeated segments"] += 1
        if len(data) <= 1:
            return
        for start, known in self._remembered:
            offset = ((sequence - start + 0x80000000) & MASK) - 0x80000000
            if -len(data) < offset < len(known):
                theirs = data[max(0, -offset) :]
                ours = known[max(0, offset) :]
                self._compare(ours, theirs)

    def _compare(self, ours: bytes, theirs: bytes) -> None:
        size = min(len(ours), len(theirs))
        if ours[:size] != theirs[:size]:
            self._counts["conflicting repeats"] += 1
            self.sink.conflict(size)

    def _store(self, start: int, data: bytes, length: int, time: int, ack: int) -> None:
        """Put a segment among the waiting ones, only where nothing waits already."""
        origin, end = start, start + length
        waiting = self.waiting
        index = bisect_left(waiting, start, key=lambda segment: segment.start)
        if index and waiting[index - 1].end > start:
            index -= 1
        while start < end:
            other = waiting[index] if index < len(waiting) else None
            if other is not None and other.start <= start:
                self._compare(other.data[start - other.start :], data[start - origin : max(other.end - origin, 0)])
                start = max(start, other.end)
                index += 1
                continue
            piece_end = end if other is None else min(end, other.start)
            piece = data[start - origin : piece_end - origin]
            waiting.insert(index, Waiting(start, piece_end, piece, time, ack))
            self.waiting_bytes += len(piece)
            self._table.waiting_bytes += len(piece)
            start = piece_end
            index += 1

    def _drain(self, time: int) -> None:
        """Deliver what follows on the bytes delivered so far."""
        done = 0
        while done < len(self.waiting) and self.waiting[done].start <= self.position:
            segment = self.waiting[done]
            done += 1
            self.waiting_bytes -= len(segment.data)
            self._table.waiting_bytes -= len(segment.data)
            if segment.data:
                if len(segment.data) <= REMEMBERED_SIZE:
                    self._remembered.append((self.next, segment.data))
                self._advance(len(segment.data))
                self.data(segment.data, segment.time, segment.ack)
            cut = segment.end - self.position
            if cut > 0:
                self._counts["segments cut by the snap length"] += 1
                self._hole(cut, segment.time)
        del self.waiting[:done]
        if self.fin is not None and self.position >= self.fin:
            self.connection.ended(self, "closed", time)

    def _hole(self, size: int, time: int) -> None:
        self._counts["gaps"] += 1
        self._counts["bytes missing"] += size
        self._advance(size)
        self.sink.hole(size, time)

    def _advance(self, size: int) -> None:
        self.position += size
        self.next = (self.next + size) & MASK


class _Nobody:
    """Takes what comes after the end of a connection."""

    def data(self, _data: bytes, _time: int, _ack: int) -> None: ...

    def hole(self, _size: int, _time: int) -> None: ...

    def conflict(self, _size: int) -> None: ...

    def end(self, _how: str, _time: int) -> None: ...


NOBODY = _Nobody()


class Connection:
    """Two halves; the first is the direction of the packet that showed the connection."""

    __slots__ = ("_table", "endpoints", "halves", "how", "keys", "last_time", "number", "open_halves")

    def __init__(self, number: int, endpoints: Endpoints, table: TcpTable) -> None:
        self._table = table
        self.number = number
        self.endpoints = endpoints
        self.keys: list[tuple[bytes, Half]] = []  # what the table knows its halves by
        self.halves = (Half(self, table), Half(self, table))
        self.open_halves = {0, 1}
        self.how = "open"  # what is told to the sinks of halves that no FIN ends
        self.last_time = 0

    @property
    def lasts(self) -> bool:
        """Whether neither its ends nor a reset have been seen."""
        return bool(self.open_halves) and self.how == "open"

    def ended(self, half: Half, how: str, time: int) -> None:
        """One direction has come to its end; told to its sink once."""
        index = self.halves.index(half)
        if index in self.open_halves:
            half.deliver()
            half.forget()
            self.open_halves.remove(index)
            self._table.open -= not self.open_halves
            sink = half.sink
            half.attach(NOBODY)
            half.ended = True
            half.next |= MASK + 1  # no segment is the next one; distances stay as they are
            sink.end(how, time)

    def close(self, time: int = 0) -> None:
        """Both directions end; what is missing becomes holes. `time` is for connections without one of their own."""
        for half in self.halves:
            half.deliver()
        time = self.last_time or time
        for half in self.halves:
            half.flush(time)
        for half in self.halves:
            self.ended(half, self.how, time)


class TcpTable:
    """All connections of a capture. `halves` maps addresses and ports, as they stand in a packet, to a direction."""

    def __init__(self, opened: Callable[[Connection], tuple[Sink, Sink]], counts: Counter[str]) -> None:
        self.halves: dict[bytes, Half] = {}
        self.counts = counts
        self.waiting_bytes = 0
        self.max_waiting = MAX_TOTAL
        self.open = 0  # connections that have not ended
        self._opened = opened
        self._connections: dict[int, Connection] = {}
        self._resets: OrderedDict[int, int] = OrderedDict()  # connection -> when it was last heard of
        self._unseen: dict[bytes, Half] = {}  # the other directions of connections, by their addresses in any network

    def segment(self, keys: tuple[bytes, bytes], segment: TcpSegment, endpoints: Callable[[], Endpoints]) -> None:
        """Take a segment; `keys` are its addresses and ports as they stand in it, and those of the other direction."""
        sequence, ack, flags, data, missing, time = segment
        if self._resets and time - next(iter(self._resets.values())) > LINGERING:
            self._end_resets(time)
        half = self.halves.get(keys[0])
        if flags & SYN and half is not None and not half.synchronise(sequence):
            half.connection.close()
            self._forget(half.connection)
            half = None
        if half is None:
            if flags & RST or not (data or missing or flags & (SYN | FIN)):
                return  # the tail of something that is over
            ends = endpoints()
            half = self._other_direction(ends, keys, ack if flags & ACK else None) or self._open(ends, keys)
            if flags & SYN:
                half.synchronise(sequence)
        connection = half.connection
        connection.last_time = time
        if flags & SYN:
            sequence = (sequence + 1) & MASK
            if connection.how == "reset" and not flags & RST:  # refused, and tried again with the same number
                connection.how = "open"
                self._resets.pop(connection.number, None)
        if (data or missing) and not (flags & RST):  # what a reset carries is an explanation, not data
            try:
                half.receive(sequence, data, time, ack, missing)
            except AnotherConnection:
                self.segment(keys, segment, endpoints)
                return
        if flags & FIN:
            half.finish((sequence + len(data) + missing) & MASK, time)
        if flags & RST and half.started and abs(half._distance(sequence)) <= RESET_WINDOW:
            self._reset(connection)

    def part(self, connection: Connection) -> NoReturn:
        """Forget a connection whose addresses another has: that one begins with the segment at hand."""
        self.counts["connections begun without a SYN on addresses used before"] += 1
        connection.close()
        self._forget(connection)
        raise AnotherConnection

    def close(self, time: int) -> None:
        """The capture ends."""
        for connection in list(self._connections.values()):
            connection.close(time)
        self._connections.clear()
        self._resets.clear()
        self._unseen.clear()
        self.halves.clear()

    def remembered(self) -> int:
        """How many delivered segments a new direction may keep."""
        return next((kept for limit, kept in REMEMBERED if self.open <= limit), 1)

    def _open(self, endpoints: Endpoints, keys: tuple[bytes, bytes]) -> Half:
        if len(self._connections) >= MAX_CONNECTIONS:
            self._evict()
        self.counts["TCP connections"] += 1
        self.open += 1
        connection = Connection(self.counts["TCP connections"], endpoints, self)
        for half, sink in zip(connection.halves, self._opened(connection), strict=True):
            half.attach(sink)
        self._connections[connection.number] = connection
        here, there = connection.halves
        self._know(keys, here, there)
        self._unseen[keys[1][len(endpoints.network) :]] = there
        return here

    def _know(self, keys: tuple[bytes, bytes], *halves: Half) -> None:
        for key, half in zip(keys, halves, strict=True):
            self.halves[key] = half
            half.connection.keys.append((key, half))

    def _other_direction(self, endpoints: Endpoints, keys: tuple[bytes, bytes], ack: int | None) -> Half | None:
        """The half of a connection whose other direction another network shows; it is told by what is acknowledged."""
        half = self._unseen.get(keys[0][len(endpoints.network) :])
        if half is None or half.started or ack is None or not half.connection.open_halves:
            return None
        peer = half.connection.halves[0]
        if not peer.started or abs(peer._distance(ack)) > RESET_WINDOW:
            return None
        self._know(keys, half, peer)
        return half

    def _reset(self, connection: Connection) -> None:
        """Take note of a reset: data is still taken for a while."""
        for half in connection.halves:
            half.deliver()
        connection.how = "reset"
        if connection.open_halves:
            self._resets.setdefault(connection.number, connection.last_time)

    def _end_resets(self, time: int) -> None:
        """End the reset connections that have been silent for long enough."""
        while self._resets:
            number, heard = next(iter(self._resets.items()))
            if time - heard <= LINGERING:
                return
            del self._resets[number]
            connection = self._connections[number]
            for half in connection.halves:
                half.deliver()
            if connection.last_time > heard:
                self._resets[number] = connection.last_time
            else:
                connection.close()

    def _forget(self, connection: Connection) -> None:
        self._connections.pop(connection.number, None)
        self._resets.pop(connection.number, None)
        for key, half in connection.keys:
            if self.halves.get(key) is half:
                del self.halves[key]
        bare = connection.keys[1][0][len(connection.endpoints.network) :]
        if self._unseen.get(bare) is connection.halves[1]:
            del self._unseen[bare]

    def _evict(self) -> None:
        """Forget ended connections first, then the longest silent ones: an eighth at a time."""
        ranked = sorted(self._connections.values(), key=lambda one: (one.lasts, one.last_time))
        for connection in ranked[: MAX_CONNECTIONS // 8]:
            if connection.lasts:
                self.counts["connections given up for memory"] += 1
            connection.close()
            self._forget(connection)
