from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors.http1 import reader
from tests.dissectors.http1.script import Script, read

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b'POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;ext="a"\r\nhello\r\n1\r\n!\r\n000\r\nTrailer: t\r\n\r\n'
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_pipelined_requests() -> None:
    script = read("request", GET + POST + CHUNKED + GET)
    assert script.lines == [
        *("GET /a 1.1", "done"),
        *("POST /b 1.1", "done"),
        *("POST /c 1.1", "done Trailer=t"),
        *("GET /a 1.1", "done"),
    ]
    assert script.bodies == [b"", b"hello", b"hello!", b""]
    assert script.positions == [0, 28, 28 + len(POST), 28 + len(POST + CHUNKED)]
    assert not script.problems


@given(st.lists(st.integers(0, 400), max_size=12))
def test_pieces_do_not_matter_behind_the_start_of_a_message(cuts: list[int]) -> None:
    stream = GET + POST + CHUNKED + b"\r\n" + GET
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert read("request", *pieces).lines == read("request", stream).lines
    assert read("request", *pieces).bodies == read("request", stream).bodies


def test_byte_by_byte() -> None:
    stream = b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"HTTP/1.1 200 OK\r\n\r\nrest"
    script = read("response", *(bytes([byte]) for byte in stream))
    assert script.lines == ["100 Continue 1.1", "done", "200 OK 1.1", "done", "200 OK 1.1", "done"]
    assert script.bodies == [b"", b"ok", b"rest"]


def test_a_hole_within_a_body_is_only_that() -> None:
    script = read("response", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", 5, b"xyz" + OK)
    assert script.lines == ["200 OK 1.1", "missing 5", "done", "200 OK 1.1", "done"]
    assert script.bodies == [b"abxyz", b"ok"]


def test_a_hole_to_the_very_end_of_a_body() -> None:
    script = read("response", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", 8, OK)
    assert script.lines == ["200 OK 1.1", "missing 8", "done", "200 OK 1.1", "done"]


def test_a_hole_within_a_chunk_is_only_that() -> None:
    script = read("request", CHUNKED[:-31], 2, CHUNKED[-29:] + GET)
    assert script.lines == ["POST /c 1.1", "missing 2", "done Trailer=t", "GET /a 1.1", "done"]


def test_a_hole_across_messages_is_left_at_the_next_piece_that_begins_one() -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab"
    script = read("response", cut, 30, b"middle of something HTTP/1.1 200 OK\r\n\r\n", OK)
    assert script.lines == ["200 OK 1.1", "done !", "lost", "skipped 39", "200 OK 1.1", "done"]
    assert "gap: 30 bytes" in script.problems[0]


def test_a_hole_in_a_head_shows_what_is_left_of_it() -> None:
    script = read("request", b"GET /a HTTP/1.1\r\nHost: x\r\nUser-", 7, b"Agent\r\n\r\n", GET)
    assert script.lines[0] == "GET /a 1.1"
    assert script.lines[-2:] == ["GET /a 1.1", "done"]
    assert read("request", b"GET /target HT", 70).lines[0] == "GET /target "


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", ["200 OK 1.1", "done !", "lost"]),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", ["200 OK 1.1", "done !", "lost"]),
        (b"HTTP/1.1 200 OK\r\nServer", ["200 OK 1.1", "done !", "lost"]),
        (b"HTTP/1.1 200 OK\r\n\r\nab", ["200 OK 1.1", "done"]),
    ],
)
def test_the_end_of_the_stream(stream: bytes, lines: list[str]) -> None:
    assert read("response", stream).lines == lines


@pytest.mark.parametrize("how", ["reset", "open"])
def test_only_a_close_ends_a_body_for_sure(how: str) -> None:
    assert "not certain" in read("response", b"HTTP/1.1 200 OK\r\n\r\nab", how=how).problems[0]


