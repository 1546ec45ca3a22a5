"""Whether the files of an update are there upstream: answered from what is known, asked in the background.

A decision never waits for it. What is not known yet is a reason to offer nothing this time; the phone asks again at its
next poll. What has been asked for is asked again and again before it grows old, so that a fleet that polls once a day
finds a fresh answer.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from dissectors import DissectError
from dissectors.http1.head import MAX_HEAD, ResponseHead, parse_response_head
from proxy_addons.packages import PackageFiles

FRESH = 600.0  # seconds until an answer is asked for again
AGAIN = 30.0  # and until a bad one is, the first time; then twice as long each time, up to `FRESH`
EXPIRED = 3 * FRESH  # an answer as old as this counts no more
WANTED_FOR = 48 * 3600.0  # seconds for which files are asked for that no phone was to be sent to
MAX_PACKAGES = 1000
MAX_EXPECTED = 500
MAX_ASKING = 4  # packages at one time
WITHIN = 5.0  # seconds for one request and its answer

Tls = Callable[[], ssl.SSLContext]

_CONTENT_RANGE = re.compile(r"bytes\s+\d{1,18}-\d{1,18}/(\d{1,18})", re.ASCII | re.IGNORECASE)
_REFUSES_HEAD = frozenset({405, 501})


class Origin(NamedTuple):
    """A server; `scheme` is http or https."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As it stands in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


@dataclass(slots=True)
class _Known:
    """What is known of one package on one server; `reason` counts from `asked` on."""

    reason: str | None = None
    asked: float | None = None
    due: float = 0.0
    wanted: float = 0.0
    asking: bool = False
    pause: float = AGAIN


class UpstreamFiles:
    """Asks servers for files. To be used on one event loop; `allow` says which servers may be asked."""

    def __init__(
        self,
        allow: Callable[[str, int], bool],
        tls: Tls = ssl.create_default_context,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allow = allow
        self._tls = tls
        self._clock = clock
        self._known: dict[tuple[Origin, PackageFiles], _Known] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def reason(self, origin: Origin, files: PackageFiles) -> str | None:
        """Why no phone may be sent to these files, None where they are there."""
        now = self._clock()
        known = self._want(origin, files, now)
        if known is None:
            return "too many other files are being looked at"
        if known.asked is None:
            return "it is not known yet whether the files are upstream"
        if now - known.asked >= EXPIRED:
            return "it is not known any more whether the files are upstream"
        return known.reason

    def expect(self, wanted: Iterable[tuple[Origin, PackageFiles]]) -> None:
        """Ask for files that phones may be sent to, until something else is expected."""
        now = self._clock()
        for known in self._known.values():
            known.wanted = min(known.wanted, now)
        for origin, files in islice(wanted, MAX_EXPECTED):
            self._want(origin, files, math.inf)

    def refresh(self) -> None:
        """Ask again for what is due; to be called every second or so."""
        now = self._clock()
        for key, known in list(self._known.items()):
            if now - known.wanted > WANTED_FOR:
                del self._known[key]
            elif known.due <= now:
                self._start(key, known)

    def counts(self) -> dict[str, int]:
        """Packages by what is known of them: `there`, `not there` or `not known`."""
        now = self._clock()
        states = [
            "not known" if one.asked is None or now - one.asked >= EXPIRED else "not there" if one.reason else "there"
            for one in list(self._known.values())  # asked from another thread
        ]
        return {state: states.count(state) for state in ("there", "not there", "not known")}

    def close(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        self._known.clear()

    async def look(self, origin: Origin, files: PackageFiles) -> str | None:
        """Ask now; what `reason` will say for a while. Never raises for what a server or the network does."""
        if not self._allow(origin.host, origin.port):
            return f"{origin.authority} is not a configured upstream"
        for target, sizes in files.targets():
            try:
                async with asyncio.timeout(WITHIN):
                    head = await self._ask(origin, "HEAD", target)
                    if head.status in _REFUSES_HEAD:
                        head = await self._ask(origin, "GET", target)
            except TimeoutError:
                return f"{target}: no answer within {WITHIN:g} s"
            except (OSError, DissectError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                return f"{target}: {told(error)}"
            complaint = judged(head, sizes)
            if complaint is not None:
                return f"{target}: {complaint}"
        return None

    def _want(self, origin: Origin, files: PackageFiles, now: float) -> _Known | None:
        key = (origin, files)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MAX_PACKAGES:
                return None
            known = self._known[key] = _Known()
            self._start(key, known)
        known.wanted = max(known.wanted, now)
        return known

    def _start(self, key: tuple[Origin, PackageFiles], known: _Known) -> None:
        if known.asking or len(self._tasks) >= MAX_ASKING:
            return
        with suppress(RuntimeError):  # no event loop yet: the next look finds it due
            task = asyncio.get_running_loop().create_task(self._find_out(*key, known))
            known.asking = True
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _find_out(self, origin: Origin, files: PackageFiles, known: _Known) -> None:
        try:
            known.reason = await self.look(origin, files)
            known.asked = self._clock()
        finally:
            known.asking = False
            there = known.asked is not None and known.reason is None
            known.due = self._clock() + (FRESH if there else known.pause)
            known.pause = AGAIN if there else min(2 * known.pause, FRESH)

    async def _ask(self, origin: Origin, method: str, target: str) -> ResponseHead:
        """The head of an answer; its body, if there is one, is not read."""
        reader, writer = await connected(origin, self._tls)
        try:
            lines = [f"{method} {target} HTTP/1.1", f"Host: {origin.authority}", "User-Agent: upshim", "Accept: */*"]
            lines += ["Range: bytes=0-0"] * (method == "GET")
            writer.write("\r\n".join((*lines, "Connection: close", "", "")).encode("latin-1"))
            while True:
                head = parse_response_head(await reader.readuntil(b"\r\n\r\n"))
                if head.status >= 200:
                    return head
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


async def connected(origin: Origin, tls: Tls) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a server. Raises `OSError`, also where TLS fails or the files it takes cannot be used."""
    context = tls() if origin.scheme == "https" else None
    return await asyncio.open_connection(
        origin.host, origin.port, ssl=context, server_hostname=origin.host if context else None, limit=MAX_HEAD
    )


def told(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        return os.strerror(error.errno)
    return next(iter(str(error).splitlines()), type(error).__name__)


def judged(head: ResponseHead, sizes: range) -> str | None:
    """Why an answer is not that of a file to be offered."""
    fields = {name.lower(): value.strip() for name, value in head.headers}
    if head.status in {401, 403}:
        return f"the server answers {head.status}: whether the file is there cannot be seen without a logon"
    if head.status not in {200, 206}:
        return f"the server answers {head.status}"
    kind = fields.get("content-type", "").partition(";")[0].strip().lower()
    if kind in {"text/html", "application/xhtml+xml"}:
        return f"the server answers with a page ({kind})"
    if head.status == 206:
        match = _CONTENT_RANGE.fullmatch(fields.get("content-range", ""))
        text = match[1] if match else ""
    else:
        text = fields.get("content-length", "")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        return "the server tells no size"
    if int(text) not in sizes:
        return f"{text} bytes, expected {sizes.start} to {sizes.stop - 1}"
    return None
