"""A recording written by a process of its own, so that what writing costs takes nothing from the traffic.

The proxy hands over each item at once and hears later what came of it, in the same order; the writer takes what has
come in the meantime as one batch. A frame is its length (4 bytes, little-endian), its kind, and plain values
marshalled, or a pickle where they are not plain: each end is upshim itself, and nobody else has the socket. A writer
that dies is started again and is handed what it had not answered; uids see to it that nothing is written twice. When
the proxy ends, in whatever way, the writer finds the socket closed, writes what has come, and ends too.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import pickle
import select
import signal
import socket
import struct
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from captures.errors import StoreError
from captures.exchange import bodies_held
from captures.rows import exchange_of, row_of
from captures.sink import RETRY_AFTER, Item, Lose, Reservation, Result, Sink

MAX_UNANSWERED = 20_000  # items
MAX_UNANSWERED_BYTES = 64 << 20
MAX_BATCH = 500  # items the writer takes at once
STARTS_WITHIN = 600.0  # seconds: it may have to bring a recording of an older version up to date
PIECE = 1 << 18
TOGETHER = 16  # items that are sent at once
ROW, RESERVATION, TOLD, OTHER = b"r", b"v", b"t", b"o"  # kinds of a frame
GONE = Result(False, "the process that writes the recording is gone")

_LENGTH = struct.Struct("<I")
Answer = Callable[[Result], None]


class Told(NamedTuple):
    """The results of items, in their order, and how the sink stands after them; `lost` is since the last time."""

    results: Sequence[Result]
    journal_failed: bool
    lost: dict[str, int]
    error: str = ""  # why there is no writer


class _Sent(NamedTuple):
    frame: bytes
    answer: Answer
    records: bool  # an exchange, which the recording lacks if it is not written
    at: float


class WriterLink:
    """The proxy's end. All of it is for the event loop's thread, and the loop has to be running."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        lose: Lose,
        inherited: Sequence[int] = (),
        another: Callable[[], None] = lambda: None,
    ) -> None:
        """Start `command` with the number of a descriptor behind it, which is the socket to talk over; it gets the
        descriptors `inherited` too. `another` is called when another writer has begun. Raises `StoreError` where it
        does not come to write the recording in this folder.
        """
        self._another = another
        self.journal_failed = False
        self._loop = asyncio.get_running_loop()
        self._command = command
        self._folder = folder
        self._inherited = inherited
        self._lose = lose
        self._unanswered: deque[_Sent] = deque()
        self._unanswered_bytes = 0
        self._unsent = bytearray()
        self._flushing = self._writing = False
        self._gathered = 0  # items since what was last sent
        self._closed = False
        self._proven = False  # whether this writer has ever answered
        self._starting: asyncio.Future[Any] | None = None
        self._received = bytearray()
        self._process, self._socket = self._begin()
        self._loop.add_reader(self._socket, self._read)

    def send(self, item: Item, answer: Answer) -> None:
        """Hand over an item; `answer` is called once, from the loop."""
        frame = framed(item)
        full = len(self._unanswered) >= MAX_UNANSWERED or self._unanswered_bytes + len(frame) > MAX_UNANSWERED_BYTES
        if full or self._closed:
            if item.exchange is not None:
                self._lose("an exchange: too much waits to be written")
            answer(GONE)
            return
        self._unanswered.append(_Sent(frame, answer, item.exchange is not None, time.monotonic()))
        self._unanswered_bytes += len(frame)
        if self._process is None:
            return  # the next writer begins with it
        self._unsent += frame
        self._gathered += 1
        if self._writing:
            return
        if self._gathered >= TOGETHER or len(self._unanswered) == 1:
            self._flush()  # the writer is to be at work while we are
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_gathered)  # with what else comes in this turn of the loop

    @property
    def writer(self) -> int | None:
        """The process that writes, while there is one. For any thread."""
        process = self._process
        return None if process is None else process.pid

    @property
    def waiting(self) -> tuple[int, float]:
        """How many items are not answered, and the age of the oldest in seconds. For any thread."""
        try:
            oldest = self._unanswered[0].at
        except IndexError:
            return 0, 0.0
        return len(self._unanswered), time.monotonic() - oldest

    def wait(self, answered: Callable[[], bool], seconds: float) -> None:
        """Hold up the loop until something is answered; no longer than this."""
        deadline = time.monotonic() + seconds
        while not answered() and self._process is not None and (left := deadline - time.monotonic()) > 0:
            if self._unsent:
                self._flush()
            readable, _, _ = select.select([self._socket], [self._socket] if self._unsent else [], [], left)
            if readable:
                self._read()

    def close(self, timeout: float) -> None:
        """Have everything written and let the writer end; gives up after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._closed = True
        if self._process is None:
            self._give_up("there is no process that writes")
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        try:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            self._socket.sendall(self._unsent)
            self._socket.shutdown(socket.SHUT_WR)
            while data := self._socket.recv(PIECE):
                self._received += data
                self._take()
                self._socket.settimeout(max(0.01, deadline - time.monotonic()))
        except OSError:
            pass  # it hangs, or is gone
        self._socket.close()
        self._give_up("the process that writes does not answer")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.01, deadline - time.monotonic()))
        self._process = None

    def _begin(self) -> tuple[subprocess.Popen[bytes] | None, socket.socket]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - ourselves
                [*self._command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), *self._inherited],
                start_new_session=True,  # whoever interrupts us in a terminal does not mean the writer
            )
        ours.settimeout(STARTS_WITHIN)
        try:
            told: Told = receive(ours)
        except (OSError, EOFError) as error:
            told = Told((), False, {}, f"the process that writes does not start: {error}")
        ours.setblocking(False)
        if told.error:
            ours.close()
            process.kill()
            process.wait()
            raise StoreError(self._folder, told.error)
        return process, ours

    def _flush_gathered(self) -> None:
        self._flushing = False
        if self._unsent:
            self._flush()

    def _flush(self) -> None:
        self._gathered = 0
        if self._process is None:
            return
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the reader finds out
        del self._unsent[:sent]
        if bool(self._unsent) is not self._writing:
            self._writing = bool(self._unsent)
            if self._writing:
                self._loop.add_writer(self._socket, self._flush)
            else:
                self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            data = self._socket.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._died()
            return
        self._received += data
        self._take()

    def _take(self) -> None:
        for told in taken(self._received):
            self._proven = True
            self.journal_failed = told.journal_failed
            for what, times in told.lost.items():
                for _ in range(times):
                    self._lose(what)
            for result in told.results:
                sent = self._unanswered.popleft()
                self._unanswered_bytes -= len(sent.frame)
                sent.answer(result)

    def _died(self) -> None:
        """Have another writer begin with what is not answered; what ends two of them in a row is given up."""
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self._writing = False
        self._received.clear()
        self._unsent.clear()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self.journal_failed = True
        if self._proven:
            self._lose("nothing yet: the process that writes has died, another one goes on")
        else:
            self._give_up("the process that writes has died of them")
        self._loop.call_later(RETRY_AFTER, self._begin_again)

    def _begin_again(self) -> None:
        self._starting = self._loop.run_in_executor(None, self._begin)
        self._starting.add_done_callback(self._begun)

    def _begun(self, started: asyncio.Future[Any]) -> None:
        self._starting = None
        if started.cancelled():
            return
        if (error := started.exception()) is not None:
            self._give_up(str(error))
            self._loop.call_later(RETRY_AFTER, self._begin_again)
            return
        self._process, self._socket = started.result()
        self._proven = self.journal_failed = False
        self._loop.add_reader(self._socket, self._read)
        self._unsent += b"".join(sent.frame for sent in self._unanswered)
        self._flush()
        self._another()

    def _give_up(self, why: str) -> None:
        self._unsent.clear()
        self._unanswered_bytes = 0
        while self._unanswered:
            sent = self._unanswered.popleft()
            if sent.records:
                self._lose(f"exchanges: {why}")
            sent.answer(GONE)


def serve(descriptor: int, open_sink: Callable[[Lose], Sink]) -> None:
    """The writer: take what comes until the other end is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the other end says when it is over
    lost: Counter[str] = Counter()

    def lose(what: str) -> None:
        lost[what] += 1

    def lose_each(batch: Sequence[Item], what: str) -> None:
        lost[what] += max(1, sum(item.exchange is not None for item in batch))

    with socket.socket(fileno=descriptor) as ours, contextlib.suppress(OSError, EOFError):
        try:
            sink = open_sink(lose)
            sink.bodies.sweep()
        except (StoreError, OSError) as error:
            why = error.reason if isinstance(error, StoreError) else str(error)
            ours.sendall(framed(Told((), False, {}, why)))
            return
        ours.sendall(framed(Told((), sink.journal_failed, {})))
        attempt(sink.start, lose)
        try:
            for batch in batches(ours, lambda: sink.tidying):
                if batch:
                    results = attempt(partial(sink.write, batch), partial(lose_each, batch))
                    told = Told(results or [Result(False)] * len(batch), sink.journal_failed, dict(lost))
                    lost.clear()
                    ours.sendall(framed(told))
                attempt(sink.go_on, lose)
        finally:
            sink.close()


