"""The table of hooks: what runs, in which order, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from http import client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import ctx, exceptions, http, options
from mitmproxy.addonmanager import AddonManager
from mitmproxy.coretypes.multidict import _MultiDict as MultiDict
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook
from mitmproxy.proxy.server import TimeoutWatchdog
from mitmproxy.proxy.server_hooks import ServerConnectHook, ServerConnectionHookData
from mitmproxy.test.tflow import tclient_conn, tflow

from proxy_addons.lean_master import (
    Handler,
    HookTable,
    InPlace,
    LeanMaster,
    all_of,
    argument_of,
    current,
    first_of,
    fork,
    holds,
    may_block,
)
from proxy_addons.pytest_plugin import RunningProxy
from tests.bodies import CHECK_TARGET, REPORT_ZERO, answer_body, check_body
from tests.servers import Received, message, serving


class One:
    name = "one"

    def __init__(self, heard: list[str], raises: type[Exception] | None = None) -> None:
        self.heard = heard
        self.raises = raises

    def request(self, flow: http.HTTPFlow) -> None:
        self.heard.append(self.name)
        if self.raises is not None:
            raise self.raises


class Waits:
    def __init__(self, heard: list[str], until: asyncio.Event, raises: type[Exception] | None = None) -> None:
        self.heard = heard
        self.until = until
        self.raises = raises

    async def request(self, flow: http.HTTPFlow) -> None:
        self.heard.append("begins")
        await self.until.wait()
        if self.raises is not None:
            raise self.raises


class Last(One):
    name = "last"


class Updated:
    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    def update(self, flows: list[http.HTTPFlow]) -> None:
        self.heard.append("updated")


def with_table(use: Callable[[HookTable], Awaitable[Any]]) -> None:
    async def run() -> None:
        before = ctx.__dict__.copy()
        try:
            await use(LeanMaster(options.Options()).addons)
        finally:
            ctx.__dict__.clear()
            ctx.__dict__.update(before)

    asyncio.run(run())


def test_hooks_run_in_order_and_the_table_follows_the_addons() -> None:
    heard: list[str] = []

    async def use(table: HookTable) -> None:
        table.add(first := One(heard))
        await table.handle_lifecycle(HttpRequestHook(tflow()))
        table.add(Last(heard), Updated(heard))
        await table.handle_lifecycle(HttpRequestHook(tflow()))
        table.remove(first)
        await table.handle_lifecycle(HttpRequestHook(tflow()))
        table.clear()
        await table.handle_lifecycle(HttpRequestHook(tflow()))

    with_table(use)
    assert heard == ["one", "one", "last", "updated", "last", "updated"]


@pytest.mark.parametrize("raises", [ValueError, exceptions.OptionsError])
@pytest.mark.parametrize("waits", [False, True])
def test_an_addon_that_raises_costs_the_others_nothing(
    raises: type[Exception], waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    async def use(table: HookTable) -> None:
        ready = asyncio.Event()
        ready.set()
        table.add(Waits(heard, ready, raises) if waits else One(heard, raises), Last(heard))
        await table.handle_lifecycle(HttpRequestHook(tflow()))

    with_table(use)
    assert heard[-1] == "last"
    assert f"failed in request: {raises.__name__}" in caplog.text


def test_a_halt_ends_the_row() -> None:
    heard: list[str] = []

    async def use(table: HookTable) -> None:
        table.add(One(heard, exceptions.AddonHalt), Last(heard))
        await table.handle_lifecycle(HttpRequestHook(tflow()))

    with_table(use)
    assert heard == ["one"]


class Asks:
    """A layer with one question, as mitmproxy's layers ask."""

    def __init__(self, flow: http.HTTPFlow, heard: list[str]) -> None:
        self.hook = HttpRequestHook(flow)
        self.heard = heard

    def handle_event(self, event: events.Event) -> Iterator[commands.Command]:
        if isinstance(event, events.HookCompleted):
            assert event.command is self.hook
            self.heard.append("answered")
            yield commands.Log("done")
        else:
            yield self.hook


class WaitsAnywhere:
    """An addon whose hook needs no task."""

    def __init__(self, heard: list[str], until: list[Any], raises: type[Exception] | None = None):
        self.heard = heard
        self.until = until
        self.raises = raises

    async def request(self, flow: http.HTTPFlow) -> None:
        self.heard.append("begins")
        for one in self.until:
            await one
            self.heard.append("goes on")
        if self.raises is not None:
            raise self.raises

    request.needs_no_task = True  # type: ignore[attr-defined]


