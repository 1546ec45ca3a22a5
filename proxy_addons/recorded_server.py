"""A capture played through a real proxy: a client asks what was asked, and a server answers what was answered.

One exchange at a time, in the recorded order, each recorded connection on one of its own. Requests go out byte for
byte as they were, credentials too: the server is this one, and nothing leaves the machine.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from captures.exchange import Exchange, header
from captures.http_wire import Gap, Message, request_message, response_message

TIMEOUT = 60.0  # seconds for one message
MAX_CHUNK_LINE = 4096


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT
    raw_requestline = b""

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


class RecordedServer:
    """Answers on a free port of 127.0.0.1. A context manager."""

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self.exchanges = [each for each in exchanges if is_playable(each)]
        self.current: Exchange | None = None
        recorded = self

        class Handler(_Handler):
            def handle_one_request(self) -> None:
                recorded.answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="upshim-recorded", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler: _Handler) -> None:
        """Read one request and write what was recorded for it."""
        handler.close_connection = True
        handler.raw_requestline = handler.rfile.readline(65537)
        if not handler.raw_requestline or not handler.parse_request():
            return
        _skip_body(handler)
        exchange = self._recorded(handler.command, handler.path)
        if exchange is None:
            handler.close_connection = False
            handler.wfile.write(b"HTTP/1.1 404 Not Recorded\r\nContent-Length: 0\r\n\r\n")
        elif exchange.response is not None:
            made = response_message(exchange.response, handler.command, complete=exchange.complete)
            whole = _write(handler, made) and not made.until_close
            closes = "close" in (header(exchange.response.headers, "connection") or "").lower()
            handler.close_connection = closes or not whole

    def _recorded(self, method: str, target: str) -> Exchange | None:
        """The exchange that is being played; to a question of the proxy's own, what was recorded of that file."""
        current = self.current
        if current is not None and (current.request.method, current.request.target) == (method, target):
            return current
        same = (each for each in self.exchanges if each.request.target == target and each.request.method == "GET")
        return next(same, None) if method == "HEAD" else None

    def play(self, host: str, port: int) -> Iterator[tuple[Exchange, int | None]]:
        """Ask a proxy for everything; gives each exchange and the status of its answer, None where none came."""
        open_sockets: dict[tuple[str, str], socket.socket] = {}
        with contextlib.ExitStack() as stack:
            for exchange in self.exchanges:
                key = exchange.client, exchange.connection
                self.current = exchange
                kept = open_sockets.pop(key, None)
                status, again = self._ask(kept or stack.enter_context(_connected(host, port)), exchange)
                if again is None and status is None and kept is not None:  # it was closed while it was idle
                    status, again = self._ask(stack.enter_context(_connected(host, port)), exchange)
                if again is not None:
                    open_sockets[key] = again
                yield exchange, status

    @staticmethod
    def _ask(connection: socket.socket, exchange: Exchange) -> tuple[int | None, socket.socket | None]:
        """The status of the answer, and the connection if it can be used again."""
        try:
            asked = request_message(exchange.request)
            connection.sendall(asked.head)
            for piece in asked.body:
                if isinstance(piece, Gap):
                    return None, None
                connection.sendall(piece)
            answer = http.client.HTTPResponse(connection, method=exchange.request.method)
            answer.begin()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return None, None
        if answer.will_close:
            connection.close()
            return answer.status, None
        return answer.status, connection


def is_playable(exchange: Exchange) -> bool:
    """Whether a request was recorded in full, and is one for a server."""
    request = exchange.request
    held = not request.body.size or request.body.data is not None or request.body.encoded is not None
    return request.method not in {"", "CONNECT"} and held


def _connected(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), TIMEOUT)


def _skip_body(handler: BaseHTTPRequestHandler) -> None:
    if "chunked" in handler.headers.get("Transfer-Encoding", "").lower():
        while size := int(handler.rfile.readline(MAX_CHUNK_LINE).partition(b";")[0] or b"0", 16):
            handler.rfile.read(size + 2)
        while handler.rfile.readline(MAX_CHUNK_LINE) not in {b"\r\n", b"\n", b""}:
            pass
        return
    handler.rfile.read(int(handler.headers.get("Content-Length") or 0))


def _write(handler: BaseHTTPRequestHandler, made: Message) -> bool:
    """Write a message; returns whether it has its end."""
    handler.wfile.write(made.head)
    for piece in made.body:
        if isinstance(piece, Gap):
            return False
        handler.wfile.write(piece)
    return made.complete
