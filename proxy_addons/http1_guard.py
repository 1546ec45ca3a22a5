"""What mitmproxy's HTTP/1 does not do by itself, put around it.

- A head, or anything else that is waited for the end of, has a limit, and a phone that sends its next request while
  the answer to the last one is under way is not read from: mitmproxy would keep it all in memory.
- A request whose end two readers may see in different places is refused (RFC 9112, 6.3 and 11.2): upshim and the
  server must not take different bytes for the next request.
- Interim answers (1xx) are skipped: mitmproxy would pass them on as the final answer. IIS sends them unasked.
- Trailers of a chunked body are dropped (RFC 9112, 7.1.2 allows it), and a Content-Length that a server says twice is
  said once: mitmproxy would leave the client hanging, or answer 502.
- Where mitmproxy itself crashes, the connection is closed: it would stay open, without an answer. So would one that
  mitmproxy gives up twice at one moment: whatever socket it has left open at the end is closed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import h11
from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, server
from mitmproxy.proxy.layers.http import _http1

from proxy_addons.failures import Failures

MAX_HEAD = 64 << 10  # bytes; IIS takes 16 KiB

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_FRAMING = (b"content-length", b"transfer-encoding")
_LENGTH = re.compile(rb"[0-9]{1,18}")

Commands = Generator[commands.Command, Any, None]


class Observer(Protocol):
    """Whoever wants to know about the connections of phones."""

    @property
    def failures(self) -> Failures:
        """Where what is refused is counted."""

    def received(self, connection: str, size: int) -> None:
        """So many bytes of HTTP have come from a phone."""

    def hold(self, connection: str) -> None:
        """Read no more from a phone."""

    def release(self, connection: str) -> None:
        """Go on reading."""

    def refused(self, why: str) -> None:
        """A connection was closed for what came over it."""


class Interim(Exception):
    """An answer that another one follows."""


class Guard:
    """The limits of one proxy."""

    def __init__(self, observer: Observer, max_head: int = MAX_HEAD) -> None:
        self.observer = observer
        self._max_head = max_head
        self._held: set[str] = set()
        self.taken_before: events.Event | None = None  # what mitmproxy is about to be handed, and was told of already

    def handle(self, connection: _http1.Http1Connection, event: events.Event) -> Commands:
        """What mitmproxy does with an event, within limits."""
        if event is self.taken_before:
            self.taken_before = None
        elif isinstance(connection, _http1.Http1Server) and isinstance(event, events.DataReceived):
            self.observer.received(connection.conn.id, len(event.data))
        while True:
            try:
                yield from _handle_event(connection, event)
                break
            except Interim:
                event = events.DataReceived(connection.conn, b"")  # what came behind it is in the buffer
        over, name = len(connection.buf) > self._max_head, connection.conn.id
        if isinstance(event, events.ConnectionClosed):
            self._held.discard(name)
            return
        if isinstance(connection, _http1.Http1Server) and connection.state == connection.wait:
            if over:
                self._held.add(name)
                self.observer.hold(name)  # each time: asyncio's reader may have begun again by itself
            return
        if name in self._held:
            self._held.discard(name)
            self.observer.release(name)
        if over:
            yield from self._refuse(connection)

    def _refuse(self, connection: _http1.Http1Connection) -> Commands:
        if isinstance(connection, _http1.Http1Server):
            self.observer.refused("head too large")
            peer = connection.conn.peername
            self.observer.failures.note("head too large", f"over {self._max_head} bytes from {peer and peer[0]}")
            if connection.state == connection.read_headers:
                yield commands.SendData(connection.conn, TOO_LARGE)
        else:
            self.observer.failures.note("answer's head too large", f"over {self._max_head} bytes")
        connection.buf.maybe_extract_at_most(len(connection.buf))
        yield commands.CloseConnection(connection.conn)

    def ambiguous(self, why: str) -> None:
        """A request is refused."""
        self.observer.refused("ambiguous request")
        self.observer.failures.note("ambiguous request", why)

    def crashed(self, handler: server.ConnectionHandler) -> None:
        """mitmproxy will do no more for a connection."""
        self.observer.failures.note("mitmproxy crashed", "the connection was closed")
        close_all(handler)


_guards: WeakKeyDictionary[asyncio.AbstractEventLoop, Guard] = WeakKeyDictionary()


def install(guard: Guard) -> None:
    """From now on, for every connection that the running event loop serves."""
    _guards[asyncio.get_running_loop()] = guard
    _http1.Http1Connection._handle_event = _guarded  # type: ignore[method-assign,assignment]
    server.ConnectionHandler.handle_client = _handle_client  # type: ignore[method-assign,assignment]
    server.ConnectionHandler.log = _log  # type: ignore[method-assign,assignment]
    # Through their package: nobody else in the process reads the heads of HTTP/1.
    http1.read_request_head = _read_request_head
    http1.read_response_head = _read_response_head
    _http1.make_body_reader = _make_body_reader


def guard_here() -> Guard | None:
    """The one of the running event loop: a process may run several proxies."""
    try:
        return _guards.get(asyncio.get_running_loop())
    except RuntimeError:
        return None


# mitmproxy's own, as they were when this module was loaded.
_handle_event = _http1.Http1Connection._handle_event
_serve_client = server.ConnectionHandler.handle_client
_log_line = server.ConnectionHandler.log
stock_request_head, stock_response_head = http1.read_request_head, http1.read_response_head
_body_reader = _http1.make_body_reader


def _guarded(connection: _http1.Http1Connection, event: events.Event) -> Commands:
    guard = guard_here()
    yield from _handle_event(connection, event) if guard is None else guard.handle(connection, event)


async def _handle_client(handler: server.ConnectionHandler) -> None:
    try:
        await _serve_client(handler)
    finally:
        close_all(handler)


def close_all(handler: server.ConnectionHandler) -> None:
    """Close what a connection has open on either side."""
    for transport in list(handler.transports.values()):
        if transport.writer is not None:
            transport.writer.close()


def _log(handler: server.ConnectionHandler, message: str, *args: Any, **options: Any) -> None:
    _log_line(handler, message, *args, **options)
    if message.startswith("mitmproxy has crashed") and (guard := guard_here()) is not None:
        guard.crashed(handler)


def _read_request_head(lines: list[bytes]) -> http.Request:
    guard = guard_here()
    if guard is not None and (why := ambiguous(lines)) is not None:
        guard.ambiguous(why)
        raise ValueError(why)
    return stock_request_head(lines)


def _read_response_head(lines: list[bytes]) -> http.Response:
    response = stock_response_head(lines)
    if guard_here() is None:
        return response
    if 100 <= response.status_code < 200 and response.status_code != 101:
        raise Interim
    lengths = response.headers.get_all("content-length")
    if len(lengths) > 1 and len(set(lengths)) == 1:
        response.headers["content-length"] = lengths[0]
    return response


def _make_body_reader(expected_size: int | None) -> Any:
    reader = _body_reader(expected_size)
    return WithoutTrailers(reader) if expected_size is None and guard_here() is not None else reader


class WithoutTrailers:
    """A body reader whose end says nothing."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __call__(self, buffer: Any) -> Any:
        """The next event, None where more has to come first."""
        found = self._reader(buffer)
        return h11.EndOfMessage() if isinstance(found, h11.EndOfMessage) else found

    def read_eof(self) -> Any:
        """The connection has ended."""
        return self._reader.read_eof()


