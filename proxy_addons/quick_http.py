"""The plain exchange of HTTP/1, over connections that are there already, without mitmproxy's many layers.

Most of what a proxy has to do for a fleet is one shape: a POST with a Content-Length that has come whole, on a
connection that stays, and an answer with a Content-Length. mitmproxy passes each part of it through five layers. Here
it is taken in one go: the same hooks run in the same order with the same flow, and the same bytes go on.

Whatever else comes - a chunked body, an interim answer, an end, a second request before the first is answered, an addon
that wants to answer itself - is mitmproxy's: its layers are brought to where the exchange is by having them take the
request again, without its hooks and without sending what was sent (`_catch_up`), and go on from there. The first
exchange of a connection, which opens the server's, always is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from mitmproxy import connection, http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpClient, HttpLayer, HTTPMode
from mitmproxy.proxy.layers.http._hooks import (
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
)
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Server

from proxy_addons import http1_guard

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

SMALL = 64 << 10  # bytes of a body that is taken in one go
END_OF_HEAD = b"\r\n\r\n"
REMEMBERED = 256  # heads, of requests and of answers
REMEMBERED_BYTES = 2 << 10  # of a head
ASKED_BY_POST = http.Request.make("POST", "http://server/")

Commands = Generator[commands.Command, Any, None]
Fields = tuple[tuple[bytes, bytes], ...]
Data = TypeVar("Data", http.RequestData, http.ResponseData)


class Hooks(Protocol):
    """Where hooks run."""

    def begin(self, event: commands.StartHook) -> object | None:
        """Run a hook; something where there is more of it to come, None where not."""


class Reached(IntEnum):
    """The last that has happened to an exchange."""

    HEADERS_HOOK = 1
    REQUEST_HOOK = 2
    SENT = 3
    ANSWER_HEADERS_HOOK = 4
    ANSWER_HOOK = 5


HOOKS: dict[type[commands.Command], Reached] = {
    HttpRequestHeadersHook: Reached.HEADERS_HOOK,
    HttpRequestHook: Reached.REQUEST_HOOK,
    HttpResponseHeadersHook: Reached.ANSWER_HEADERS_HOOK,
    HttpResponseHook: Reached.ANSWER_HOOK,
}


@dataclass(slots=True)
class UnderWay:
    """An exchange: its two ends, and what has come from them."""

    flow: http.HTTPFlow
    server: connection.Server
    came: events.DataReceived
    answered: events.DataReceived | None = None


class QuickHttp(HttpLayer):
    """mitmproxy's layer for all HTTP of one connection of a phone, with a short way through it."""

    def __init__(self, context: Context, mode: HTTPMode, hooks: Hooks) -> None:
        super().__init__(context, mode)
        options = context.options
        self._hooks = hooks
        self._under_way: UnderWay | None = None  # while its answer is waited for
        self._held = False  # whether the phone is not read from
        self._allowed = (
            mode is HTTPMode.transparent
            and options.keep_host_header
            and not (options.validate_inbound_headers or options.stream_large_bodies or options.body_size_limit)
        )

    def handle_event(self, event: events.Event) -> Commands:
        """As mitmproxy's. While a hook of the short way waits, everything does: a phone is not read from any more."""
        if self._paused and isinstance(event, events.DataReceived) and event.connection is self.context.client:
            guard = http1_guard.guard_here()
            if guard is not None:
                guard.observer.hold(event.connection.id)  # each time: asyncio's reader may have begun again by itself
                self._held = True
        return super().handle_event(event)

    def _handle_event(self, event: events.Event) -> Commands:
        under_way = self._under_way
        if under_way is not None:
            self._under_way = None
            if isinstance(event, events.DataReceived) and event.connection is under_way.server:
                found = plain_answer(event.data)
                if found is not None:
                    under_way.answered = event
                    return self._answer(under_way, *found)
            return self._leave(under_way, event)
        if isinstance(event, events.DataReceived) and self._allowed and event.connection is self.context.client:
            server = self._idle_server()
            if server is not None and (asked := plain_request(event.data)) is not None:
                return self._ask(event, server, *asked)
        return self._stock(event)

    def _stock(self, event: events.Event) -> Commands:
        """What mitmproxy does."""
        found: Commands = super()._handle_event(event)
        return found

    def _idle_server(self) -> connection.Server | None:
        """The server's connection, where both ends are open and nothing is under way."""
        phone = self.connections[self.context.client]
        if self.streams or type(phone) is not Http1Server or phone.buf or phone.state != phone.read_headers:
            return None
        mine, found = self.context.server, None
        for server, client in self.connections.items():
            if not isinstance(server, connection.Server):
                continue
            if server.error or (server.connected and found is not None):
                return None
            if server.connected:
                layer = client.child_layer if type(client) is HttpClient else None
                if (
                    server.address != mine.address
                    or (server.tls or mine.tls or server.via or mine.via)
                    or type(layer) is not Http1Client
                    or layer.stream_id is not None
                    or layer.buf
                ):
                    return None
                found = server
        return found

    def _ask(
        self, event: events.DataReceived, server: connection.Server, request: http.Request, body: bytes
    ) -> Commands:
        if (guard := http1_guard.guard_here()) is not None:
            guard.observer.received(event.connection.id, len(event.data))
        flow = http.HTTPFlow(self.context.client, server)  # mitmproxy names the server when it has connected to it
        flow.request, flow.live = request, True
        request.data.host, request.data.port = self.context.server.address[:2]  # type: ignore[index]
        request.data.scheme = b"http"
        under_way = UnderWay(flow, server, event)
        fields = request.data.headers.fields
        yield from self._run(HttpRequestHeadersHook(flow))
        if request.stream or self._unusual(under_way, request) or edited(request, fields):
            yield from self._catch_up(under_way, Reached.HEADERS_HOOK)
            return
        request.timestamp_end = time.time()
        request.data.content = body
        yield from self._run(HttpRequestHook(flow))
        if self._unusual(under_way, request) or edited(request, fields):
            yield from self._catch_up(under_way, Reached.REQUEST_HOOK)
            return
        self._under_way = under_way
        yield commands.SendData(server, http1.assemble_request_head(request) + (request.data.content or b""))

    def _run(self, hook: commands.StartHook) -> Commands:
        if self._hooks.begin(hook) is not None:
            yield hook

    def _unusual(self, under_way: UnderWay, request: http.Request) -> bool:
        """Whether an addon, or either end, has done something meanwhile."""
        flow, server = under_way.flow, under_way.server
        return (
            flow.request is not request
            or flow.response is not None
            or flow.error is not None
            or bool(self._paused_event_queue)
            or not server.connected
            or (flow.request.data.host, flow.request.data.port) != self.context.server.address[:2]  # type: ignore[index]
            or server.via is not None
        )

    def _answer(self, under_way: UnderWay, response: http.Response, body: bytes) -> Commands:
        flow = under_way.flow
        flow.response = response
        fields = response.data.headers.fields
        yield from self._run(HttpResponseHeadersHook(flow))
        if (
            flow.response is not response
            or response.stream
            or flow.error
            or self._paused_event_queue
            or edited(response, fields)
        ):
            yield from self._catch_up(under_way, Reached.ANSWER_HEADERS_HOOK)
            return
        response.data.content = body
        response.timestamp_end = time.time()
        yield from self._run(HttpResponseHook(flow))
        if flow.response is not response or flow.error or self._paused_event_queue or edited(response, fields):
            yield from self._catch_up(under_way, Reached.ANSWER_HOOK)
            return
        flow.live = False
        sent = http1.assemble_response_head(response) + (response.data.content or b"")
        yield commands.SendData(self.context.client, sent)

    def _leave(self, under_way: UnderWay, event: events.Event) -> Commands:
        """Leave an exchange that waits for its answer to mitmproxy."""
        yield from self._catch_up(under_way, Reached.SENT)
        yield from self._stock(event)

    def _catch_up(self, under_way: UnderWay, reached: Reached) -> Commands:
        """Bring mitmproxy's layers to where an exchange is, and let them go on with what has come meanwhile."""
        flow, server = under_way.flow, under_way.server
        request, response = flow.request, flow.response
        asked = request.data.content, request.timestamp_end
        answered = (None, None) if response is None else (response.data.content, response.timestamp_end)
        state, error = server.state, flow.error
        flow.error = None
        if reached >= Reached.SENT:
            server.state, flow.response = connection.ConnectionState.OPEN, None  # as it was
        guard = http1_guard.guard_here()
        if guard is not None:
            guard.taken_before = under_way.came
            if self._held:
                guard.observer.release(self.context.client.id)
                self._held = False
        caught_up = False
        todo: deque[events.Event] = deque([under_way.came])
        if reached > Reached.SENT and under_way.answered is not None:
            todo.append(under_way.answered)
        while todo:
            for command in self._stock(todo.popleft()):
                hook = HOOKS.get(type(command))
                if not isinstance(command, commands.StartHook) or caught_up or hook is None or hook > reached:
                    if caught_up or reached < Reached.SENT or not isinstance(command, commands.SendData):
                        yield command
                    continue
                if hook == Reached.HEADERS_HOOK:
                    (stream,) = self.streams.values()
                    stream.flow = flow
                    self.connections[self.context.client].request = request  # type: ignore[attr-defined]
                elif hook == Reached.REQUEST_HOOK:
                    request.data.content, request.timestamp_end = asked
                elif hook == Reached.ANSWER_HEADERS_HOOK:
                    flow.response = response
                    if hook == reached:  # what a later hook says does not end the server's connection
                        self.connections[server].child_layer.response = response  # type: ignore[attr-defined]
                elif response is not None:
                    response.data.content, response.timestamp_end = answered
                if hook == reached:
                    caught_up, flow.error = True, error
                    restore(server, state)
                    meanwhile = [*self._paused_event_queue, events.HookCompleted(command)]
                    self._paused_event_queue.clear()
                    todo.extendleft(reversed(meanwhile))
                else:
                    todo.appendleft(events.HookCompleted(command))
        restore(server, state)