def batches(connection: socket.socket, busy: Callable[[], bool]) -> Iterator[list[Item]]:
    """What has come, again and again; nothing where nothing has and who asks is busy with something else.

    Ends where the other end is closed. Raises `OSError`.
    """
    received = bytearray()
    while True:
        if busy() and not select.select([connection], [], [], 0)[0]:
            yield []
            continue
        data = connection.recv(PIECE)
        if not data:
            return
        received += data
        while batch := taken(received):
            yield batch


def attempt(work: Callable[[], Any], lose: Lose) -> Any:
    """What comes of it; a fault costs a batch, never the writer."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - as above
        lose(f"exchanges: {error!r}")
        return None


def framed(message: Item | Told) -> bytes:
    """A message as it goes over the socket."""
    kind, plain = _plain(message)
    if kind != OTHER:
        try:
            data = kind + marshal.dumps(plain)  # a third of what it takes to pickle an exchange
        except ValueError:  # a fact of other than plain values
            kind = OTHER
    if kind == OTHER:
        data = OTHER + pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


def _plain(message: Item | Told) -> tuple[bytes, Any]:
    """The frequent messages as plain values, and which of them it is."""
    if isinstance(message, Told):
        if all(result.value is None for result in message.results):
            return TOLD, ([result.done for result in message.results], *message[1:])
    elif message.exchange is not None:
        exchange = message.exchange
        facts = [dict(fact) for fact in exchange.facts]
        return ROW, (message.uid, row_of(exchange), facts, bodies_held([exchange]))
    elif message.reservation is not None:
        return RESERVATION, (message.uid, *message.reservation)
    return OTHER, None


def _message(data: bytes | bytearray) -> Any:
    kind = data[:1]
    if kind == OTHER:
        return pickle.loads(data[1:])  # noqa: S301 - from ourselves
    plain = marshal.loads(data[1:])  # noqa: S302
    if kind == TOLD:
        done, *rest = plain
        return Told([Result(one) for one in done], *rest)
    if kind == RESERVATION:
        uid, *reservation = plain
        return Item(uid, reservation=Reservation(*reservation))
    uid, row, facts, held = plain
    return Item(uid, exchange_of(row, facts, "live", 0, held))


def taken(received: bytearray, most: int = MAX_BATCH) -> list[Any]:
    """The first messages that are there in full; they are taken away."""
    found: list[Any] = []
    at = 0
    while len(found) < most and len(received) >= at + _LENGTH.size:
        start = at + _LENGTH.size
        end = start + _LENGTH.unpack_from(received, at)[0]
        if len(received) < end:
            break
        found.append(_message(received[start:end]))
        at = end
    del received[:at]
    return found


def receive(connection: socket.socket) -> Any:
    """The next message, and nothing behind it. Raises `OSError`, and `EOFError` where the other end is closed."""
    received = bytearray()
    wanted = _LENGTH.size
    while len(received) < wanted:
        data = connection.recv(wanted - len(received))
        if not data:
            raise EOFError("the other end is closed")
        received += data
        if len(received) == _LENGTH.size:
            wanted += _LENGTH.unpack(received)[0]
    return taken(received)[0]
