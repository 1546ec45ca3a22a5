"""Whole captures of known shape: the thirteen on which other tools were measured, and those of HTTP itself."""

from __future__ import annotations

import gzip
import hashlib
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard

from captures.bodies import BodyFiles
from captures.bootstrap import Datagram
from captures.exchange import Body, Exchange
from captures.items import CaptureSummary, Item, JoinedObject, Observation
from captures.packets import PacketReader
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from captures.tcp import MAX_SEGMENTS
from tests.captures.wire import (
    ACK,
    FIN,
    RST,
    START,
    SYN,
    Packet,
    Talk,
    answer,
    cut,
    ethernet,
    ipv4,
    ipv6,
    payload_of,
    pcap,
    request,
    tcp,
    udp,
    with_vlan,
    written,
)

BODY = random.Random(3).randbytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
FIRST = 6  # the first packet of the answer that holds nothing but body


def download(mss: int = 1460, client_isn: int = 1000, server_isn: int = 9000) -> Talk:
    return (
        Talk(mss=mss, client_isn=client_isn, server_isn=server_isn)
        .open()
        .client(request())
        .server(answer(BODY))
        .close()
    )


def read(folder: Path, packets: list[Packet], **options: int) -> list[Item]:
    return list(read_exchanges(written(folder, pcap(packets, **options))))  # type: ignore[arg-type]


def exchanges(items: list[Item]) -> list[Exchange]:
    return [item for item in items if isinstance(item, Exchange)]


def counts(items: list[Item]) -> dict[str, int]:
    assert isinstance(items[-1], CaptureSummary)
    return dict(items[-1].counts)


def whole(items: list[Item]) -> Exchange:
    (exchange,) = exchanges(items)
    assert exchange.complete
    assert not exchange.problems
    assert exchange.response is not None
    assert exchange.response.body.sha256 == SHA256
    return exchange


def begun_late(packets: list[Packet]) -> list[Packet]:
    """Both SYNs come behind the first data of their directions."""
    return [*packets[2:6], *packets[:2], *packets[6:]]


def with_options(packets: list[Packet]) -> list[Packet]:
    """The same with four bytes of options in the IP header."""
    return [
        replace(one, data=one.data[:14] + b"\x46\0" + (len(one.data) - 10).to_bytes(2) + one.data[18:34] + b"\1" * 4
        + one.data[34:])
        for one in packets
    ]  # fmt: skip


def swapped(packets: list[Packet]) -> list[Packet]:
    out = list(packets)
    for index in range(FIRST, len(out) - 10, 7):
        out[index], out[index + 3] = out[index + 3], out[index]
    return out


def repeated(packets: list[Packet]) -> list[Packet]:
    return [copy for index, packet in enumerate(packets) for copy in [packet] * (2 if index % 5 == 0 else 1)]


def overlapping(packets: list[Packet]) -> list[Packet]:
    """Every third segment comes with the last 700 bytes of the one before, sent again."""
    out = list(packets)
    for index in range(FIRST + 1, len(out) - 5, 3):
        before, packet = out[index - 1].data, out[index].data
        sequence = struct.unpack_from(">I", packet, 38)[0] - 700
        payload = before[-700:] + packet[54:]
        out[index] = replace(
            out[index], data=ethernet(ipv4(tcp(payload, sport=80, dport=5000, seq=sequence), "10.0.0.2", "10.0.0.1"))
        )
    return out


def keep_alive(packets: list[Packet]) -> list[Packet]:
    """A probe with one byte of garbage before the next expected one, in the middle of the body."""
    out = list(packets)
    sequence = struct.unpack_from(">I", out[FIRST + 3].data, 38)[0] - 1
    probe = ethernet(ipv4(tcp(b"\xee", sport=80, dport=5000, seq=sequence), "10.0.0.2", "10.0.0.1"))
    out.insert(FIRST + 3, replace(out[FIRST + 3], data=probe))
    return out


