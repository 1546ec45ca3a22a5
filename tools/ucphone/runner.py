"""Lets a phone live: its behaviour and a transport, one step at a time, so that any scheduler can drive many."""

from __future__ import annotations

import threading
from typing import Protocol, Self

from tools.ucphone.actions import NOTHING, Disconnect, Get, Pause, Post, Reply
from tools.ucphone.phone import Phone


class Transport(Protocol):
    """What can act for a phone."""

    def perform(self, action: Post | Get) -> Reply:
        """Do it."""

    def close(self) -> None:
        """Close the connection."""

    def abort(self) -> None:
        """Break off what is going on in another thread."""


class PhoneRunner:
    """A phone and its transport."""

    def __init__(self, phone: Phone, transport: Transport) -> None:
        self.phone = phone
        self.transport = transport
        self._life = phone.life()
        self._reply: Reply | None = None

    def step(self) -> float | None:
        """Do the next thing; returns the seconds to wait before the one after it, None at the end of the life."""
        try:
            action = next(self._life) if self._reply is None else self._life.send(self._reply)
        except StopIteration:
            self.transport.close()
            return None
        self._reply = NOTHING
        match action:
            case Pause(seconds):
                return seconds
            case Disconnect():
                self.transport.close()
            case Post() | Get():
                self._reply = self.transport.perform(action)
        return 0.0

    def run(self, stop: threading.Event) -> None:
        """Live in this thread, to the end or until stopped."""
        try:
            while not stop.is_set() and (seconds := self.step()) is not None:
                if seconds and stop.wait(seconds):
                    break
        finally:
            self.transport.close()


class RunningPhone:
    """A phone that lives in a thread of its own, from `start` to `stop` or the end; a context manager."""

    def __init__(self, phone: Phone, transport: Transport) -> None:
        self.phone = phone
        self._transport = transport
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=PhoneRunner(phone, transport).run, args=(self._stop,), name=phone.identity.name, daemon=True
        )

    def start(self) -> Self:
        """Switch it on."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Pull the plug, and wait for that."""
        self._stop.set()
        self._transport.abort()
        self.join()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end of its life; False where it lives on."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
