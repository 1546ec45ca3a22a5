"""Who is slow, greedy or devious does not keep others from being served, and gets nowhere but to the server.

Bounds are of memory and descriptors; nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bodies import CHECK_TARGET, REPORT_ZERO, answer_body, check_body
from tests.faults.raw import (
    body_of,
    check_request,
    closed,
    connect,
    descriptors,
    exchange,
    memory,
    read_until,
    send_until_full,
    status_of,
    until,
)
from tests.proxies import Proxy, running
from tests.proxy_addons.test_http1_guard import AMBIGUOUS
from tests.servers import Received, Server, chunked, message, serving

MEGABYTE = 1 << 20


def update_server(request: Received) -> Iterator[bytes]:
    yield message(answer_body(), "Content-Type: text/xml")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(update_server) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def place(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy that all tests of this file share, with few connections for each address."""
    folder = tmp_path_factory.mktemp("abuse")
    rules = folder / "rules.toml"
    rules.write_text(REPORT_ZERO)
    options = {"rules": rules, "max_connections": 120, "max_per_client": 100, "idle": 2}
    with running("upshim", server.url, folder / "state", **options) as proxy:
        assert served(proxy)
        yield proxy


def served(proxy: Proxy, source: str = "127.0.0.2") -> bool:
    """Whether a phone at another address is served as it should be."""
    with socket.create_connection(("127.0.0.1", proxy.port), 20, source_address=(source, 0)) as phone:
        phone.sendall(check_request())
        answer = b"".join(iter(lambda: phone.recv(65536), b""))
    return body_of(answer) == answer_body()


def log_has(proxy: Proxy, text: bytes) -> None:
    until(lambda: text in proxy.log)


def test_a_flood_of_connections_from_one_address(place: Proxy) -> None:
    before, size = descriptors(place), memory(place)
    with ExitStack() as stack:
        flood = [stack.enter_context(connect(place.port)) for _ in range(300)]
        refused = flood[100:]
        assert all(map(closed, refused))
        assert descriptors(place) <= before + 100 + 4
        assert served(place)
        log_has(place, b"too many connections of one address: 127.0.0.1: closed")
    until(lambda: descriptors(place) <= before + 2)
    assert memory(place) - size < 40 * MEGABYTE
    assert served(place)


def test_slow_and_silent_clients_are_let_go(place: Proxy) -> None:
    head = f"POST {CHECK_TARGET} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode()
    with ExitStack() as stack:
        silent, kept, slow_head, slow_body = (stack.enter_context(connect(place.port)) for _ in range(4))
        kept.sendall(check_request().replace(b"Connection: close", b"X: y"))
        read_until(kept, b"</Answer>")
        slow_body.sendall(head)
        dribbling = {slow_head: iter(head), slow_body: iter(b"x" * 900)}

        def dribble() -> bool:
            for phone, rest in list(dribbling.items()):
                try:
                    phone.sendall(bytes([next(rest)]))
                except ConnectionError:
                    del dribbling[phone]
            time.sleep(0.05)
            return not dribbling

        until(dribble)
        assert closed(silent)
        assert closed(kept)
    for why in (b"slow head", b"slow body"):
        log_has(place, why)
    assert served(place)


def test_a_head_without_end(place: Proxy) -> None:
    size = place.peak_memory()
    with connect(place.port) as phone:
        answer = b""
        try:
            phone.sendall(b"GET / HTTP/1.1\r\n")
            for number in range(40_000):
                phone.sendall(b"X-%d: %s\r\n" % (number, b"x" * 1000))
        except ConnectionError:
            pass
        try:
            answer = phone.recv(65536)
        except ConnectionError:
            answer = b""
        assert status_of(answer) in {0, 431}
    log_has(place, b"head too large: over 65536 bytes from 127.0.0.1")
    assert place.peak_memory() - size < 5 * MEGABYTE
    assert served(place)


def test_a_large_head_within_the_limit_passes(place: Proxy, server: Server) -> None:
    answer = exchange(place.port, check_request(CHECK_TARGET, *(f"X-{n}: {'x' * 1000}" for n in range(50))))
    assert body_of(answer) == answer_body()
    assert server.received[-1].head.count(b"\r\nX-") == 50


def test_a_line_of_chunks_without_end(place: Proxy) -> None:
    size = place.peak_memory()
    for endless in (b"5;" + b"x" * 1000, b"0\r\n" + b"X: y\r\n" * 100):
        with connect(place.port) as phone, pytest.raises(ConnectionError):  # noqa: PT012 - which of them fails is chance
            phone.sendall(f"POST {CHECK_TARGET} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for _ in range(20_000):
                phone.sendall(endless)
    assert place.peak_memory() - size < 5 * MEGABYTE
    assert served(place)


def test_requests_ahead_of_their_answers_are_not_piled_up(tmp_path: Path) -> None:
    free = threading.Event()

    def waits(request: Received) -> Iterator[bytes]:
        assert free.wait(60)
        yield message(answer_body(), "Content-Type: text/xml")

    one = check_request().replace(b"Connection: close", b"X: y")
    with serving(waits) as server, running("upshim", server.url, tmp_path) as proxy, connect(proxy.port) as phone:
        size = memory(proxy)
        sent = send_until_full(phone, one, 100_000)
        assert memory(proxy) - size < 10 * MEGABYTE
        free.set()
        read_until(phone, b"</Answer>", min(sent, 50))


def test_a_body_for_a_server_that_cannot_be_reached_is_not_piled_up(tmp_path: Path) -> None:
    # A listener whose queue is full answers no one's SYN.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, ExitStack() as stack:
        for _ in range(3):
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with running("upshim", url, tmp_path) as proxy, connect(proxy.port) as phone:
            size = memory(proxy)
            phone.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n")
            send_until_full(phone, b"x" * MEGABYTE, 190)
            assert memory(proxy) - size < 20 * MEGABYTE


def test_large_checks_at_once_share_an_allowance(server: Server, tmp_path: Path) -> None:
    body = check_body() + b" " * (900_000)
    head = f"POST {CHECK_TARGET} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with (
        running("upshim", server.url, tmp_path, max_connections=400, max_per_client=390) as proxy,
        ExitStack() as stack,
    ):
        size = proxy.peak_memory()
        phones = [stack.enter_context(connect(proxy.port)) for _ in range(110)]
        for phone in phones:
            phone.sendall(head + body[:-1])
        assert served(proxy)
        assert proxy.peak_memory() - size < 130 * MEGABYTE
        for phone in phones:
            phone.sendall(body[-1:])
        for phone in phones:
            read_until(phone, b"</Answer>")