def restore(server: connection.Server, state: connection.ConnectionState) -> None:
    """Give a connection back the state it was in, unless it has been closed since."""
    if server.connected:
        server.state = state


def edited(message: http.Request | http.Response, fields: Fields) -> bool:
    """Whether an addon has made another shape of it than the plain one; `fields` are the headers it came with."""
    headers = message.headers
    return headers.fields is not fields and (
        http1.connection_close(message.http_version, headers)
        or "transfer-encoding" in headers
        or "expect" in headers
        or "content-length" not in headers
    )


def plain_request(data: bytes) -> tuple[http.Request, bytes] | None:
    """A request of the plain shape, and nothing behind it; None where it is any other, or not whole."""
    found = plain(data, request_head) if data.startswith(b"POST /") else None
    if found is None:
        return None
    request = http.Request.__new__(http.Request)
    request.data, body = found
    return request, body


def plain_answer(data: bytes) -> tuple[http.Response, bytes] | None:
    """The same for an answer."""
    found = plain(data, answer_head)
    if found is None:
        return None
    response = http.Response.__new__(http.Response)
    response.data, body = found
    return response, body


class Head(NamedTuple, Generic[Data]):
    """A head of the plain shape, and how long the body behind it is."""

    data: Data
    length: int


@lru_cache(REMEMBERED)  # phones of one kind ask alike, and are answered alike
def request_head(head: bytes) -> Head[http.RequestData] | None:
    """The head of a request, without the blank line; None where it is of another shape."""
    lines = plain_lines(head)
    if lines is None or http1_guard.ambiguous(lines) is not None:
        return None
    try:
        request = http1_guard.stock_request_head(lines)
        length = http1.expected_http_body_size(request)
    except ValueError:
        return None
    plain = length and "expect" not in request.headers and "upgrade" not in request.headers
    if not plain or not request.is_http11 or http1.connection_close(request.http_version, request.headers):
        return None
    return Head(request.data, length or 0)


