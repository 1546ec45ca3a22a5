"""What a phone tells while it lives."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from captures.exchange import rfc3339


class Kind(enum.StrEnum):
    """The kinds of events, in the order in which a good life tells them."""

    BOOT = "boot"
    LOOKUP = "lookup"
    SIGN_IN = "sign-in"
    CHECK = "check"
    NO_UPDATE = "no-update"
    OFFER = "offer"
    DOWNLOAD = "download"
    RESUME = "resume"
    DOWNLOADED = "downloaded"
    VERIFIED = "verified"
    REFUSED = "refused"
    FAILED = "failed"
    INSTALLED = "installed"
    CRASH = "crash"
    REBOOT = "reboot"
    WAIT = "wait"
    END = "end"


@dataclass(frozen=True, slots=True)
class PhoneEvent:
    """Something that happened to a phone; `data` holds plain JSON values, among them `version`, what it runs."""

    time: datetime
    phone: str
    kind: Kind
    text: str
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values: `time` (RFC 3339), `phone`, `event`, `text`, and the data."""
        return {
            "time": rfc3339(self.time),
            "phone": self.phone,
            "event": str(self.kind),
            "text": self.text,
            **self.data,
        }


EventSink = Callable[[PhoneEvent], None]


class EventLog:
    """Collects events and lets others wait for one. Call it as the phone's callback; it may serve many phones."""

    def __init__(self, then: EventSink | None = None) -> None:
        self._then = then
        self._events: list[PhoneEvent] = []
        self._grown = threading.Condition()

    def __call__(self, event: PhoneEvent) -> None:
        """Keep an event, wake who waits, and pass it on."""
        with self._grown:
            self._events.append(event)
            self._grown.notify_all()
        if self._then is not None:
            self._then(event)

    @property
    def events(self) -> list[PhoneEvent]:
        """Everything so far."""
        with self._grown:
            return list(self._events)

    def of(self, kind: Kind) -> list[PhoneEvent]:
        """The events of one kind."""
        return [event for event in self.events if event.kind is kind]

    def wait_for(self, wanted: Callable[[PhoneEvent], bool], timeout: float, *, after: int = 0) -> PhoneEvent | None:
        """The first event wanted from number `after` on, waited for; None when `timeout` seconds have passed."""
        seen = after

        def find() -> PhoneEvent | None:
            nonlocal seen
            while seen < len(self._events):
                seen += 1
                if wanted(self._events[seen - 1]):
                    return self._events[seen - 1]
            return None

        with self._grown:
            return self._grown.wait_for(find, timeout)
