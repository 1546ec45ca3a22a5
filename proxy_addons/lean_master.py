"""mitmproxy's master with a table of hooks in place of a search, and hooks that run where they arise.

This file, http1_guard.py, quick_http.py and launcher.py are the ones that know mitmproxy's inside.

mitmproxy looks through all addons for each of the dozen hooks of a request, does so once more for `update`, and makes
a task for every one of them. Here the functions behind a hook are looked up once, `update` is left out where no addon
has it, and a hook runs in place for as long as nothing has to be awaited; what is left to await becomes a task only
where it needs one. A head and the body behind it are sent at once, which halves the calls of the system.

Listening sockets may come from somebody else (listeners.py); mitmproxy opens the others.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import logging
import os
import socket
import types
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator
from functools import partial
from typing import Any, NamedTuple

from mitmproxy import ctx, exceptions, flow, hooks, http, options, optmanager
from mitmproxy.addonmanager import AddonManager, traverse
from mitmproxy.addons import next_layer
from mitmproxy.master import Master
from mitmproxy.proxy import commands, context, events, layer, layers, mode_servers
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode
from mitmproxy.proxy.mode_specs import TCP

from proxy_addons.listeners import Address, normal
from proxy_addons.quick_http import QuickHttp

logger = logging.getLogger("upshim")

SMALL = 16 << 10  # bytes up to which what is sent one after the other is sent at once
BACKLOG = 1024  # connections that may wait to be accepted

Function = Callable[..., Awaitable[None] | None]


class Rest(NamedTuple):
    """What is left of a hook: the one to be awaited, and those behind it.

    One that was begun, since it needs no task, goes on when `waits_for` is there: a future, or None for the next turn
    of the loop.
    """

    awaitable: Any
    functions: Iterator[Function]
    begun: bool = False
    waits_for: Any = None


class HookTable(AddonManager):
    """The addons, and by the name of a hook the functions that it means."""

    def __init__(self, master: Master) -> None:
        super().__init__(master)
        self._functions: dict[str, tuple[Function, ...]] = {}
        self._begun: dict[hooks.Hook, Rest] = {}

    def add(self, *addons: Any) -> None:
        """Add addons behind the others."""
        super().add(*addons)

    def register(self, addon: Any) -> Any:
        """Add an addon; the table is made anew."""
        self._functions.clear()
        return super().register(addon)

    def remove(self, addon: Any) -> None:
        """Remove an addon; the table is made anew."""
        super().remove(addon)
        self._functions.clear()

    def clear(self) -> None:
        """Remove all addons."""
        super().clear()
        self._functions.clear()

    def functions(self, name: str) -> tuple[Function, ...]:
        """What runs for a hook, in order."""
        found = self._functions.get(name)
        if found is None:
            addons = traverse(self.chain)
            found = tuple(function for addon in addons if callable(function := getattr(addon, name, None)))
            self._functions[name] = found
        return found

    async def handle_lifecycle(self, event: hooks.Hook) -> None:
        """Run a hook."""
        rest = self.begin(event)
        if rest is not None:
            await self.finish(event, rest)

    def begin(self, event: hooks.Hook) -> Rest | None:
        """Run a hook as far as nothing has to be awaited; what is left, or None.

        One of which something is left may be begun again, by whoever is handed the hook next: that changes nothing.
        """
        rest = self._begun.get(event)
        if rest is None:
            argument = argument_of(event)
            rest = self._go_on(event, iter(self.functions(event.name)), argument)
            if rest is None:
                self._update(event, argument)
            else:
                self._begun[event] = rest
        return rest

    async def finish(self, event: hooks.Hook, rest: Rest | None) -> None:
        """The rest of a hook."""
        self._begun.pop(event, None)
        argument = argument_of(event)
        while rest is not None:
            try:
                await (go_on(rest.awaitable, rest.waits_for) if rest.begun else rest.awaitable)
            except exceptions.AddonHalt:
                break
            except Exception as error:  # noqa: BLE001 - whatever an addon does, the exchange goes on
                tell(event, error)
            rest = self._go_on(event, rest.functions, argument)
        self._update(event, argument)

    def follow(self, event: hooks.Hook, rest: Rest, finished: Callable[[], None]) -> None:
        """`finish` without a task, for what was begun; `finished` is called once, whatever becomes of it.

        Unlike for a task mitmproxy's watchdog is not held up meanwhile: it wants ten minutes of silence.
        """
        self._begun.pop(event, None)

        def there(_future: Any = None) -> None:
            left = self._step(event, rest)
            if left is None:
                self._update(event, argument_of(event))
                finished()
            elif left.begun:
                self.follow(event, left, finished)
            else:
                task = asyncio.get_running_loop().create_task(self.finish(event, left))
                task.add_done_callback(lambda _task: finished())

        if rest.waits_for is None:
            asyncio.get_running_loop().call_soon(there)
        else:
            rest.waits_for._asyncio_future_blocking = False  # as a task has it
            rest.waits_for.add_done_callback(there)

    def _step(self, event: hooks.Hook, rest: Rest) -> Rest | None:
        try:
            return rest._replace(waits_for=rest.awaitable.send(None))
        except StopIteration:
            pass
        except exceptions.AddonHalt:
            return None
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as above; a future was cancelled, not we
            tell(event, error)
        return self._go_on(event, rest.functions, argument_of(event))

    def _go_on(self, event: hooks.Hook, functions: Iterator[Function], argument: Any) -> Rest | None:
        for function in functions:
            try:
                result = function(argument)
                if result is None or not inspect.isawaitable(result):
                    continue
                if not getattr(function, "needs_no_task", False):
                    return Rest(result, functions)
                return Rest(result, functions, True, result.send(None))  # type: ignore[attr-defined]
            except StopIteration:
                continue
            except exceptions.AddonHalt:
                break
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as above
                tell(event, error)
        return None

    def _update(self, event: hooks.Hook, argument: Any) -> None:
        if self.functions("update") and event.name != "update" and isinstance(argument, flow.Flow):
            self.trigger(hooks.UpdateHook([argument]))


def argument_of(hook: hooks.Hook) -> Any:
    """What the functions behind a hook are called with: every hook of a connection has one argument."""
    name = _ARGUMENTS.get(hook.name)
    if name is None:
        (field,) = dataclasses.fields(hook)  # type: ignore[arg-type]
        name = _ARGUMENTS[hook.name] = field.name
    return getattr(hook, name)


_ARGUMENTS: dict[str, str] = {}  # by the name of the hook


def may_block(writer: Any) -> bool:
    """Whether `drain` might have to wait, or has something to tell."""
    if not isinstance(writer, asyncio.StreamWriter):
        return True
    return writer.is_closing() or writer.transport.get_write_buffer_size() > 0


@types.coroutine
def go_on(begun: Any, waits_for: Any) -> Generator[Any, Any, None]:
    """The rest of a coroutine that was begun outside of a task, and the future it waits for."""
    while True:
        try:
            try:
                sent = yield waits_for
            except BaseException as error:  # noqa: BLE001 - a cancellation too is the coroutine's to hear of
                waits_for = begun.throw(error)
            else:
                waits_for = begun.send(sent)
        except StopIteration:
            return


def tell(event: hooks.Hook, error: BaseException) -> None:
    """An addon has raised: the exchange goes on, and so do the addons behind it."""
    logger.error("upshim: an addon failed in %s: %r", event.name, error, exc_info=error)


class InPlace:
    """A connection's outermost layer; hooks run inside of it, and what is left of one to await goes on outside."""

    def __init__(self, outermost: layer.Layer, table: HookTable, now: Callable[[events.Event], None]) -> None:
        """`now` has an event handled, from outside."""
        self.outermost = outermost
        self._table = table
        self._now = now
        self._direct: QuickHttp | None = None

    @property
    def context(self) -> context.Context:
        """What mitmproxy asks of a layer beside `handle_event`."""
        return self.outermost.context

    def handle_event(self, event: events.Event) -> Iterator[commands.Command]:
        """What mitmproxy is to do about an event."""
        waiting = deque([event])
        unsent: commands.SendData | None = None
        if self._direct is None and isinstance(event, events.DataReceived):
            self._direct = behind_what_hands_on(self.outermost)
        first = self._direct or self.outermost
        while waiting:
            for command in first.handle_event(waiting.popleft()):
                if isinstance(command, commands.SendData):
                    if unsent is not None and unsent.connection is command.connection and len(unsent.data) < SMALL:
                        unsent = commands.SendData(unsent.connection, unsent.data + command.data)
                        continue
                    if unsent is not None:
                        yield unsent
                    unsent = command
                    continue
                if unsent is not None:
                    yield unsent
                    unsent = None
                if not isinstance(command, commands.StartHook):
                    yield command
                    continue
                rest = self._table.begin(command)
                if rest is None:
                    if command.blocking:
                        waiting.append(events.HookCompleted(command))
                elif rest.begun:
                    self._table.follow(command, rest, partial(self._hook_completed, command))
                else:
                    yield command
        if unsent is not None:
            yield unsent

    def _hook_completed(self, hook: commands.StartHook) -> None:
        if hook.blocking:
            self._now(events.HookCompleted(hook))


