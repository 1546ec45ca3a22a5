"""A fleet over real sockets, before real proxies, in rounds: in each round every phone makes a visit.

A visit is what a phone does from one poll to the next: it asks, downloads, restarts, asks again; one that has nothing
new after a restart asks again in the next round. Many are under way at a time; between rounds none is, so that whatever
happens there divides the server's audit log cleanly in two.
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

from tools.fleet.phone import BrickedError, FleetPhone
from tools.fleet.population import Behaviour, Member
from tools.fleet.simulation import Fetched
from tools.ucphone.actions import NOTHING, Disconnect, Get, Pause, Post, Reply
from tools.ucphone.identity import Pace
from tools.ucphone.phone import Steps
from tools.ucphone.transport import HttpTransport, request_of

AT_ONCE = 24  # phones
PACE = Pace()
LINE = 0.15  # seconds an image takes besides: a line that is none would never have two downloads at a time
TIMEOUT = 30.0
BEGINNING = 1 << 16  # bytes of an image that come before a connection breaks
IMAGE = 6 << 20  # bytes: large enough not to be on its way as a whole


class Visitor:
    """A phone, its connection, and where it is in its life."""

    def __init__(self, phone: FleetPhone, urls: Sequence[str], drawn: random.Random, told: list[Fetched]) -> None:
        self.phone = phone
        self.answered: list[int] = []  # the HTTP status of each check, 0 where none came
        self._urls = urls
        self._drawn = drawn
        self._told = told
        self._transport = HttpTransport(TIMEOUT, source=phone.member.address)
        self._life: Steps | None = phone.life()
        self._reply: Reply | None = None

    def visit(self) -> None:
        """From one poll to the next."""
        ran = self.phone.version
        while self._life is not None:
            try:
                action = next(self._life) if self._reply is None else self._life.send(self._reply)
            except (StopIteration, BrickedError):
                self._life = None
                break
            self._reply = NOTHING
            match action:
                case Pause(seconds):
                    if seconds >= PACE.poll or (seconds == PACE.reboot and ran == self.phone.version):
                        break
                    ran = self.phone.version
                case Disconnect():
                    self._transport.close()
                case Post():
                    self._reply = self._ask(action)
                case Get():
                    self._reply = self._fetch(action)
        self._transport.close()

    def _ask(self, action: Post) -> Reply:
        """A check; whoever stands before the proxies picks one that is there."""
        reply = NOTHING
        for url in self._drawn.sample(self._urls, len(self._urls)):
            reply = self._transport.perform(Post(url + urlsplit(action.url).path, action.body))
            if reply.status:
                break
            self._transport.close()
        self.answered.append(reply.status)
        return reply

    def _fetch(self, action: Get) -> Reply | None:
        image = action.url.endswith(".nbt")
        breaks = image and self.phone.to_break > 0
        begin = datetime.now(UTC)
        if breaks:
            self.phone.to_break -= 1
            reply = self._break_off(action)
        else:
            reply = self._transport.perform(action)
            if image:
                time.sleep(LINE)
        done = action.download.complete
        path = urlsplit(action.url).path
        self._told.append(Fetched(self.phone.member, path, begin, datetime.now(UTC), done))
        if breaks and self.phone.member.behaviour is Behaviour.POWER_LOSS:
            self._life = self.phone.life()
            return None
        return reply

    def _break_off(self, action: Get) -> Reply:
        """The beginning of the file, then the connection is gone."""
        url, download = urlsplit(action.url), action.download
        origin = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT)
        # With little room on the way, the proxy is not rid of the whole file before it can know.
        origin.sock = socket.socket()
        origin.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        with closing(origin), suppress(OSError, http.client.HTTPException):
            origin.sock.settimeout(TIMEOUT)
            origin.sock.bind((self.phone.member.address, 0))
            origin.sock.connect((url.hostname or "", url.port or 80))
            origin.request(*request_of(action, url))
            answer = origin.getresponse()
            total = int(answer.headers["Content-Length"])
            offset = download.received if answer.status == 206 else None
            if download.begin(offset, total + (offset or 0), answer.headers.get("ETag")):
                download.write(answer.read(BEGINNING))
        return Reply(wininet=12030)


class RealFleet:
    """Phones before proxies."""

    def __init__(self, urls: Sequence[str], members: Iterable[Member], seed: int) -> None:
        """`urls` may change while it lives: a proxy that starts again has another port."""
        self.fetched: list[Fetched] = []
        self.disturbed: set[str] = set()  # phones on a visit while `during` was called, by MAC address
        self.visitors = [
            Visitor(
                FleetPhone(urls[0], member, PACE, lambda: datetime.now(UTC), lambda _event: None),
                urls,
                random.Random(f"{seed} {member.address}"),
                self.fetched,
            )
            for member in members
        ]
        self._drawn = random.Random(seed)

    @property
    def phones(self) -> list[FleetPhone]:
        """The phones."""
        return [visitor.phone for visitor in self.visitors]

    def round(self, during: Callable[[], None] = lambda: None, after: int = 0) -> None:
        """Every phone makes a visit; `during` is called once so many visits are over."""
        visitors = list(self.visitors)
        self._drawn.shuffle(visitors)
        over = threading.Semaphore(0)
        under_way: set[str] = set()

        def visit(visitor: Visitor) -> None:
            under_way.add(visitor.phone.member.identity.mac)
            try:
                visitor.visit()
            finally:
                under_way.discard(visitor.phone.member.identity.mac)
                over.release()

        with ThreadPoolExecutor(AT_ONCE, "fleet") as pool:
            futures = [pool.submit(visit, visitor) for visitor in visitors]
            for _ in range(after):
                over.acquire()
            if after:
                self.disturbed |= set(under_way)
            during()
        for future in futures:
            future.result()
