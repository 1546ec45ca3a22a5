from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors.byteranges import MAX_PARTS, ContentRange, MultipartReader, parse_boundary, parse_content_range
from dissectors.errors import DissectError


def test_content_ranges() -> None:
    assert parse_content_range("bytes 0-5472/39618") == ContentRange(0, 5472, 39618)
    assert parse_content_range(" Bytes\t7-7/*") == ContentRange(7, 7, None)


@pytest.mark.parametrize(
    "value",
    ["", "bytes */5", "bytes 5-4/9", "bytes 0-9/9", "0-1/2", "bytes 0-1", "bytes -1-2/9", "bytes 0-1/9" + "9" * 30],
)
def test_ranges_that_are_none(value: str) -> None:
    with pytest.raises(DissectError):
        parse_content_range(value)


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        ('multipart/byteranges; boundary="a b"', "a b"),
        ("Multipart/ByteRanges;x=y; Boundary=abc; z", "abc"),
        ("multipart/byteranges", None),
        ("multipart/form-data; boundary=x", None),
    ],
)
def test_boundaries(value: str, boundary: str | None) -> None:
    assert parse_boundary(value) == boundary


def read(body: bytes, size: int = 1 << 20) -> dict[int, int]:
    found: dict[int, int] = {}

    def sink(_part: ContentRange, offset: int, data: bytes) -> None:
        found.update({offset + index: byte for index, byte in enumerate(data)})

    reader = MultipartReader("B", sink)
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
    return found


def multipart(parts: list[tuple[int, bytes]]) -> bytes:
    out = b""
    for first, data in parts:
        out += (
            f"\r\n--B\r\nContent-Type: x\r\ncontent-range: bytes {first}-{first + len(data) - 1}/1000\r\n\r\n".encode()
            + data
        )
    return out + b"\r\n--B--\r\nepilogue"


@given(st.lists(st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=60)), max_size=5), st.integers(1, 70))
def test_parts_are_told_by_their_range_in_pieces_of_any_size(parts: list[tuple[int, bytes]], size: int) -> None:
    expected = {first + index: byte for first, data in parts for index, byte in enumerate(data)}
    assert read(multipart(parts), size) == expected


@given(st.binary(max_size=300))
def test_nothing_but_the_one_error_escapes(body: bytes) -> None:
    for data in (body, b"--B\r\nContent-Range: bytes 0-5/9\r\n\r\n" + body):
        try:
            read(data)
        except DissectError:
            continue


PART = b"--B\r\ncontent-range: bytes 0-0/1\r\n\r\nx"


@pytest.mark.parametrize("body", [b"--C\r\n\r\n", b"--B\r\nX: y\r\n\r\n", b"x" * 70000, PART * (MAX_PARTS + 1)])
def test_what_is_no_multipart_is_refused(body: bytes) -> None:
    with pytest.raises(DissectError):
        read(body)


def test_a_hole_inside_a_part_is_skipped_and_one_across_parts_is_not() -> None:
    found: list[tuple[int, bytes]] = []
    reader = MultipartReader("B", lambda _part, offset, data: found.append((offset, data)))
    reader.feed(b"--B\r\nContent-Range: bytes 10-19/99\r\n\r\nab")
    reader.hole(5)
    reader.feed(b"xyz\r\n")
    assert found == [(10, b"ab"), (17, b"xyz")]
    with pytest.raises(DissectError):
        reader.hole(1)
