"""Recording while traffic flows, all of it in a thread of this process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
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
from captures.database_url import DatabaseUrl, Place
from captures.exchange import Exchange
from captures.privacy import Stored
from captures.retention import Keep
from captures.shared_sink import SharedSink
from captures.sink import RETRY_AFTER, Item, Result
from captures.sinks import FolderSink
from captures.store import Projection

MAX_QUEUED = 20_000  # exchanges, and what else is to be written


class Recording(BaseRecording):
    """A store that is being written."""

    def __init__(
        self,
        place: Place,
        observer: Observer | None = None,
        keep: Keep = FOREVER,
        setting: Stored = "full",
        projection: Projection | None = None,
        state: Path | None = None,
        tell: Callable[[str], None] = lambda _message: None,
    ) -> None:
        """Open or make the recording; a database may be away. `state` is the folder for what is kept beside it.

        `projection` is kept up to date with it, and `tell` hears of what people should know. Raises `StoreError`.
        """
        self._handed_over: deque[float] = deque()  # when each exchange came that is not committed yet
        self._waiting = 0
        self._sink = (
            SharedSink(place, setting, state, projection, self._lose, tell)
            if isinstance(place, DatabaseUrl)
            else FolderSink(place, setting, projection, self._lose)
        )
        super().__init__(place, self._sink.bodies, observer, keep, setting)
        self.store = self._sink.store
        self._thread.start()

    @property
    def journal_failed(self) -> bool:
        """As in `BaseRecording`."""
        return self._sink.journal_failed

    @property
    def behind(self) -> str:
        """As in `BaseRecording`."""
        return self._sink.behind

    def add(
        self, exchange: Exchange, acknowledge: Acknowledge = lambda _recorded: None, uid: str | None = None
    ) -> None:
        """As in `BaseRecording`; `acknowledge` is called from the recording's thread."""
        self.put(Item(uid or new_uid(), exchange), lambda result: acknowledge(result.done))

    def put(self, item: Item, answer: Answer) -> None:
        """As in `BaseRecording`; `answer` is called from the recording's thread."""
        with self._changed:
            refused = self._waiting >= MAX_QUEUED or self._closing
            if not refused:
                self._waiting += 1
                if item.exchange is not None:
                    self._handed_over.append(time.monotonic())
                self._enqueue(Handed(item, answer))
            elif item.exchange is not None:
                self._lose("an exchange: the queue is full")
        if refused:
            answer(Result(False, "too much waits to be written"))

    def backlog(self) -> Backlog:
        """As in `BaseRecording`."""
        with self._changed:
            oldest = self._handed_over[0] if self._handed_over else None
            lag = 0.0 if oldest is None else time.monotonic() - oldest
            waiting = len(self._handed_over)
        return Backlog(waiting, self._waiting_bytes, lag, self._committed, self._written_bytes, self._sink.spooled)

    def _begin(self) -> None:
        self._sink.start()

    def _work(self, handed: list[Handed]) -> None:
        try:
            self._write(handed)
        finally:
            self._sink.go_on()
            self._tidy_when_due(self._sink.tidy)

    def _idle(self) -> float:
        if self._sink.tidying:
            return 0
        return RETRY_AFTER if self._sink.waiting else LOOK_EVERY

    def _end(self) -> None:
        self._sink.close()

    def _write(self, handed: list[Handed]) -> None:
        if not handed:
            return
        results = [Result(False)] * len(handed)
        try:
            results = self._sink.write([one.item for one in handed])
        finally:
            with self._changed:
                self._waiting -= len(handed)
                for _ in range(sum(one.item.exchange is not None for one in handed)):
                    self._handed_over.popleft()
            for one, result in zip(handed, results, strict=True):
                one.answer(result)
        for one, result in zip(handed, results, strict=True):
            if result.done and one.item.exchange is not None:
                self._committed_one(one.item.exchange)
                self._observe(one.item.exchange)
