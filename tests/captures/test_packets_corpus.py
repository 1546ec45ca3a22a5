"""Real captures against what tshark 4.0.17 said of them.

Where the two differ the reason stands in `DIFFERENCES`: "ours" is right, or both are "defensible". There is no third
kind: where ours is wrong, it is to be mended.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from captures.errors import CaptureError
from captures.exchange import Exchange
from captures.items import CaptureSummary, Item, JoinedObject
from captures.packet_files import open_packets
from captures.packets import PacketReader
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from tests.conftest import CORPUS, require_tool

# Capture -> (who is right, what is different and why).
DIFFERENCES = {
    "desync-variant-03-cl_negative.pcap": (
        "defensible",
        "behind Content-Length: -1 nobody can say where the next request starts; tshark takes the rest for one",
    ),
    "http-manipulated.pcap": (
        "ours",
        "a request line with many spaces is a request, as its server thought; the GIF cut off by the capture is shown",
    ),
    "http-no-version.pcap": ("defensible", "an answer in HTTP/0.9 has no status line, and so no status here"),
    "http-ipv6-atomic-frag.pcap": ("defensible", "HTTP/0.9 again"),
    "http-request-invalid.pcap": (
        "defensible",
        "bytes behind a request without Content-Length are a malformed request (its server said 400), not a body",
    ),
    "http-gap-simple.pcap": ("ours", "the answer with a gap in its body is shown, and so is the one after it"),
    "http-pipeline-gap.pcap": ("ours", "the answers with gaps are shown"),
    "http-snaplen-45of75.pcap": ("ours", "the answer is shown with what is there of its body"),
    "http-twovlan.pcap": ("ours", "the answer is there and is cut off; its packets came on another VLAN identifier"),
    "tcp-missing-unidir.pcap": ("ours", "both requests are shown, the first with the gap in its body"),
    "wu-content-range-gap.pcap": ("ours", "the 206 is shown with its gaps"),
    **dict.fromkeys(
        (*("tls-dhe1.pcapng.gz", "tls-nss-example.pcap", "tls-renegotiation.pcap", "tls-rsasnakeoil2.pcap"),),
        ("defensible", "tshark was given the TLS secrets"),
    ),
}
FOLDERS = ("pcap", "malformed", "dhcp")


def captures() -> list[Path]:
    names = ("*.pcap", "*.pcapng", "*.gz", "*.snoop", "*.pcap.txt")
    found = {path for folder in FOLDERS for name in names for path in (CORPUS / folder).glob(name)}
    return sorted(path for path in found if not path.name.endswith(".tar.gz"))


def truth_of(path: Path) -> dict[str, Any]:
    file = CORPUS / "truth" / f"{path.parent.name}__{path.name}.json"
    if not file.exists():
        pytest.skip("no truth for this one")
    truth: dict[str, Any] = json.loads(file.read_text())
    return truth


def messages(rows: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """tshark's messages; those of one frame share a row, with commas. Rows without a TCP stream are UDP."""
    for row in rows:
        if "stream" not in row:
            continue
        several = max(row.get(name, "").count(",") for name in ("method", "status")) + 1
        columns = {name: value.split(",") for name, value in row.items()}
        for index in range(several):
            split = {name: parts[index] for name, parts in columns.items() if len(parts) == several}
            yield split if several > 1 else row


def told_by_tshark(truth: dict[str, Any]) -> tuple[Counter[object], Counter[str]]:
    seen: Counter[object] = Counter()
    for row in messages(truth["http"]):
        if "method" in row and "uri" in row:
            seen[row["method"], row["uri"]] += 1
        if "status" in row:
            seen[int(row["status"])] += 1
    return seen, Counter(each["sha256"] for each in truth["objects"] if each["size"])


def told_by_us(items: list[Item]) -> tuple[Counter[object], Counter[str]]:
    seen: Counter[object] = Counter()
    bodies: Counter[str] = Counter()
    for item in items:
        if not isinstance(item, Exchange):
            continue
        if item.request.method:
            seen[item.request.method, item.request.target] += 1
        if item.response is not None:
            seen.update([item.response.status, *(status for status, _, _ in item.response.interim)])
        bodies.update(one.body.sha256 for one in (item.request, item.response) if one is not None and one.body.size)
    return seen, bodies


def read(path: Path) -> list[Item]:
    return list(read_exchanges(path))


@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_requests_answers_and_bodies_are_those_tshark_saw(path: Path) -> None:
    theirs = told_by_tshark(truth_of(path))
    if path.name == "tls12-dsb.pcapng":  # it brings its secrets, and tshark decrypts it for us
        require_tool("tshark")
    try:
        ours = told_by_us(read(path))
    except CaptureError:
        assert not theirs[0]
        return
    assert (ours == theirs) == (path.name not in DIFFERENCES)


def test_every_packet_is_read(corpus: Path) -> None:
    for path in captures():
        frames = truth_of(path)["frames"]
        try:
            with open_packets(path) as file:
                packets = sum(1 for _ in file.packets)
        except CaptureError:
            packets = 0
        assert packets == frames, path.name


def exchanges(path: Path) -> list[Exchange]:
    return [item for item in read(path) if isinstance(item, Exchange)]


def joined(path: Path) -> list[JoinedObject]:
    return [item for item in read(path) if isinstance(item, JoinedObject)]


