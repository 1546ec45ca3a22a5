"""The fleet's days: a heap of what happens next, and what each phone makes of it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from tools.fleet.phone import BrickedError, FleetPhone
from tools.fleet.population import Behaviour, Member
from tools.fleet.virtual import Clock, Passing, VirtualProxy
from tools.ucphone.actions import NOTHING, Disconnect, Get, Pause, Post, Reply
from tools.ucphone.identity import Pace
from tools.ucphone.phone import Steps

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
POLL = 86_400.0  # seconds between two polls of a phone
OFTEN = 7 * 3600.0  # of those whose rule has a window: a phone that polls by the day never comes at another hour
IMAGE_TAKES = 600 * SECOND  # a thin line
LOOP = 3 * 3600.0  # a crash loop in slow motion: at its real pace two phones would be most of the traffic
CATALOG_TAKES = 2 * SECOND
POWER_ON = 120 * SECOND  # after a power cut

Happening = Callable[[], Awaitable[None]]


class Fetched(NamedTuple):
    """A file on its way to a phone."""

    member: Member
    target: str
    begin: datetime
    end: datetime
    complete: bool


class Simulation:
    """Members of a fleet before a proxy; `happen` what else happens, each at its time."""

    def __init__(self, proxy: VirtualProxy, url: str, members: Iterable[Member], clock: Clock, seed: int) -> None:
        self.clock = clock
        self.phones: list[FleetPhone] = []
        self.exchanges = 0
        self.fetched: list[Fetched] = []
        self._proxy = proxy
        self._heap: list[tuple[datetime, int, Happening]] = []
        self._numbers = itertools.count()
        drawn = random.Random(seed)
        for member in members:
            poll = OFTEN if member.family == "cx500" else POLL
            pace = Pace(poll=poll, reboot=LOOP if member.crash_loop else 150, least_reboot=0)
            phone = FleetPhone(url, member, pace, clock, lambda _event: None)
            self.phones.append(phone)
            self.at(clock.now + drawn.random() * DAY, self._power_on(phone))

    def at(self, when: datetime, happening: Happening) -> None:
        """Have something happen."""
        heapq.heappush(self._heap, (when, next(self._numbers), happening))

    async def run(self, until: datetime) -> None:
        """Let the time pass."""
        while self._heap and self._heap[0][0] <= until:
            self.clock.now, _, happening = heapq.heappop(self._heap)
            await happening()
            await asyncio.sleep(0)  # the addon's own tasks want to run too
        self.clock.now = until

    def _power_on(self, phone: FleetPhone) -> Happening:
        async def boot() -> None:
            await self._next(phone, phone.life(), None)

        return boot

    async def _next(self, phone: FleetPhone, life: Steps, reply: Reply | None) -> None:
        """What the phone does next, up to where it has to wait for something."""
        while True:
            try:
                action = next(life) if reply is None else life.send(reply)
            except (StopIteration, BrickedError):
                return
            match action:
                case Disconnect():
                    reply = NOTHING
                case Pause(seconds):
                    self._later(phone, life, seconds * SECOND)
                    return
                case Post() | Get():
                    await self._ask(phone, life, action)
                    return

    def _later(self, phone: FleetPhone, life: Steps, wait: timedelta) -> None:
        async def go_on() -> None:
            await self._next(phone, life, NOTHING)

        self.at(self.clock.now + wait, go_on)

    async def _ask(self, phone: FleetPhone, life: Steps, action: Post | Get) -> None:
        self.exchanges += 1
        passing = await self._proxy.begin(action, phone.member.address)
        if isinstance(action, Post):
            await self._next(phone, life, await self._proxy.end(passing))
            return
        image = action.url.endswith(".nbt")
        takes = IMAGE_TAKES if image else CATALOG_TAKES
        breaks = image and phone.to_break > 0

        async def arrived() -> None:
            await self._arrived(phone, life, passing, breaks=breaks)

        end = self.clock.now + takes * (0.5 if breaks else 1)
        self.fetched.append(Fetched(phone.member, urlsplit(action.url).path, self.clock.now, end, not breaks))
        self.at(end, arrived)

    async def _arrived(self, phone: FleetPhone, life: Steps, passing: Passing, *, breaks: bool) -> None:
        reply = await self._proxy.end(passing, 0.5 if breaks else 1)
        if breaks:
            phone.to_break -= 1
            if phone.member.behaviour is Behaviour.POWER_LOSS:
                self.at(self.clock.now + POWER_ON, self._power_on(phone))
                return
        await self._next(phone, life, reply)
