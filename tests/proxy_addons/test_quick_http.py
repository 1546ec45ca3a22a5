"""The short way through HTTP is not to be told from mitmproxy's own: the same bytes, hooks and ends, whatever comes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import connection, http, options
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode

from proxy_addons import http1_guard
from proxy_addons.failures import Failures
from proxy_addons.quick_http import SMALL, QuickHttp
from tests.servers import chunked, message

SERVER = ("192.0.2.1", 80)


class Observes:
    """Who is told by the guard."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.size = 0
        self.held = False

    def received(self, connection: str, size: int) -> None:
        self.size += size

    def hold(self, connection: str) -> None:
        self.held = True

    def release(self, connection: str) -> None:
        self.held = False

    def refused(self, why: str) -> None:
        pass


@dataclass
class Addon:
    """What hooks do, and which of them wait until they are told to go on."""

    heard: list[str] = field(default_factory=list)
    waits: frozenset[str] = frozenset()
    does: str = ""

    def run(self, hook: commands.StartHook) -> bool:
        """Whether it is through at once."""
        (flow,) = hook.args()
        if not isinstance(flow, http.HTTPFlow):
            self.heard.append(hook.name)
            return False  # what is no longer HTTP is not looked at here
        request, response = flow.request, flow.response
        told = f"{hook.name} {request.method} {request.raw_content!r} {bool(request.stream)}"
        if response is not None:
            told += f" {response.status_code} {response.raw_content!r} {bool(response.stream)}"
        self.heard.append(f"{told} {flow.error and flow.error.msg}")
        if response is None:
            self._act_on_request(hook.name, flow)
        else:
            self._act_on_answer(hook.name, response)
        return hook.name not in self.waits

    def _act_on_request(self, name: str, flow: http.HTTPFlow) -> None:
        request = flow.request
        match name, self.does:
            case "requestheaders", "stream request":
                request.stream = lambda data: [data[:1], data[1:]]
            case "requestheaders", "expect":
                request.headers["Expect"] = "100-continue"
            case "requestheaders", "other request":
                flow.request = request.copy()
            case "request", "chunk":
                request.headers["Transfer-Encoding"] = "chunked"
            case "requestheaders", "answer":
                flow.response = http.Response.make(299, b"from us")
            case "request", "answer later":
                flow.response = http.Response.make(298, b"from us, later")
            case "request", "edit" if request.raw_content:
                request.content = request.raw_content + b" and more"
                request.headers["X-Edited"] = "1"
            case "request", "goodbye to the server":
                request.headers["Connection"] = "close"
            case "request", "kill":
                flow.kill()

    def _act_on_answer(self, name: str, response: http.Response) -> None:
        match name, self.does:
            case "responseheaders", "stream answer":
                response.stream = True
            case "responseheaders" | "response", "chunk":
                response.headers["Transfer-Encoding"] = "chunked"
            case "responseheaders", "no length":
                response.headers.pop("Content-Length", None)
            case "responseheaders", "edit streamed":
                response.stream = bytes.swapcase
            case "response", "edit" if response.raw_content:
                response.content = b"edited: " + response.raw_content
            case "response", "goodbye":
                response.headers["Connection"] = "close"


