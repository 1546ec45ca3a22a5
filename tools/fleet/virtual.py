"""Phones through the addon's own hooks to a real server, on a clock of their own.

Everything but the time is real: the hooks in mitmproxy's order, the rules file, the recording, the server with its
audit log and its files. A download takes its time: its request passes at its beginning, its answer at its end, and
other phones act in between.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit
from zlib import crc32

from mitmproxy import http as mitm

from tools.fleet.shim import Shim, ShimGone
from tools.ucphone.actions import Download, Get, Post, Reply
from tools.ucphone.transport import request_of
from tools.update_server.http import ANSWER_TYPE, UpdateServer
from tools.update_server.messages import read_check

ABORTED = 12030  # WinInet: the connection was broken off
BROKEN = Reply(wininet=ABORTED)


class Clock:
    """The time of the fleet; it only ever moves on."""

    def __init__(self, start: datetime) -> None:
        self.now = start

    def __call__(self) -> datetime:
        """The time now."""
        return self.now


@dataclass(slots=True)
class Passing:
    """A request that has been answered by the server, its answer still on the way to the phone."""

    shim: Shim
    number: int
    answer: mitm.Response
    download: Download | None


class Front:
    """The shims, and who stands before them: a phone meets the same one again, unless it is gone."""

    def __init__(self, server: UpdateServer, clock: Clock, shims: Sequence[Shim]) -> None:
        """`shims` may change while it lives. To be used on one event loop."""
        self._upstream = server
        self._server = server.address, server.port
        self.clock = clock
        self._shims = shims
        self._numbers = itertools.count()
        self._answering: Counter[Shim] = Counter()
        self._planned: list[tuple[int, int, Callable[[], None]]] = []

    def amidst(self, answers: int, shim: int, do: Callable[[], None]) -> None:
        """Have something done as soon as so many answers are on their way through a shim, none of them recorded."""
        self._planned.append((answers, shim, do))

    async def begin(self, action: Post | Get, address: str) -> Passing:
        """A phone's request goes to the server, and the answer comes to its shim. Raises `ShimGone`."""
        shim, number = self._shim_of(address), next(self._numbers)
        request = mitm.Request.from_state(await shim.request(number, self._request(action).get_state(), address))
        download = action.download if isinstance(action, Get) else None
        return Passing(shim, number, self._ask(request, address), download)

    async def end(self, passing: Passing, share: float = 1.0) -> Reply:
        """The answer goes to the phone; less than all of it where the connection breaks or the phone goes down."""
        answer = passing.answer
        content = answer.raw_content or b""
        answer.raw_content = content if share >= 1 else content[: int(len(content) * share)]
        answer.timestamp_start = answer.timestamp_end = self.clock.now.timestamp()
        shim = passing.shim
        self._answering[shim] += 1
        self._look_at_plans()
        try:
            state = await shim.response(passing.number, answer.get_state(), share >= 1)
        except ShimGone:
            if passing.download is None:
                return BROKEN
            answer.raw_content = content[: int(len(content) * min(share, 0.5))]
            return reply_of(answer, passing.download, whole=False)
        finally:
            self._answering[shim] -= 1
        return reply_of(mitm.Response.from_state(state), passing.download, whole=share >= 1)

    async def settled(self) -> None:
        """Wait until everything that is over is written down."""
        await asyncio.gather(*(shim.settled() for shim in self._shims if not shim.gone))

    def _look_at_plans(self) -> None:
        for plan in list(self._planned):
            answers, shim, do = plan
            if self._answering[self._shims[shim]] >= answers:
                self._planned.remove(plan)
                do()

    def _shim_of(self, address: str) -> Shim:
        first = crc32(address.encode()) % len(self._shims)
        for shim in (*self._shims[first:], *self._shims[:first]):
            if not shim.gone:
                return shim
        raise ShimGone

    def _request(self, action: Post | Get) -> mitm.Request:
        now = self.clock.now.timestamp()
        url = urlsplit(action.url)
        method, target, body, headers = request_of(action, url)
        fields = {"Host": url.netloc, **headers} | ({"Content-Length": str(len(body))} if body is not None else {})
        return mitm.Request(
            self._server[0], self._server[1], method.encode(), b"http", b"", target.encode(), b"HTTP/1.1",
            tuple((name.encode(), value.encode()) for name, value in fields.items()), body or b"", None, now, now,
        )  # fmt: skip

    def _ask(self, request: mitm.Request, address: str) -> mitm.Response:
        """The server's answer: a check is handed over, for a fleet's life is mostly checks; a file is fetched."""
        if request.method == "POST":
            check = read_check(request.raw_content or b"", request.headers["content-type"])
            content = self._upstream.answer(check, request.headers["host"], address)
            told = ((b"Content-Type", ANSWER_TYPE.encode()), (b"Content-Length", str(len(content)).encode()))
            return mitm.Response(b"HTTP/1.1", 200, b"OK", told, content, None, 0.0, None)
        asked = http.client.HTTPConnection(*self._server, timeout=30, source_address=(address, 0))
        try:
            asked.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.fields:
                asked.putheader(name.decode("latin-1"), value.decode("latin-1"))
            asked.endheaders()
            answer = asked.getresponse()
            content = answer.read()
        finally:
            asked.close()
        fields = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.getheaders())
        return mitm.Response(b"HTTP/1.1", answer.status, answer.reason.encode(), fields, content, None, 0.0, None)


def reply_of(answer: mitm.Response, download: Download | None, *, whole: bool) -> Reply:
    """What the phone makes of an answer; the bytes of a download go where it keeps them."""
    content = answer.raw_content or b""
    if download is None:
        return Reply(answer.status_code, 0, answer.headers.get("content-type", ""), content)
    if answer.status_code not in {200, 206}:
        return Reply(answer.status_code)
    offset = download.received if answer.status_code == 206 else None
    size = int(answer.headers["content-length"])
    if not download.begin(offset, size + (offset or 0), answer.headers.get("etag")) or not download.write(content):
        return Reply(wininet=12152)
    download.complete = whole
    return Reply(answer.status_code) if whole else BROKEN
