"""Recording while traffic flows: a bounded queue before a thread of its own that does all writing.

The proxy never waits for a disk except where it asks for an acknowledgement, and then no longer than it says. When the
queue is full or the disk fails, recording loses something and counts it; traffic goes on.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from captures.bodies import Incoming
from captures.database_url import DatabaseUrl, Place
from captures.exchange import Exchange
from captures.journalling import told_of
from captures.privacy import Stored, stored
from captures.retention import Keep, due
from captures.shared_sink import RETRY_AFTER, SharedSink
from captures.sinks import FolderSink, Sink, bodies_held
from captures.spool import Waiting
from captures.store import Projection, Store, StoreError

MAX_QUEUED_BYTES = 64 << 20  # body bytes waiting for the disk
MAX_QUEUED_EXCHANGES = 20_000
MAX_BATCH = 500  # exchanges in one transaction
LOOK_EVERY = 60.0  # seconds an idle recording waits before it looks at its age and size
FOREVER = Keep()

Acknowledge = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far a recording is behind, and what it has done since it was opened. `lag` is in seconds.

    `spooled` bytes are safe on this machine, and wait for a database that is away.
    """

    exchanges: int
    body_bytes: int
    lag: float
    committed: int
    written_bytes: int
    spooled: int = 0


class Observer(Protocol):
    """Sees each exchange after its commit, on the writer's thread; its faults are counted like the disk's."""

    def recorded(self, store: Store, exchange: Exchange) -> None:
        """An exchange has been committed."""

    def close(self) -> None:
        """The recording ends."""


@dataclass(slots=True)
class StreamedBody:
    """A body that is written as it passes; `lost` says that it will not be in the recording."""

    incoming: Incoming | None = None
    lost: bool = False


class Recorder(Protocol):
    """What the proxy hands exchanges and streamed bodies to."""

    def stream(self) -> StreamedBody:
        """Start a body that will arrive in pieces."""

    def chunk(self, body: StreamedBody, data: bytes) -> None:
        """The next piece of it."""

    def finish(self, body: StreamedBody, sha256: str | None) -> None:
        """Its end; without a hash it is dropped."""

    def add(self, exchange: Exchange, acknowledge: Acknowledge, uid: str | None = None) -> None:
        """Record an exchange with the bodies it holds."""

    def fetch(self, uid: str, fetch: Mapping[str, Any]) -> None:
        """A download begins."""

    def close(self) -> None:
        """Write what is queued and let go."""


@dataclass(slots=True)
class _Chunk:
    body: StreamedBody
    data: bytes


@dataclass(slots=True)
class _End:
    body: StreamedBody
    sha256: str | None  # None: drop it


@dataclass(slots=True)
class _Row:
    exchange: Exchange
    acknowledge: Acknowledge
    uid: str


@dataclass(slots=True)
class _Fetch:
    uid: str
    fetch: dict[str, Any]


