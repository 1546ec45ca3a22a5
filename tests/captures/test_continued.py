"""Downloads that broke off and were continued by a range on another connection."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from captures.bodies import BodyFiles
from captures.exchange import Exchange
from captures.items import JoinedObject
from captures.packet_files import PacketFile, open_packets
from captures.packets import full_reader
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from tests.captures.tls_talk import make_certificate, tls_talk
from tests.captures.wire import RST, START, Packet, Talk, pcap, request, written
from tests.conftest import require_tool

CONTENT = bytes(range(256)) * 6000  # more than is held in memory
MARK = 'ETag: "one"\r\n'


def answer(first: int, last: int | None = None, *, size: int = len(CONTENT), extra: str = MARK) -> bytes:
    """The whole, or a part of it."""
    if last is None:
        return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n{extra}\r\n".encode() + CONTENT
    told = f"Content-Range: bytes {first}-{last}/{size}\r\nContent-Length: {last - first + 1}\r\n{extra}"
    return f"HTTP/1.1 206 Partial Content\r\n{told}\r\n".encode() + CONTENT[first : last + 1]


def ask(number: int, said: bytes, *, cut: int | None = None, target: str = "/CPE.nbt") -> list[Packet]:
    """One request on a connection of its own; the answer is reset after `cut` bytes of it."""
    talk = Talk(sport=5000 + number, time=START + number * 10_000_000_000).open().client(request(target))
    if cut is None:
        return talk.server(said).close().packets
    return talk.server(said[:cut]).server(flags=RST).packets


def read(path: Path, **options: BodyFiles) -> tuple[list[Exchange], list[JoinedObject]]:
    items = list(read_exchanges(path, ReadOptions(bodies=options.get("bodies"))))
    exchanges = [item for item in items if isinstance(item, Exchange)]
    return exchanges, [item for item in items if isinstance(item, JoinedObject)]


def joined(tmp_path: Path, *talks: Iterable[Packet]) -> list[JoinedObject]:
    return read(written(tmp_path, pcap([packet for talk in talks for packet in talk])))[1]


@pytest.mark.parametrize("cut", [1000, 500_000, 1_400_000])
def test_the_two_halves_are_one_object(tmp_path: Path, cut: int) -> None:
    first = answer(0)
    start = cut - first.index(b"\r\n\r\n") - 4
    (tmp_path / "bodies").mkdir()
    talks = [ask(0, first, cut=cut), ask(1, answer(start, len(CONTENT) - 1)), ask(2, b"HTTP/1.1 404 No\r\n\r\n")]
    packets = pcap([packet for talk in talks for packet in talk])
    for path in (written(tmp_path, packets), written(tmp_path, gzip.compress(packets), "zipped")):
        exchanges, (one,) = read(path, bodies=BodyFiles(tmp_path / "bodies"))
        assert [exchange.complete for exchange in exchanges] == [False, True, True]
        assert (one.complete, one.exchanges, one.problems) == (True, (0, 1), ())
        assert one.sha256 == hashlib.sha256(CONTENT).hexdigest()
        assert (tmp_path / "bodies" / one.sha256).read_bytes() == CONTENT


def test_any_number_of_pieces_in_any_order(tmp_path: Path) -> None:
    tail, middle = answer(1_000_000, len(CONTENT) - 1), answer(200_000, 1_099_999)
    (one,) = joined(tmp_path, ask(0, tail), ask(1, answer(0), cut=300_000), ask(2, middle))
    assert (one.complete, one.exchanges, one.problems) == (True, (0, 1, 2), ())


def test_what_is_still_missing_is_said(tmp_path: Path) -> None:
    (one,) = joined(tmp_path, ask(0, answer(0), cut=1000), ask(1, answer(900_000, len(CONTENT) - 1)))
    assert not one.complete
    received = 1000 - answer(0).index(b"\r\n\r\n") - 4
    assert one.missing == ((received, 899_999),)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"extra": 'ETag: "two"\r\n'}, f'{len(CONTENT)} bytes, "one"; here {len(CONTENT)} bytes, "two"'),
        ({"size": len(CONTENT) + 1}, f'{len(CONTENT)} bytes, "one"; here {len(CONTENT) + 1} bytes, "one"'),
        ({"extra": "Last-Modified: Tue, 24 Nov 2009 08:00:00 GMT\r\n"}, "here 1536000 bytes, Tue, 24 Nov 2009"),
    ],
)
def test_another_version_is_not_joined_and_named(tmp_path: Path, other: dict[str, str | int], why: str) -> None:
    (one,) = joined(tmp_path, ask(0, answer(0), cut=1000), ask(1, answer(700, len(CONTENT) - 1, **other)))  # type: ignore[arg-type]
    (problem,) = one.problems
    assert problem.startswith("exchange 0 broke off after ")
    assert problem.endswith(": not joined")
    assert why in problem
    assert not one.complete


def test_bytes_that_differ_are_a_conflict(tmp_path: Path) -> None:
    wrong = answer(0).replace(CONTENT[:512], bytes(512), 1)
    (one,) = joined(tmp_path, ask(0, wrong, cut=5000), ask(1, answer(200, len(CONTENT) - 1)))
    assert one.complete
    assert one.problems == ("conflict: two answers differ from byte 200 on; the one joined first stands",)


def test_no_validator_at_one_side_agrees_with_any(tmp_path: Path) -> None:
    (one,) = joined(tmp_path, ask(0, answer(0, extra=""), cut=1000), ask(1, answer(700, len(CONTENT) - 1)))
    assert one.complete


def test_nothing_is_joined_that_no_range_continues(tmp_path: Path) -> None:
    assert joined(tmp_path, ask(0, answer(0), cut=1000), ask(1, answer(0))) == []
    (one,) = joined(tmp_path, ask(0, answer(0), cut=1000), ask(1, answer(700, 999), target="/other"))
    assert one.exchanges == (1,)


def test_in_tls_too(tmp_path: Path) -> None:
    require_tool("tshark")
    keylog = tmp_path / "keys"
    certificate = make_certificate(tmp_path)
    cut = tls_talk([(True, request("/CPE.nbt")), (False, answer(0)[:300_000])], certificate, keylog)
    rest = [(True, request("/CPE.nbt")), (False, answer(250_000, len(CONTENT) - 1))]
    packets = [*cut, *tls_talk(rest, certificate, keylog, talk=Talk(sport=5001, time=cut[-1].time + 1))]
    items = list(read_exchanges(written(tmp_path, pcap(packets)), ReadOptions(keylog=keylog)))
    (one,) = (item for item in items if isinstance(item, JoinedObject))
    assert (one.complete, one.sha256) == (True, hashlib.sha256(CONTENT).hexdigest())


def test_what_cannot_be_read_again_is_said(tmp_path: Path) -> None:
    """Packets of an interface come once."""
    talks = [ask(0, answer(0), cut=1000), ask(1, answer(700, len(CONTENT) - 1))]
    path = written(tmp_path, pcap([packet for talk in talks for packet in talk]))
    reader = full_reader("eth0", ReadOptions(), ordered=False)
    with open_packets(path) as file:
        items = [*reader.read(file.packets), *reader.finish(PacketFile("live"))]
    (one,) = (item for item in items if isinstance(item, JoinedObject))
    assert one.problems == ("exchange 0 began it, and its bytes were not kept",)