def behind_what_hands_on(layer_: layer.Layer) -> QuickHttp | None:
    """The layer for HTTP, where those around it only hand it what comes, and nothing is waited for."""
    while not isinstance(layer_, QuickHttp):
        if isinstance(layer_, layer.NextLayer):
            inner = layer_.layer
        elif isinstance(layer_, modes.DestinationKnown):
            inner = getattr(layer_, "child_layer", None)
            if getattr(layer_._handle_event, "__self__", None) is not inner:
                return None
        else:
            return None
        if inner is None or layer_._paused or layer_._paused_event_queue:
            return None
        layer_ = inner
    return layer_


class Handler(mode_servers.ProxyConnectionHandler):
    """A connection of a phone."""

    def __init__(self, master: LeanMaster, *others: Any) -> None:
        self._table = master.addons
        self._late: set[asyncio.Task[None]] = set()
        super().__init__(master, *others)

    @property
    def layer(self) -> Any:
        """The outermost layer."""
        return self._layer

    @layer.setter
    def layer(self, outermost: layer.Layer) -> None:
        self._layer = InPlace(outermost, self._table, self.now)

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """A hook that mitmproxy itself awaits, or the rest of one that was begun in place."""
        with self.timeout_watchdog.disarm():
            rest = self._table.begin(hook)
            if rest is not None:
                await self._table.finish(hook, rest)
            argument = argument_of(hook)
            if isinstance(argument, flow.Flow):
                await argument.wait_for_resume()

    def now(self, event: events.Event) -> None:
        """Have an event handled at once, or as soon as the one before it is."""
        handling = self.server_event(event)
        try:
            waits_for = handling.send(None)
        except StopIteration:
            return

        async def late() -> None:
            await go_on(handling, waits_for)

        task = asyncio.get_running_loop().create_task(late())
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def drain_writers(self) -> None:
        """Wait until what was written has gone, where it has not gone at once."""
        for io in self.transports.values():
            if io.writer is not None and may_block(io.writer):
                await super().drain_writers()
                return


