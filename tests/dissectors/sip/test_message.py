from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError, LimitExceeded
from dissectors.sip import SipMessage, find_messages
from dissectors.sip.message import MAX_HEADER_BYTES, MAX_HEADERS

NAMES = st.from_regex(r"[A-Z][A-Za-z-]{2,15}", fullmatch=True).filter(lambda name: "length" not in name.lower())
VALUES = st.text(st.characters(codec="ascii", min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30)
HEADERS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=8)
BODIES = st.binary(max_size=60)


def written(headers: list[tuple[str, str]], body: bytes, start: str = "REGISTER sip:contoso.com SIP/2.0") -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@given(HEADERS, BODIES)
def test_a_written_message_is_read(headers: list[tuple[str, str]], body: bytes) -> None:
    message = SipMessage.parse(b"\r\n\r\n" + written(headers, body))
    assert list(message.headers[:-1]) == headers
    assert (message.method, message.uri, message.status) == ("REGISTER", "sip:contoso.com", None)
    assert (message.body, message.rest, message.problems) == (body, b"", ())


@given(st.lists(st.tuples(HEADERS, BODIES), min_size=1, max_size=4), st.sampled_from([b"", b"\r\n\r\n", b"noise\r\n"]))
def test_a_stream_of_messages_is_cut_where_they_end(
    messages: list[tuple[list[tuple[str, str]], bytes]], gap: bytes
) -> None:
    # A body may hold anything, but one that ends without a line end hides the start line behind it.
    stream = b"".join(written(headers, body + b"\r\n") + gap for headers, body in messages)
    assert [message.body for message in find_messages(stream)] == [body + b"\r\n" for _, body in messages]


def test_folding_and_compact_forms() -> None:
    message = SipMessage.parse(
        b"SIP/2.0 403 Forbidden\r\nv: SIP/2.0/TLS a\r\nf: <sip:a@b>\r\n ;tag=1\r\n\t;epid=2\r\n"
        b"i : x\r\nCSeq: 1 REGISTER\r\nl: 0\r\n\r\n"
    )
    assert message.get("From") == "<sip:a@b> ;tag=1 ;epid=2"
    assert message.get_all("via") == ("SIP/2.0/TLS a",)
    assert (message.get("call-id"), message.declared_length, message.problems) == ("x", 0, ())
    assert (message.method, message.status, message.reason) == ("REGISTER", 403, "Forbidden")


def test_a_start_line_with_bare_line_feeds_and_no_reason() -> None:
    message = SipMessage.parse(b"SIP/2.0 401\nServer: RTC/3.5\n\n")
    assert (message.status, message.reason, message.get("server"), message.problems) == (401, "", "RTC/3.5", ())


LYING = [
    (b"Content-Length: 99\r\n\r\nabc", b"abc", b"", "Content-Length 99, 3 bytes present"),
    (b"Content-Length: 1\r\n\r\nabc", b"a", b"bc", None),
    (b"Content-Length: -1\r\nContent-Type: a/b\r\n\r\nabc", b"abc", b"", "is no number"),
    (b"Content-Length: 2\r\nl: 3\r\n\r\nabc", b"ab", b"c", "2 and 3"),
    (b"Content-Type: a/b\r\n\r\nabc", b"abc", b"", None),
    (b"X: y\r\n\r\nabc", b"", b"abc", None),
    (b"X: y", b"", b"", "not ended by a blank line"),
    (b"no header here\r\n\r\n", b"", b"", "no header"),
]


@pytest.mark.parametrize(("rest", "body", "after", "problem"), LYING)
def test_lengths_that_lie_are_told(rest: bytes, body: bytes, after: bytes, problem: str | None) -> None:
    message = SipMessage.parse(b"OPTIONS sip:a SIP/2.0\r\n" + rest)
    assert (message.body, message.rest) == (body, after)
    assert bool(message.problems) == (problem is not None)
    if problem is not None:
        assert problem in message.problems[0]


def test_a_length_that_is_too_long_does_not_swallow_the_next_message() -> None:
    first = b"SIP/2.0 200 OK\r\nContent-Length: 5000\r\n\r\n<cut\r\n"
    found = list(find_messages(first + written([("Abc", "d")], b"")))
    assert [message.status for message in found] == [200, None]
    assert found[0].body == b"<cut\r\n"
    assert "5000" in found[0].problems[0]


def test_a_message_inside_a_body_is_no_message() -> None:
    inner = b"SIP/2.0 200 OK\r\nVia: x\r\n\r\n"
    (message,) = find_messages(written([("Abc", "d")], b"\r\n" + inner))
    assert message.body == b"\r\n" + inner


def test_a_log_of_messages(corpus: Path) -> None:
    found = list(find_messages((corpus / "pcap/sipmsg.log").read_bytes()))
    assert [(message.method, message.status) for message in found][:3] == [
        ("REGISTER", None),
        ("REGISTER", 200),
        ("INVITE", None),
    ]
    assert not any(message.problems for message in found)


def test_every_text_of_the_corpus_is_a_message(corpus: Path) -> None:
    for path in sorted((corpus / "sip").glob("*.txt")):
        message = SipMessage.parse(path.read_bytes())
        assert message.get("call-id")
        assert message.get("CSeq")


WRONG = [b"", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"SIP/2.0 abc\r\n\r\n", b"REGISTER\r\n\r\n", b"\0" * 100]


@pytest.mark.parametrize("data", WRONG)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        SipMessage.parse(data)
    assert list(find_messages(data)) == []


def test_limits() -> None:
    with pytest.raises(LimitExceeded, match="headers of at most"):
        SipMessage.parse(b"OPTIONS sip:a SIP/2.0\r\n" + b"x" * MAX_HEADER_BYTES)
    with pytest.raises(LimitExceeded, match="headers"):
        SipMessage.parse(b"OPTIONS sip:a SIP/2.0\r\n" + b"a:b\r\n" * (MAX_HEADERS + 1) + b"\r\n")
    with pytest.raises(LimitExceeded, match="body"):
        SipMessage.parse(b"OPTIONS sip:a SIP/2.0\r\nl: 9999999\r\n\r\n" + b"x" * 2_000_000)


def test_noise_raises_nothing_else() -> None:
    rng = random.Random(3261)
    whole = written([("From", "<sip:a@b>;tag=1"), ("To", "x")], b"abc") * 2
    for _ in range(4000):
        broken = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            broken[rng.randrange(len(broken))] = rng.choice(b"\r\n :;\0\xff" + bytes([rng.randrange(256)]))
        list(find_messages(bytes(broken)))
        try:
            SipMessage.parse(bytes(broken))
        except DissectError:
            continue