def test_only_what_has_to_be_awaited_leaves_its_place() -> None:
    heard: list[str] = []

    async def use(table: HookTable) -> None:
        table.add(One(heard))
        layer: Any = Asks(tflow(), heard)
        place = InPlace(layer, table, lambda event: heard.extend(map(str, place.handle_event(event))))
        told = list(place.handle_event(events.Start()))
        assert [type(one) for one in told] == [commands.Log]
        assert heard == ["one", "answered"]
        going = asyncio.Event()
        table.add(Waits(heard, going), Last(heard))
        told = list(place.handle_event(events.Start()))
        assert told == [layer.hook]
        rest = asyncio.ensure_future(table.finish(layer.hook, table.begin(layer.hook)))
        await asyncio.sleep(0)
        assert heard[2:] == ["one", "begins"]
        going.set()
        await rest
        assert heard[4:] == ["last"]

    with_table(use)


@pytest.mark.parametrize("raises", [None, ValueError, exceptions.AddonHalt])
@pytest.mark.parametrize("futures", [0, 1, 3])
def test_a_hook_that_needs_no_task_goes_on_when_what_it_waits_for_is_there(
    futures: int, raises: type[Exception] | None, caplog: pytest.LogCaptureFixture
) -> None:
    if not futures and raises is exceptions.AddonHalt:
        return  # nothing is left of it
    heard: list[str] = []

    async def use(table: HookTable) -> None:
        until = [asyncio.get_running_loop().create_future() for _ in range(futures)]
        table.add(WaitsAnywhere(heard, until, raises), Waits(heard, ready := asyncio.Event()), Last(heard))
        ready.set()
        layer: Any = Asks(tflow(), heard)
        before = asyncio.all_tasks()
        finished = asyncio.Event()

        def now(event: events.Event) -> None:
            assert [type(one) for one in layer.handle_event(event)] == [commands.Log]
            finished.set()

        told = list(InPlace(layer, table, now).handle_event(events.Start()))
        if not futures:  # it was through at once, and the next one needs a task
            assert told == [layer.hook]
            await table.finish(layer.hook, table.begin(layer.hook))
            return
        assert not told
        for future in until:
            assert asyncio.all_tasks() == before, "no task for it"
            future.set_result(None)
            await asyncio.sleep(0)
        await asyncio.wait_for(finished.wait(), 10)

    with_table(use)
    if futures:
        others = [] if raises is exceptions.AddonHalt else ["begins", "last"]
        assert heard == ["begins", *["goes on"] * futures, *others, "answered"]
    assert ("failed in request" in caplog.text) == (raises is ValueError)


