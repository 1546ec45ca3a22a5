"""Servers behind another proxy: asked as the proxy for phones would ask them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.bodies import CHECK_TARGET
from tests.phone_certificates import server_context
from tests.proxy_addons.test_via import Beyond
from tests.servers import Received, message, serving
from tools.cli import main

TLS = ["--server-insecure", "--server-tls-oldest", "1.0"]


def update_server(_: Received) -> Iterator[bytes]:
    yield message(b"", status="405 Method Not Allowed")


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> dict[tuple[str, str], str]:
    """What it found of each server, by check and status."""
    main(["doctor", "--json", *words])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {(one["check"], one["status"]): one["found"] for one in lines if one["check"].startswith("server")}


def test_http_in_absolute_form(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(update_server) as server, closing(Beyond(server.port)) as beyond:
        found = doctor(capsys, "--upstream", "http://dus.invalid", "--via", beyond.url)
        assert found["server", "ok"] == f"answers HEAD {CHECK_TARGET} with 405"
        assert beyond.asked == [f"HEAD http://dus.invalid{CHECK_TARGET} HTTP/1.1".encode()]
        doctor(capsys, "--upstream", "http://dus.invalid:8080", "--via", beyond.url)
        assert beyond.asked[1].startswith(b"HEAD http://dus.invalid:8080/")
        assert b"\r\nHost: dus.invalid:8080\r\n" in server.received[1].head


def test_tls_by_connect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tls = server_context(tmp_path / "server.pem")
    with serving(update_server, tls) as server, closing(Beyond(server.port)) as beyond:
        found = doctor(capsys, "--upstream", "https://dus.invalid", "--via", beyond.url, *TLS)
        assert found["server", "ok"] == f"answers HEAD {CHECK_TARGET} with 405"
        assert found["server-tls", "warn"] == "its certificate is not verified"
        assert set(beyond.asked) == {b"CONNECT dus.invalid:443 HTTP/1.1"}
        found = doctor(capsys, "--upstream", "https://dus.invalid", "--via", beyond.url)
        assert found["server-tls", "problem"].startswith("not accepted: ")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_spoken_to_by_tls(scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tls = server_context(tmp_path / "server.pem")
    behind = tls if scheme == "https" else None
    with serving(update_server, behind) as server, closing(Beyond(server.port, tls)) as beyond:
        url = beyond.url.replace("http:", "https:")
        found = doctor(capsys, "--upstream", f"{scheme}://dus.invalid", "--via", url, *TLS)
        assert found["server", "ok"] == f"answers HEAD {CHECK_TARGET} with 405"
        assert (("server-tls", "warn") in found) is (scheme == "https")
        assert {line.split(b" ")[0] for line in beyond.asked} == {b"CONNECT"}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("HTTP/1.1 403 Forbidden\r\n\r\n", "answers CONNECT with 403 Forbidden"),
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "answers CONNECT with 407 Proxy Authentication Required",
        ),
        ("SSH-2.0\r\n\r\n", "does not answer CONNECT by HTTP"),
        ("", "does not answer CONNECT by HTTP"),
    ],
)
def test_a_proxy_that_refuses(said: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda _: [said.encode()]) as proxy:
        found = doctor(capsys, "--upstream", "https://dus.invalid", "--via", f"http://127.0.0.1:{proxy.port}")
    assert found == {("server", "problem"): f"not through 127.0.0.1:{proxy.port}: {told}"}


def test_whose_answer_it_is_may_not_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda _: [message(b"", status="502 Bad Gateway")]) as proxy:
        via = f"127.0.0.1:{proxy.port}"
        main(["doctor", "--upstream", "http://dus.invalid", "--via", f"http://{via}"])
    assert f"Where it does not, {via} said so itself." in " ".join(capsys.readouterr().out.split())


def test_a_proxy_that_wants_a_login_and_one_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda _: [message(b"", status="407 Proxy Authentication Required")]) as proxy:
        words = ["--upstream", "http://dus.invalid", "--via", f"http://127.0.0.1:{proxy.port}"]
        assert doctor(capsys, *words)["server", "problem"].endswith("with 407: the proxy wants a login")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = doctor(capsys, "--upstream", "http://dus.invalid", "--via", f"http://127.0.0.1:{port}")
    assert found == {("server", "problem"): f"not through 127.0.0.1:{port}: Connection refused"}
