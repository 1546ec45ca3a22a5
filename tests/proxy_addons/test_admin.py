from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy_addons.admin import MAX_CONNECTIONS, Admin, is_loopback


def admin(token: str | None = None, *, well: bool = True) -> Admin:
    def health() -> tuple[bool, dict[str, Any]]:
        return well, {"status": "ok" if well else "draining"}

    def command(stop: bool, said: str) -> dict[str, Any]:
        return {"stopped": f"by command {said}".strip() if stop else None}

    return Admin(health, lambda: b"upshim_rules 3\n", command, token)


def answer(listener: Admin, head: bytes) -> bytes:
    try:
        return asyncio.run(listener.answer(head))
    finally:
        listener.close()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /health HTTP/1.1", b"200"),
        (b"GET /metrics HTTP/1.0", b"200"),
        (b"GET /metrics?x HTTP/1.1", b"404"),
        (b"GET / HTTP/1.1", b"404"),
        (b"POST /health HTTP/1.1", b"405"),
        (b"GET /stop HTTP/1.1", b"404"),
        (b"POST /stop HTTP/1.1", b"403"),
        (b"POST /start HTTP/1.1", b"403"),
        (b"GET  /health HTTP/1.1", b"400"),
        (b"\x16\x03\x01", b"400"),
        (b"", b"400"),
    ],
)
def test_answers(request_line: bytes, status: bytes) -> None:
    assert answer(admin(), request_line + b"\r\n\r\n").split(b" ")[1] == status


def test_health_tells_what_it_knows() -> None:
    head, _, body = answer(admin(well=False), b"GET /health HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert json.loads(body) == {"status": "draining"}
    assert answer(admin(), b"GET /metrics HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\nupshim_rules 3\n")


def test_commands() -> None:
    head = b" HTTP/1.1\r\nX-Upshim-Command: 1\r\n"
    said = b"X-Upshim-Why: amy:%20bad%0Aimage\r\n"
    assert json.loads(answer(admin(), b"POST /stop" + head + said + b"\r\n").split(b"\r\n\r\n")[1]) == {
        "stopped": "by command amy: bad image"
    }
    assert json.loads(answer(admin(), b"POST /stop" + head + b"\r\n").split(b"\r\n\r\n")[1]) == {
        "stopped": "by command"
    }
    assert json.loads(answer(admin(), b"POST /start" + head + b"\r\n").split(b"\r\n\r\n")[1]) == {"stopped": None}
    assert answer(admin("secret"), b"POST /start" + head + b"\r\n").startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Authorization: Bearer secret", b"200"),
        (b"authorization:bearer  secret", b"200"),
        (b"Authorization: Bearer secre", b"401"),
        (b"Authorization: Basic secret", b"401"),
        (b"Authorization: Bearer \xff", b"401"),
        (b"X: y", b"401"),
    ],
)
def test_a_token_guards_everything(header: bytes, status: bytes) -> None:
    for path in (b"/health", b"/metrics"):
        request = b"GET " + path + b" HTTP/1.1\r\n" + header + b"\r\n\r\n"
        assert answer(admin("secret"), request).split(b" ")[1] == status


def test_only_the_loopback_interface_without_a_token() -> None:
    async def start(token: str | None) -> tuple[str, int]:
        listener = admin(token)
        try:
            return await listener.start("0.0.0.0", 0)
        finally:
            listener.close()

    with pytest.raises(ValueError, match="needs a token"):
        asyncio.run(start(None))
    assert asyncio.run(start("secret"))[0] == "0.0.0.0"
    assert [host for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost") if not is_loopback(host)] == []
    assert not any(map(is_loopback, ("10.0.0.1", "::", "example.org", "")))


def test_silent_and_talkative_clients_do_not_stand_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy_addons.admin.WITHIN", 0.2)

    async def story() -> Any:
        listener = admin()
        address = await listener.start("127.0.0.1", 0)
        silent = [await asyncio.open_connection(*address) for _ in range(MAX_CONNECTIONS)]
        await asyncio.sleep(0)
        refused = await asyncio.open_connection(*address)
        assert await refused[0].read() == b""  # one too many
        for reader, _ in silent:
            assert await reader.read() == b""  # given up after a while
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /health HTTP/1.1\r\nX: " + b"x" * 20_000)
        answer = await reader.read(12)
        for _, other in (*silent, refused, (reader, writer)):
            other.close()
        listener.close()
        return answer

    assert asyncio.run(story()) == b"HTTP/1.1 400"
