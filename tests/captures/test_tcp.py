from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures.tcp import (
    ACK,
    FIN,
    LINGERING,
    MAX_CONNECTIONS,
    RST,
    SYN,
    Connection,
    Endpoints,
    Sink,
    TcpSegment,
    TcpTable,
)

HERE = Endpoints(b"a", b"b", 1, 2, b"", ("", ""))
KEYS = (b"up", b"down")


class Tape:
    """Writes down what a direction is told."""

    def __init__(self) -> None:
        self.stream: list[bytes | int] = []
        self.conflicts = 0
        self.ended = ""

    def data(self, data: bytes, _time: int, _ack: int) -> None:
        self.stream.append(data)

    def hole(self, size: int, _time: int) -> None:
        self.stream.append(size)

    def conflict(self, _size: int) -> None:
        self.conflicts += 1

    def end(self, how: str, _time: int) -> None:
        assert not self.ended
        self.ended = how

    def joined(self) -> list[bytes | int]:
        """The same with neighbouring pieces put together."""
        out: list[bytes | int] = []
        for are_bytes, group in itertools.groupby(self.stream, key=lambda piece: isinstance(piece, bytes)):
            pieces = list(group)
            if are_bytes:
                out.append(b"".join(piece for piece in pieces if isinstance(piece, bytes)))
            else:
                out.append(sum(piece for piece in pieces if isinstance(piece, int)))
        return out


class Bench:
    def __init__(self) -> None:
        self.tapes: list[tuple[Tape, Tape]] = []
        self.counts: Counter[str] = Counter()
        self.table = TcpTable(self._opened, self.counts)
        self.time = 0

    def _opened(self, _connection: Connection) -> tuple[Sink, Sink]:
        self.tapes.append((Tape(), Tape()))
        return self.tapes[-1]

    def send(
        self,
        sequence: int,
        data: bytes = b"",
        flags: int = ACK,
        *,
        ack: int = 0,
        missing: int = 0,
        up: bool = True,
        keys: tuple[bytes, bytes] = KEYS,
    ) -> None:
        segment = TcpSegment(sequence % 2**32, ack % 2**32, flags, data, missing, self.time)
        self.table.segment(keys if up else keys[::-1], segment, lambda: HERE)

    def tape(self, index: int = -1) -> Tape:
        return self.tapes[index][0]


STREAM = bytes(range(256)) * 2


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 60)), max_size=40), st.integers(0, 2**32 - 1))
def test_any_order_repeats_and_overlaps_give_the_stream_with_holes_where_nothing_was(
    pieces: list[tuple[int, int]], start: int
) -> None:
    bench = Bench()
    bench.send(start - 1, flags=SYN)
    covered: set[int] = set()
    for place, size in pieces:
        data = STREAM[place : place + size]
        bench.send(start + place, data)
        covered.update(range(place, place + len(data)))
    bench.table.close(0)
    out: list[bytes | int] = []
    for place in range(max(covered, default=-1) + 1):
        last = out[-1] if out else None
        if place in covered:
            byte = STREAM[place : place + 1]
            out[-1:] = [last + byte] if isinstance(last, bytes) else [*out[-1:], byte]
        else:
            out[-1:] = [last + 1] if isinstance(last, int) else [*out[-1:], 1]
    assert bench.tape().joined() == out
    assert bench.tape().conflicts == 0
    assert bench.table.waiting_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 99), st.binary(min_size=1, max_size=20), st.integers(0, 5)), max_size=30))
def test_the_first_copy_of_a_byte_wins(pieces: list[tuple[int, bytes, int]]) -> None:
    bench = Bench()
    bench.send(9, flags=SYN)
    first: dict[int, int | None] = {}
    delivered = 0
    for place, data, missing in pieces:
        bench.send(10 + place, data, missing=missing)
        for offset in range(len(data) + missing):
            if place + offset >= delivered:
                first.setdefault(place + offset, data[offset] if offset < len(data) else None)
        while delivered in first:
            delivered += 1
    bench.table.close(0)
    flat: list[int | None] = []
    for piece in bench.tape().stream:
        flat += [None] * piece if isinstance(piece, int) else list(piece)
    assert flat == [first.get(place) for place in range(max(first, default=-1) + 1)]


def test_segments_are_put_together_within_the_room_and_nothing_is_lost_around_it() -> None:
    bench = Bench()
    bench.send(0, b"ab")
    bench.table.halves[b"up"].room = 10
    for place in range(2, 8, 2):
        bench.send(place, b"cd")
    assert bench.tape().stream == [b"ab"]
    bench.send(20, b"z")
    assert bench.tape().stream == [b"ab", b"cdcdcd"]
    bench.table.close(0)
    assert bench.tape().stream == [b"ab", b"cdcdcd", 12, b"z"]