class LeanMaster(Master):
    """A master whose connections work as described above."""

    addons: HookTable

    def __init__(self, settings: options.Options) -> None:
        super().__init__(settings)
        self.addons = HookTable(self)
        self._legacy_log_events.uninstall()  # wakes the event loop for each line of a log that nobody here asks for
        self.inherited: dict[Address, socket.socket] = {}  # what is listened on already
        # Where mitmproxy's listeners find the class of a connection, and their sockets.
        mode_servers.ProxyConnectionHandler = make_handler  # type: ignore[assignment,misc]
        # Every message made is checked by a search through its fields' types, unless Python runs with -O.
        http.MessageData.__post_init__ = unchecked  # type: ignore[method-assign]
        http.Headers.get_all = all_of  # type: ignore[method-assign,assignment]
        http.Headers.__contains__ = holds  # type: ignore[method-assign,assignment]
        http.Headers.get = first_of  # type: ignore[method-assign,assignment]
        context.Context.fork = fork  # type: ignore[method-assign,assignment]
        optmanager._Option.current = current  # type: ignore[method-assign,assignment]
        next_layer.HttpLayer = layers.HttpLayer = make_http  # type: ignore[assignment,attr-defined,misc]
        mode_servers.AsyncioServerInstance.listen = listen  # type: ignore[method-assign,assignment]

    def shutdown(self) -> None:
        """End; may be called from any thread."""
        super().shutdown()


