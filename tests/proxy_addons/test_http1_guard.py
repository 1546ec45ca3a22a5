from __future__ import annotations

import pytest

from proxy_addons.http1_guard import ambiguous


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Content-Length: 5",
        "content-length:5 ",
        "Transfer-Encoding: Chunked",
        "Host: x\r\n folded",
        "X-Content-Length: 5\r\nContent-Length: 5",
        "Odd Name : x",
    ],
)
def test_what_every_reader_reads_alike(headers: str) -> None:
    assert ambiguous([b"POST / HTTP/1.1", *headers.encode().split(b"\r\n")]) is None


AMBIGUOUS = [
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Content-Length: 0x5",
    "Content-Length: -5",
    "Content-Length:",
    "Content-Length: 5\x0b",
    "Content-Length: 9999999999999999999",
    "Content-Length : 5",
    " Content-Length: 5\r\nContent-Length:\t5\r\n 6",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding:\r\n chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\0Content-Length: 5",
]


@pytest.mark.parametrize("headers", AMBIGUOUS)
def test_what_two_readers_may_read_differently(headers: str) -> None:
    assert ambiguous([b"POST / HTTP/1.1", *headers.encode().split(b"\r\n")])


def test_chunks_in_an_old_version() -> None:
    assert ambiguous([b"POST / HTTP/1.0", b"Transfer-Encoding: chunked"])
