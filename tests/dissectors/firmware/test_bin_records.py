from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.firmware import BinImage
from dissectors.firmware.bin_records import HEADER, RECORD, byte_sum

START = 0x8C00_0000


@given(
    st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=200)), max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_an_image_reads_as_it_was_built(parts: list[tuple[int, bytes]], entry: int) -> None:
    records = [(START + at, data) for at, data in parts]
    built = BinImage.build(START, 5000, records, entry)
    image = BinImage.parse(built)
    assert (image.start, image.length, image.entry, image.end) == (START, 5000, entry, len(built))
    assert [(one.address, built[one.offset : one.offset + one.length]) for one in image.records] == records
    assert image.problems == ()
    memory = bytearray(5000)
    for at, data in parts:
        memory[at : at + len(data)] = data
    laid = image.memory()
    whole = laid.read_at(0, 5000)
    assert len(whole) == laid.size == max((at + len(data) for at, data in parts), default=0)
    assert whole == memory[: len(whole)]
    for start in range(0, 5000, 700):
        assert laid.read_at(start, 900) == whole[start : start + 900]


def test_the_layout_is_the_documented_one() -> None:
    built = BinImage.build(0x8C010000, 0x10, [(0x8C010000, b"\xff\xff\x02")], 0x8C010004)
    assert built == bytes.fromhex(
        "42303030 46460a 0000018c 100000000000018c 03000000 00020000 ffff0200000000 0400018c 00000000"
    )
    assert (HEADER.sizeof(), RECORD.sizeof()) == (15, 12)


def test_wrong_sums_are_found() -> None:
    built = bytearray(BinImage.build(START, 100, [(START, b"abc"), (START + 10, b"def")], START))
    built[15 + 12] ^= 1
    image = BinImage.parse(bytes(built))
    assert [record.sum_ok for record in image.records] == [False, True]
    assert image.problems == ("the record at offset 15 has a wrong sum",)
    assert image.to_json()["sums_ok"] is False


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data[:-12], "without naming its entry point"),
        (lambda data: data[:-14], "is cut off"),
        (lambda data: data + b"more", "4 bytes follow the image"),
        (lambda data: data[:-4] + b"\1\0\0\0", "closing record at offset"),
    ],
)
def test_what_is_wrong_is_named(change: object, problem: str) -> None:
    assert callable(change)
    image = BinImage.parse(change(BinImage.build(START, 100, [(START, b"abc")], START)))
    assert any(problem in found for found in image.problems)


def test_a_record_outside_of_the_image_is_named() -> None:
    image = BinImage.parse(BinImage.build(START, 4, [(START + 2, b"abc")], START))
    assert "outside" in image.problems[0]


@pytest.mark.parametrize("data", [b"", b"B000FF", b"B000FF\n\0\0", b"X000FF\n" + bytes(8), b"B000FF\n" + b"\xff" * 8])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        BinImage.parse(data)


def test_memory_costs_no_more_than_what_is_asked_of_it() -> None:
    far = 1 << 31
    memory = BinImage.parse(BinImage.build(0, far + 9, [(far, b"xyz")], 1)).memory()
    assert memory.size == far + 3
    assert memory.read_at(far - 2, 99) == b"\0\0xyz"


def test_records_that_cover_each_other_all_the_way_are_laid_out() -> None:
    records = [(START + 1 + at % 7, bytes([at % 256]) * (5000 - at)) for at in range(2000)]
    memory = bytearray(5007)
    for address, data in records:
        memory[address - START : address - START + len(data)] = data
    assert BinImage.parse(BinImage.build(START, 6000, records, START)).memory().read_at(0, 5007) == memory[:5001]


@given(st.binary(max_size=5000))
def test_the_sum_is_that_of_the_bytes(data: bytes) -> None:
    assert byte_sum(data) == sum(data)
    assert byte_sum(b"\xff" * len(data)) == 255 * len(data)