@pytest.mark.parametrize("table_alone", [False, True])
def test_a_hook_ends_whatever_it_waits_for(table_alone: bool, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    async def use(table: HookTable) -> None:
        given_up = asyncio.get_running_loop().create_future()
        table.add(WaitsAnywhere(heard, [asyncio.sleep(0), given_up]), Last(heard))
        hook = HttpRequestHook(tflow())
        finished = asyncio.Event()
        rest = table.begin(hook)
        assert rest is not None
        if table_alone:
            asyncio.get_running_loop().call_later(0.01, given_up.cancel)
            await asyncio.wait([asyncio.ensure_future(table.finish(hook, rest))])
            return
        table.follow(hook, rest, finished.set)
        await asyncio.sleep(0)
        assert heard == ["begins", "goes on"]
        given_up.cancel()
        await asyncio.wait_for(finished.wait(), 10)

    with_table(use)
    assert heard[:2] == ["begins", "goes on"]
    if not table_alone:
        assert heard == ["begins", "goes on", "last"]
        assert "failed in request: CancelledError" in caplog.text


def test_an_event_waits_for_the_one_before_it() -> None:
    heard: list[str] = []

    async def use(table: HookTable) -> None:
        handler = Handler.__new__(Handler)
        handler._late = set()
        handler._server_event_lock = asyncio.Lock()
        handler.timeout_watchdog = TimeoutWatchdog(10, use)  # type: ignore[arg-type]
        layer: Any = Asks(tflow(), heard)
        handler._layer = layer
        handler.log = lambda message, *_args, **_named: heard.append(message)  # type: ignore[method-assign]
        handler.now(events.HookCompleted(layer.hook))
        assert heard == ["answered", "done"]
        async with handler._server_event_lock:
            handler.now(events.HookCompleted(layer.hook))
            await asyncio.sleep(0.01)
            assert len(heard) == 2
        await asyncio.wait_for(asyncio.gather(*handler._late), 10)
        assert heard == ["answered", "done"] * 2

    with_table(use)


def test_the_inside_of_mitmproxy_is_as_this_expects() -> None:
    assert issubclass(HookTable, AddonManager)
    for name in ("register", "remove", "clear", "handle_lifecycle", "trigger"):
        assert callable(getattr(AddonManager, name)), name


def update_server(request: Received) -> Iterator[bytes]:
    yield message(answer_body(), "Content-Type: text/xml") if request.method == "POST" else message(b"firmware" * 4096)


NAMES = st.text(st.characters(max_codepoint=255), max_size=6) | st.sampled_from(["Content-Length", "content-length"])
FIELDS = st.lists(st.tuples(st.binary(max_size=6) | NAMES.map(str.encode), st.binary(max_size=4)), max_size=5)


@given(FIELDS, NAMES)
def test_headers_are_found_as_mitmproxy_finds_them(fields: list[tuple[bytes, bytes]], name: str) -> None:
    headers = http.Headers(fields)
    asked: list[str | bytes] = [name, name.encode(), *(key for key, _ in fields)]
    for one in asked:
        octets = one.encode() if isinstance(one, str) else one
        found = [value.decode("utf-8", "surrogateescape") for value in MultiDict.get_all(headers, octets)]
        assert all_of(headers, one) == found
        assert holds(headers, one) == bool(found)
        assert first_of(headers, one, "none") == MultiDict.get(headers, octets, "none")
    assert not holds(headers, 7)


def test_a_context_is_forked_as_mitmproxy_does_it() -> None:
    original = context.Context(tclient_conn(), options.Options())
    original.layers.append(HttpLayer(original, HTTPMode.transparent))
    ours, theirs = vars(fork(original)), vars(original.fork())
    assert ours == theirs
    assert ours["server"] is original.server
    assert ours["layers"] is not original.layers


def test_options_are_what_they_were_set_to_and_nobody_changes_them() -> None:
    settings = options.Options()
    settings.update(mode=["regular@8080"], ssl_insecure=True, certs=["a"])
    for option in settings._options.values():
        assert current(option) == option.current()
    current(settings._options["mode"]).append("changed")
    assert settings.mode == ["regular@8080"]


def test_the_argument_of_a_hook_is_the_one_there_is() -> None:
    for hook in (HttpRequestHook(tflow()), ServerConnectHook(ServerConnectionHookData(None, None))):  # type: ignore[arg-type]
        assert [argument_of(hook)] == hook.args()


def test_what_was_written_is_waited_for_where_it_has_not_gone() -> None:
    async def use() -> None:
        taken, gone = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await taken.wait()
            await reader.read()
            writer.close()
            await writer.wait_closed()
            gone.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert not may_block(writer)
        writer.write(bytes(1 << 24))
        assert may_block(writer)
        taken.set()
        await writer.drain()
        writer.close()
        assert may_block(writer), "closed: drain tells"
        await writer.wait_closed()
        await gone.wait()
        server.close()
        await server.wait_closed()

    asyncio.run(use())
    assert may_block(object()), "not asyncio's"


def test_no_flow_is_kept_once_it_is_recorded(
    upshim_proxy: Callable[..., RunningProxy], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[http.HTTPFlow]] = []
    make = http.HTTPFlow.__init__

    def remember(flow: http.HTTPFlow, *args: Any, **named: Any) -> None:
        make(flow, *args, **named)
        made.append(weakref.ref(flow))

    monkeypatch.setattr(http.HTTPFlow, "__init__", remember)
    rules = tmp_path / "rules.toml"
    rules.write_text(REPORT_ZERO)
    with serving(update_server) as server:
        proxy = upshim_proxy(server.url, rules)
        with closing(client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as phone:
            for _ in range(3):
                phone.request("POST", CHECK_TARGET, check_body())
                assert phone.getresponse().read() == answer_body()
                phone.request("GET", "/x.nbt")
                assert len(phone.getresponse().read()) == 32768
            assert len(made) == 6
            # On a connection that is still open mitmproxy itself has the last one in hand.
            # A download is recorded a moment after its end.
            deadline = time.monotonic() + 20
            while len(proxy.recorded()) < 6 or sum(flow() is not None for flow in made) > 1:
                assert time.monotonic() < deadline
                gc.collect()
                time.sleep(0.02)
        assert all(b'Version="0.0.0.0"' in one.body for one in server.received if one.method == "POST")
