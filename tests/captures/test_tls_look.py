"""TLS that is not where a connection begins, and connections inside of other packets."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from captures.exchange import Exchange
from captures.items import DECRYPTED, CaptureSummary, Item
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from captures.tcp import Endpoints
from captures.tls_look import MAX_HOLES, Carrier, TlsLook
from tests.captures.tls_talk import make_certificate, tls_talk
from tests.captures.wire import Packet, Talk, answer, ethernet, ipv4, ipv6, pcap, request, with_vlan, written
from tests.conftest import require_tool

SAID = [(True, request("/inside")), (False, answer(b"x" * 20_000))]
ASKED = b"CONNECT ucupdates-r2:8443 HTTP/1.1\r\nHost: ucupdates-r2:8443\r\n\r\n"
REFUSED = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
GRANTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    require_tool("tshark")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def read(folder: Path, packets: list[Packet]) -> tuple[list[tuple[str, str]], CaptureSummary]:
    items: list[Item] = list(read_exchanges(written(folder, pcap(packets)), ReadOptions(keylog=folder / "keys")))
    summary = items[-1]
    assert isinstance(summary, CaptureSummary)
    exchanges = [item for item in items if isinstance(item, Exchange)]
    assert all(exchange.complete for exchange in exchanges)
    assert all((DECRYPTED in one.facts) == (one.request.method != "CONNECT") for one in exchanges)
    return [(one.request.method, one.request.target) for one in exchanges], summary


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
@pytest.mark.parametrize(
    "before",
    [[(True, ASKED), (False, GRANTED)], [(True, ASKED), (False, REFUSED), (True, ASKED), (False, GRANTED)]],
    ids=["granted", "at the second time"],
)
def test_tls_through_a_proxy(
    tmp_path: Path, certificate: tuple[Path, Path], version: ssl.TLSVersion, before: list[tuple[bool, bytes]]
) -> None:
    packets = tls_talk(SAID, certificate, tmp_path / "keys", version=version, before=before)
    shown, summary = read(tmp_path, packets)
    assert shown == [("CONNECT", "ucupdates-r2:8443")] * (len(before) // 2) + [("GET", "/inside")]
    assert (summary.counts["TCP connections"], summary.problems) == (1, ())
    assert (summary.counts["TLS connections"], summary.counts["TLS connections decrypted"]) == (1, 1)


def test_a_proxy_that_is_asked_over_tls_too(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """On the same port: what makes tshark see the one must not hide the other."""
    keylog = tmp_path / "keys"
    packets = tls_talk(SAID, certificate, keylog)
    later = Talk(sport=5001, time=packets[-1].time + 1)
    packets += tls_talk(SAID, certificate, keylog, before=[(True, ASKED), (False, GRANTED)], talk=later)
    assert read(tmp_path, packets)[0] == [("GET", "/inside"), ("CONNECT", "ucupdates-r2:8443"), ("GET", "/inside")]


def test_secrets_of_something_else_than_the_tunnel(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    before = [(True, ASKED), (False, GRANTED)]
    packets = tls_talk(SAID, certificate, tmp_path / "other", before=before)
    (tmp_path / "keys").write_text(f"CLIENT_RANDOM {'00' * 32} {'00' * 48}\n")
    shown, summary = read(tmp_path, packets)
    assert shown == [("CONNECT", "ucupdates-r2:8443")]
    assert summary.problems == ("with these secrets none of 1 TLS connections can be decrypted",)
    assert summary.counts["TLS connections"] == 1


def in_ipv4(packet: bytes) -> bytes:
    return ethernet(ipv4(packet, "192.0.2.1", "192.0.2.2", protocol=4))


def in_ipv6(packet: bytes) -> bytes:
    return ethernet(ipv6(packet, following=4), 0x86DD)


@pytest.mark.parametrize("wrap", [in_ipv4, in_ipv6])
def test_tls_in_ip_in_ip(tmp_path: Path, certificate: tuple[Path, Path], wrap: Callable[[bytes], bytes]) -> None:
    packets = tls_talk(SAID, certificate, tmp_path / "keys")
    shown, summary = read(tmp_path, [replace(packet, data=wrap(packet.data[14:])) for packet in packets])
    assert shown == [("GET", "/inside")]
    assert summary.problems == ()


def test_tls_in_networks(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    packets = tls_talk(SAID, certificate, tmp_path / "keys")
    assert read(tmp_path, with_vlan(packets, 5, 6))[0] == [("GET", "/inside")]


ENDS = Endpoints(bytes(4), bytes((1, 1, 1, 1)), 5000, 443, b"", ("", ""))
PAIR = frozenset({(ENDS.source, 5000), (ENDS.target, 443)})
HELLO = b"\x16\3\1\0\x30\1\0\0\x2c\3\3" + bytes(32)


def test_the_connection_is_the_last_one_that_had_begun() -> None:
    look = TlsLook()
    carriers = [Carrier(ENDS, look) for _ in range(3)]
    for time, carrier in zip((100, 200, 300), carriers, strict=True):
        carrier.wires[0].data(b"CONNECT", time - 1, 0)
        carrier.wires[0].data(HELLO, time, 0)
        carrier.wires[1].data(HELLO, time + 1, 0)
    assert (look.tunnels, look.connections) == (3, 3)
    found = [look.carrier([PAIR], moment) for moment in (50, 150, 250, 9999)]
    assert found == [carriers[0], *carriers]
    assert look.carrier([frozenset({(ENDS.source, 5001), (ENDS.target, 443)})], 150) is None


def test_holes_are_kept_within_a_bound() -> None:
    wire = Carrier(ENDS, TlsLook()).wires[0]
    for time in range(1000, 1000 + 2 * MAX_HOLES):
        wire.hole(3, time)
        wire.hole(4, time)
        wire.data(b"x", time, 0)
    assert len(wire.holes) == MAX_HOLES
    assert (wire.lost_behind(0), wire.lost_behind(1000 + 2 * MAX_HOLES)) == (7, 0)
