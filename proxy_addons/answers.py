"""Answers that the event loop waits for; one that another thread has found is brought to the loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Found = TypeVar("Found")


class Answers(Generic[Found]):
    """Answers on their way to those who wait for them; for many of other threads, the loop is woken once."""

    def __init__(self) -> None:
        self._found: deque[tuple[asyncio.Future[Found], Found]] = deque()
        self._woken = False

    def expected(self) -> tuple[asyncio.Future[Found], Callable[[Found], None]]:
        """A future of the running loop, and what the other thread calls once."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Found] = loop.create_future()

        own = threading.get_ident()

        def found(answer: Found) -> None:
            if threading.get_ident() == own:
                settle(future, answer)
                return
            self._found.append((future, answer))
            if not self._woken:
                self._woken = True
                loop.call_soon_threadsafe(self._tell)

        return future, found

    def _tell(self) -> None:
        self._woken = False  # first: what comes from here on wakes the loop again
        while self._found:
            settle(*self._found.popleft())


async def within(future: asyncio.Future[Found], seconds: float, late: Found) -> Found:
    """What comes within a time, else `late`.

    This may have begun outside of a task, where asyncio's own timeouts do not work.
    """
    timer = asyncio.get_running_loop().call_later(seconds, settle, future, late)
    try:
        return await future
    finally:
        timer.cancel()


def settle(future: asyncio.Future[Found], result: Found) -> None:
    """Resolve a future that may have been given up."""
    if not future.done():
        future.set_result(result)
