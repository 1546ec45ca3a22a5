"""Real sockets against servers that misbehave: each is a list of byte strings sent to one connection after another."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tools.ucphone.actions import MAX_IMAGE, Download, Get, Post, Reply
from tools.ucphone.transport import MAX_ANSWER, HttpTransport

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/xml\r\n\r\nhi"


class Peer:
    """What it was asked, one text for each request."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[str] = []
        self.connections = 0


@contextmanager
def peer(*connections: Sequence[bytes]) -> Iterator[Peer]:
    """Serve each connection its answers, one for each request, then close it; a connection too many is refused."""
    told = Peer()
    listener = socket.create_server(("127.0.0.1", 0))
    told.port = listener.getsockname()[1]

    def serve() -> None:
        with listener:
            for answers in connections:
                client, _ = listener.accept()
                told.connections += 1
                with client, client.makefile("rb") as reader:
                    for answer in answers:
                        head = b"".join(iter(lambda: reader.readline().strip(b"\r\n") + b"\n", b"\n"))
                        told.asked.append(head.decode())
                        size = next(
                            (int(line[15:]) for line in head.splitlines() if line.startswith(b"Content-Length:")), 0
                        )
                        reader.read(size)
                        with contextlib.suppress(OSError):
                            client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield told
    finally:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    made = HttpTransport(timeout=10)
    yield made
    made.close()


def post(told: Peer, scheme: str = "http") -> Post:
    return Post(f"{scheme}://127.0.0.1:{told.port}/RequestHandler/ucdevice.upx", b"<x/>")


def get(told: Peer, download: Download) -> Get:
    return Get(f"http://127.0.0.1:{told.port}/CPE.nbt", download)


def test_one_connection_for_everything(transport: HttpTransport) -> None:
    download = Download(keep=True)
    with peer([OK, OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", OK]) as told:
        assert transport.perform(post(told)) == Reply(200, 0, "text/xml", b"hi")
        assert transport.perform(get(told, download)) == Reply(200)
        assert transport.perform(post(told)).body == b"hi"
        assert transport.perform(post(told)).body == b"hi"
    assert (told.connections, download.complete, bytes(download.kept)) == (1, True, b"hi")
    assert told.asked[0].startswith("POST /RequestHandler/ucdevice.upx HTTP/1.1\n")
    assert "Content-Type: text/xml; charset=utf-8\n" in told.asked[0]


def test_a_kept_connection_closed_meanwhile_is_opened_anew(transport: HttpTransport) -> None:
    with peer([OK], [OK]) as told:
        assert transport.perform(post(told)).status == 200
        assert transport.perform(post(told)).status == 200
    assert told.connections == 2


def test_a_cut_file_is_resumed(transport: HttpTransport) -> None:
    download = Download(keep=True)
    first = b'HTTP/1.1 200 OK\r\nETag: "t"\r\nContent-Length: 10\r\n\r\n01234'
    rest = b'HTTP/1.1 206 Partial\r\nETag: "t"\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\n56789'
    with peer([first], [rest]) as told:
        assert transport.perform(get(told, download)) == Reply(wininet=12030)
        assert (download.received, download.complete) == (5, False)
        assert transport.perform(get(told, download)) == Reply(206)
    assert "Range: bytes=5-\n" in told.asked[1]
    assert 'If-Range: "t"\n' in told.asked[1]
    assert (bytes(download.kept), download.complete, download.resumed) == (b"0123456789", True, 1)


def test_a_server_without_ranges_sends_it_all_again(transport: HttpTransport) -> None:
    download = Download(keep=True)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    with peer([head + b"01234"], [head + b"0123456789"]) as told:
        transport.perform(get(told, download))
        assert transport.perform(get(told, download)) == Reply(200)
    assert (bytes(download.kept), download.complete) == (b"0123456789", True)


@pytest.mark.parametrize("content_range", ["bytes 4-9/10", "bytes 5-9/11", "bytes 5-9", ""])
def test_a_range_that_does_not_fit_is_not_taken(transport: HttpTransport, content_range: str) -> None:
    download = Download(keep=True)
    rest = f"HTTP/1.1 206 Partial\r\nContent-Range: {content_range}\r\nContent-Length: 5\r\n\r\n56789".encode()
    with peer([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"], [rest]) as told:
        transport.perform(get(told, download))
        assert transport.perform(get(told, download)) == Reply(wininet=12152)
    assert (bytes(download.kept), download.complete) == (b"01234", False)


@pytest.mark.parametrize(
    ("answer", "wininet"),
    [
        (b"", 12030),
        (b"\x16\x03\x01\x00\x05hello\r\n\r\n", 12152),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi", 12030),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi", 12030),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhi", 12030),
        (b"HTTP/1.1 abc\r\n\r\n", 12152),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n", 12152),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_ANSWER + 1), 12152),
    ],
)
def test_a_broken_answer_has_its_code(transport: HttpTransport, answer: bytes, wininet: int) -> None:
    with peer([answer]) as told:
        assert transport.perform(post(told)) == Reply(wininet=wininet)


def test_an_http_refusal_is_a_status(transport: HttpTransport) -> None:
    with peer([b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n"]) as told:
        assert transport.perform(get(told, Download())) == Reply(404)


def test_an_image_over_the_limit_is_not_begun(transport: HttpTransport) -> None:
    with peer([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nhi" % (MAX_IMAGE + 1)]) as told:
        assert transport.perform(get(told, Download())) == Reply(wininet=12152)


def test_nobody_listens(transport: HttpTransport) -> None:
    with peer() as told:
        pass
    assert transport.perform(post(told)) == Reply(wininet=12029)


def test_a_name_that_does_not_resolve(transport: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert transport.perform(Post("http://name.invalid/", b"")) == Reply(wininet=12007)
    assert transport.perform(Post(f"http://{'a' * 70}.invalid/", b"")) == Reply(wininet=12007)


def test_a_port_that_is_none(transport: HttpTransport) -> None:
    assert transport.perform(Post("http://127.0.0.1:99999/", b"")).wininet == 12152


def test_a_server_that_says_nothing_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = HttpTransport(timeout=0.05)
        assert transport.perform(Post(f"http://127.0.0.1:{silent.getsockname()[1]}/", b"")) == Reply(wininet=12002)
        transport.close()


def test_https_to_a_plain_server_is_a_secure_failure(transport: HttpTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)
                client.sendall(OK)

        thread = threading.Thread(target=answer)
        thread.start()
        assert transport.perform(Post(f"https://127.0.0.1:{listener.getsockname()[1]}/", b"")) == Reply(wininet=12175)
        thread.join()


def test_abort_ends_a_wait() -> None:
    transport = HttpTransport(timeout=60)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        replies: list[Reply] = []
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        thread = threading.Thread(target=lambda: replies.append(transport.perform(Post(url, b""))))
        thread.start()
        client, _ = silent.accept()
        client.recv(1)
        transport.abort()
        thread.join(10)
        client.close()
    assert [reply.wininet for reply in replies] == [12030]
    assert transport.perform(Post(url, b"")).status == 0
