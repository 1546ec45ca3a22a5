from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captures.errors import CaptureError
from captures.packet_files import PacketFile, open_packets
from captures.packet_files.common import MAX_PACKET
from tests.captures.wire import START, Packet, block, enhanced, interface, option, pcap, section, written

FRAMES = [Packet(b"one", START + 1_001), Packet(b"second", START + 2_000_000_002, 60), Packet(b"", START + 3_000)]


def seen(path: Path) -> tuple[list[tuple[int, int, bytes, int]], PacketFile]:
    with open_packets(path) as file:
        packets = [(time, link, data[start:end], wire) for time, link, data, start, end, wire in file.packets]
        return packets, file


def expected(tick: int) -> list[tuple[int, int, bytes, int]]:
    return [(one.time // tick * tick, 1, one.data, len(one.data) if one.wire is None else one.wire) for one in FRAMES]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["micro", "nano", "modified"])
@pytest.mark.parametrize("zipped", [False, True])
def test_pcap_of_either_order_and_precision(tmp_path: Path, order: str, kind: str, zipped: bool) -> None:
    data = pcap(FRAMES, order=order, nano=kind == "nano", modified=kind == "modified")
    packets, file = seen(written(tmp_path, gzip.compress(data) if zipped else data))
    assert packets == expected(1 if kind == "nano" else 1000)
    assert file.format == ("pcap in gzip" if zipped else "pcap")
    assert not file.problems


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_sections_interfaces_and_resolutions(tmp_path: Path, order: str) -> None:
    milli = option(9, b"\3", order) + option(14, struct.pack(f"{order}q", 100), order) + option(0, b"", order)
    binary = option(9, b"\x8a", order)
    data = section("<") + interface(113) + enhanced(b"old", 5_000_000)
    data += section(order) + interface(1, options=milli, order=order) + interface(101, options=binary, order=order)
    data += enhanced(b"milli", 2_500, order=order) + enhanced(b"binary", 1536, number=1, wire=99, order=order)
    data += block(3, struct.pack(f"{order}I", 6) + b"simple", order)
    data += block(2, struct.pack(f"{order}2H4I", 0, 0, 0, 1000, 3, 3) + b"obs", order)
    data += enhanced(b"lost", number=7, order=order)
    packets, file = seen(written(tmp_path, data))
    assert packets == [
        (5_000_000_000, 113, b"old", 3),
        (102_500_000_000, 1, b"milli", 5),
        (1_500_000_000, 101, b"binary", 99),
        (100_000_000_000, 1, b"simple", 6),
        (101_000_000_000, 1, b"obs", 3),
    ]
    assert file.problems == ["1 packets of interfaces that are not declared were left out"]
    assert not file.damaged


def test_pcapng_names_and_secrets(tmp_path: Path) -> None:
    names = struct.pack("<HH", 1, 13) + b"\x0a\0\0\1phone\0abc"[:13] + bytes(3) + struct.pack("<HH", 0, 0)
    secrets = b"CLIENT_RANDOM aa bb\n"
    data = section() + block(4, names) + block(10, struct.pack("<II", 0x544C534B, len(secrets)) + secrets)
    _, file = seen(written(tmp_path, data + block(0x0BAD, b"a vendor's own")))
    assert file.names == {"10.0.0.1": "phone"}
    assert file.secrets == [secrets]
    assert not file.problems


def test_snoop(tmp_path: Path) -> None:
    record = struct.pack(">6I", 60, 3, 28, 0, 100, 7) + b"abc\0"
    data = b"snoop\0\0\0" + struct.pack(">II", 2, 4) + record * 2
    packets, file = seen(written(tmp_path, data))
    assert packets == [(100_000_007_000, 1, b"abc", 60)] * 2
    assert not file.damaged
    _, cut = seen(written(tmp_path, data[:-1]))
    assert cut.damaged


@pytest.mark.parametrize("size", range(25, len(pcap(FRAMES)), 7))
def test_a_pcap_cut_off_gives_what_there_is(tmp_path: Path, size: int) -> None:
    packets, file = seen(written(tmp_path, pcap(FRAMES)[:size]))
    assert packets == expected(1000)[: len(packets)]
    assert file.damaged
    assert "expected a whole packet" in file.problems[0]


def test_a_pcapng_cut_off_gives_what_there_is(tmp_path: Path) -> None:
    data = section() + interface() + enhanced(b"abcd") * 2
    for size in range(len(data) - 35, len(data)):
        packets, file = seen(written(tmp_path, data[:size]))
        assert len(packets) == 1
        assert file.damaged


def test_a_gzip_cut_off_or_followed_by_junk(tmp_path: Path) -> None:
    data = gzip.compress(pcap(FRAMES * 50))
    for damaged in (data[:-20], data + b"junk"):
        packets, file = seen(written(tmp_path, damaged))
        assert packets
        assert file.damaged
        assert "compressed" in file.problems[0]


def test_an_enormous_packet_is_damage_with_its_place(tmp_path: Path) -> None:
    data = pcap(FRAMES[:1]) + struct.pack("<4I", 1, 0, MAX_PACKET + 1, MAX_PACKET + 1) + bytes(50)
    packets, file = seen(written(tmp_path, data))
    assert len(packets) == 1
    assert file.problems[0].startswith("at offset 43:")


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"not a capture", pcap([])[:20], b"snoop\0\0\0", b"\x0a\x0d\x0d\x0a", gzip.compress(b"text", mtime=0)],
)
def test_what_has_not_even_a_header_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    with (
        pytest.raises(CaptureError, match=r"test\.pcap: at offset \d+: expected") as raised,
        open_packets(written(tmp_path, data)),
    ):
        pass
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"), open_packets(tmp_path / "none"):
        pass


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from([pcap(FRAMES), section() + interface() + enhanced(b"abcd") * 3]), data=st.data())
def test_damage_anywhere_never_escapes(tmp_path: Path, start: bytes, data: st.DataObject) -> None:
    mutated = bytearray(start)
    for place in data.draw(st.lists(st.integers(0, len(mutated) - 1), max_size=6)):
        mutated[place] = data.draw(st.integers(0, 255))
    try:
        seen(written(tmp_path, bytes(mutated)))
    except CaptureError:
        return
