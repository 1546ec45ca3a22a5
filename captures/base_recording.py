"""What records while traffic flows: a bounded queue before a thread of its own that writes bodies arriving in pieces.

The proxy never waits for a disk except where it asks for an acknowledgement, and then no longer than it says. When the
queue is full or the disk fails, recording loses something and counts it; traffic goes on. Who commits the exchanges is
for recording.py (this thread) and live_recording.py (another process).
"""

from __future__ import annotations

import secrets
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from captures.bodies import BodyFiles, Incoming
from captures.database_url import Place
from captures.errors import StoreError
from captures.exchange import Exchange, bodies_of
from captures.privacy import Stored
from captures.retention import Keep, due
from captures.sink import Item, Question, Reservation, Result

MAX_QUEUED_BYTES = 32 << 20  # body bytes waiting for the disk
MAX_BATCH = 500  # exchanges in one transaction
LOOK_EVERY = 60.0  # seconds an idle recording waits before it looks at its age and size
FOREVER = Keep()

Acknowledge = Callable[[bool], None]
Answer = Callable[[Result], None]


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

    def recorded(self, bodies: BodyFiles, exchange: Exchange) -> None:
        """An exchange has been committed, and its bodies are kept."""

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
class Handed:
    """Something to be written or answered, and who hears what came of it."""

    item: Item
    answer: Answer


# An exchange is one that is committed, for the observer; an event is set when all before it is done.
Queued = _Chunk | _End | Handed | Exchange | threading.Event


class BaseRecording(ABC):
    """A recording that grows. Calls are cheap and never raise for a failing disk; `lost` counts by cause."""

    def __init__(self, place: Place, bodies: BodyFiles, observer: Observer | None, keep: Keep, setting: Stored) -> None:
        """`keep` limits it by age and size, `setting` says what is stored at all. Raises `StoreError`."""
        self.place = place
        self.bodies = bodies
        self.on_trouble: Callable[[str], None] = lambda _message: None
        self._keep = keep
        self._setting = setting
        self._looked: datetime | None = None
        self._observer = observer
        self.lost: Counter[str] = Counter()
        self._queue: deque[Queued] = deque()
        self._waiting_bytes = 0
        self._committed = 0
        self._written_bytes = 0
        self._closing = False
        self._changed = threading.Condition()
        try:
            self.bodies.sweep()
        except OSError as error:
            raise StoreError(self.folder, f"cannot record here: {error.strerror}") from error
        self._thread = threading.Thread(target=self._run, name="upshim-recording", daemon=True)

    @property
    def folder(self) -> Path:
        """What is on this machine; of a recording in a folder, all of it."""
        return self.bodies.folder.parent

    @property
    @abstractmethod
    def journal_failed(self) -> bool:
        """Nothing should be rewritten meanwhile: nobody could tell later."""

    @property
    def writer(self) -> int | None:
        """The process that writes it, where that is another one and is there. May be called from any thread."""
        return None

    @property
    @abstractmethod
    def behind(self) -> str:
        """Why what has happened is not all in the store; blank where it is, or will be in a moment."""

    @abstractmethod
    def backlog(self) -> Backlog:
        """How far behind it is. May be called from any thread, and never waits for the disk."""

    @abstractmethod
    def add(
        self, exchange: Exchange, acknowledge: Acknowledge = lambda _recorded: None, uid: str | None = None
    ) -> None:
        """Record an exchange with the bodies it holds; `acknowledge` is called once, from some thread.

        `uid` is what `fetch` or `reserve` was told beforehand.
        """

    @abstractmethod
    def put(self, item: Item, answer: Answer) -> None:
        """Have something written or answered behind what came before; `answer` is called once, from some thread."""

    def fetch(self, uid: str, fetch: Mapping[str, Any]) -> None:
        """A download begins, whose exchange will have this uid; for the projection, as plain JSON values."""
        self.put(Item(uid, fetch=dict(fetch)), lambda _result: None)

    def reserve(self, uid: str, reservation: Reservation, answer: Answer) -> None:
        """An offer is about to be made, in the exchange of this uid."""
        self.put(Item(uid, reservation=reservation), answer)

    def ask(self, question: Question, answer: Answer) -> None:
        """Ask the store. May be called from any thread."""
        self.put(Item(question=question), answer)

    def wait(self, answered: threading.Event, seconds: float) -> bool:
        """Wait for an answer in whatever thread this is; whether it came in time."""
        return answered.wait(seconds)

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
            self._enqueue(_Chunk(body, data))

    def finish(self, body: StreamedBody, sha256: str | None) -> None:
        """End a streamed body; without a hash it is dropped."""
        self._enqueue(_End(body, sha256))

    def close(self, timeout: float = 30) -> None:
        """Write what is queued and let go; gives up after `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    @abstractmethod
    def _begin(self) -> None:
        """The thread has begun."""

    @abstractmethod
    def _work(self, handed: list[Handed]) -> None:
        """Commit and answer these, behind whose bodies the thread now is; called every now and then with none, too."""

    @abstractmethod
    def _idle(self) -> float:
        """Seconds after which `_work` is called if nothing comes."""

    @abstractmethod
    def _end(self) -> None:
        """All is done."""

    def _enqueue(self, one: Queued) -> None:
        with self._changed:
            self._queue.append(one)
            self._changed.notify()

    def _lose(self, what: str) -> None:
        with self._changed:
            self.lost[what] += 1
            first = self.lost[what] == 1
        if first:
            self.on_trouble(f"not recorded: {what}")

    def _run(self) -> None:
        self._guarded(self._begin)
        batch: list[Queued] = []
        while True:
            handed = [one for one in batch if isinstance(one, Handed)]
            for one in batch:
                if isinstance(one, _Chunk | _End):
                    self._write_body(one)
                elif isinstance(one, Exchange):
                    self._observe(one)
            self._guarded(partial(self._work, handed))
            for one in batch:
                if isinstance(one, threading.Event):
                    one.set()
            batch = self._next_batch()
            if not batch and self._closing:
                break
        self._guarded(self._end)
        if self._observer is not None:
            self._observer.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a fault here may cost a batch, never the recording
            self._lose(f"exchanges: {error!r}")

    def _tidy_when_due(self, tidy: Callable[[Keep], None]) -> None:
        now = datetime.now(UTC)
        if due(self._looked, now):
            self._looked = now
            tidy(self._keep)

    def _next_batch(self) -> list[Queued]:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing, self._idle())
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            self._waiting_bytes -= sum(len(one.data) for one in batch if isinstance(one, _Chunk))
        return batch

    def _committed_one(self, exchange: Exchange) -> None:
        held = (len(body.data or b"") + len(body.encoded or b"") for body in bodies_of(exchange))
        self._committed += 1
        self._written_bytes += sum(held)

    def _write_body(self, item: _Chunk | _End) -> None:
        body = item.body
        try:
            if isinstance(item, _Chunk):
                if body.lost:
                    return
                if body.incoming is None:
                    body.incoming = self.bodies.begin()
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
                self._observer.recorded(self.bodies, exchange)
        except (OSError, ValueError) as error:
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
