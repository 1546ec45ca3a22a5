"""Recording while traffic flows: a bounded queue before a thread of its own that does all writing.

The proxy never waits for a disk except where it asks for an acknowledgement, and then no longer than it says. When the
queue is full or the disk fails, recording loses something and counts it; traffic goes on.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from captures.bodies import Incoming
from captures.exchange import Exchange, bodies_of
from captures.journal_file import Journal
from captures.privacy import Stored, stored
from captures.retention import Keep, due
from captures.store import Store, StoreError

MAX_QUEUED_BYTES = 64 << 20  # body bytes waiting for the disk
MAX_QUEUED_EXCHANGES = 20_000
MAX_BATCH = 500  # exchanges in one transaction
LOOK_EVERY = 60.0  # seconds an idle recording waits before it looks at its age and size
FOREVER = Keep()

Acknowledge = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Backlog:
    """How far a recording is behind, and what it has done since it was opened. `lag` is in seconds."""

    exchanges: int
    body_bytes: int
    lag: float
    committed: int
    written_bytes: int


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

    def add(self, exchange: Exchange, acknowledge: Acknowledge) -> None:
        """Record an exchange with the bodies it holds."""

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


class Recording:
    """A store that is being written. Calls are cheap and never raise for a failing disk; `lost` counts by cause."""

    def __init__(
        self, folder: Path, observer: Observer | None = None, keep: Keep = FOREVER, setting: Stored = "full"
    ) -> None:
        """Open or make the recording. `keep` limits it by age and size, `setting` says what is stored at all.

        Raises `StoreError`.
        """
        self.store = Store.create(folder)
        self.journal_failed = False  # nothing should be rewritten meanwhile: nobody could tell later
        self._journal = Journal(self.store)
        self._keep = keep
        self._setting = setting
        self._looked: datetime | None = None
        self.lost: Counter[str] = Counter()
        self.on_trouble: Callable[[str], None] = lambda _message: None
        try:
            self.store.bodies.sweep()
        except OSError as error:
            raise StoreError(folder, f"cannot record here: {error.strerror}") from error
        self._observer = observer
        self._queue: deque[_Chunk | _End | _Row] = deque()
        self._waiting_bytes = 0
        self._waiting_rows = 0
        self._handed_over: deque[float] = deque()  # when each exchange came that is not committed yet
        self._committed = 0
        self._written_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="upshim-recording", daemon=True)
        self._thread.start()

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

    def add(self, exchange: Exchange, acknowledge: Acknowledge = lambda _recorded: None) -> None:
        """Record an exchange with the bodies it holds; `acknowledge` is called from the writer's thread."""
        with self._changed:
            if self._waiting_rows >= MAX_QUEUED_EXCHANGES or self._closing:
                self._lose("an exchange: the queue is full")
            else:
                self._waiting_rows += 1
                self._handed_over.append(time.monotonic())
                self._queue.append(_Row(exchange, acknowledge))
                self._changed.notify()
                return
        acknowledge(False)

    def backlog(self) -> Backlog:
        """How far behind it is. May be called from any thread, and never waits for the disk."""
        with self._changed:
            oldest = self._handed_over[0] if self._handed_over else None
            lag = 0.0 if oldest is None else time.monotonic() - oldest
            return Backlog(len(self._handed_over), self._waiting_bytes, lag, self._committed, self._written_bytes)

    def close(self, timeout: float = 30) -> None:
        """Write what is queued and let go; gives up after `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _lose(self, what: str) -> None:
        self.lost[what] += 1
        if self.lost[what] == 1:
            self.on_trouble(f"not recorded: {what}")

    def _run(self) -> None:
        self._guarded(self._catch_up)
        while (batch := self._next_batch()) or not self._closing:
            self._guarded(partial(self._write, batch))
            self._guarded(self._expire)
        self._journal.file.close()
        self.store.close()
        if self._observer is not None:
            self._observer.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a fault here may cost a batch, never the recording
            with self._changed:
                self._lose(f"exchanges: {error!r}")

    def _expire(self) -> None:
        now = datetime.now(UTC)
        if not (self._keep and due(self._looked, now)):
            return
        self._looked = now
        try:
            with self._journal.file.locked():
                expired = self.store.expire(self._keep.older_than(now), self._keep.bytes, now)
                if expired.exchanges:
                    entry = {"entry": "expired", "through": expired.through, "exchanges": expired.exchanges}
                    self._journal.file.append([entry])
        except (OSError, sa.exc.SQLAlchemyError) as error:
            with self._changed:
                self._lose(f"the removal of old exchanges: {_reason(error)}")

    def _write(self, batch: list[_Chunk | _End | _Row]) -> None:
        rows = [item for item in batch if isinstance(item, _Row)]
        for item in batch:
            if not isinstance(item, _Row):
                self._write_body(item)
        if rows:
            try:
                self._commit(rows)
            finally:
                with self._changed:
                    for _ in rows:
                        self._handed_over.popleft()

    def _next_batch(self) -> list[_Chunk | _End | _Row]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing, LOOK_EVERY if self._keep else None)
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            self._waiting_bytes -= sum(len(item.data) for item in batch if isinstance(item, _Chunk))
            self._waiting_rows -= sum(isinstance(item, _Row) for item in batch)
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

    def _commit(self, rows: list[_Row]) -> None:
        with self._journal_lock() as locked:
            indexes = self._store_rows(rows)
            if indexes and locked:
                self._journal_rows([replace(row.exchange, index=n) for n, row in zip(indexes, rows, strict=True)])
        self._committed += len(indexes)
        for row in rows:
            row.acknowledge(bool(indexes))
        for row in rows if indexes and self._observer is not None else ():
            self._observe(row.exchange)

    def _store_rows(self, rows: list[_Row]) -> list[int]:
        try:
            exchanges = [stored(row.exchange, self._setting) for row in rows]
            for exchange in exchanges:
                for body in bodies_of(exchange):
                    if body.data:
                        self.store.bodies.put(body.sha256, body.data)
                        self._written_bytes += len(body.data)
                    if body.encoded and body.encoded_sha256:
                        self.store.bodies.put(body.encoded_sha256, body.encoded)
                        self._written_bytes += len(body.encoded)
            return self.store.add(exchanges)
        except (OSError, sa.exc.SQLAlchemyError) as error:
            with self._changed:
                self._lose(f"exchanges: {_reason(error)}")
            return []

    @contextmanager
    def _journal_lock(self) -> Iterator[bool]:
        """Hold the journal's lock while something is committed; without it recording goes on, unjournalled."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._journal.file.locked())
                locked = True
            except OSError as error:
                locked = False
                self._journal_trouble(error)
            yield locked

    def _journal_rows(self, exchanges: list[Exchange]) -> None:
        try:
            if self.journal_failed:
                self._journal.catch_up()
            else:
                self._journal.write(exchanges)
            self.journal_failed = False
        except (OSError, sa.exc.SQLAlchemyError, StoreError) as error:
            self._journal_trouble(error)

    def _catch_up(self) -> None:
        try:
            with self._journal.file.locked():
                self._journal.catch_up()
        except (OSError, sa.exc.SQLAlchemyError, StoreError) as error:
            self._journal_trouble(error)
        if self._journal.file.torn:
            with self._changed:
                self._lose(f"the torn end of the journal ({self._journal.file.torn} bytes): the chain goes on after it")

    def _journal_trouble(self, error: Exception) -> None:
        self.journal_failed = True
        with self._changed:
            self._lose(f"in the journal: {_reason(error)}")

    def _observe(self, exchange: Exchange) -> None:
        try:
            if self._observer is not None:
                self._observer.recorded(self.store, exchange)
        except (OSError, ValueError) as error:
            with self._changed:
                self._lose(f"packets: {error}")


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def _drop_quietly(incoming: Incoming) -> None:
    try:
        incoming.drop()
    except OSError:
        # Nothing more can be done for this file; the next start removes what is left over.
        return


__all__ = ["Recording", "StoreError", "StreamedBody"]
