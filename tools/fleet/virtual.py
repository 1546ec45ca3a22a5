"""Phones through the addon's own hooks to a real server, on a clock of their own.

mitmproxy stamps every message with a time, and the addon takes its time from there: flows that carry the times of
another clock make days pass as fast as the machine can. Everything else is real: the hooks in mitmproxy's order, the
rules file, the recording, the server with its audit log and its files. A download takes its time: its request
passes at its beginning, its answer at its end, and other phones act in between.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from mitmproxy import connection, flow
from mitmproxy import http as mitm
from mitmproxy.addons import core
from mitmproxy.master import Master
from mitmproxy.options import Options

from proxy_addons.addon import Upshim
from proxy_addons.replay import feed
from tools.ucphone.actions import Download, Get, Post, Reply
from tools.ucphone.transport import request_of
from tools.update_server.http import ANSWER_TYPE, UpdateServer
from tools.update_server.messages import read_check

ABORTED = 12030  # WinInet: the connection was broken off


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

    flow: mitm.HTTPFlow
    answer: mitm.Response
    download: Download | None


class VirtualProxy:
    """The addon as `upshim proxy` runs it, without its sockets. To be used on one event loop."""

    def __init__(self, server: UpdateServer, clock: Clock, **settings: object) -> None:
        """Options are those of the addon, without `upshim_`. Raises `OptionsError`."""
        self._upstream = server
        self._server = server.address, server.port
        self._clock = clock
        self._settings = {f"upshim_{name}": value for name, value in settings.items()}
        self._ports = 20_000
        self.addon = self._start()

    def restart(self) -> None:
        """End it and start another on the same recording."""
        self.addon.done()
        self.addon = self._start()

    def close(self) -> None:
        """End it."""
        self.addon.done()

    def _start(self) -> Upshim:
        master = Master(Options())
        addon = Upshim()
        master.addons.add(core.Core(), addon)
        master.options.update(mode=[f"reverse:{self._upstream.url}"], **self._settings)
        addon.running()
        return addon

    async def begin(self, action: Post | Get, address: str) -> Passing:
        """A phone's request goes to the server, and the answer comes to the proxy."""
        passing = self._flow(action, address)
        self.addon.requestheaders(passing)
        feed(passing.request)
        await self.addon.request(passing)
        answer = self._ask(passing.request, address)
        return Passing(passing, answer, action.download if isinstance(action, Get) else None)

    async def end(self, passing: Passing, share: float = 1.0) -> Reply:
        """The answer goes to the phone; less than all of it where the connection breaks or the phone goes down."""
        now = self._clock.now.timestamp()
        answer, one = passing.answer, passing.flow
        content = answer.raw_content or b""
        answer.raw_content = content if share >= 1 else content[: int(len(content) * share)]
        answer.timestamp_start = answer.timestamp_end = now
        one.response = answer
        self.addon.responseheaders(one)
        feed(answer)
        if share < 1:
            answer.timestamp_end = None
            one.error = flow.Error("client disconnected", now)
            await self.addon.error(one)
        else:
            await self.addon.response(one)
        return reply_of(answer, passing.download, whole=share >= 1)

    def _flow(self, action: Post | Get, address: str) -> mitm.HTTPFlow:
        now = self._clock.now.timestamp()
        url = urlsplit(action.url)
        method, target, body, headers = request_of(action, url)
        self._ports = 20_000 + (self._ports - 19_999) % 40_000
        client = connection.Client(peername=(address, self._ports), sockname=("127.0.0.1", 80), timestamp_start=now)
        server = connection.Server(address=self._server)
        one = mitm.HTTPFlow(client, server)
        fields = {"Host": url.netloc, **headers} | ({"Content-Length": str(len(body))} if body is not None else {})
        one.request = mitm.Request(
            self._server[0], self._server[1], method.encode(), b"http", b"", target.encode(), b"HTTP/1.1",
            tuple((name.encode(), value.encode()) for name, value in fields.items()), body or b"", None, now, now,
        )  # fmt: skip
        return one

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
    return Reply(answer.status_code) if whole else Reply(wininet=ABORTED)
