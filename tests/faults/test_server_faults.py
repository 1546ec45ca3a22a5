"""What a phone sees and what is recorded when the update server fails: never worse than without upshim.

Every row asks the server directly and through upshim.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from captures.exchange import Exchange
from captures.store import Store
from tests.bodies import REPORT_ZERO, answer_body
from tests.faults.raw import body_of, check_request, connect, exchange, read_until, status_of, until, whole
from tests.proxies import Proxy, running
from tests.servers import Received, Server, message, serving

CHECK = check_request()
FIRMWARE = b"GET /DeviceUpdateFiles_Int/CPE.nbt HTTP/1.1\r\nHost: dus\r\nConnection: close\r\n\r\n"
ANSWER = message(answer_body(), "Content-Type: text/xml")
IMAGE = bytes(range(256)) * 2048


class Place:
    """A proxy in front of a server whose replies a test chooses."""

    def __init__(self, server: Server, proxy: Proxy, record: Path) -> None:
        self.server, self.proxy, self._record = server, proxy, record
        self._seen = 0

    def both(self, request: bytes, *, to_the_end: bool = False) -> tuple[bytes, bytes]:
        """The answer of the server itself, and that through upshim."""
        direct = exchange(self.server.port, request, to_the_end=to_the_end)
        return direct, exchange(self.proxy.port, request, to_the_end=to_the_end)

    def recorded(self) -> Exchange:
        """What was recorded since the last time, which is one exchange."""
        found: list[Exchange] = []

        def one() -> bool:
            with closing(Store.open(self._record)) as store:
                found[:] = store.exchanges(self._seen)
            return len(found) == 1

        until(one)
        self._seen = found[0].index
        return found[0]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("faults")
    rules = folder / "rules.toml"
    rules.write_text(REPORT_ZERO)
    options = {"rules": rules, "record": folder / "rec"}
    with serving(lambda _: [ANSWER]) as server, running("upshim", server.url, folder / "s", **options) as proxy:
        yield Place(server, proxy, folder / "rec")


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    yield shared
    shared.server.reply = lambda _: [ANSWER]
    assert body_of(exchange(shared.proxy.port, CHECK)) == answer_body()  # and all is well again
    assert shared.recorded().complete


def test_slow(place: Place) -> None:
    going = threading.Event()

    def slow(_: Received) -> Iterator[bytes]:
        assert going.wait(60)
        yield ANSWER[:40]
        yield ANSWER[40:]

    place.server.reply = slow
    with connect(place.server.port) as direct, connect(place.proxy.port) as phone:
        for one in (direct, phone):
            one.sendall(CHECK)
        until(lambda: len(place.server.received) >= 2)
        going.set()
        assert read_until(direct, b"</Answer>") == read_until(phone, b"</Answer>")
    assert place.recorded().complete


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "404 Not Found"])
@pytest.mark.parametrize("request_bytes", [CHECK, FIRMWARE])
def test_an_error_of_the_servers_own(status: str, request_bytes: bytes, place: Place) -> None:
    place.server.reply = lambda _: [
        message(b"<html>no</html>", "Content-Type: text/html", "Retry-After: 60", status=status)
    ]
    direct, through = place.both(request_bytes)
    assert through == direct
    exchange = place.recorded()
    assert exchange.complete
    assert exchange.response is not None
    assert exchange.response.status == int(status[:3])


@contextmanager
def resetting() -> Iterator[int]:
    """A server that resets the connection when it has read something."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(20)
                connection.recv(65536)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


def unreachable(kind: str) -> str:
    if kind == "name":
        return "http://upshim.invalid"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def no_answer(url: str, folder: Path) -> Exchange:
    """The record of a check that the server did not answer: the phone has a 502, and next time another chance."""
    with running("upshim", url, folder / "s", record=folder / "rec") as proxy:
        for _ in range(2):
            assert status_of(exchange(proxy.port, CHECK)) == 502
        with closing(Store.open(folder / "rec")) as store:
            until(lambda: len(list(store.exchanges())) == 2)
            first, second = store.exchanges()
    assert (first.complete, first.response) == (second.complete, second.response) == (False, None)
    assert first.request.body.size == len(body_of(CHECK))
    return first


@pytest.mark.parametrize("kind", ["refused", "name"])
def test_a_server_that_cannot_be_reached(kind: str, tmp_path: Path) -> None:
    url = unreachable(kind)
    if kind == "refused":
        with pytest.raises(ConnectionRefusedError):
            connect(int(url.rpartition(":")[2]))
    assert no_answer(url, tmp_path).problems


def test_a_reset(tmp_path: Path) -> None:
    with resetting() as port:
        assert status_of(exchange(port, CHECK)) == 0
        assert no_answer(f"http://127.0.0.1:{port}", tmp_path).problems


def test_half_an_answer_to_a_check(place: Place) -> None:
    place.server.reply = lambda _: [ANSWER[:-50], b""]
    direct, through = place.both(CHECK)
    assert not whole(direct)
    assert status_of(through) == 502  # the phone knows at once that this is no answer
    assert not place.recorded().complete


def test_half_a_download(place: Place) -> None:
    place.server.reply = lambda _: [message(IMAGE)[:-50_000], b""]
    direct, through = place.both(FIRMWARE)
    assert through == direct
    assert not whole(through)
    exchange = place.recorded()
    assert not exchange.complete
    assert exchange.response is not None
    assert exchange.response.body.size == len(IMAGE) - 50_000


def test_more_than_was_announced(place: Place) -> None:
    place.server.reply = lambda _: [ANSWER + b"and more", b""]
    direct, through = place.both(CHECK, to_the_end=True)
    assert direct == through + b"and more"
    assert whole(through)
    assert place.recorded().complete


@pytest.mark.parametrize("length", ["none at all", "-5"])
def test_a_length_that_is_none(length: str, place: Place) -> None:
    place.server.reply = lambda _: [ANSWER.replace(b"Content-Length: 2", f"Content-Length: {length}".encode()), b""]
    _, through = place.both(CHECK)
    assert status_of(through) == 502
    assert not place.recorded().complete


def test_no_http_at_all(place: Place) -> None:
    place.server.reply = lambda _: [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b""]
    direct, through = place.both(CHECK)
    assert status_of(direct) == 0
    assert status_of(through) == 502
    assert not place.recorded().complete


def test_a_connection_that_the_server_gave_up_meanwhile(place: Place) -> None:
    """Kept alive by the phone, closed by the server: the next request is answered over a new one."""
    place.server.reply = lambda _: [ANSWER, b""]
    keep = CHECK.replace(b"Connection: close", b"X: y")
    with connect(place.proxy.port) as phone:
        for number in (1, 2, 3):
            phone.sendall(keep)
            read_until(phone, b"</Answer>")
            assert place.recorded().complete, number
