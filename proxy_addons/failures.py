"""Fail open: what goes wrong in our code is counted and logged once per cause, and the exchange goes on untouched.

What goes on happening is told again at intervals, as a number.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from proxy_addons.log_lines import event

logger = logging.getLogger("upshim")

TELL_EVERY = 600.0  # seconds between lines about causes that grew
MAX_TOLD = 20  # of them at one time
MAX_CAUSES = 1000  # a cause is a place in our code and a type; more than this means something makes them up


class Failures:
    """Counts failures by cause."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.faults = 0  # errors of our own among them: times we failed open
        self._told: Counter[str] = Counter()
        self._told_at: float | None = None

    def note(self, cause: str, detail: object) -> None:
        """Count one failure; the first of its cause is logged with its detail."""
        if cause not in self.counts and len(self.counts) >= MAX_CAUSES:
            cause = "other"
        self.counts[cause] += 1
        if self.counts[cause] == 1:
            # A warning: an error before start-up is over would end mitmproxy.
            self._told[cause] = 1
            logger.warning(
                "upshim: %s: %s (logged once; counted from here on)",
                cause,
                detail,
                extra=event("failure", cause=cause, detail=str(detail), count=1),
            )

    def tell_growth(self, now: float) -> None:
        """Log what has grown since the last time, at most every `TELL_EVERY` seconds; `now` is any steady clock's."""
        if self._told_at is None:
            self._told_at = now
        if now - self._told_at < TELL_EVERY:
            return
        self._told_at = now
        counts = Counter(dict(self.counts))  # other threads count too
        for cause, more in (counts - self._told).most_common(MAX_TOLD):
            logger.warning(
                "upshim: %s: %d more times, %d in all",
                cause,
                more,
                counts[cause],
                extra=event("failure", cause=cause, more=more, count=counts[cause]),
            )
        self._told = counts

    def exception(self, error: Exception) -> None:
        """Count an exception of ours, by its type and the place it was raised at."""
        self.faults += 1
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        code = trace.tb_frame.f_code if trace is not None else None
        place = f"{code.co_qualname}:{trace.tb_lineno}" if code is not None and trace is not None else "?"
        self.note(f"{type(error).__name__} in {place}", error)


class HasFailures(Protocol):
    """An object whose methods can be guarded."""

    failures: Failures


Self = TypeVar("Self", bound=HasFailures)


def fail_open(hook: Callable[[Self, Any], None]) -> Callable[[Self, Any], None]:
    """Guard a mitmproxy hook: no exception of ours reaches mitmproxy, which would skip other addons."""

    @functools.wraps(hook)
    def guarded(self: Self, argument: Any) -> None:
        try:
            hook(self, argument)
        except Exception as error:  # noqa: BLE001 - that is the point
            self.failures.exception(error)

    return guarded


def fail_open_async(hook: Callable[[Self, Any], Awaitable[None]]) -> Callable[[Self, Any], Awaitable[None]]:
    """`fail_open` for a coroutine hook.

    The hook may run outside of a task (lean_master.py): it awaits futures, and may not ask for the current task, as
    asyncio's timeouts do.
    """

    @functools.wraps(hook)
    async def guarded(self: Self, argument: Any) -> None:
        try:
            await hook(self, argument)
        except Exception as error:  # noqa: BLE001 - that is the point
            self.failures.exception(error)

    guarded.needs_no_task = True  # type: ignore[attr-defined]
    return guarded
