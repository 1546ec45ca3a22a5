"""A shim of the fleet: the addon as `upshim proxy` runs it, without its sockets, on the clock of whoever asks.

mitmproxy stamps every message with a time, and the addon takes its time from there: flows that carry the times of
another clock make days pass as fast as the machine can. Messages are given as mitmproxy's plain state, so that they may
come from another process (shim_process.py).
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol
from urllib.parse import urlsplit

from mitmproxy import connection, flow, http
from mitmproxy.addons import core
from mitmproxy.master import Master
from mitmproxy.options import Options

from captures.base_recording import BaseRecording
from captures.sink import Question, Result
from proxy_addons.addon import Upshim
from proxy_addons.replay import feed

State = dict[str, Any]
WITHIN = 60.0  # seconds of the machine's own clock for what has to come about


class ShimGone(Exception):
    """The shim was killed."""


class Shim(Protocol):
    """What stands before the phones."""

    gone: bool  # killed

    async def request(self, number: int, request: State, address: str) -> State:
        """A phone's request as it goes to the server. Raises `ShimGone`."""

    async def response(self, number: int, response: State, whole: bool) -> State:
        """The answer to it as it goes to the phone, once it is recorded. Raises `ShimGone`."""

    async def settled(self) -> None:
        """Wait until everything that is over is written down, here or in the database."""

    async def caught_up(self) -> None:
        """Wait until everything that is over is in the database."""

    async def reload(self) -> None:
        """Read the rules again."""

    async def close(self) -> None:
        """End it in peace."""


class AddonShim:
    """A shim in this process; one at a time, for mitmproxy's options are global."""

    gone = False

    def __init__(self, upstream: str, **settings: object) -> None:
        """Options are those of the addon, without `upshim_`. Raises `OptionsError`."""
        url = urlsplit(upstream)
        self._server = url.hostname or "", url.port or 80
        self._flows: dict[int, http.HTTPFlow] = {}
        self._fetching = False  # whether the beginning of a download may still have to be written
        master = Master(Options())
        self._addon = Upshim()
        master.addons.add(core.Core(), self._addon)
        options = {f"upshim_{name}": value for name, value in settings.items()}
        master.options.update(mode=[f"reverse:{upstream}"], **options)
        self._addon.running()

    async def ready(self) -> None:
        """Wait until it knows which files the server has."""
        packages = self._addon.packages
        async with asyncio.timeout(WITHIN):
            while packages is not None and packages.files.counts()["not known"]:
                packages.look_after(self._addon.rewriter.rules)
                await asyncio.sleep(0.01)

    async def request(self, number: int, request: State, address: str) -> State:
        """As in `Shim`."""
        passing = http.HTTPFlow(
            connection.Client(
                peername=(address, 20_000 + number % 40_000),
                sockname=("127.0.0.1", 80),
                timestamp_start=request["timestamp_start"],
            ),
            connection.Server(address=self._server),
        )
        self._flows[number] = passing
        passing.request = asked = http.Request.from_state(request)
        self._addon.requestheaders(passing)
        feed(asked)
        await self._addon.request(passing)
        self._fetching |= asked.method == "GET"
        return dict(asked.get_state())

    async def response(self, number: int, response: State, whole: bool) -> State:
        """As in `Shim`."""
        passing = self._flows.pop(number)
        passing.response = answer = http.Response.from_state(response)
        self._addon.responseheaders(passing)
        feed(answer)
        if whole:
            await self._addon.response(passing)
        else:
            answer.timestamp_end = None
            passing.error = flow.Error("client disconnected", answer.timestamp_start)
            await self._addon.error(passing)
        return dict(answer.get_state())

    async def settled(self) -> None:
        """As in `Shim`."""
        recording = self._addon.recording
        if not isinstance(recording, BaseRecording) or not (self._fetching or recording.backlog().exchanges):
            return
        self._fetching = False
        loop = asyncio.get_running_loop()
        written = asyncio.Event()

        def answered(_result: Result) -> None:
            loop.call_soon_threadsafe(written.set)

        recording.ask(Question("settled"), answered)  # which it is, once that has an answer of whatever kind
        async with asyncio.timeout(WITHIN):
            await written.wait()

    async def caught_up(self) -> None:
        """As in `Shim`."""
        recording = self._addon.recording
        async with asyncio.timeout(WITHIN):
            while isinstance(recording, BaseRecording) and recording.behind:
                await asyncio.sleep(0.01)

    async def reload(self) -> None:
        """As in `Shim`."""
        self._addon.reload()

    async def close(self) -> None:
        """As in `Shim`."""
        self._addon.done()
