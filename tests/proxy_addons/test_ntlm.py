"""NTLM authenticates a connection: a login through upshim, checked by a server that demands it."""

from __future__ import annotations

import base64
import http.client
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import spnego

from captures.store import Store
from tests.bodies import REPORT_ZERO, answer_body, check_body
from tests.conftest import require_tool
from tests.ntlm import PASSWORD, USER, NtlmServer, accounts
from tests.proxies import KINDS, Proxy, running
from tests.servers import Server, serving

TARGET = "/RequestHandlerExt/ucdevice.upx"


@pytest.fixture(autouse=True)
def _accounts(tmp_path: Path) -> Iterator[None]:
    with accounts(tmp_path):
        yield


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.toml"
    file.write_text(REPORT_ZERO)
    return file


def curl(port: int, folder: Path, *options: str, times: int = 1) -> list[str]:
    """Status and connections opened of each check."""
    body = folder / "check.xml"
    body.write_bytes(check_body())
    one = ["--max-time", "20", "--data-binary", f"@{body}", "-H", "Content-Type: text/xml", "-o", "/dev/null"]
    one += ["-w", "%{http_code} %{num_connects}\\n", f"http://127.0.0.1:{port}{TARGET}", *options]
    words = [require_tool("curl"), "-s", *one]
    for _ in range(times - 1):
        words += ["--next", "-s", *one]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout.splitlines()


def sent(server: Server) -> list[tuple[int, bytes]]:
    """Connection and reported version (or nothing) of each request the server had."""
    return [
        (request.connection, request.body.partition(b' Version="')[2].partition(b'"')[0]) for request in server.received
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_checks_are_rewritten_inside_an_authenticated_connection(kind: str, tmp_path: Path, rules: Path) -> None:
    demanding = NtlmServer(answer_body())
    with (
        serving(demanding) as server,
        running(kind, server.url, tmp_path / "state", rules=rules, record=tmp_path / "rec") as proxy,
    ):
        login = ("--ntlm", "-u", f"{USER}:{PASSWORD}")
        assert curl(proxy.port, tmp_path, *login, times=2) == ["200 1", "200 0"]
        assert demanding.logins == [USER]
        # The first message of a login has no body; what was rewritten has the length the server is told.
        assert sent(server) == [(1, b""), (1, b"0.0.0.0"), (1, b"0.0.0.0")]
        # Another phone has a connection of its own, which is not authenticated.
        assert curl(proxy.port, tmp_path) == ["401 1"]
        assert server.received[-1].connection == 2
        assert proxy.stop() == 0
    assert b"NTLM " not in proxy.log
    with closing(Store.open(tmp_path / "rec")) as store:
        told = [fact for exchange in store.exchanges() for fact in exchange.facts if fact["fact"] == "ntlm"]
    assert [fact["message"] for fact in told] == ["negotiate", "challenge", "authenticate"]
    assert (told[-1]["domain"], told[-1]["user"]) == tuple(USER.split("\\"))


def test_a_wrong_password_is_the_servers_to_refuse(tmp_path: Path, rules: Path) -> None:
    demanding = NtlmServer(answer_body())
    with serving(demanding) as server, running("upshim", server.url, tmp_path / "state", rules=rules) as proxy:
        assert curl(proxy.port, tmp_path, "--ntlm", "-u", f"{USER}:wrong") == ["401 1"]
    assert demanding.logins == []


@pytest.mark.parametrize("kind", KINDS)
def test_negotiate(kind: str, tmp_path: Path, rules: Path) -> None:
    demanding = NtlmServer(answer_body(), "Negotiate")
    with serving(demanding) as server, running(kind, server.url, tmp_path / "state", rules=rules) as proxy:
        assert negotiate(proxy) == [401, 200]
        assert sent(server) == [(1, b"0.0.0.0"), (1, b"0.0.0.0")]
    assert demanding.logins == [USER]


def negotiate(proxy: Proxy) -> list[int]:
    """The answers to a login with SPNEGO around NTLM, as phones outside do it."""
    login = spnego.client(USER, PASSWORD, protocol="negotiate", options=spnego.NegotiateOptions.use_ntlm)
    statuses: list[int] = []
    token = login.step()
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as connection:
        while token is not None and len(statuses) < 4:
            headers = {"Authorization": f"Negotiate {base64.b64encode(token).decode()}"}
            connection.request("POST", TARGET, check_body(), headers)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
            if response.status != 401:
                break
            challenge = (response.getheader("WWW-Authenticate") or "").partition(" ")[2]
            token = login.step(base64.b64decode(challenge))
    return statuses
