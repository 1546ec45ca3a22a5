from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors.errors import DissectError
from dissectors.http1 import parse_request_head, parse_response_head
from dissectors.http1.head import MAX_HEAD, MAX_LINES


def test_a_request_head_keeps_case_order_and_bytes() -> None:
    head = parse_request_head(b"GET /a%20b?x=\xff HTTP/1.0\r\nhOsT: x\r\nX: 1\r\nx:\t2 \r\n\r\n")
    assert (head.method, head.target, head.version) == ("GET", "/a%20b?x=\xff", "1.0")
    assert head.headers == (("hOsT", "x"), ("X", "1"), ("x", "2"))
    assert not head.notes
    assert not head.faults


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK", 200, "OK"),
        (b"HTTP/1.1 404 ", 404, ""),
        (b"HTTP/1.1 302", 302, ""),
        (b"HTTP/1.0 200 a b", 200, "a b"),
    ],
)
def test_status_lines(line: bytes, status: int, reason: str) -> None:
    head = parse_response_head(line + b"\r\n\r\n")
    assert (head.status, head.reason) == (status, reason)
    assert not head.faults


@pytest.mark.parametrize(
    ("block", "note"),
    [
        (b"GET    / HTTP/1.1\r\n\r\n", "single spaces"),
        (b"GET /old\r\n", "no HTTP version"),
        (b"GET / HTTP/1.1\nHost: x\n\n", "bare line feeds"),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", "folded"),
        (b"GET / HTTP/1.1\r\nA: b\x07c\r\n\r\n", "control characters"),
    ],
)
def test_harmless_deviations_are_notes(block: bytes, note: str) -> None:
    head = parse_request_head(block)
    assert any(note in text for text in head.notes)
    assert not head.faults


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length : 5\r\n",
        b" Host: x\r\n",
        b"A\x00: b\r\n",
        b"Content-Length 5\r\n",
        b"\xc3\x9cTransfer-Encoding: chunked\r\n",
        b"A: b\x00\r\n",
        b"A: b\rc\r\n",
        b"A: b\r\n Transfer-Encoding: chunked\r\n",
        b"Content-Length:\r\n 5\r\n",
        b"A: b\r\n" * (MAX_LINES + 1),
    ],
)
def test_what_makes_the_length_doubtful_is_a_fault(lines: bytes) -> None:
    for parsed in (
        parse_request_head(b"POST / HTTP/1.1\r\n" + lines + b"\r\n"),
        parse_response_head(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n"),
    ):
        assert any(fault.startswith("malformed: ") for fault in parsed.faults)


@pytest.mark.parametrize(
    ("line", "note", "kept"),
    [
        (b"X-A \t: b", "white space before the colon of header X-A", (("X-A", "b"),)),
        (b"no colon", "left out: header line 'no colon' without a colon", ()),
        (b": empty", "left out: '' is no header name", ()),
        (b"X-\xc3\xa4: b", "left out: 'X-Ã¤' is no header name", ()),
    ],
)
def test_lines_that_are_no_fields_hide_headers_in_requests_only(
    line: bytes, note: str, kept: tuple[tuple[str, str], ...]
) -> None:
    fields = b"Content-Length: 5\r\n" + line + b"\r\nB: c\r\n\r\n"
    assert parse_request_head(b"POST / HTTP/1.1\r\n" + fields).faults[0].startswith("malformed: ")
    answer = parse_response_head(b"HTTP/1.1 200 OK\r\n" + fields)
    assert not answer.faults
    assert answer.notes == (note,)
    assert answer.headers == (("Content-Length", "5"), *kept, ("B", "c"))


def test_mixed_line_ends_hide_headers_in_requests_and_come_from_programs_in_answers() -> None:
    fields = b"A: b\nContent-Length: 5\r\n\r\n"
    assert "bare line feeds" in parse_request_head(b"POST / HTTP/1.1\r\n" + fields).faults[0]
    answer = parse_response_head(b"HTTP/1.1 200 OK\r\n" + fields)
    assert not answer.faults
    assert "bare line feeds" in answer.notes[0]


def test_a_folded_value_is_joined_by_one_space() -> None:
    head = parse_request_head(b"GET / HTTP/1.1\r\nA: b  \r\n \t c\r\n\r\n")
    assert head.headers == (("A", "b c"),)


@pytest.mark.parametrize("block", [b"", b"\r\n\r\n", b"GET\r\n\r\n", b"<html>\r\n\r\n", b"x" * (MAX_HEAD + 1)])
def test_what_has_no_start_line_is_refused(block: bytes) -> None:
    with pytest.raises(DissectError):
        parse_request_head(block)
    with pytest.raises(DissectError):
        parse_response_head(block)


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b"GET", b" ", b"/", b"HTTP/1.1", b"\r\n", b"\n", b"A:", b"\t"])).map(b"".join)
)
def test_nothing_but_the_one_error_escapes(block: bytes) -> None:
    for parse in (parse_request_head, parse_response_head):
        try:
            parse(block)
        except DissectError:
            continue


@pytest.mark.parametrize("filler", [b" ", b"\t", b"a ", b" HTTP/", b"\r", b"\x00 "])
def test_long_lines_cost_linear_work(filler: bytes) -> None:
    """Quadratic work on these would take minutes."""
    line = filler * (MAX_HEAD // 2 // len(filler))
    for block in (
        b"GET " + line + b"\n\n",
        b"HTTP/1.1 200 " + line + b"\x00\n\n",
        b"GET / HTTP/1.1\r\nA:" + line + b"\x01\n\n",
    ):
        for parse in (parse_request_head, parse_response_head):
            try:
                parse(block)
            except DissectError:
                continue
