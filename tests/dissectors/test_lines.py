from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors.errors import LimitExceeded
from dissectors.lines import MAX_LINE, Line, sniff_encoding, text_lines


@given(
    st.lists(st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=["Cs"])), min_size=1),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(1, 9),
)
def test_lines_come_back_whatever_the_encoding_and_the_chunks(
    lines: list[str], encoding: str, end: str, size: int
) -> None:
    lines[0] = "a header\u0a0a" + lines[0]
    data = "".join(line + end for line in lines).encode(encoding)
    found = list(text_lines(data[at : at + size] for at in range(0, len(data), size)))
    assert [line.text for line in found] == lines
    assert [line.number for line in found] == list(range(1, len(lines) + 1))


def test_offsets_point_at_the_line() -> None:
    for encoding in ("utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        data = "time of day\nsecond line\nthird, not ended".encode(encoding)
        for line in text_lines([data]):
            name, _ = sniff_encoding(data)
            assert data[line.offset :].decode(name).startswith(line.text)


def test_a_line_that_is_not_utf_8_is_windows_1252() -> None:
    assert [line.text for line in text_lines(["ü\n".encode(), b"\xfc \x93x\x94\n"])] == ["ü", "ü “x”"]


def test_zero_bytes_left_by_a_crash_are_dropped() -> None:
    zeros = b"\0" * (3 * MAX_LINE)
    chunks = [b"one\ntw", zeros, b"o\nthree\n", zeros]
    assert list(text_lines(chunks)) == [
        Line(1, 0, "one"),
        Line(2, 4, "two"),
        Line(3, 8 + len(zeros), "three"),
    ]


def test_an_endless_line_is_refused() -> None:
    with pytest.raises(LimitExceeded):
        list(text_lines(b"x" * 65536 for _ in range(10)))
    assert [len(line.text) for line in text_lines([b"x" * MAX_LINE + b"\n"])] == [MAX_LINE]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
@pytest.mark.parametrize("size", [1000, 65536, 1 << 20])
def test_a_line_too_long_is_refused_although_it_ends_wherever_chunks_end(encoding: str, size: int) -> None:
    data = ("short\n" + "x" * MAX_LINE + "y\nrest\n").encode(encoding)
    found: list[Line] = []
    with pytest.raises(LimitExceeded) as caught:
        found.extend(text_lines(data[at : at + size] for at in range(0, len(data), size)))
    assert caught.value.offset == data.index("x".encode(encoding)[-2:] if encoding == "utf-16" else b"x")


def test_nothing_gives_nothing() -> None:
    assert list(text_lines([])) == []
    assert list(text_lines([b"", b"\xef\xbb", b"\xbf"])) == []