@pytest.mark.parametrize("name", ["wu-cab-multiconn-range.pcap", "wu-206-two-conn.pcap"])
def test_ranges_join_to_the_object_whose_sha1_is_in_its_url(corpus: Path, name: str) -> None:
    (one,) = joined(corpus / "pcap" / name)
    assert one.complete
    assert one.sha1 is not None
    assert one.sha1 in one.target


def test_multipart_ranges_are_told_apart(corpus: Path) -> None:
    objects = joined(corpus / "pcap" / "wu-byteranges-m57.pcap")
    assert len(objects) == 3
    assert all(not one.complete and one.missing and not one.problems for one in objects)


# What is shown where tshark shows less: (target, status, complete, words of the problems).
SHOWN: dict[str, list[tuple[str, int | None, bool, tuple[str, ...]]]] = {
    "http-gap-simple.pcap": [
        ("/1", 200, True, ()),
        ("/2", 200, False, ("gap: 14 bytes missing at 14",)),
        ("/3", 200, True, ()),
    ],
    "wu-content-range-gap.pcap": [("psf", 206, False, ("gap: 1372 bytes missing at 1380",))],
    "http-snaplen96.pcap": [("/images/sf.net_box.gif", 200, False, ("bytes missing in the head",))],
    "http-request-invalid.pcap": [
        ("/index.html", 200, True, ()),
        ("/index.html", 200, True, ()),
        ("/index.html", 200, True, ()),
        ("", 400, False, ("malformed: expected a request line",)),
        ("/index.html", 200, True, ()),
        ("", 400, False, ("malformed: expected a request line",)),
    ],
    "desync-variant-01-chunk_2pow64_overflow.pcap": [("/", None, False, ("malformed: chunk size",))],
    "desync-variant-03-cl_negative.pcap": [("/", None, False, ("malformed: Content-Length '-1'",))],
    "http-no-version.pcap": [("/cgi-bin/", None, False, ("no HTTP version", "323 bytes that are no HTTP answer"))],
}


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_missing_or_malformed_is_said(corpus: Path, name: str) -> None:
    (path,) = (path for path in captures() if path.name == name)
    found = exchanges(path)
    assert len(found) == len(SHOWN[name])
    for exchange, (target, status, complete, words) in zip(found, SHOWN[name], strict=True):
        assert target in exchange.request.target
        assert (exchange.response.status if exchange.response else None) == status
        assert exchange.complete == complete
        assert all(any(word in problem for problem in exchange.problems) for word in words)
        assert bool(exchange.problems) == bool(words)


def test_pairing_survives_answers_nobody_asked_for(corpus: Path) -> None:
    found = exchanges(corpus / "malformed" / "http-desync-5.pcap")
    assert sum(not one.request.method for one in found) == 2
    assert all(one.complete for one in found if one.request.method)


def payloads_by_scapy(path: Path) -> Iterator[bytes]:
    from scapy.layers.inet import IP, TCP  # noqa: F401 - the layers must be bound
    from scapy.layers.inet6 import IPv6  # noqa: F401
    from scapy.layers.l2 import Ether  # noqa: F401
    from scapy.packet import Padding
    from scapy.utils import PcapReader

    with PcapReader(str(path)) as packets:
        for packet in packets:
            if TCP in packet:
                tcp = packet[TCP]
                size = len(tcp.payload) - (len(packet[Padding]) if Padding in packet else 0)
                yield bytes(tcp.payload)[:size]


# Captures in which every TCP segment stands in a whole, unfragmented packet: there scapy's view can be had packet by
# packet. Ethernet with and without tags, cooked, and both versions of IP.
WHOLE = [
    *("http-many-keepalive.pcap", "http-ntlm-webdav.pcap", "http-retrans-wireshark.pcap", "http-vlan.pcap"),
    *("http-qinq.pcap", "http-sll.pcap", "http-ipv6-four-streams.pcap", "http-ip4and6.pcapng", "wu-206-two-conn.pcap"),
]


@pytest.mark.parametrize("name", WHOLE)
def test_segments_are_those_scapy_sees(corpus: Path, name: str) -> None:
    path = corpus / "pcap" / name
    reader = PacketReader(name, ReadOptions())
    ours: list[bytes] = []
    # The payload of every segment, whichever way it went: both ways end here.
    from captures.tcp import Half

    receive = Half.receive

    def listen(self: Half, sequence: int, data: bytes, time: int, ack: int, missing: int = 0) -> None:
        ours.append(data)
        receive(self, sequence, data, time, ack, missing)

    with pytest.MonkeyPatch.context() as patched, open_packets(path) as file:
        patched.setattr(Half, "receive", listen)
        list(reader.read(file.packets))
        reader.close()
    assert ours == [data for data in payloads_by_scapy(path) if data]


@pytest.mark.parametrize("seed", range(3))
def test_damaged_captures_end_in_one_line_or_in_what_can_be_read(corpus: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for path in captures():
        data = bytearray(path.read_bytes())
        if path.suffix == ".gz":
            data = bytearray(gzip.decompress(data))
        if len(data) > 60_000:
            del data[60_000:]
        for _ in range(chance.randrange(1, 30)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.5:
            del data[chance.randrange(len(data)) :]
        damaged = tmp_path / "damaged"
        damaged.write_bytes(data)
        with contextlib.suppress(CaptureError):
            items = read(damaged)
            assert isinstance(items[-1], CaptureSummary)
            json.dumps([item.to_json() for item in items])


def test_a_file_of_random_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "random"
    path.write_bytes(hashlib.sha256(b"seed").digest() * 99)
    with pytest.raises(CaptureError):
        read(path)