class Driven:
    """A layer between a phone and a server: what it is handed, and what it makes of it."""

    def __init__(self, quick: bool, addon: Addon, observer: Observes) -> None:
        self.addon = addon
        self.observer = observer
        self.sent: dict[str, bytes] = {}
        self.ends: list[str] = []
        self.servers: list[Any] = []
        self.waiting: list[commands.StartHook] = []
        self.quick = 0
        self._begun: set[commands.StartHook] = set()
        settings = options.Options()
        Proxyserver().load(_Loader(settings))
        settings.update(keep_host_header=True, validate_inbound_headers=False)
        settings.add_option("http2", bool, False, "")
        self.phone = connection.Client(peername=("192.0.2.7", 50000), sockname=SERVER, timestamp_start=1.0)
        self.phone.state = connection.ConnectionState.OPEN
        one = context.Context(self.phone, settings)
        one.server.address = SERVER
        mode = HTTPMode.transparent
        self.layer = QuickHttp(one, mode, self) if quick else HttpLayer(one, mode)
        self._handle(events.Start())

    def begin(self, hook: commands.StartHook) -> object | None:
        """As the table of hooks does it."""
        if hook not in self._begun:
            if self.addon.run(hook):
                return None
            self._begun.add(hook)
        return hook

    def phone_sends(self, data: bytes) -> None:
        if self.phone.state & connection.ConnectionState.CAN_READ:
            self._handle(events.DataReceived(self.phone, data))

    def server_sends(self, data: bytes) -> None:
        if self.servers and self.servers[-1].state & connection.ConnectionState.CAN_READ:
            self._handle(events.DataReceived(self.servers[-1], data))

    def phone_ends(self) -> None:
        self._end(self.phone)

    def server_ends(self) -> None:
        if self.servers:
            self._end(self.servers[-1])

    def go_on(self) -> None:
        """Hooks that wait are through."""
        waiting, self.waiting = self.waiting, []
        for hook in waiting:
            if hook.blocking and not hook.name.startswith("tcp"):
                self._handle(events.HookCompleted(hook))

    def _end(self, end: Any) -> None:
        if end.state & connection.ConnectionState.CAN_READ:
            end.state &= ~connection.ConnectionState.CAN_READ
            self._handle(events.ConnectionClosed(end))

    def _name(self, end: Any) -> str:
        return "phone" if end is self.phone else f"server {self.servers.index(end)}"

    def _handle(self, event: events.Event) -> None:
        todo: deque[events.Event] = deque([event])
        try:
            while todo and "crashed" not in self.ends:
                self._handle_one(todo.popleft(), todo)
        except (AssertionError, ValueError):
            self.ends.append("crashed")  # mitmproxy does, of some sequences; nothing more is done for a connection

    def _handle_one(self, event: events.Event, todo: deque[events.Event]) -> None:
        for command in self.layer.handle_event(event):
            if isinstance(command, commands.OpenConnection):
                self.servers.append(command.connection)
                command.connection.state = connection.ConnectionState.OPEN
                todo.append(events.OpenConnectionCompleted(command, None))
            elif isinstance(command, commands.StartHook):
                if self.begin(command) is not None:
                    self.waiting.append(command)
                elif command.blocking:
                    todo.append(events.HookCompleted(command))
            elif isinstance(command, commands.SendData):
                if command.connection.state & connection.ConnectionState.CAN_WRITE:
                    name = self._name(command.connection)
                    self.sent[name] = self.sent.get(name, b"") + command.data
            elif isinstance(command, commands.CloseConnection) and command.connection.state.value:
                command.connection.state = connection.ConnectionState.CLOSED
                self.ends.append(self._name(command.connection))
        if getattr(self.layer, "_under_way", None) is not None:
            self.quick += 1

    def told(self) -> tuple[Any, ...]:
        """All there is to compare."""
        states = [one.state for one in (self.phone, *self.servers)]
        return self.sent, sorted(self.ends), self.addon.heard, states, self.observer.size


class _Loader:
    """Takes the options of mitmproxy's proxy."""

    def __init__(self, settings: options.Options) -> None:
        self._settings = settings

    def add_option(self, *args: Any, **named: Any) -> None:
        self._settings.add_option(*args, **named)

    def add_command(self, *args: Any, **named: Any) -> None:
        pass