@lru_cache(REMEMBERED)
def answer_head(head: bytes) -> Head[http.ResponseData] | None:
    """The head of an answer to POST, likewise."""
    lines = plain_lines(head)
    if lines is None:
        return None
    try:
        response = http1_guard.stock_response_head(lines)
        length = http1.expected_http_body_size(ASKED_BY_POST, response)
    except ValueError:
        return None
    plain = length and length > 0 and len(response.headers.get_all("content-length")) == 1
    if not plain or not response.is_http11 or http1.connection_close(response.http_version, response.headers):
        return None
    return Head(response.data, length or 0)


def plain(data: bytes, read: _lru_cache_wrapper[Head[Data] | None]) -> tuple[Data, bytes] | None:
    """What `read` makes of the head of these bytes, and the body; None where they are not both, or more."""
    end = data.find(END_OF_HEAD)
    if end < 0 or len(data) - end > SMALL:
        return None
    head: Head[Data] | None = (read if end <= REMEMBERED_BYTES else read.__wrapped__)(data[:end])
    body = data[end + len(END_OF_HEAD) :]
    return None if head is None or head.length != len(body) else (afresh(head.data), body)


def afresh(data: Data) -> Data:
    """What was read of a head, for another exchange that begins now."""
    made = type(data).__new__(type(data))
    vars(made).update(vars(data))
    made.headers = http.Headers.__new__(http.Headers)
    made.headers.fields = data.headers.fields
    made.timestamp_start = time.time()
    return made


def plain_lines(head: bytes) -> list[bytes] | None:
    """The lines of a head; None where they do not all end alike."""
    lines = head.split(b"\r\n")
    ends = len(lines) - 1
    return lines if all(lines) and head.count(b"\n") == head.count(b"\r") == ends else None