def test_the_end_waits_for_what_is_missing() -> None:
    bench = Bench()
    bench.send(0, b"ab")
    bench.send(4, b"ef", FIN | ACK)
    assert not bench.tape().ended
    bench.send(2, b"cd")
    assert (bench.tape().joined(), bench.tape().ended) == ([b"abcdef"], "closed")
    bench.send(6, b"late")
    assert bench.tape().joined() == [b"abcdef"]


def test_a_missing_tail_before_the_end_is_a_hole() -> None:
    bench = Bench()
    bench.send(0, b"ab")
    bench.send(9, flags=FIN | ACK)
    bench.table.close(0)
    assert bench.tape().stream == [b"ab", 7]


def test_a_reset_ends_both_directions_and_one_from_nowhere_does_not() -> None:
    for reset, how in ((2, "reset"), (2**31, "open")):
        bench = Bench()
        bench.send(0, b"ab")
        bench.send(reset, b"why", RST)
        bench.table.close(0)
        assert (bench.tape().joined(), bench.tape().ended, bench.tapes[0][1].ended) == ([b"ab"], how, how)


def test_what_was_on_its_way_at_a_reset_still_comes_until_there_is_silence() -> None:
    bench = Bench()
    bench.send(0, b"ab")
    bench.send(2, flags=RST)
    bench.send(7, b"cd", up=False)
    bench.time = LINGERING
    bench.send(9, b"ef", up=False)
    for number in (1, 2):  # other connections, as time goes by
        bench.time = number * LINGERING + 1
        bench.send(0, b"x", keys=(b"%d" % number, b"%d back" % number))
        assert bench.tape(0).ended == ("", "reset")[number - 1]
    assert bench.tapes[0][1].joined() == [b"cdef"]


def test_a_syn_repeated_behind_a_reset_opens_the_connection_again() -> None:
    bench = Bench()
    bench.send(99, flags=SYN)
    bench.send(100, flags=RST)
    bench.send(99, flags=SYN)
    bench.send(100, b"ab")
    bench.table.close(0)
    assert [(tape.joined(), tape.ended) for tape, _ in bench.tapes] == [([b"ab"], "open")]


def test_resets_are_remembered_no_longer_than_their_connections() -> None:
    bench = Bench()
    for number in range(99):
        bench.send(number * 1000, flags=SYN)
        bench.send(number * 1000 + 1, flags=RST)
    assert len(bench.table._resets) == 1


def test_a_repeated_syn_is_the_same_connection_and_another_is_not() -> None:
    bench = Bench()
    for _ in range(2):
        bench.send(99, flags=SYN)
        bench.send(7, flags=SYN | ACK, up=False)
    bench.send(100, b"one")
    assert len(bench.tapes) == 1
    bench.send(5000, flags=SYN)
    bench.send(5001, b"two")
    assert [tape.joined() for tape, _ in bench.tapes] == [[b"one"], [b"two"]]
    assert bench.tape(0).ended == "open"


def talked(*, closed: bool = True) -> Bench:
    """A connection whose SYNs were seen: 1000 and 5000 are the first bytes of its directions."""
    bench = Bench()
    bench.send(999, flags=SYN)
    bench.send(4999, flags=SYN | ACK, up=False)
    bench.send(1000, b"asked", ack=5000)
    bench.send(5000, b"told", ack=1005, up=False)
    if closed:
        bench.send(1005, flags=FIN | ACK, ack=5004)
        bench.send(5004, flags=FIN | ACK, ack=1006, up=False)
    return bench


@pytest.mark.parametrize("start", [1005, 1006, 90_000, 500, 3_000_000_000, 990])
def test_data_behind_both_ends_is_of_another_connection(start: int) -> None:
    bench = talked()
    bench.send(start, b"other", ack=70_000)
    bench.send(start + 5, b" one", ack=70_000)
    bench.send(70_000, b"yes", ack=start + 5, up=False)
    bench.table.close(0)
    assert [[tape.joined() for tape in tapes] for tapes in bench.tapes] == [
        [[b"asked"], [b"told"]],
        [[b"other one"], [b"yes"]],
    ]
    assert bench.counts["connections begun without a SYN on addresses used before"] == 1
    assert not bench.counts["bytes missing"]


def test_a_repeat_behind_both_ends_is_of_the_same_connection() -> None:
    bench = talked()
    bench.send(1000, b"asked", ack=5000)
    bench.send(1003, b"ed", ack=5004)
    bench.send(5000, b"told", FIN | ACK, ack=1005, up=False)
    assert len(bench.tapes) == 1
    assert bench.counts["repeated segments"] == 3