@pytest.mark.parametrize("headers", AMBIGUOUS)
def test_a_request_with_two_ends_is_refused(headers: str, place: Proxy, server: Server) -> None:
    before = len(server.received)
    hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    body = b"0\r\n\r\n" + hidden
    request = f"POST {CHECK_TARGET} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n".encode() + body
    answer = exchange(place.port, request)
    assert status_of(answer) == 400
    assert len(server.received) == before


def test_folded_lines_and_odd_names_elsewhere_pass(place: Proxy, server: Server) -> None:
    assert body_of(exchange(place.port, check_request(CHECK_TARGET, "X-Odd : y", "X-Folded: a\r\n b"))) == answer_body()
    assert b"X-Odd : y" in server.received[-1].head


def test_interim_answers_trailers_and_lengths_said_twice(tmp_path: Path) -> None:
    body = answer_body()

    def odd(request: Received) -> Iterator[bytes]:
        plain = message(body, "Content-Type: text/xml")
        if "interim" in request.target:
            yield b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\n" + plain
        elif "late" in request.target:
            yield b"HTTP/1.1 100 Continue\r\n\r\n"
            yield plain
        elif "trailers" in request.target:
            pieces = chunked(body).removesuffix(b"\r\n")
            yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"X-Sum: 1\r\n\r\n"
        else:
            yield plain.replace(b"Content-Length", b"Content-Length: %d\r\nContent-Length" % len(body))

    with serving(odd) as server, running("upshim", server.url, tmp_path) as proxy:
        for kind in ("interim", "late", "trailers", "twice"):
            answer = exchange(proxy.port, check_request(f"{CHECK_TARGET}?{kind}"))
            assert status_of(answer) == 200, kind
            assert body in answer, kind
        trailers = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        assert status_of(exchange(proxy.port, trailers + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n")) == 200
        assert server.received[-1].body == b"hello"
        assert b"crashed" not in proxy.log


def test_an_answer_whose_head_has_no_end(tmp_path: Path) -> None:
    def endless(request: Received) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        for _ in range(20_000):
            yield b"X: " + b"x" * 1000 + b"\r\n"

    with serving(endless) as server, running("upshim", server.url, tmp_path) as proxy:
        size = proxy.peak_memory()
        assert status_of(exchange(proxy.port, check_request())) == 502
        assert proxy.peak_memory() - size < 5 * MEGABYTE


def test_who_takes_nothing_of_a_download_costs_little(tmp_path: Path) -> None:
    def firmware(request: Received) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (30 * MEGABYTE)
        for _ in range(30):
            yield b"x" * MEGABYTE

    with serving(firmware) as server, running("upshim", server.url, tmp_path, idle=3) as proxy, ExitStack() as stack:
        size, before = memory(proxy), descriptors(proxy)
        for _ in range(20):
            phone = stack.enter_context(connect(proxy.port))
            phone.sendall(b"GET /CPE.nbt HTTP/1.1\r\nHost: x\r\n\r\n")
            phone.recv(1)
        assert len(exchange(proxy.port, b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) > 30 * MEGABYTE
        assert memory(proxy) - size < 25 * MEGABYTE
        log_has(proxy, b"slow reader: 127.0.0.1: closed")
        until(lambda: descriptors(proxy) <= before + 2)


ELSEWHERE = (
    "GET http://{other}/ HTTP/1.1\r\nHost: {other}\r\n",
    "GET https://{other}/ HTTP/1.1\r\nHost: {other}\r\n",
    "GET / HTTP/1.1\r\nHost: {other}\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nHost: {other}\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: {other}\r\n",
    "GET @{other}/ HTTP/1.1\r\nHost: x\r\n",
    "GET //{other}/ HTTP/1.1\r\nHost: x\r\n",
    "GET http://x@{other}/ HTTP/1.1\r\nHost: x\r\n",
    "CONNECT {other} HTTP/1.1\r\nHost: {other}\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: {other}\r\n",
)


def test_nothing_but_the_server_is_reached(place: Proxy, server: Server) -> None:
    with serving(lambda _: [message(b"not for you")]) as other:
        for request in ELSEWHERE:
            text = request.format(other=f"127.0.0.1:{other.port}") + "Connection: close\r\n\r\n"
            assert b"not for you" not in exchange(place.port, text.encode()), request
        assert other.connections == 0
    assert served(place)