SHAPES: dict[str, Callable[[], list[Packet]]] = {
    "in order": lambda: download().packets,
    "out of order": lambda: swapped(download().packets),
    "retransmitted": lambda: repeated(download().packets),
    "overlapping": lambda: overlapping(download().packets),
    "SYNs behind data": lambda: begun_late(download().packets),
    "begun in the middle": lambda: download().packets[3:],
    "VLAN": lambda: with_vlan(download().packets, 7),
    "two VLAN tags": lambda: with_vlan(download().packets, 7, 8),
    "40 KB segments": lambda: download(mss=40_000).packets,
    "keep-alive probe": lambda: keep_alive(download().packets),
    "sequence wrap": lambda: download(server_isn=2**32 - 100_000, client_isn=2**32 - 20).packets,
    "no FIN": lambda: download().packets[:-3],
    "acknowledgements that mean nothing": lambda: [
        replace(packet, data=packet.data[:42] + bytes(4) + packet.data[46:])
        for packet in download(server_isn=2**32 - 9).packets
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_lose_nothing_are_read_whole(tmp_path: Path, shape: str) -> None:
    exchange = whole(read(tmp_path, SHAPES[shape]()))
    assert (exchange.client, exchange.server) == ("10.0.0.1:5000", "10.0.0.2:80")
    assert exchange.client_mac == "02:00:00:00:00:01"
    assert exchange.request.target == "/file.cab"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_long_way_reads_the_same(tmp_path: Path, shape: str) -> None:
    """SLL2 has the same IP packets in frames that the short way does not take."""
    packets = [
        replace(packet, data=struct.pack(">HHIHBB8s", 0x0800, 0, 1, 1, 0, 6, bytes(8)) + packet.data[14:])
        for packet in SHAPES[shape]()
        if packet.data[12:14] == b"\x08\0"
    ]
    if packets:
        whole(read(tmp_path, packets, link=276))


def acknowledged(packets: list[Packet]) -> list[Packet]:
    """Every segment of the answer is acknowledged behind the next one that the capture has, whatever is missing."""
    out: list[Packet] = []
    for packet in packets:
        out.append(packet)
        if len(packet.data) > 500:
            end = struct.unpack_from(">I", packet.data, 38)[0] + len(packet.data) - 54 + 3 * 1460
            client = 1001 + len(request())
            out.append(replace(packet, data=ethernet(ipv4(tcp(seq=client, ack=end)))))
    return out


def without(packets: list[Packet], index: int) -> list[Packet]:
    return packets[:index] + packets[index + 1 :]


def conflicting(packets: list[Packet]) -> list[Packet]:
    """A segment comes a second time with other bytes."""
    fake = replace(packets[FIRST + 2], data=packets[FIRST + 2].data[:-5] + b"\0fake")
    return [*packets[: FIRST + 3], fake, *packets[FIRST + 3 :]]


def used_again(packets: list[Packet]) -> list[Packet]:
    """A second connection with the addresses and ports of the first."""
    again = Talk(client_isn=7_000_000, server_isn=8_000_000).open().client(request()).server(answer(BODY)).close()
    return packets + again.packets


SEGMENTS = -(-len(answer(BODY)) // 1460)
# Name -> packets, answers whose body is whole, holes, and conflicts.
THIRTEEN: dict[str, tuple[Callable[[], list[Packet]], int, int, int]] = {
    "in order": (SHAPES["in order"], 1, 0, 0),
    "out of order, acknowledged beyond the hole": (lambda: acknowledged(swapped(download().packets)), 1, 0, 0),
    "retransmits": (SHAPES["retransmitted"], 1, 0, 0),
    "overlaps": (SHAPES["overlapping"], 1, 0, 0),
    "conflicting overlap": (lambda: conflicting(download().packets), 1, 0, 1),
    "one segment missing": (lambda: without(download().packets, FIRST + 50), 0, 1, 0),
    "mid-stream start": (SHAPES["begun in the middle"], 1, 0, 0),
    "keep-alive probe": (SHAPES["keep-alive probe"], 1, 0, 0),
    "sequence wrap past 2^32": (SHAPES["sequence wrap"], 1, 0, 0),
    "VLAN": (SHAPES["VLAN"], 1, 0, 0),
    "TSO 40 KB": (SHAPES["40 KB segments"], 1, 0, 0),
    # The request, too, is longer than what 42 bytes are left of.
    "snaplen 96": (lambda: [cut(packet, 96) for packet in download().packets], 0, SEGMENTS + 1, 0),
    "4-tuple reused by a second connection": (lambda: used_again(download().packets), 2, 0, 0),
}


@pytest.mark.parametrize("shape", THIRTEEN)
def test_the_thirteen_shapes_that_others_were_measured_on(tmp_path: Path, shape: str) -> None:
    packets, whole_bodies, holes, conflicts = THIRTEEN[shape]
    items = read(tmp_path, packets())
    found = exchanges(items)
    assert [one.response.body.sha256 for one in found if one.response and one.complete] == [SHA256] * whole_bodies
    assert len({one.connection for one in found}) == max(whole_bodies, 1)
    assert counts(items).get("gaps", 0) == holes
    assert counts(items).get("conflicting repeats", 0) == conflicts
    assert any(one.problems for one in found) == bool(holes or conflicts)


def test_tso_segments_have_no_length(tmp_path: Path) -> None:
    packets = [replace(one, data=one.data[:16] + b"\0\0" + one.data[18:]) for one in download(mss=40_000).packets]
    whole(read(tmp_path, packets))


def test_a_conflicting_repeat_is_reported_and_the_first_copy_stands(tmp_path: Path) -> None:
    items = read(tmp_path, conflicting(download().packets))
    (exchange,) = exchanges(items)
    assert exchange.response is not None
    assert exchange.response.body.sha256 == SHA256
    assert [problem.partition(":")[0] for problem in exchange.problems] == ["conflict"]
    assert counts(items)["conflicting repeats"] == 1


def test_a_conflict_among_waiting_segments_is_reported(tmp_path: Path) -> None:
    packets = download().packets
    late = packets.pop(FIRST)
    fake = packets[FIRST].data[:-5] + b"\0fake"
    packets[FIRST + 1 : FIRST + 1] = [replace(packets[FIRST], data=fake), late]
    (exchange,) = exchanges(read(tmp_path, packets))
    assert exchange.response is not None
    assert exchange.response.body.sha256 == SHA256
    assert [problem.partition(":")[0] for problem in exchange.problems] == ["conflict"]


def test_one_missing_segment_is_a_hole_with_place_and_size(tmp_path: Path) -> None:
    packets = download().packets
    lost = packets.pop(FIRST + 50)
    place = BODY.index(payload_of(lost))
    (exchange,) = exchanges(read(tmp_path, packets))
    assert exchange.problems == (f"gap: 1460 bytes missing at {place} of the body",)
    assert not exchange.complete
    assert exchange.response is not None
    assert exchange.response.body.size == len(BODY) - 1460


def test_the_snap_length_cuts_are_holes(tmp_path: Path) -> None:
    """As with snap length 96: heads are cut too, so the message is shown as far as it goes."""
    items = read(tmp_path, [cut(packet, 154) for packet in download().packets])
    (exchange,) = exchanges(items)
    assert exchange.response is not None
    assert exchange.response.status == 200
    assert not exchange.complete
    holes = counts(items)["segments cut by the snap length"]
    assert holes == sum(len(packet.data) > 154 for packet in download().packets)
    assert exchange.response.body.size + counts(items)["bytes missing"] == len(BODY)


def test_the_same_addresses_are_used_by_a_second_connection(tmp_path: Path) -> None:
    again = (
        Talk(client_isn=7_000_000, server_isn=8_000_000)
        .open()
        .client(request("/second"))
        .server(answer(b"two"))
        .close()
    )
    first = download().packets
    for packets in (first + again.packets, first[:-3] + again.packets):
        one, two = exchanges(read(tmp_path, packets))
        assert one.response is not None
        assert one.response.body.sha256 == SHA256
        assert (two.request.target, two.complete) == ("/second", True)
        assert one.connection != two.connection


@pytest.mark.parametrize(
    ("client", "server", "closed"),
    [(90_000, 70_000, True), (3_000_000_000, 4_000_000_000, True), (3_000_000_000, 4_000_000_000, False)],
)
def test_a_second_connection_whose_syn_was_not_captured(tmp_path: Path, client: int, server: int, closed: bool) -> None:
    first = Talk().open().client(request("/first")).server(answer(b"one"))
    again = Talk(client_isn=client, server_isn=server).client(request("/second")).server(answer(b"two"))
    if closed:
        first.close()
    for packets in (again.packets, with_options(again.packets)):  # the short way and the long one
        items = read(tmp_path, first.packets + packets)
        one, two = exchanges(items)
        assert [(each.request.target, each.complete) for each in (one, two)] == [("/first", True), ("/second", True)]
        assert one.connection != two.connection
        assert not counts(items).get("bytes missing")


def test_one_direction_alone(tmp_path: Path) -> None:
    talk = Talk().open().client(request("/a")).server(answer(b"1")).client(request("/b")).server(answer(b"2")).close()
    up = [packet for packet in talk.packets if packet.data[30:34] == bytes((10, 0, 0, 2))]
    asked = exchanges(read(tmp_path, up))
    assert [(one.request.target, one.response, one.complete) for one in asked] == [
        ("/a", None, False),
        ("/b", None, False),
    ]
    down = [packet for packet in talk.packets if packet not in up]
    answered = exchanges(read(tmp_path, down))
    assert [one.response and one.response.body.data for one in answered] == [b"1", b"2"]
    assert all(one.client == "10.0.0.1:5000" and "not in the capture" in one.problems[0] for one in answered)


def test_a_reset_in_a_body(tmp_path: Path) -> None:
    packets = Talk().open().client(request()).server(answer(BODY)[:5000]).server(flags=RST | ACK).packets
    (exchange,) = exchanges(read(tmp_path, packets))
    assert "cut off" in exchange.problems[0]
    assert "reset" in exchange.problems[0]


def test_an_answer_that_goes_on_behind_a_reset_is_read(tmp_path: Path) -> None:
    """The client gives up in the middle; what the server had sent by then passes the place of capture after that."""
    told = answer(BODY[:6000])
    talk = Talk().open().client(request()).server(told[:3000]).client(flags=RST | ACK).server(told[3000:])
    for packets in (talk.packets, talk.packets[4:]):  # with the request and without
        (exchange,) = exchanges(read(tmp_path, packets))
        assert exchange.response is not None
        assert exchange.response.body.data == BODY[:6000]
        assert exchange.complete == (packets is talk.packets)
    (exchange,) = exchanges(read(tmp_path, talk.packets))
    assert exchange.problems == ("the answer was still on its way when the connection was reset",)


def test_answers_before_their_requests_wait_for_them(tmp_path: Path) -> None:
    talk = Talk().open().client(request("/a")).server(answer(b"1")).client(request("/b")).server(answer(b"2")).close()
    packets = talk.packets
    packets[3], packets[4] = packets[4], packets[3]
    packets[5], packets[6] = packets[6], packets[5]
    both = exchanges(read(tmp_path, packets))
    assert [(one.request.target, one.response and one.response.body.data) for one in both] == [
        ("/a", b"1"),
        ("/b", b"2"),
    ]


@pytest.mark.parametrize("lost", range(6))
def test_a_gap_never_shifts_the_pairing(tmp_path: Path, lost: int) -> None:
    """Of three exchanges one message is lost; the others keep their partners."""
    talk = Talk().open()
    for name in ("a", "b", "c"):
        talk.client(request(f"/{name}")).server(answer(name.encode() * 9))
    packets = talk.close().packets
    del packets[3 + lost]
    found = exchanges(read(tmp_path, packets))
    for one in found:
        if one.request.method and one.response is not None:
            assert one.response.body.data == one.request.target[1:].encode() * 9
    asked = [one.request.target for one in found if one.request.method]
    answered = [one.response.body.data for one in found if one.response is not None]
    expected = ["/a", "/b", "/c"]
    if lost % 2 == 0:
        del expected[lost // 2]
        assert len(answered) == 3
    else:
        assert len(answered) == 2
    assert asked == expected
    assert sum(one.complete for one in found) == 2


def test_an_answer_nobody_asked_for_is_not_given_to_a_later_request(tmp_path: Path) -> None:
    talk = Talk().open().client(request("/a")).server(answer(b"1") + answer(b"unasked"))
    talk.client(request("/b")).server(answer(b"2")).close()
    found = exchanges(read(tmp_path, talk.packets))
    assert [(one.request.target, one.response and one.response.body.data) for one in found] == [
        ("/a", b"1"),
        ("", b"unasked"),
        ("/b", b"2"),
    ]


def test_an_answer_before_the_end_of_the_head_it_answers(tmp_path: Path) -> None:
    """As 431 is: the rest of the head acknowledges it already."""
    asked = request("/a", extra=f"Cookie: {'c' * 9000}\r\n")
    for before in (b"", request("/before")):
        talk = Talk().open()
        if before:
            talk.client(before).server(answer(b"first"))
        talk.client(asked[:5000]).server(answer(b"big", 431)).client(asked[5000:] + request("/next"))
        found = exchanges(read(tmp_path, talk.server(answer(b"last")).close().packets))[bool(before) :]
        assert [(one.request.target, one.complete, one.problems) for one in found] == [
            ("/a", True, ()),
            ("/next", True, ()),
        ]
        assert [one.response and one.response.status for one in found] == [431, 200]


def test_the_next_request_has_an_anchor_of_its_own(tmp_path: Path) -> None:
    """It begins in the last piece of a head that was answered early, by two answers: the second was not asked for."""
    asked = request("/a", extra=f"Cookie: {'c' * 2000}\r\n")
    talk = Talk().open().client(asked[:1460]).server(answer(b"big", 431) + answer(b"unasked"))
    talk.client(asked[1460:] + request("/next")).server(answer(b"last")).close()
    found = exchanges(read(tmp_path, talk.packets))
    assert [(one.request.target, one.response and one.response.body.data) for one in found] == [
        ("/a", b"big"),
        ("/next", b"last"),
        ("", b"unasked"),
    ]


def test_a_first_request_may_be_as_long_as_a_later_one(tmp_path: Path) -> None:
    long = "/" + "q" * 12_000
    for targets in ((long,), ("/a", long)):
        talk = Talk().open()
        for target in targets:
            talk.client(request(target)).server(answer(b"x"))
        found = exchanges(read(tmp_path, talk.close().packets))
        assert [(one.request.target, one.complete) for one in found] == [(target, True) for target in targets]


def test_the_body_of_an_answer_with_an_odd_header_line_is_read(tmp_path: Path) -> None:
    talk = Talk().open()
    for line in ("X-A : b\r\n", "no colon\r\n"):
        talk.client(request()).server(answer(b"told", extra=line))
    for one in exchanges(read(tmp_path, talk.close().packets)):
        assert one.complete
        assert len(one.problems) == 1
        assert one.response is not None
        assert one.response.body.data == b"told"


def test_pipelining_interim_answers_and_head(tmp_path: Path) -> None:
    asked = request("/a") + request("/head", "HEAD") + request("/c", "POST", b"body")
    told = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(b"1") + b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    )
    told += b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + answer(b"3")
    found = exchanges(read(tmp_path, Talk().open().client(asked).server(told).close().packets))
    assert [one.request.target for one in found] == ["/a", "/head", "/c"]
    assert all(one.complete and not one.problems for one in found)
    assert [one.response and one.response.body.data for one in found] == [b"1", b"", b"3"]
    assert found[0].response is not None
    assert found[0].response.interim == ((103, "Early Hints", (("Link", "x"),)),)
    assert found[2].response is not None
    assert len(found[2].response.interim) == 2


def test_times_are_those_of_first_and_last_bytes(tmp_path: Path) -> None:
    exchange = whole(read(tmp_path, download().packets))
    assert exchange.request_ended is not None
    assert exchange.response_started is not None
    offsets = [
        round((moment.timestamp() - START / 1e9) * 1000)
        for moment in (exchange.started, exchange.request_ended, exchange.response_started, exchange.ended)
    ]
    assert offsets == [3, 3, 4, 3 + -(-len(answer(BODY)) // 1460)]


@pytest.mark.parametrize(
    ("coding", "encode"), [("gzip", gzip.compress), ("br", brotli.compress), ("zstd", zstandard.compress)]
)
def test_content_codings_are_undone_and_damage_is_told(
    tmp_path: Path, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    packed = encode(BODY)
    good = answer(packed, extra=f"Content-Encoding: {coding}\r\n")
    exchange = whole(read(tmp_path, Talk().open().client(request()).server(good).close().packets))
    assert exchange.response is not None
    assert exchange.response.body == Body.of(BODY, packed)
    bad = answer(packed[:-9], extra=f"Content-Encoding: {coding}\r\n")
    (exchange,) = exchanges(read(tmp_path, Talk().open().client(request()).server(bad).close().packets))
    assert exchange.response is not None
    assert exchange.response.body.sha256 == hashlib.sha256(packed[:-9]).hexdigest()
    assert "as it came" in exchange.problems[0]


def test_a_tunnel_is_not_read(tmp_path: Path) -> None:
    talk = Talk().open().client(b"CONNECT x:443 HTTP/1.1\r\n\r\n").server(b"HTTP/1.1 200 OK\r\n\r\n")
    talk.client(request("/inside")).server(answer(b"inside")).close()
    items = read(tmp_path, talk.packets)
    assert [one.request.method for one in exchanges(items)] == ["CONNECT"]
    assert counts(items)["bytes in tunnels"] == len(request("/inside")) + len(answer(b"inside"))


def ranged(first: int, last: int, total: int = len(BODY), data: bytes | None = None) -> bytes:
    body = BODY[first : last + 1] if data is None else data
    return answer(body, 206, f"Content-Range: bytes {first}-{last}/{total}\r\n")


def test_ranges_over_connections_in_any_order_join_to_the_object(tmp_path: Path) -> None:
    parts = [(200_000, 299_999), (0, 99_999), (50_000, 199_999)]
    packets: list[Packet] = []
    for number, (first, last) in enumerate(parts):
        packets += Talk(sport=5000 + number).open().client(request()).server(ranged(first, last)).close().packets
    items = read(tmp_path, packets)
    (joined,) = [item for item in items if isinstance(item, JoinedObject)]
    assert joined.complete
    assert (joined.sha256, joined.sha1) == (SHA256, hashlib.sha1(BODY).hexdigest())
    assert (joined.host, joined.target, joined.size) == ("ucupdates-r2", "/file.cab", len(BODY))
    assert joined.exchanges == (0, 1, 2)
    assert not joined.problems


def test_missing_and_conflicting_parts_of_an_object_are_told(tmp_path: Path) -> None:
    talk = Talk().open().client(request()).server(ranged(0, 99, 300))
    talk.client(request()).server(ranged(50, 149, 300, b"x" * 100)).close()
    (joined,) = [item for item in read(tmp_path, talk.packets) if isinstance(item, JoinedObject)]
    assert (joined.complete, joined.sha256, joined.missing) == (False, None, ((150, 299),))
    assert joined.problems == ("conflict: two answers differ from byte 50 on; the one joined first stands",)


def test_multipart_ranges_join_too(tmp_path: Path) -> None:
    parts = b""
    for first, last in ((0, 149_999), (150_000, 299_999)):
        parts += f"\r\n--B x\r\nContent-Type: x/y\r\nContent-Range: bytes {first}-{last}/{len(BODY)}\r\n\r\n".encode()
        parts += BODY[first : last + 1]
    told = answer(parts + b"\r\n--B x--\r\n", 206, 'Content-Type: multipart/byteranges; boundary="B x"\r\n')
    items = read(tmp_path, Talk().open().client(request()).server(told).close().packets)
    (joined,) = [item for item in items if isinstance(item, JoinedObject)]
    assert joined.sha256 == SHA256


def test_a_far_off_range_costs_nothing(tmp_path: Path) -> None:
    talk = Talk().open().client(request()).server(ranged(2**40, 2**40 + 9, 2**41, b"0123456789")).close()
    (joined,) = [item for item in read(tmp_path, talk.packets) if isinstance(item, JoinedObject)]
    assert not joined.complete


def test_bodies_are_kept_by_hash(tmp_path: Path) -> None:
    (tmp_path / "bodies").mkdir()
    options = ReadOptions(hold=1000, bodies=BodyFiles(tmp_path / "bodies"))
    talk = Talk().open().client(request()).server(answer(BODY)).client(request()).server(answer(b"small"))
    talk.client(request("/part")).server(ranged(0, len(BODY) - 1))
    found = list(read_exchanges(written(tmp_path, pcap(talk.close().packets)), options))
    names = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "bodies").iterdir()}
    assert names == {SHA256: 0o600, hashlib.sha256(b"small").hexdigest(): 0o600}
    (first, *_) = exchanges(found)
    assert first.response is not None
    assert first.response.body.data is None


def fragments(segment: bytes, size: int, ident: int = 5) -> list[bytes]:
    return [
        ipv4(
            segment[start : start + size],
            fragment=start // 8 | (0x2000 if start + size < len(segment) else 0),
            ident=ident,
        )
        for start in range(0, len(segment), size)
    ]


def test_ipv4_fragments_in_any_order(tmp_path: Path) -> None:
    segment = tcp(request("/" + "x" * 3000), seq=1)
    packets = [Packet(ethernet(piece)) for piece in reversed(fragments(segment, 800))]
    items = read(tmp_path, packets)
    assert exchanges(items)[0].request.target == "/" + "x" * 3000
    missing = read(tmp_path, packets[1:])
    assert not exchanges(missing)
    assert counts(missing)["IP datagrams with missing fragments"] == 1


def test_ipv6_with_extension_headers_and_fragments(tmp_path: Path) -> None:
    segment = tcp(request("/six"), seq=1)
    hop = bytes((60, 0, 1, 4, 0, 0, 0, 0))
    destination = bytes((44, 1)) + bytes(14)
    atomic = bytes((6, 0, 0, 0, 0, 0, 0, 9))
    first, second = segment[:40], segment[40:]
    halves = (bytes((6, 0, 0, 1, 0, 0, 0, 7)) + first, bytes((6, 0, 0, 40, 0, 0, 0, 7)) + second)
    for bodies, following in (((hop + destination + atomic + segment,), 0), (halves, 44)):
        packets = [Packet(ethernet(ipv6(body, following=following), 0x86DD)) for body in bodies]
        (exchange,) = exchanges(read(tmp_path, packets))
        assert (exchange.client, exchange.request.target) == ("[fd00::1]:5000", "/six")


@pytest.mark.parametrize(
    ("link", "before"),
    [
        (101, b""),
        (228, b""),
        (12, b""),
        (0, struct.pack("<I", 2)),
        (108, struct.pack(">I", 2)),
        (113, struct.pack(">HHH8sH", 0, 1, 6, bytes(8), 0x0800)),
        (276, struct.pack(">HHIHBB8s", 0x0800, 0, 1, 1, 0, 6, bytes(8))),
        (276, struct.pack(">HHIHBB8sHH", 0x8100, 0, 1, 1, 0, 6, bytes(8), 7, 0x0800)),
        (9, b"\xff\x03\x00\x21"),
        (9, b"\x21"),
        (9, b"\xff\x03\x21"),
        (1, ethernet(b"", 0x8864) + bytes.fromhex("11000001") + b"\0\0\0\x21"),
        (1, ethernet(b"", 0x8864) + bytes.fromhex("11000001") + b"\0\0\x21"),
        (1, ethernet(b"", 0x8847) + bytes.fromhex("0000104000001140")),
        (1, ethernet(b"", 0x8847, [(0x8100, 7)]) + bytes.fromhex("00001140")),
        (1, ethernet(b"", 1000) + bytes.fromhex("aaaa030000000800")),
        (1, ethernet(b"", 0x0800, [(0x88A8, 5), (0x8100, 6)])),
    ],
)
def test_link_types(tmp_path: Path, link: int, before: bytes) -> None:
    packet = Packet(before + ipv4(tcp(request("/link"), seq=1)))
    (exchange,) = exchanges(read(tmp_path, [packet], link=link))
    assert exchange.request.target == "/link"


def in_gre(protocol: int, inside: bytes, optional: bytes = b"", flags: int = 0) -> bytes:
    return ipv4(struct.pack(">HH", flags, protocol) + optional + inside, "192.0.2.1", "192.0.2.2", protocol=47)


def in_vxlan(inside: bytes, network: int = 5, flags: int = 8) -> bytes:
    datagram = udp(struct.pack(">B3xI", flags, network << 8) + inside, 50_000, 4789)
    return ipv4(datagram, "192.0.2.1", "192.0.2.2", protocol=17)


# How a frame becomes an IP packet around it, and whether its link layer is still inside.
TUNNELS: dict[str, tuple[Callable[[bytes], bytes], bool]] = {
    "GRE": (lambda frame: in_gre(0x0800, frame[14:]), False),
    "GRE with all fields": (lambda frame: in_gre(0x0800, frame[14:], bytes(12), 0xB000), False),
    "Ethernet in GRE": (lambda frame: in_gre(0x6558, frame), True),
    "ERSPAN I": (lambda frame: in_gre(0x88BE, frame), True),
    "ERSPAN II": (lambda frame: in_gre(0x88BE, frame, bytes(4) + b"\x10" + bytes(7), 0x1000), True),
    "VXLAN": (in_vxlan, True),
    "VXLAN with a group": (lambda frame: in_vxlan(frame, flags=0x88), True),
    "VXLAN in GRE in IP": (lambda frame: ipv4(in_gre(0x0800, in_vxlan(frame)), protocol=4), True),
}


@pytest.mark.parametrize("tunnel", TUNNELS)
def test_tunnels(tmp_path: Path, tunnel: str) -> None:
    wrap, ethernet_inside = TUNNELS[tunnel]
    packets = [replace(one, data=ethernet(wrap(one.data))) for one in download().packets]
    items = read(tmp_path, packets)
    (exchange,) = exchanges(items)
    assert exchange.complete
    assert exchange.response is not None
    assert exchange.response.body.sha256 == SHA256
    assert exchange.client == "10.0.0.1:5000"
    assert exchange.client_mac == ("02:00:00:00:00:01" if ethernet_inside else "")
    assert counts(items)["packets in tunnels"] >= len(packets)
    short = exchanges(read(tmp_path, [cut(one, 250) for one in packets]))
    assert "bytes missing" in short[0].problems[0]


def test_networks_of_tunnels_are_kept_apart(tmp_path: Path) -> None:
    talks = [Talk().open().client(request(f"/{name}")).server(answer(name.encode())).close() for name in "ab"]
    pairs = zip(*(talk.packets for talk in talks), strict=True)
    mixed = [
        replace(one, data=ethernet(in_vxlan(one.data, number))) for pair in pairs for number, one in enumerate(pair)
    ]
    found = exchanges(read(tmp_path, mixed))
    assert {one.request.target: one.response and one.response.body.data for one in found} == {
        "/a": b"a",
        "/b": b"b",
    }


# What is not read, and the words that say so.
UNREAD: list[tuple[bytes, str]] = [
    (ethernet(in_gre(0x880B, b"x" * 60, bytes(4), 0x2001)), "1 packets of other protocols"),
    (ethernet(in_gre(0x22EB, b"x" * 60, bytes(4), 0x1000)), "1 packets of other protocols"),
    (ethernet(in_gre(0x88BE, b"", bytes(4), 0x1000)), "1 packets of other protocols"),
    (ethernet(b"\0\0\1\x40" + bytes(60), 0x8847), "1 packets that are not IP"),
    (ethernet(b"\0\0\0\x40" * 40, 0x8847), "1 packets that are not IP"),
    (ethernet(b"\x42\x42\x03" + bytes(60), 40), "1 packets that are not IP"),
    (ethernet(ipv4(udp(bytes(60), 50_000, 6081), protocol=17)), "1 packets in Geneve tunnels"),
]


@pytest.mark.parametrize(("frame", "words"), UNREAD)
def test_a_capture_of_nothing_that_is_read_says_so(tmp_path: Path, frame: bytes, words: str) -> None:
    items = read(tmp_path, [Packet(frame)])
    assert isinstance(items[-1], CaptureSummary)
    assert items[-1].problems == (f"nothing in this capture is read: {words}",)
    assert items[-1].partial
    items = read(tmp_path, [Packet(frame), *download().packets])
    assert isinstance(items[-1], CaptureSummary)
    assert not items[-1].problems


@pytest.mark.parametrize("tunnel", TUNNELS)
def test_tunnels_in_tunnels_have_an_end_and_so_has_what_is_cut_short(tmp_path: Path, tunnel: str) -> None:
    wrap = TUNNELS[tunnel][0]
    frame = ethernet(ipv4(tcp(request())))
    for _ in range(9):
        frame = ethernet(wrap(frame))
    items = read(tmp_path, [Packet(frame)])
    assert not exchanges(items)
    assert counts(items)["packets in too many tunnels"] == 1
    whole = ethernet(wrap(ethernet(ipv4(tcp(request())))))
    for size in range(len(whole) - len(request())):
        assert not exchanges(read(tmp_path, [cut(Packet(whole), size), Packet(b"\x08\0" * 40)]))


@pytest.mark.parametrize("order", ["<", ">"])
def test_nflog_records_come_in_host_order(tmp_path: Path, order: str) -> None:
    packet = ipv4(tcp(request("/link"), seq=1))
    records = struct.pack(f"{order}HH", 8, 10) + b"abcd" + struct.pack(f"{order}HH", 4 + len(packet), 9) + packet
    (exchange,) = exchanges(read(tmp_path, [Packet(b"\2\0\0\0" + records)], link=239))
    assert exchange.request.target == "/link"


def test_a_link_type_that_is_not_read_is_named(tmp_path: Path) -> None:
    items = read(tmp_path, [Packet(b"x" * 60)], link=105)
    assert isinstance(items[-1], CaptureSummary)
    assert items[-1].problems == ("packets of link type 105 are not read",)
    assert items[-1].partial


def test_networks_with_the_same_addresses_are_kept_apart(tmp_path: Path) -> None:
    one = with_vlan(download().packets, 7)
    two = with_vlan(Talk().open().client(request("/other")).server(answer(b"x")).close().packets, 8)
    mixed = [packet for pair in zip(one, two, strict=False) for packet in pair] + one[len(two) :]
    found = exchanges(read(tmp_path, mixed))
    assert {(item.request.target, item.complete) for item in found} == {("/file.cab", True), ("/other", True)}


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("tags", [((), (7,)), ((7,), ()), ((7,), (8,)), ((7, 9), (7,))])
def test_two_directions_may_have_different_tags(
    tmp_path: Path, tags: tuple[tuple[int, ...], tuple[int, ...]], begun: bool
) -> None:
    """As a switch mirrors them that tags what leaves and not what enters, or a router between two VLANs."""
    packets = download().packets[0 if begun else 3 :]
    told = [with_vlan([packet], *tags[packet.data[34:36] == b"\0\x50"])[0] for packet in packets]
    items = read(tmp_path, told)
    whole(items)
    assert counts(items)["TCP connections"] == 1


def test_an_answer_in_another_network_must_fit_what_it_answers(tmp_path: Path) -> None:
    asked = Talk(client_isn=1000).open().client(request()).packets
    answered = Talk(client_isn=1 << 30).open().client(request()).server(answer(b"x")).packets
    mixed = [with_vlan([one], 7)[0] for one in asked if one.data[36:38] == b"\0\x50"]
    mixed += [with_vlan([one], 8)[0] for one in answered if one.data[34:36] == b"\0\x50"]
    items = read(tmp_path, mixed)
    told = {(one.request.target, one.response is None) for one in exchanges(items)}
    assert told == {("/file.cab", True), ("", False)}
    assert counts(items)["TCP connections"] == 2


def test_udp_payloads_go_to_whoever_asks() -> None:
    seen: list[Datagram] = []

    def take(datagram: Datagram) -> list[Observation]:
        seen.append(datagram)
        return []

    reader = PacketReader("test", ReadOptions(), datagrams=take)
    frame = ethernet(ipv4(udp(b"hello") + b"padding", protocol=17))
    assert not list(reader.read([(5, 1, frame, 0, len(frame), len(frame))]))
    (datagram,) = seen
    assert (datagram.payload, datagram.source_port, datagram.target_port) == (b"hello", 68, 67)
    assert (datagram.source_mac, datagram.time) == ("02:00:00:00:00:01", 5)


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    """Behind a segment that never comes, everything waits only so long."""
    talk = Talk(mss=100).open().client(request()).server(answer(b"x" * 100 * (MAX_SEGMENTS + 500)))
    del talk.packets[FIRST]
    items = read(tmp_path, talk.close().packets)
    (exchange,) = exchanges(items)
    assert counts(items)["gaps given up for memory"] == 1
    assert exchange.problems[0].startswith("gap: 100 bytes missing")


def test_exchanges_come_in_the_order_they_began(tmp_path: Path) -> None:
    slow = Talk(sport=1).open().client(request("/slow"))
    quick = Talk(sport=2).open().client(request("/quick")).server(answer(b"q")).close()
    packets = slow.packets + quick.packets
    del slow.packets[:]
    packets += slow.server(answer(b"s")).close().packets
    found = exchanges(read(tmp_path, packets))
    assert [(one.index, one.request.target) for one in found] == [(0, "/slow"), (1, "/quick")]


@pytest.mark.parametrize("flags", [SYN | FIN, SYN | RST, FIN | RST, 0, 63])
def test_odd_flags_do_no_harm(tmp_path: Path, flags: int) -> None:
    packets = download().packets
    odd = ethernet(ipv4(tcp(b"odd", sport=6000, seq=7, flags=flags)))
    packets[FIRST:FIRST] = [Packet(odd)] * 3
    found = [one for one in exchanges(read(tmp_path, packets)) if one.request.target == "/file.cab"]
    assert found[0].complete


def test_acknowledgements_alone_open_nothing(tmp_path: Path) -> None:
    items = read(tmp_path, [Packet(ethernet(ipv4(tcp(flags=ACK, seq=9))))])
    assert "TCP connections" not in counts(items)


def test_trailers_are_not_lost_without_a_word(tmp_path: Path) -> None:
    asked = (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\nX-B: 1\r\nX-A: 2\r\n\r\n"
    )
    told = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nDigest: z\r\n\r\n"
    (one,) = exchanges(read(tmp_path, Talk().open().client(asked).server(told).close().packets))
    assert one.complete
    assert one.problems == ("2 trailer fields not shown: X-A, X-B (request)", "1 trailer fields not shown: Digest")
