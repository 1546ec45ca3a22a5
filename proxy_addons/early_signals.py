"""Signals that come while the proxy is starting, and would end it: they are acted on once that can be done."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from types import FrameType

HELD = (signal.SIGHUP, signal.SIGUSR1)
_came: list[int] = []


def hold() -> None:
    """Remember what comes from now on, until somebody else handles it. For the main thread."""
    for number in HELD:
        signal.signal(number, _remember)


def release(actions: Mapping[signal.Signals, Callable[[], None]]) -> None:
    """Act on what has come, by what is now done at such a signal."""
    came = _came[:]
    _came.clear()
    for number in came:
        actions[signal.Signals(number)]()


def _remember(number: int, _frame: FrameType | None) -> None:
    _came.append(number)