HEAD = b"POST /check HTTP/1.1\r\nHost: ucupdates-r2\r\n"
PLAIN = HEAD + b"Content-Length: 5\r\n\r\nhello"
OTHER = HEAD + b"Content-Length: 3\r\nX: y\r\n\r\nbye"
FIRST = b"GET /first HTTP/1.1\r\nHost: ucupdates-r2\r\n\r\n"
REQUESTS = {
    "plain": PLAIN,
    "other": OTHER,
    "keep-alive": HEAD + b"Connection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello",
    "folded": HEAD + b"X: y\r\n z\r\nContent-Length: 5\r\n\r\nhello",
    "two at once": PLAIN + OTHER,
    "one and a half": PLAIN + OTHER[:20],
    "half": PLAIN[:30],
    "the other half": PLAIN[30:],
    "no body": HEAD + b"Content-Length: 0\r\n\r\n",
    "get": FIRST,
    "head": FIRST.replace(b"GET", b"HEAD"),
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"hel", b"lo"),
    "last": HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
    "old": PLAIN.replace(b"1.1", b"1.0"),
    "old, stays": PLAIN.replace(b"1.1", b"1.0").replace(b"Host", b"Connection: keep-alive\r\nHost"),
    "new": PLAIN.replace(b"1.1", b"2.0"),
    "expects": HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "absolute": PLAIN.replace(b"/check", b"http://192.0.2.1/check"),
    "elsewhere": PLAIN.replace(b"/check", b"http://192.0.2.9/check"),
    "bare ends": PLAIN.replace(b"\r\n", b"\n"),
    "ambiguous": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "not http": b"POST /\r\n\r\n",
    "line of its own": b"\r\n" + PLAIN,
    "large": HEAD + b"Content-Length: 70000\r\n\r\n" + bytes(70000),
}
ANSWER = message(b"world!", "Content-Type: text/xml")
ANSWERS = {
    "plain": ANSWER,
    "first half of a head": ANSWER[:20],
    "the rest": ANSWER[20:],
    "head": ANSWER[:-6],
    "body": ANSWER[-6:],
    "half a body": ANSWER[:-3],
    "the other half": ANSWER[-3:],
    "more than one": ANSWER + b"?",
    "two": ANSWER + ANSWER,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"wor", b"ld"),
    "to the end": b"HTTP/1.1 200 OK\r\n\r\nworld",
    "last": message(b"world", "Connection: close"),
    "old": ANSWER.replace(b"1.1", b"1.0"),
    "old, stays": message(b"world", "Connection: keep-alive").replace(b"1.1", b"1.0"),
    "new": ANSWER.replace(b"1.1", b"2.0"),
    "interim": b"HTTP/1.1 100 Continue\r\n\r\n",
    "interim and final": b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER,
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "empty": message(b""),
    "error": message(b"no", status="500 Internal Server Error"),
    "challenge": message(b"who?", "WWW-Authenticate: NTLM", status="401 Unauthorized"),
    "length told twice": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nworld",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nworld",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nworld",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "not http": b"SSH-2.0-x\r\n\r\n",
    "large": message(bytes(SMALL + 1)),
    "large, its head": message(bytes(SMALL + 1))[:-SMALL],
}
DOES = [
    "",
    "stream request",
    "answer",
    "answer later",
    "edit",
    "goodbye to the server",
    "stream answer",
    "edit streamed",
    "goodbye",
    "kill",
    "expect",
    "chunk",
    "no length",
]
HOOKS = ["requestheaders", "request", "responseheaders", "response", "error"]
Step = tuple[str, str]
OPENING: list[Step] = [("phone", "get"), ("server", "plain"), ("go on", "")]


def opened(quick: bool) -> Driven:
    """Both ends, after a first exchange. For a running loop."""
    observer = Observes()
    http1_guard.install(http1_guard.Guard(observer))
    driven = Driven(quick, Addon(), observer)
    for who, what in OPENING:
        step(driven, who, what)
    return driven


def played(quick: bool, steps: Sequence[Step], does: str, waits: frozenset[str]) -> Driven:
    """What comes of it when first a connection is opened, and then all this happens."""

    async def play() -> Driven:
        driven = opened(quick)
        driven.addon.does, driven.addon.waits = does, waits
        for who, what in steps:
            step(driven, who, what)
        for _ in range(8):
            driven.go_on()
        return driven

    return asyncio.run(play())


def step(driven: Driven, who: str, what: str) -> None:
    match who:
        case "phone":
            driven.phone_sends(REQUESTS[what])
        case "server":
            driven.server_sends(ANSWERS[what])
        case "phone ends":
            driven.phone_ends()
        case "server ends":
            driven.server_ends()
        case "go on":
            driven.go_on()


