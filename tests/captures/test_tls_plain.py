"""How decrypted connections end, and what is said of them where the capture has lost something."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from captures.exchange import Exchange
from captures.items import CaptureSummary
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from tests.captures.tls_talk import make_certificate, tls_talk
from tests.captures.wire import ACK, RST, Packet, Talk, answer, payload_of, pcap, request, written
from tests.conftest import require_tool

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
UNTIL_CLOSE = [(True, request("/a")), (False, b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 3000)]
UNCERTAIN = "the end of the body is not certain: "
OPEN = "the capture does not show the end of the connection"

End = Callable[[Talk], Talk]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    require_tool("tshark")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def read(folder: Path, packets: list[Packet]) -> tuple[list[Exchange], CaptureSummary]:
    keylog = folder / "keys"
    *items, summary = read_exchanges(written(folder, pcap(packets, nano=True)), ReadOptions(keylog=keylog))
    assert isinstance(summary, CaptureSummary)
    return [item for item in items if isinstance(item, Exchange)], summary


def cut(talk: Talk) -> Talk:
    return talk


def reset(talk: Talk) -> Talk:
    return talk.server(flags=RST | ACK)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize(
    ("notify", "end", "problems"),
    [
        (False, Talk.close, ()),
        (False, cut, (UNCERTAIN + OPEN,)),
        (False, reset, (UNCERTAIN + "the connection was reset",)),
        (True, cut, ()),
        (True, reset, ()),
    ],
)
def test_a_body_ends_with_the_connection_that_carried_it(
    tmp_path: Path, certificate: tuple[Path, Path], version: ssl.TLSVersion,
    notify: bool, end: End, problems: tuple[str, ...],
) -> None:  # fmt: skip
    said = UNTIL_CLOSE + [(False, b"")] * notify
    packets = tls_talk(said, certificate, tmp_path / "keys", version=version, ending=end)
    (exchange,), summary = read(tmp_path, packets)
    assert exchange.response is not None
    assert exchange.response.body.size == 3000
    assert (exchange.complete, exchange.problems) == (not problems, problems)
    assert summary.problems == ()


def test_one_side_may_be_done_before_the_other(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    said = [UNTIL_CLOSE[0], (True, b""), UNTIL_CLOSE[1]]
    (exchange,), _ = read(tmp_path, tls_talk(said, certificate, tmp_path / "keys"))
    assert (exchange.complete, exchange.problems) == (True, ())


def test_the_capture_ends_in_a_body_of_known_length(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    said = [(True, request("/a")), (False, answer(b"x" * 40_000))]
    packets = tls_talk(said, certificate, tmp_path / "keys", ending=cut)[:-1]
    (exchange,), _ = read(tmp_path, packets)
    (problem,) = exchange.problems
    assert problem.startswith("cut off: ")
    assert problem.endswith(f" bytes of the body are missing ({OPEN})")


def from_server(packets: list[Packet]) -> list[int]:
    """Where the packets are in which the server says something."""
    return [i for i, packet in enumerate(packets) if payload_of(packet) and packet.data[34:36] == b"\0\x50"]


LOST = "1460 bytes of the TLS connection are missing: what follows them cannot be decrypted"


@pytest.mark.parametrize("step", [1_000_000, 200, 0])
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_what_a_gap_has_swallowed_is_said(
    tmp_path: Path, certificate: tuple[Path, Path], version: ssl.TLSVersion, step: int
) -> None:
    """Also where packets have come so fast that their times are the same to tshark, or to the clock."""
    said = [
        (True, request("/a")), (False, answer(b"x" * 200)), (True, request("/b")), (False, answer(b"y" * 40_000)),
        (True, request("/c")), (False, answer(b"z" * 200)),
    ]  # fmt: skip
    packets = tls_talk(said, certificate, tmp_path / "keys", version=version)
    packets = [replace(packet, time=packets[0].time + i * step) for i, packet in enumerate(packets)]
    full = [i for i in from_server(packets) if len(payload_of(packets[i])) == 1460]
    del packets[full[-4]]  # in the last record of the long answer
    (before, hit, behind), summary = read(tmp_path, packets)
    assert (before.complete, before.problems) == (True, ())
    assert hit.response is not None
    assert hit.response.body.size == 16384 * 2 - len(answer(b"y" * 40_000)) + 40_000
    assert not hit.complete
    assert "gap: 1460 bytes missing at 32726 of the body" in hit.problems
    assert "(the connection was closed)" not in str(hit.problems)
    assert hit.problems[-1] == LOST
    assert (behind.response, behind.problems) == (None, ("no answer in the capture", LOST))
    assert summary.problems == ()
    assert (summary.counts["gaps"], summary.counts["bytes missing"]) == (1, 1460)


def test_a_gap_in_a_body_that_ends_with_the_connection(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    packets = tls_talk([*UNTIL_CLOSE, (False, b"y" * 1000)], certificate, tmp_path / "keys")
    lost = len(payload_of(packets.pop(from_server(packets)[-1])))
    (exchange,), _ = read(tmp_path, packets)
    assert exchange.response is not None
    assert (exchange.response.body.size, exchange.complete) == (3000, False)
    assert f"gap: {lost} bytes missing at 3000 of the body" in exchange.problems


def test_a_record_that_proves_false_is_said(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    said = [(True, request("/a")), (False, answer(b"x" * 200)), (True, request("/b")), (False, answer(b"y" * 200))]
    packets = tls_talk(said, certificate, tmp_path / "keys")
    last = from_server(packets)[-1]
    broken = packets[last].data
    packets[last] = replace(packets[last], data=broken[:-1] + bytes((broken[-1] ^ 1,)))
    (first, second), summary = read(tmp_path, packets)
    assert first.complete
    assert second.problems == ("no answer in the capture", "the TLS connection is decrypted in part only")
    assert summary.problems == ("1 TLS connections are decrypted in part only: 10.0.0.1:5000 - 10.0.0.2:80",)
    assert summary.partial


def test_connections_on_the_same_ports_have_their_own_ends(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    first = tls_talk(UNTIL_CLOSE, certificate, tmp_path / "keys", ending=cut)
    again = Talk(time=first[-1].time + 1_000_000, client_isn=7_000_000, server_isn=9_000_000)
    packets = first + tls_talk(UNTIL_CLOSE, certificate, tmp_path / "keys", talk=again)
    (one, other), _ = read(tmp_path, packets)
    assert one.problems == (UNCERTAIN + OPEN,)
    assert other.problems == ()
