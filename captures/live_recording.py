"""A recording in a folder that is written by a process of its own while traffic flows (writer_process.py).

What the event loop has at hand goes to that process at once. Bodies that arrive in pieces become files in a thread
here, and the exchange that needs them follows once they are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from captures.base_recording import (
    FOREVER,
    LOOK_EVERY,
    Acknowledge,
    Answer,
    Backlog,
    BaseRecording,
    Handed,
    Observer,
    new_uid,
)
from captures.bodies import BodyFiles
from captures.exchange import Exchange, bodies_of
from captures.privacy import Stored
from captures.recording_folder import BODIES
from captures.retention import Keep
from captures.sink import Item, Question, Result
from captures.writer_process import WriterLink


class LiveRecording(BaseRecording):
    """For the event loop's thread, in which acknowledgements and answers are called too."""

    behind = ""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        observer: Observer | None = None,
        keep: Keep = FOREVER,
        setting: Stored = "full",
        inherited: Sequence[int] = (),
    ) -> None:
        """Start the process by this command, as `WriterLink` does. Raises `StoreError`."""
        self._loop = asyncio.get_running_loop()
        self._thread_of_loop = threading.get_ident()
        self._ready: deque[Handed] = deque()  # what the loop is to send
        super().__init__(folder, BodyFiles(folder / BODIES), observer, keep, setting)
        self._link = WriterLink(command, folder, self._lose, inherited, self._ask_again)
        self._thread.start()

    @property
    def journal_failed(self) -> bool:
        """As in `BaseRecording`."""
        return self._link.journal_failed

    @property
    def writer(self) -> int | None:
        """As in `BaseRecording`."""
        return self._link.writer

    def add(
        self, exchange: Exchange, acknowledge: Acknowledge = lambda _recorded: None, uid: str | None = None
    ) -> None:
        """As in `BaseRecording`."""

        def answered(result: Result) -> None:
            if result.done:
                self._committed_one(exchange)
                if self._observer is not None:
                    self._enqueue(exchange)
            acknowledge(result.done)

        item = Item(uid or new_uid(), exchange)
        if any(body.size and body.data is None for body in bodies_of(exchange)):
            self._enqueue(Handed(item, answered))  # behind the files of its bodies
        else:
            self._link.send(item, answered)

    def put(self, item: Item, answer: Answer) -> None:
        """As in `BaseRecording`; may be called from any thread."""
        if threading.get_ident() == self._thread_of_loop:
            self._link.send(item, answer)
        else:
            self._send_soon([Handed(item, answer)])

    def wait(self, answered: threading.Event, seconds: float) -> bool:
        """As in `BaseRecording`; in the loop's thread the loop stands still meanwhile."""
        if threading.get_ident() != self._thread_of_loop:
            return answered.wait(seconds)
        self._link.wait(answered.is_set, seconds)
        return answered.is_set()

    def backlog(self) -> Backlog:
        """As in `BaseRecording`."""
        waiting, lag = self._link.waiting
        return Backlog(waiting, self._waiting_bytes, lag, self._committed, self._written_bytes)

    def close(self, timeout: float = 30) -> None:
        """As in `BaseRecording`."""
        deadline = time.monotonic() + timeout
        bodies_there = threading.Event()
        self._enqueue(bodies_there)
        bodies_there.wait(timeout)
        self._send_ready()
        self._link.close(max(0.0, deadline - time.monotonic()))
        super().close(max(0.0, deadline - time.monotonic()))

    def _begin(self) -> None:
        """The writer begins by itself."""

    def _work(self, handed: list[Handed]) -> None:
        self._send_soon(handed)
        self._tidy_when_due(lambda keep: self.ask(Question("tidy", keep), self._tidied))

    def _tidied(self, result: Result) -> None:
        if not result.done:
            self._ask_again()

    def _ask_again(self) -> None:
        """Another writer knows nothing of what is to be kept."""
        self._looked = None

    def _idle(self) -> float:
        return LOOK_EVERY

    def _end(self) -> None:
        """The writer ends by itself."""

    def _send_soon(self, handed: Sequence[Handed]) -> None:
        if handed:
            self._ready.extend(handed)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._send_ready)

    def _send_ready(self) -> None:
        while self._ready:
            one = self._ready.popleft()
            self._link.send(one.item, one.answer)
