"""Recorded exchanges sent through the addon's own hooks, as mitmproxy would send live ones: no sockets, no waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from mitmproxy import http

from captures.base_recording import Acknowledge, StreamedBody
from captures.exchange import Exchange
from captures.flow_exchange import flow_of
from captures.http_wire import Bodies, no_bodies
from proxy_addons.addon import Upshim
from proxy_addons.rewriter import Rewriter

PIECE = 1 << 16  # as mitmproxy hands bodies to stream callables


class Collector:
    """Stands where the recording stands, and keeps the last exchange."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None

    def add(self, exchange: Exchange, acknowledge: Acknowledge, uid: str | None = None) -> None:  # noqa: ARG002
        """Take an exchange."""
        self.exchange = exchange
        acknowledge(True)

    def stream(self) -> StreamedBody:
        """Streamed bodies are not kept."""
        return StreamedBody(lost=True)

    def chunk(self, body: StreamedBody, data: bytes) -> None:
        """As above."""

    def finish(self, body: StreamedBody, sha256: str | None) -> None:
        """As above."""

    def fetch(self, uid: str, fetch: Mapping[str, Any]) -> None:
        """No database waits for it."""

    def close(self) -> None:
        """Nothing is open."""


class Replay:
    """What rules would have made of recorded exchanges. A context manager; not for several threads."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._upshim = Upshim()
        self._upshim.rewriter = rewriter
        self._collector = Collector()
        self._upshim.recording = self._collector
        self._upshim.packages = None  # there is no server to ask
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._runner.close()

    def run(self, exchange: Exchange, bodies: Bodies = no_bodies) -> Exchange:
        """The exchange as it would have been recorded under the rules: `rewritten_*` say what would have changed.

        Bodies it does not hold are asked from `bodies`; one that is nowhere is taken as empty. What an earlier upshim
        had changed is undone first.
        """
        original = replace(exchange, rewritten_request=None, rewritten_response=None, facts=(), problems=())
        flow, _ = flow_of(original, bodies)
        self._collector.exchange = None
        self._runner.run(self._pass(flow))
        told = self._collector.exchange
        if told is None:
            return replace(original, problems=("not replayed: fault in upshim",))
        return replace(
            exchange,
            facts=told.facts,
            problems=told.problems,
            rewritten_request=told.rewritten_request,
            rewritten_response=told.rewritten_response,
        )

    async def _pass(self, flow: http.HTTPFlow) -> None:
        response, flow.response = flow.response, None
        self._upshim.requestheaders(flow)
        feed(flow.request)
        await self._upshim.request(flow)
        flow.response = response
        if response is None:
            await self._upshim.error(flow)
            return
        self._upshim.responseheaders(flow)
        feed(response)
        await self._upshim.response(flow)


def feed(message: http.Message) -> None:
    """Send a body through the stream callable of its message, as mitmproxy does where it streams."""
    stream: object = message.stream
    if not isinstance(stream, Callable):  # type: ignore[arg-type]
        return
    content = message.raw_content or b""
    for start in range(0, len(content), PIECE):
        stream(content[start : start + PIECE])  # type: ignore[operator]
    stream(b"")  # type: ignore[operator]