@pytest.mark.parametrize(
    "chunk",
    [
        b"10000000000000000\r\n",
        b"ffffffffffffffff\r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b"\r\n",
        b"5\nhello",
        b"5 5\r\n",
        b"5\r\nhelloworld\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5;a\x00\r\n",
        b"5" * (reader.MAX_CHUNK_LINE + 9),
    ],
)
def test_chunks_that_are_none_end_the_message_as_malformed(chunk: bytes) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\n\r\n"
    script = read("request", b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + smuggled, GET)
    assert any(problem.startswith("malformed: ") for problem in script.problems)
    assert "done !" in script.lines
    assert not any("smuggled" in line for line in script.lines)
    assert script.lines[-2:] == ["GET /a 1.1", "done"]


def test_what_follows_a_message_of_doubtful_length_is_not_read_as_one() -> None:
    script = read("request", b"POST /b HTTP/1.1\r\nContent-Length: -1\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", GET)
    assert script.lines == ["POST /b 1.1", "done !", "lost", "skipped 26", "GET /a 1.1", "done"]


def test_garbage_where_a_head_should_be_is_reported_at_once() -> None:
    script = read("request", GET + b"id=5&x=", GET)
    assert script.lines == ["GET /a 1.1", "done", "malformed", "skipped 7", "lost", "GET /a 1.1", "done"]


def test_a_request_without_version_is_one_line() -> None:
    script = read("request", b"GET /old\r\n", GET)
    assert script.lines == ["GET /old 0.9", "done", "GET /a 1.1", "done"]


def test_nothing_behind_an_upgrade_is_read() -> None:
    script = read("response", b"HTTP/1.1 101 Switching\r\n\r\n" + OK, OK)
    assert script.lines == ["101 Switching 1.1", "done", f"skipped {len(OK)}", f"skipped {len(OK)}"]


def test_other_protocols_are_passed_over() -> None:
    for data in (b"\x16\x03\x01\x00\x05hello", b"220 ready\r\n", b"REGISTER sip:x SIP/2.0\r\n\r\n", b"SSH-2.0-x\r\n"):
        assert read("request", data).lines[:1] == [f"skipped {len(data)}"]
        assert read("response", data).lines[:1] == [f"skipped {len(data)}"]


@pytest.mark.parametrize("size", [1, 500, 100_000])
def test_a_long_first_line_is_one_wherever_it_stands(size: int) -> None:
    target = "/" + "q" * 20_000
    one = f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    for before in (b"", b"GET /a HTTP/1.1\r\n\r\n"):
        stream = before + one
        script = read("request", *(stream[start : start + size] for start in range(0, len(stream), size)))
        assert script.lines[-2:] == [f"GET {target} 1.1", "done"]
        assert script.positions[-1] == len(before)


def test_long_text_that_only_begins_like_a_first_line_is_none() -> None:
    script = read("request", b"WORD ", *[b"x" * 500] * 40)
    assert all(line.startswith("skipped") for line in script.lines)


def test_a_head_without_end_is_given_up() -> None:
    script = Script("request")
    script.reader.feed(b"GET / HTTP/1.1\r\n")
    for _ in range(300):
        script.reader.feed(b"a: " + b"b" * 1000 + b"\r\n")
    assert "longer than" in script.problems[0] or "malformed" in script.problems[0]


PIECES = [
    b"GET",
    b" /",
    b" HTTP/1.1",
    b"HTTP/1.1 200 OK",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"Content-Length: 3",
    b"Transfer-Encoding: chunked",
]


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=5) | st.integers(1, 9), max_size=30))
def test_any_input_is_read_to_its_end_and_fully_accounted_for(pieces: list[bytes | int]) -> None:
    for role in ("request", "response"):
        script = read(role, *pieces)
        assert script.reader.position == sum(piece if isinstance(piece, int) else len(piece) for piece in pieces)
        heads = sum(line[0].isdigit() or line.startswith(("GET", "POST")) for line in script.lines)
        assert sum(line.startswith("done") for line in script.lines) >= heads


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\n\n", b"\r\n\r\n"])).map(b"".join), st.integers(0, 5))
def test_the_end_of_a_head_is_the_first_empty_line(data: bytes, start: int) -> None:
    match = reader._HEAD_END.search(data, start)
    assert reader.head_end(data, start) == (match.end() if match else 0)
