"""The fleet's days: a heap of what happens next, and what each phone makes of it.

What happens at one moment happens at once, and is over before the next moment comes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from tools.fleet.phone import BrickedError, FleetPhone
from tools.fleet.population import Behaviour, Member
from tools.fleet.shim import ShimGone
from tools.fleet.virtual import BROKEN, Clock, Front, Passing
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


@dataclass(slots=True)
class Fetched:
    """A file on its way to a phone."""

    member: Member
    target: str
    begin: datetime
    end: datetime
    complete: bool


@dataclass(slots=True, eq=False)
class Transfer:
    """A file that is being fetched; `breaks` halfway where the phone has it so."""

    phone: FleetPhone
    life: Steps
    passing: Passing
    fetched: Fetched
    breaks: bool


class Simulation:
    """Members of a fleet before what stands before their server; `at` has something else happen, at its time."""

    def __init__(
        self, front: Front, url: str, members: Sequence[Member], clock: Clock, seed: int, together: int = 1
    ) -> None:
        """So many phones, on average, were switched on `together`, and so ask at the same moments."""
        self.clock = clock
        self.phones: list[FleetPhone] = []
        self.fetched: list[Fetched] = []
        self.unanswered: list[datetime] = []  # when a check had no answer
        self.answered = 0
        self.front = front
        self._under_way: list[Transfer] = []
        self._heap: list[tuple[datetime, int, Happening]] = []
        self._numbers = itertools.count()
        drawn = random.Random(seed)
        moments = max(1, len(members) // together)
        apart = DAY // SECOND // moments * SECOND
        for member in members:
            poll = OFTEN if member.family == "cx500" else POLL
            pace = Pace(poll=poll, reboot=LOOP if member.crash_loop else 150, least_reboot=0)
            phone = FleetPhone(url, member, pace, clock, lambda _event: None)
            self.phones.append(phone)
            self.at(clock.now + drawn.randrange(moments) * apart, self._power_on(phone))

    def at(self, when: datetime, happening: Happening) -> None:
        """Have something happen."""
        heapq.heappush(self._heap, (when, next(self._numbers), happening))

    async def run(self, until: datetime) -> None:
        """Let the time pass."""
        while self._heap and self._heap[0][0] <= until:
            now = self.clock.now = self._heap[0][0]
            happenings = []
            while self._heap and self._heap[0][0] == now:
                happenings.append(heapq.heappop(self._heap)[2])
            await asyncio.gather(*(happening() for happening in happenings))
            await self.front.settled()
            for transfer in [one for one in self._under_way if one.passing.shim.gone]:
                self.at(now, self._arrival(transfer))
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
        try:
            passing = await self.front.begin(action, phone.member.address)
        except ShimGone:
            await self._told(phone, life, action, BROKEN)
            return
        if isinstance(action, Post):
            await self._told(phone, life, action, await self.front.end(passing))
            return
        image = action.url.endswith(".nbt")
        takes = IMAGE_TAKES if image else CATALOG_TAKES
        breaks = image and phone.to_break > 0
        end = self.clock.now + takes * (0.5 if breaks else 1)
        fetched = Fetched(phone.member, urlsplit(action.url).path, self.clock.now, end, not breaks)
        self.fetched.append(fetched)
        transfer = Transfer(phone, life, passing, fetched, breaks)
        self._under_way.append(transfer)
        self.at(end, self._arrival(transfer))

    async def _told(self, phone: FleetPhone, life: Steps, action: Post | Get, reply: Reply) -> None:
        if isinstance(action, Post):
            if reply.status:
                self.answered += 1
            else:
                self.unanswered.append(self.clock.now)
        await self._next(phone, life, reply)

    def _arrival(self, transfer: Transfer) -> Happening:
        async def arrived() -> None:
            if transfer in self._under_way:  # a transfer whose shim is killed ends before its time
                self._under_way.remove(transfer)
                await self._arrived(transfer)

        return arrived

    async def _arrived(self, transfer: Transfer) -> None:
        phone, fetched = transfer.phone, transfer.fetched
        reply = await self.front.end(transfer.passing, 0.5 if transfer.breaks else 1)
        if reply.wininet:
            fetched.end, fetched.complete = self.clock.now, False
        if transfer.breaks:
            phone.to_break -= 1
            if phone.member.behaviour is Behaviour.POWER_LOSS:
                self.at(self.clock.now + POWER_ON, self._power_on(phone))
                return
        await self._next(phone, transfer.life, reply)