@pytest.mark.parametrize("start", [3_000_000_000, 900_000_000])
def test_data_far_off_in_both_directions_is_of_another_connection(start: int) -> None:
    bench = talked(closed=False)
    bench.send(start, b"other", ack=start + 99)
    bench.send(start + 99, b"yes", ack=start + 5, up=False)
    bench.table.close(0)
    assert [[tape.joined() for tape in tapes] for tapes in bench.tapes] == [
        [[b"asked"], [b"told"]],
        [[b"other"], [b"yes"]],
    ]
    assert bench.tape(0).ended == "open"
    assert not bench.counts["bytes missing"]


def test_a_long_gap_in_one_direction_is_of_the_same_connection() -> None:
    bench = talked(closed=False)
    gap = 900_000_000
    bench.send(5004 + gap, b"on", ack=1005, up=False)
    bench.send(1005, b"more", ack=5006 + gap)
    bench.table.close(0)
    assert len(bench.tapes) == 1
    assert bench.tapes[0][1].joined() == [b"told", gap, b"on"]


def test_one_direction_alone_is_told_apart_by_more_than_a_window() -> None:
    bench = Bench()
    bench.send(1000, b"one")
    bench.send(900_000_000, b"far")
    assert len(bench.tapes) == 1
    bench.send(1000 - 2**30, b"other")
    assert [tape.joined() for tape, _ in bench.tapes] == [[b"one", 899_998_997, b"far"], [b"other"]]


def test_nothing_follows_a_fin_of_its_own_direction() -> None:
    bench = talked(closed=False)
    bench.send(1005, flags=FIN | ACK, ack=5004)
    bench.send(1005, b"\0", ack=5004)  # a probe
    assert bench.counts["segments behind the end of their direction"] == 1
    assert len(bench.tapes) == 1
    bench.send(90_000, b"other", ack=70_000)
    assert bench.tape().joined() == [b"other"]


def test_a_sink_that_has_room_behind_the_end_gets_nothing() -> None:
    """As one does that reads late what it had put aside."""
    bench = talked()
    for half in bench.table.halves.values():
        half.room = 1000
    bench.send(1005, b"other", ack=5004)
    bench.table.close(0)
    assert [tape.joined() for tape, _ in bench.tapes] == [[b"asked"], [b"other"]]


def test_a_fin_from_before_or_behind_is_not_believed() -> None:
    bench = talked(closed=False)
    bench.send(500, flags=FIN | ACK, ack=5004)
    bench.send(1005, b"more", ack=5004)
    bench.send(1009, flags=FIN | ACK, ack=5004)
    bench.send(1010, flags=FIN | ACK, ack=5004)  # nor is one behind the end
    bench.table.close(0)
    assert bench.tape().joined() == [b"askedmore"]
    assert bench.tape().ended == "closed"


@pytest.mark.parametrize("flags", [ACK, SYN | ACK])
def test_a_direction_never_seen_begins_with_the_next_connection(flags: int) -> None:
    bench = Bench()
    bench.send(99, flags=SYN)
    bench.send(100, flags=RST)
    bench.time = LINGERING + 1
    bench.send(7, b"late", flags, up=False)
    assert [[tape.joined() for tape in tapes] for tapes in bench.tapes] == [[[], []], [[b"late"], []]]


def test_a_syn_behind_the_data_it_opens_is_of_the_same_connection() -> None:
    bench = Bench()
    bench.send(100, b"one")
    bench.send(103, b"two")
    bench.send(99, flags=SYN)
    bench.send(99, flags=SYN)
    bench.send(106, b"three")
    assert [tape.joined() for tape, _ in bench.tapes] == [[b"onetwothree"]]
    bench.send(105, flags=SYN)  # not the first byte's
    assert len(bench.tapes) == 2


def test_data_on_a_syn_is_kept() -> None:
    bench = Bench()
    bench.send(99, b"early", SYN)
    assert bench.tape().stream == [b"early"]


def test_the_table_is_bounded_and_drops_ended_and_silent_connections_first() -> None:
    bench = Bench()
    for number in range(MAX_CONNECTIONS + 10):
        keys = (b"u%d" % number, b"d%d" % number)
        bench.table.segment(keys, TcpSegment(0, 0, ACK, b"x", 0, number), lambda: HERE)
    assert len(bench.table.halves) <= 2 * MAX_CONNECTIONS
    assert bench.tape(0).ended == "open"
    assert not bench.tape().ended


def test_waiting_is_bounded_in_all() -> None:
    bench = Bench()
    bench.table.max_waiting = 1000
    bench.send(0, b"x")
    for place in range(1, 40):
        bench.send(place * 100, b"y" * 90)
        assert bench.table.waiting_bytes <= 1000
    assert bench.counts["gaps given up for memory"]
