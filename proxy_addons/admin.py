"""The operator's listener: /health and /metrics, /stop and /start, apart from the port phones use.

It answers one request per connection, and holds little memory whatever connects to it. It listens on the loopback
interface unless a token guards it; a browser cannot be talked into a command, for that needs a header of our own.
Metrics are collected in a thread of their own, once at a time, so that neither a big fleet nor a disk that hangs holds
up an exchange.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

MAX_HEAD = 8192  # bytes
MAX_CONNECTIONS = 16
WITHIN = 5.0  # seconds for a request to come and its answer to be taken

_TOKEN = re.compile(rb"[!-~]{1,4096}")  # of what a header can hold, and HTTP clients put there unchanged

COMMAND = "x-upshim-command"  # any value
WHY = "x-upshim-why"  # who commands it and why, percent-encoded UTF-8; may be left out
MAX_WHY = 200  # characters

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
JSON, TEXT, PROMETHEUS = "application/json", "text/plain", "text/plain; version=0.0.4; charset=utf-8"


class Admin:
    """Serves what functions return: health as (well, details), metrics as Prometheus' text, and what a command did.

    A command is True for /stop (rewrite nothing more) and False for /start, and what was said about it.
    """

    def __init__(
        self,
        health: Callable[[], tuple[bool, dict[str, Any]]],
        metrics: Callable[[], bytes],
        command: Callable[[bool, str], dict[str, Any]],
        token: str | None = None,
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._command = command
        self._token = token
        self._open = 0
        self._server: asyncio.Server | None = None
        self._collecting: asyncio.Future[bytes] | None = None

    async def start(self, host: str, port: int, listener: socket.socket | None = None) -> tuple[str, int]:
        """Listen, on a socket that is there already or one of its own; returns the address.

        Raises `OSError`, and `ValueError` for an address that needs a token.
        """
        if self._token is None and not is_loopback(host):
            raise ValueError(f"{host} can be reached from outside: the admin listener needs a token there")
        where: dict[str, Any] = {"host": host, "port": port} if listener is None else {"sock": listener}
        self._server = await asyncio.start_server(self._serve, limit=MAX_HEAD, **where)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    def descriptors(self) -> list[int]:
        """What is listened on."""
        return [] if self._server is None else [listener.fileno() for listener in self._server.sockets]

    def close(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            writer.close()
            return
        self._open += 1
        try:
            async with asyncio.timeout(WITHIN):
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    head = b""
                writer.write(await self.answer(head))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # who does not ask gets no answer
        finally:
            self._open -= 1
            writer.close()

    async def answer(self, head: bytes) -> bytes:
        """The answer to a request's head."""
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return response(400, TEXT, b"expected an HTTP/1 request\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        if self._token is not None and not self._may(headers.get("authorization", "")):
            return response(401, TEXT, b"expected Authorization: Bearer TOKEN\n", "WWW-Authenticate: Bearer")
        if words[:2] in (["POST", "/stop"], ["POST", "/start"]):
            if COMMAND not in headers:
                return response(403, TEXT, f"expected the header {COMMAND}\n".encode())
            said = " ".join(unquote(headers.get(WHY, "")).split())[:MAX_WHY]
            return response(200, JSON, json.dumps(self._command(words[1] == "/stop", said)).encode() + b"\n")
        if words[0] != "GET":
            return response(405, TEXT, b"GET, or POST of /stop or /start\n", "Allow: GET")
        if words[1] == "/metrics":
            try:
                return response(200, PROMETHEUS, await self._collect())
            except Exception as error:  # noqa: BLE001 - whatever it is, the operator should hear of it
                return response(500, TEXT, f"metrics cannot be collected: {error!r}\n".encode())
        if words[1] == "/health":
            well, details = self._health()
            return response(200 if well else 503, JSON, json.dumps(details).encode() + b"\n")
        return response(404, TEXT, b"/health or /metrics\n")

    async def _collect(self) -> bytes:
        if self._collecting is None or self._collecting.done():
            self._collecting = in_thread(self._metrics)
        # Who gives up does not take it from the others who wait for the same.
        return await asyncio.shield(self._collecting)

    def _may(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        given, expected = token.strip().encode("latin-1"), (self._token or "").encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(given, expected)


def in_thread(work: Callable[[], bytes]) -> asyncio.Future[bytes]:
    """What `work` returns, from a thread that does not hold up the end of the process either."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def resolve(result: bytes, error: Exception | None) -> None:
        if not future.done():
            future.set_result(result) if error is None else future.set_exception(error)

    def run() -> None:
        result, failed = b"", None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop may be gone
            loop.call_soon_threadsafe(resolve, result, failed)

    threading.Thread(target=run, name="upshim-metrics", daemon=True).start()
    return future


def response(status: int, kind: str, body: bytes, *headers: str) -> bytes:
    """An answer after which the connection is closed."""
    lines = (
        f"HTTP/1.1 {status} {REASONS[status]}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *headers,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read_token(file: Path) -> str:
    """What a token file holds. Raises `ValueError` with one line that names the file, and never tells what is in it."""
    try:
        token = file.expanduser().read_bytes().strip()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error
    if not token:
        raise ValueError(f"{file}: expected a token, found nothing")
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"{file}: expected a token, one word of ASCII, found something else")
    return token.decode()


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can connect to an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