def ambiguous(lines: Sequence[bytes]) -> str | None:
    """Why readers may disagree on where a request ends; None where they cannot."""
    found: dict[bytes, list[bytes]] = {name: [] for name in _FRAMING}
    framing = False  # whether the line before says where the request ends
    for line in lines[1:]:
        if line[:1] in {b" ", b"\t"}:
            if framing:
                return "a header that says where the request ends goes on in another line"
            continue
        name, _, value = line.partition(b":")
        key = name.strip().lower()
        framing = key in found
        if not framing:
            # A bare CR or NUL ends a line, or a name, for some.
            if any(one in line.lower() for one in _FRAMING) and (b"\r" in line or b"\0" in line):
                return "a line break within a line"
            continue
        if name != name.strip():
            return f"white space beside the name {key.decode()}"
        found[key].append(value.strip(b" \t"))
    lengths, codings = found[b"content-length"], found[b"transfer-encoding"]
    if lengths and codings:
        return "Content-Length beside Transfer-Encoding"
    if len(lengths) > 1 or len(codings) > 1:
        return "its length is told twice"
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        return "a Content-Length that is not a number"
    if codings and codings[0].lower() != b"chunked":
        return "a Transfer-Encoding other than chunked"
    if codings and lines[0].rstrip().endswith(b"HTTP/1.0"):
        return "Transfer-Encoding in HTTP/1.0"
    return None