PHONE = st.tuples(st.just("phone"), st.sampled_from(["plain", "plain", "plain", "other", *REQUESTS]))
SERVES = st.tuples(st.just("server"), st.sampled_from(["plain", "plain", "plain", *ANSWERS]))
ANYTHING = st.sampled_from([("phone ends", ""), ("server ends", ""), ("go on", ""), ("go on", "")])
STEPS = st.lists(PHONE | SERVES | ANYTHING, max_size=8) | st.tuples(PHONE, SERVES, PHONE, SERVES).map(list)


def compare(steps: Sequence[Step], does: str, waits: frozenset[str] = frozenset()) -> None:
    """The two ways side by side."""
    assert played(True, steps, does, waits).told() == played(False, steps, does, waits).told(), (steps, does)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.sampled_from(DOES), st.frozensets(st.sampled_from(HOOKS), max_size=2))
def test_as_mitmproxy_does_it(steps: list[Step], does: str, waits: frozenset[str]) -> None:
    compare(steps, does, waits)


@pytest.mark.parametrize("does", DOES)
def test_every_answer_to_a_plain_request(does: str) -> None:
    for answer in ANSWERS:
        for end in ("phone ends", "server ends"):
            steps = [("phone", "plain"), ("server", answer), (end, ""), ("phone", "other"), ("server", "plain")]
            compare(steps, does)


@pytest.mark.parametrize("does", DOES)
def test_every_request(does: str) -> None:
    for request in REQUESTS:
        steps = [("phone", request), ("server", "plain"), ("phone", "plain"), ("server", "plain"), ("phone ends", "")]
        compare(steps, does)


@pytest.mark.parametrize("hook", HOOKS[:4])
@pytest.mark.parametrize("does", DOES)
def test_what_happens_while_a_hook_waits(hook: str, does: str) -> None:
    for meanwhile in (("phone ends", ""), ("server ends", ""), ("phone", "other"), ("server", "plain")):
        steps = [("phone", "plain"), *([("server", "plain")] if hook.startswith("response") else []), meanwhile]
        steps += [("go on", ""), ("server", "plain"), ("go on", ""), ("server ends", "")]
        compare(steps, does, frozenset({hook}))


def test_the_short_way_is_taken() -> None:
    steps = [("phone", "plain"), ("server", "plain"), ("phone", "other"), ("server", "plain")]
    driven = played(True, steps, "edit", frozenset())
    assert driven.quick == 2
    assert driven.layer.streams == {}
    assert driven.sent["phone"].endswith(b"edited: world!")
    assert played(False, steps, "edit", frozenset()).quick == 0


def test_it_is_taken_again_once_the_server_has_another_connection() -> None:
    steps = [
        ("phone", "plain"),
        ("server", "plain"),
        ("server ends", ""),
        *[("phone", "plain"), ("server", "plain")] * 3,
    ]
    driven = played(True, steps, "", frozenset())
    assert len(driven.servers) == 2
    assert driven.quick == 3, "all but the one that opens it"


@pytest.mark.parametrize("hook", HOOKS[:4])
def test_a_phone_is_not_read_from_while_a_hook_waits(hook: str) -> None:
    async def play() -> None:
        driven = opened(True)
        observer = driven.observer
        driven.addon.waits = frozenset({hook})
        driven.phone_sends(PLAIN)
        driven.server_sends(ANSWER)
        assert not observer.held
        driven.phone_sends(OTHER)
        assert observer.held
        driven.addon.waits = frozenset()
        driven.go_on()
        assert not observer.held
        driven.server_sends(ANSWER)
        assert driven.sent["phone"] == 3 * ANSWER if hook.startswith("response") else 2 * ANSWER

    asyncio.run(play())


@pytest.mark.parametrize("ends", ["phone ends", "server ends"])
def test_no_flow_is_kept(ends: str) -> None:
    driven = played(True, [("phone", "plain"), ("server", "plain"), ("phone", "other"), (ends, "")], "", frozenset())
    assert not driven.layer.streams
    assert not driven.layer._paused_event_queue
    assert vars(driven.layer)["_under_way"] is None
