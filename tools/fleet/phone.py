"""A phone of the fleet: the emulated phone, and what goes wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tools.fleet.population import Behaviour, Member
from tools.ucphone.events import EventSink
from tools.ucphone.identity import Pace
from tools.ucphone.messages import OfferedFile
from tools.ucphone.phone import Phone

BROKEN_DOWNLOADS = 2  # of a phone that loses power or its connection; then one works
ERROR = "0x80070570;200"  # a last update status that is an error


class BrickedError(Exception):
    """The phone is dead."""


class FleetPhone(Phone):
    """Does what `member.behaviour` says. Its old firmware crashes where `member.crash_loop` says so."""

    def __init__(
        self, server: str, member: Member, pace: Pace, clock: Callable[[], datetime], on_event: EventSink
    ) -> None:
        super().__init__(server, member.version, member.identity, pace=pace, clock=clock, on_event=on_event)
        self.member = member
        self.to_break = BROKEN_DOWNLOADS if member.behaviour in {Behaviour.CUT, Behaviour.POWER_LOSS} else 0
        self._error = ""

    def _crashes(self) -> bool:
        return self.member.crash_loop and super()._crashes()

    def _reported_status(self) -> str:
        return self._error

    def _install(self, offer: OfferedFile) -> None:
        match self.member.behaviour:
            case Behaviour.KEEPS_OLD:
                return
            case Behaviour.FAILS:
                self._error = ERROR
                return
            case Behaviour.BRICKED:
                raise BrickedError
        super()._install(offer)
