from __future__ import annotations

import resource
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from proxy_addons.addon import Upshim
from proxy_addons.limits import AHEAD, SLOWEST, Bounds, Limits, Seat, descriptors

BOUNDS = Bounds(connections=4, per_client=2, head_within=10, idle=100, stalled=50)


@dataclass
class Socket:
    unsent: int = 0
    ended: str = ""
    reading: bool = True

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended, self.unsent = "aborted", 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Place:
    """Limits with a clock of its own and a socket for each phone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.activity = 0.0
        self.sockets: dict[str, Socket] = {}
        self.upshim = Upshim()
        monkeypatch.setattr("proxy_addons.limits.time", SimpleNamespace(monotonic=lambda: self.now))
        self.limits = Limits(BOUNDS, self.upshim.failures, self.upshim.metrics, self.sockets.get)

    def connect(self, name: str, address: str = "") -> bool:
        client: Any = SimpleNamespace(id=name, peername=(address or f"10.0.0.{name}", 1), error=None)
        self.limits.client_connected(client)
        if client.error is None:
            self.sockets[name] = Socket()
        return client.error is None

    def disconnect(self, name: str) -> None:
        self.limits.client_disconnected(SimpleNamespace(id=name))  # type: ignore[arg-type]

    def flow(self, name: str, ended: float | None = None, connected: float | None = 1.0) -> Any:
        server = SimpleNamespace(timestamp_tcp_setup=connected)
        request = SimpleNamespace(timestamp_end=ended)
        return SimpleNamespace(client_conn=SimpleNamespace(id=name), server_conn=server, request=request)

    def after(self, seconds: float, relayed: set[str] | None = None) -> dict[str, str]:
        self.now += seconds
        seats = {name: Seat(socket, self.activity, name in (relayed or ())) for name, socket in self.sockets.items()}
        self.limits.sweep(seats, self.now)
        return {name: socket.ended for name, socket in self.sockets.items() if socket.ended}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


def test_how_many_there_may_be(place: Place) -> None:
    assert [place.connect(name, "10.0.0.1") for name in "abc"] == [True, True, False]
    assert [place.connect(name) for name in "345"] == [True, True, False]
    place.disconnect("c")  # one that was refused counts for nothing
    assert not place.connect("d", "10.0.0.1")
    place.disconnect("a")
    assert place.connect("d", "10.0.0.1")
    assert place.upshim.failures.counts["too many connections of one address"] == 1
    assert place.upshim.failures.counts["too many connections"] == 2


def test_silence_and_a_head_that_never_ends(place: Place) -> None:
    place.connect("1")
    place.connect("2")
    assert place.after(90) == {}
    place.limits.received("2", 1)
    assert place.after(9) == {}
    place.limits.received("2", 1)
    assert place.after(2) == {"1": "closed", "2": "aborted"}


def test_each_exchange_begins_anew(place: Place) -> None:
    place.connect("1")
    for _ in range(5):
        place.limits.received("1", 100)
        place.after(9)
        flow = place.flow("1", ended=1.0)
        place.limits.requestheaders(flow)
        assert place.after(10_000) == {}  # the server may take its time
        place.limits.response(flow)
        assert place.after(99) == {}
    assert place.after(2) == {"1": "closed"}


def test_a_body_has_a_slowest_pace(place: Place) -> None:
    for name in "12":
        place.connect(name)
        place.limits.requestheaders(place.flow(name))
    for _ in range(10):
        place.limits.received("1", SLOWEST * 10)
        place.limits.received("2", SLOWEST)
        ended = place.after(10)
    assert ended == {"2": "aborted"}


def test_who_takes_nothing(place: Place) -> None:
    place.connect("1")
    place.connect("2")
    for name in "12":
        place.limits.requestheaders(place.flow(name, ended=1.0))
        place.sockets[name].unsent = 1000
    for step in range(5):
        place.sockets["2"].unsent = 1000 + step  # it takes some, and there is more
        ended = place.after(20)
    assert ended == {"1": "aborted"}


def test_a_slow_phone_that_happens_to_be_seen_with_as_much_left_each_time(place: Place) -> None:
    place.connect("1")
    place.limits.requestheaders(place.flow("1", ended=1.0))
    place.sockets["1"].unsent = 1000
    for _ in range(9):
        place.activity += 1  # the server goes on sending, so the phone is taking
        assert place.after(20) == {}


def test_what_is_left_when_a_connection_is_over_counts_and_goes(place: Place) -> None:
    for name in "1234":
        place.connect(name)
        place.sockets[name].unsent = 1000
    place.after(1)
    left = dict(place.sockets)
    for name in "1234":
        place.disconnect(name)
        del place.sockets[name]
    place.after(1)
    assert not place.connect("5")
    left["1"].unsent = 0
    place.after(1)
    assert place.connect("5")
    place.after(BOUNDS.stalled)
    assert [left[name].ended for name in "1234"] == ["", "aborted", "aborted", "aborted"]


def test_what_is_not_http_may_be_silent(place: Place) -> None:
    place.connect("1")
    assert place.after(10_000, relayed={"1"}) == {}
    place.limits.received("1", 5)
    assert place.after(11, relayed={"1"}) == {"1": "aborted"}


def test_a_body_that_nobody_can_take_yet_is_left_to_the_network(place: Place) -> None:
    place.connect("1")
    place.limits.requestheaders(place.flow("1", connected=None))
    place.limits.received("1", AHEAD)
    assert place.sockets["1"].reading
    place.limits.received("1", 1)
    assert not place.sockets["1"].reading
    place.limits.server_connected(SimpleNamespace(client=SimpleNamespace(id="1")))
    assert place.sockets["1"].reading


def test_connections_fit_the_descriptors(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _what, limits: asked.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1024, 524288))
    assert descriptors(Bounds(1000)).connections == 1000
    assert asked == [(2128, 524288)]
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1024, 1024))
    assert descriptors(Bounds(1000)).connections == 448
    assert "448 connections at most" in caplog.text
    assert Bounds(9).of_one == 4
    assert Bounds(1).of_one == 1