def unchecked(_message: http.MessageData) -> None:
    """Nothing: mitmproxy makes its messages of what it has parsed."""


def all_of(headers: http.Headers, name: str | bytes) -> list[str]:
    """The values of a header: as mitmproxy's own, which takes four calls for every header there is."""
    wanted = (name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")).lower()
    size = len(wanted)
    return [
        value.decode("utf-8", "surrogateescape")
        for key, value in headers.fields
        if len(key) == size and key.lower() == wanted
    ]


def holds(headers: http.Headers, name: object) -> bool:
    """Whether there is a header of this name."""
    return isinstance(name, str | bytes) and bool(all_of(headers, name))


def first_of(headers: http.Headers, name: str | bytes, default: Any = None) -> Any:
    """The values of a header folded into one: as mitmproxy's own, which raises and catches an error for none."""
    values = all_of(headers, name)
    return ", ".join(values) if values else default


def fork(original: context.Context) -> context.Context:
    """As mitmproxy's own, but for a server connection that it makes and throws away."""
    copied = context.Context.__new__(context.Context)
    vars(copied).update(vars(original))
    copied.layers = original.layers.copy()
    return copied


def current(option: optmanager._Option) -> Any:
    """The value of an option: as mitmproxy's own, but for a deep copy of what cannot change."""
    value = option._default if option.value is optmanager.unset else option.value
    return value if isinstance(value, str | int | float | None) else copy.deepcopy(value)


stock_handler, stock_listen = mode_servers.ProxyConnectionHandler, mode_servers.AsyncioServerInstance.listen


def make_handler(master: Master, *others: Any) -> mode_servers.ProxyConnectionHandler:
    """A connection of whichever master there is: a process may run stock ones too."""
    return Handler(master, *others) if isinstance(master, LeanMaster) else stock_handler(master, *others)


def make_http(of: context.Context, mode: HTTPMode) -> HttpLayer:
    """The layer for HTTP, likewise."""
    master = ctx.master
    return QuickHttp(of, mode, master.addons) if isinstance(master, LeanMaster) else HttpLayer(of, mode)


async def listen(instance: mode_servers.AsyncioServerInstance[Any], host: str, port: int) -> list[Any]:
    """Listen on a socket that is there already; mitmproxy opens one where there is none."""
    master = ctx.master
    if isinstance(master, LeanMaster):
        instance.mode.transport_protocol = TCP  # phones speak no QUIC, which mitmproxy listens for before https servers
    found = master.inherited.pop((normal(host), port), None) if isinstance(master, LeanMaster) else None
    if found is None:
        servers: list[Any] = await stock_listen(instance, host, port)
        for listener in (one for server in servers for one in getattr(server, "sockets", ())):
            if listener.type == socket.SOCK_STREAM:
                with socket.socket(fileno=os.dup(listener.fileno())) as same:
                    same.listen(BACKLOG)  # asyncio's own is 100
        return servers
    found.setblocking(False)
    return [await asyncio.start_server(instance.handle_stream, sock=found, backlog=BACKLOG)]
