from __future__ import annotations

import pytest

from dissectors.http1 import Framing, Kind, parse_request_head, parse_response_head, request_framing, response_framing


def request(*lines: str, version: str = "1.1") -> Framing:
    block = "\r\n".join([f"POST / HTTP/{version}", *lines, "", ""])
    return request_framing(parse_request_head(block.encode("latin-1")))


def response(*lines: str, status: int = 200, method: str | None = "GET") -> Framing:
    block = "\r\n".join([f"HTTP/1.1 {status} X", *lines, "", ""])
    return response_framing(parse_response_head(block.encode("latin-1")), method)


def test_a_request_without_lengths_has_no_body_and_an_answer_lasts_to_the_end() -> None:
    assert request() == Framing(Kind.LENGTH, 0)
    assert response() == Framing(Kind.CLOSE)


@pytest.mark.parametrize(
    ("status", "method"), [(204, "GET"), (304, "GET"), (200, "HEAD"), (100, "POST"), (404, "HEAD"), (304, None)]
)
def test_answers_without_a_body(status: int, method: str | None) -> None:
    assert response("Content-Length: 5", status=status, method=method) == Framing(Kind.LENGTH, 0)


@pytest.mark.parametrize(("status", "method"), [(101, "GET"), (200, "CONNECT"), (204, "CONNECT")])
def test_tunnels(status: int, method: str) -> None:
    assert response("Content-Length: 5", status=status, method=method).kind is Kind.TUNNEL


def test_a_refused_connect_has_a_body() -> None:
    assert response("Content-Length: 5", status=407, method="CONNECT") == Framing(Kind.LENGTH, 5)


@pytest.mark.parametrize(
    "value", ["-1", "+5", "5 5", "0x5", "", "5,6", "9223372036854775808", "99999999999999999999999", "5.0", "\u00b2"]
)
def test_lengths_that_are_none(value: str) -> None:
    assert request(f"Content-Length: {value}").kind is Kind.UNKNOWN
    assert response(f"Content-Length: {value}").kind is Kind.UNKNOWN


def test_repeated_lengths_must_agree() -> None:
    assert request("Content-Length: 5", "content-length: 5").notes == ("Content-Length is given more than once",)
    assert request("Content-Length: 5, 5").length == 5
    assert "different" in request("Content-Length: 5", "Content-Length: 6").faults[0]


def test_transfer_encoding_decides_and_both_are_suspicious() -> None:
    framing = request("Content-Length: 5", "Transfer-Encoding: chunked")
    assert framing.kind is Kind.CHUNKED
    assert "suspicious" in framing.notes[0]


def test_other_transfer_codings_are_undone_behind_the_chunks() -> None:
    assert response("Transfer-Encoding: gzip, chunked") == Framing(Kind.CHUNKED, codings=("gzip",))
    assert response("Transfer-Encoding: gzip") == Framing(Kind.CLOSE, codings=("gzip",))
    assert request("Transfer-Encoding: gzip").kind is Kind.UNKNOWN


@pytest.mark.parametrize(
    "value",
    [
        "xchunked",
        "chunked, chunked",
        "chunked, identity",
        "chunked;q=1",
        '"chunked"',
        "\x0bchunked",
        "chunked, gzip",
        "",
    ],
)
def test_transfer_encodings_that_are_doubtful(value: str) -> None:
    assert request(f"Transfer-Encoding: {value}").kind is Kind.UNKNOWN


def test_identity_means_none() -> None:
    assert response("Transfer-Encoding: identity", "Content-Length: 3").length == 3
    assert request("Transfer-Encoding: identity").kind is Kind.LENGTH


def test_chunks_in_http_1_0_are_suspicious() -> None:
    framing = request("Transfer-Encoding: chunked", version="1.0")
    assert framing.kind is Kind.CHUNKED
    assert "HTTP/1.0" in framing.notes[0]


def _gadgets() -> list[str]:
    """The ways to hide Transfer-Encoding that smuggling tools try: every control around every part of the line."""
    gadgets = [" Transfer-Encoding: chunked", "Transfer-Encoding\t:\tchunked", "Transfer-Encoding : chunked"]
    for code in (0x1, 0x4, 0x8, 0x9, 0xA, 0xB, 0xC, 0xD, 0x1F, 0x20, 0x7F, 0xA0, 0xFF):
        char = chr(code)
        gadgets += [
            f"Transfer-Encoding:{char}chunked",
            f"Transfer-Encoding{char}: chunked",
            f"{char}Transfer-Encoding: chunked",
            f"Transfer-Encoding: chunked{char}",
            f"Transfer-Encoding: chunked{char}X: X",
            f"X: X\r{char}Transfer-Encoding: chunked",
            f"X: X{char}\nTransfer-Encoding: chunked",
            f"Transfer-Encoding: chunked\r{char}X: X",
            f"Transfer-Encoding: chunked{char}\nX: X",
        ]
    return gadgets


@pytest.mark.parametrize("gadget", _gadgets())
def test_a_hidden_transfer_encoding_never_goes_by_the_length_alone(gadget: str) -> None:
    framing = request(gadget, "Content-Length: 5")
    if framing.kind is Kind.CHUNKED:
        assert any("suspicious" in note for note in framing.notes)
    else:
        assert framing.kind is Kind.UNKNOWN


def test_a_head_that_is_kept_answers_each_method_in_its_way() -> None:
    block = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
    kept = parse_response_head(block)
    assert parse_response_head(bytes(bytearray(block))) is kept
    for _ in range(2):
        assert response_framing(kept, "GET")[:2] == (Kind.LENGTH, 7)
        assert response_framing(kept, "HEAD")[:2] == (Kind.LENGTH, 0)
        assert response_framing(kept, "CONNECT").kind is Kind.TUNNEL
        assert response_framing(kept, None)[:2] == (Kind.LENGTH, 7)
    for number in range(100):
        response_framing(kept, f"METHOD{number}")
    assert len(kept.framings) <= 3