class Recording:
    """A store that is being written. Calls are cheap and never raise for a failing disk; `lost` counts by cause."""

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

        `keep` limits it by age and size, `setting` says what is stored at all, `projection` is kept up to date with it,
        and `tell` hears of what people should know. Raises `StoreError`.
        """
        self._keep = keep
        self._setting = setting
        self._looked: datetime | None = None
        self.lost: Counter[str] = Counter()
        self.on_trouble: Callable[[str], None] = lambda _message: None
        self._observer = observer
        self._queue: deque[_Chunk | _End | _Row | _Fetch] = deque()
        self._waiting_bytes = 0
        self._waiting_rows = 0
        self._handed_over: deque[float] = deque()  # when each exchange came that is not committed yet
        self._committed = 0
        self._written_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        if isinstance(place, DatabaseUrl):
            sink = SharedSink(place, state, projection, self._lose, tell)
            self._sink: Sink = sink
            self.store = sink.store
        else:
            self.store = Store.create(place)
            self._sink = FolderSink(self.store, projection, self._lose)
        try:
            self.store.bodies.sweep()
        except OSError as error:
            raise StoreError(self.store.folder, f"cannot record here: {error.strerror}") from error
        self._thread = threading.Thread(target=self._run, name="upshim-recording", daemon=True)
        self._thread.start()

    @property
    def journal_failed(self) -> bool:
        """Nothing should be rewritten meanwhile: nobody could tell later."""
        return self._sink.journal_failed

    @journal_failed.setter
    def journal_failed(self, failed: bool) -> None:
        self._sink.journal_failed = failed

    @property
    def behind(self) -> str:
        """Why what has happened is not all in the store; blank where it is, or will be in a moment."""
        return self._sink.behind

    def stream(self) -> StreamedBody:
        """Start a body that will arrive in pieces."""
        return StreamedBody()

    def chunk(self, body: StreamedBody, data: bytes) -> None:
        """Hand over the next piece. If the disk cannot keep up, the whole body is left out of the recording."""
        with self._changed:
            if body.lost or self._setting != "full":
                return
            if self._waiting_bytes + len(data) > MAX_QUEUED_BYTES:
                body.lost = True
                self._lose("a body: the disk is too slow")
                return
            self._waiting_bytes += len(data)
            self._queue.append(_Chunk(body, data))
            self._changed.notify()

    def finish(self, body: StreamedBody, sha256: str | None) -> None:
        """End a streamed body; without a hash it is dropped."""
        with self._changed:
            self._queue.append(_End(body, sha256))
            self._changed.notify()

    def add(
        self, exchange: Exchange, acknowledge: Acknowledge = lambda _recorded: None, uid: str | None = None
    ) -> None:
        """Record an exchange with the bodies it holds; `acknowledge` is called from the writer's thread.

        `uid` is what `fetch` or a reservation was told beforehand.
        """
        with self._changed:
            if self._waiting_rows >= MAX_QUEUED_EXCHANGES or self._closing:
                self._lose("an exchange: the queue is full")
            else:
                self._waiting_rows += 1
                self._handed_over.append(time.monotonic())
                self._queue.append(_Row(exchange, acknowledge, uid or new_uid()))
                self._changed.notify()
                return
        acknowledge(False)

    def fetch(self, uid: str, fetch: Mapping[str, Any]) -> None:
        """A download begins, whose exchange will have this uid; for the projection, as plain JSON values."""
        with self._changed:
            if self._waiting_rows < MAX_QUEUED_EXCHANGES and not self._closing:
                self._waiting_rows += 1
                self._queue.append(_Fetch(uid, dict(fetch)))
                self._changed.notify()

    def backlog(self) -> Backlog:
        """How far behind it is. May be called from any thread, and never waits for the disk."""
        with self._changed:
            oldest = self._handed_over[0] if self._handed_over else None
            lag = 0.0 if oldest is None else time.monotonic() - oldest
            waiting = len(self._handed_over)
        return Backlog(waiting, self._waiting_bytes, lag, self._committed, self._written_bytes, self._sink.spooled)

    def close(self, timeout: float = 30) -> None:
        """Write what is queued and let go; gives up after `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _lose(self, what: str) -> None:
        with self._changed:
            self.lost[what] += 1
            first = self.lost[what] == 1
        if first:
            self.on_trouble(f"not recorded: {what}")

    def _run(self) -> None:
        self._guarded(self._sink.start)
        while (batch := self._next_batch()) or not self._closing:
            self._guarded(partial(self._write, batch))
            self._guarded(self._sink.go_on)
            self._guarded(self._tidy)
        self._guarded(self._sink.close)
        if self._observer is not None:
            self._observer.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a fault here may cost a batch, never the recording
            self._lose(f"exchanges: {error!r}")

    def _tidy(self) -> None:
        now = datetime.now(UTC)
        if due(self._looked, now):
            self._looked = now
            self._sink.tidy(self._keep)

    def _write(self, batch: list[_Chunk | _End | _Row | _Fetch]) -> None:
        rows: list[_Row | _Fetch] = []
        for item in batch:
            if isinstance(item, _Row | _Fetch):
                rows.append(item)
            else:
                self._write_body(item)
        if not rows:
            return
        waiting = [
            Waiting(row.uid, stored(row.exchange, self._setting), told_of(row.exchange))
            if isinstance(row, _Row)
            else Waiting(row.uid, fetch=row.fetch)
            for row in rows
        ]
        done = [False] * len(rows)
        try:
            done = self._sink.write(waiting)
        finally:
            with self._changed:
                for row in rows:
                    if isinstance(row, _Row):
                        self._handed_over.popleft()
            for row, recorded in zip(rows, done, strict=True):
                if isinstance(row, _Row):
                    row.acknowledge(recorded)
        for row, recorded in zip(rows, done, strict=True):
            if recorded and isinstance(row, _Row):
                self._committed += 1
                self._written_bytes += sum(map(len, bodies_held([row.exchange]).values()))
                self._observe(row.exchange)

    def _next_batch(self) -> list[_Chunk | _End | _Row | _Fetch]:
        with self._changed:
            idle = RETRY_AFTER if self._sink.waiting else LOOK_EVERY
            self._changed.wait_for(lambda: self._queue or self._closing, idle)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            self._waiting_bytes -= sum(len(item.data) for item in batch if isinstance(item, _Chunk))
            self._waiting_rows -= sum(isinstance(item, _Row | _Fetch) for item in batch)
        return batch

    def _write_body(self, item: _Chunk | _End) -> None:
        body = item.body
        try:
            if isinstance(item, _Chunk):
                if body.lost:
                    return
                if body.incoming is None:
                    body.incoming = self.store.bodies.begin()
                body.incoming.file.write(item.data)
                self._written_bytes += len(item.data)
            elif body.incoming is not None:
                if item.sha256 is None or body.lost:
                    body.incoming.drop()
                else:
                    body.incoming.keep(item.sha256)
        except OSError as error:
            body.lost = True
            self._lose(f"a body: {error.strerror}")
            if body.incoming is not None:
                _drop_quietly(body.incoming)

    def _observe(self, exchange: Exchange) -> None:
        try:
            if self._observer is not None:
                self._observer.recorded(self.store, exchange)
        except (OSError, ValueError) as error:
            with self._changed:
                self._lose(f"packets: {error}")


def new_uid() -> str:
    """A name for an exchange that no other has."""
    return secrets.token_hex(10)


def _drop_quietly(incoming: Incoming) -> None:
    try:
        incoming.drop()
    except OSError:
        # Nothing more can be done for this file; the next start removes what is left over.
        return


__all__ = ["Recording", "StoreError", "StreamedBody"]
