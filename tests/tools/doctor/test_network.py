from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from tests.bodies import CHECK_TARGET
from tests.proxies import running
from tests.servers import Received, message, serving
from tools.deploy import Address
from tools.doctor import network, reach
from tools.doctor.result import OK, PROBLEM, WARN, Result

UPSTREAM = Address("10.9.9.9", 80)


def states(results: Iterator[Result]) -> list[tuple[str, str]]:
    return [(result.check, result.status) for result in results]


@pytest.mark.parametrize(
    ("addresses", "mode", "status", "words"),
    [
        (["127.0.0.1"], "reverse", OK, "points here"),
        (["127.0.0.1", "192.0.2.7"], "reverse", WARN, "and also at 192.0.2.7"),
        (["192.0.2.7"], "reverse", WARN, "which is not this machine"),
        (["10.9.9.9"], "reverse", PROBLEM, "the update server itself"),
        (["10.9.9.9"], "transparent", OK, "whose traffic is redirected"),
    ],
)
def test_where_the_name_leads(
    addresses: list[str], mode: str, status: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def resolve(host: str) -> list[str]:
        asked.append(host)
        return addresses if host.startswith("ucupdates") else [host]

    monkeypatch.setattr(network, "addresses_of", resolve)
    (result,) = network.update_name("contoso.com.", [Address("10.9.9.8", 80), UPSTREAM], mode)
    assert asked[0] == "ucupdates-r2.contoso.com"
    assert (result.status, words in result.found) == (status, True)


def test_a_name_that_nobody_knows() -> None:
    (result,) = network.update_name("upshim.invalid", [], "reverse")
    assert result.status == PROBLEM
    (result,) = network.update_name("x" * 70, [], "reverse")
    assert result.status == PROBLEM


def test_addresses_of_this_machine() -> None:
    assert network.is_local("127.0.0.1")
    assert not network.is_local("192.0.2.1")
    assert not network.is_local("2001:db8::1")
    assert network.addresses_of("127.0.0.1") == ["127.0.0.1"]


def test_a_port_that_is_free_and_one_that_is_not_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = Address("127.0.0.1", listener.getsockname()[1])
        listener.settimeout(20)
        (result,) = network.port(Address("127.0.0.1", 0))
        assert result.status == OK
    (result,) = network.port(taken)
    assert (result.status, result.found) == (OK, "free: upshim can listen here")
    (result,) = network.port(Address("192.0.2.1", 8080))
    assert (result.status, "cannot be listened on" in result.found) == (PROBLEM, True)


def test_somebody_else_has_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "WITHIN", 0.5)
    with serving(lambda _: [message(b"hello")]) as other:
        (result,) = network.port(Address("127.0.0.1", other.port))
        assert (result.status, result.found) == (PROBLEM, "in use by another HTTP server (200 to /__upshim/health)")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        (result,) = network.port(Address("127.0.0.1", mute.getsockname()[1]))
        hangs = "in use by something that accepts connections and says nothing for 0.5 s: it hangs"
        assert (result.status, result.found) == (PROBLEM, hangs)
    with serving(lambda _: [b"SSH-2.0\r\n", b""]) as stranger:
        (result,) = network.port(Address("127.0.0.1", stranger.port))
        assert (result.status, result.found) == (PROBLEM, "in use by nothing that speaks HTTP")


def test_upshim_has_the_port(tmp_path: Path) -> None:
    with serving(lambda _: [message(b"")]) as server, running("upshim", server.url, tmp_path) as proxy:
        for host in ("127.0.0.1", "*"):
            (result,) = network.port(Address(host, proxy.port))
            assert (result.status, result.found) == (OK, "upshim listens and is well")


def test_a_port_for_which_the_right_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    (result,) = network.port(Address("127.0.0.1", 80))
    assert (result.status, "CAP_NET_BIND_SERVICE" in result.advice) == (PROBLEM, True)


def answers(status: str, *headers: str) -> Callable[[Received], Iterator[bytes]]:
    def reply(request: Received) -> Iterator[bytes]:
        assert (request.method, request.target) == ("HEAD", CHECK_TARGET)
        yield message(b"", *headers, status=status)

    return reply


@pytest.mark.parametrize(
    ("status", "expected"),
    [("200 OK", OK), ("405 No", OK), ("401 No", OK), ("404 No", WARN), ("500 No", PROBLEM), ("503 No", PROBLEM)],
)
def test_what_the_server_says(status: str, expected: str) -> None:
    with serving(answers(status)) as server:
        found = network.server(Address("127.0.0.1", server.port), False, [Address("*", 1)])
        assert states(found) == [("server", expected)]


def test_a_server_that_is_not_there_and_one_that_is_ourselves() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert states(network.server(Address("127.0.0.1", port), False, [])) == [("server", PROBLEM)]
    assert states(network.server(Address("upshim.invalid", 80), False, [])) == [("server", PROBLEM)]
    for host in ("127.0.0.1", "0.0.0.0", "*"):
        (result,) = network.server(Address("127.0.0.1", port), False, [Address(host, port)])
        assert "is upshim itself" in result.found


@pytest.mark.parametrize(
    ("apart", "expected"), [(0, OK), (-30, OK), (300, WARN), (-300, WARN), (3600, PROBLEM), (-86400, PROBLEM)]
)
def test_the_clocks(apart: int, expected: str) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=apart), usegmt=True)
    with serving(answers("200 OK", f"Date: {date}")) as server:
        found = states(network.server(Address("127.0.0.1", server.port), False, []))
    assert found == [("server", OK), ("clock", expected)]


def test_a_date_that_is_none() -> None:
    now = datetime.now(UTC)
    assert network.clock("yesterday", now, now).status == WARN
