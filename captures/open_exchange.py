"""An exchange while its messages are still arriving, and the order in which finished ones are handed on."""

from __future__ import annotations

from collections import Counter, deque
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from captures.bodies import BodyFiles
from captures.body_reader import NO_BODY, BodyReader, BodyValues, Keeping
from captures.exchange import (
    Exchange,
    Fact,
    Headers,
    Request,
    body_of,
    exchange_of,
    request_of,
    response_of,
)
from captures.items import CaptureSummary, JoinedObject, Observation
from captures.objects import ObjectJoiner
from dissectors.http1 import RequestHead, ResponseHead

MAX_PROBLEMS = 20  # of one exchange
MAX_HELD_BACK = 1000  # finished exchanges waiting for an earlier one
MAX_HELD_BYTES = 32 << 20  # bodies held by them

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def moment(nanoseconds: int) -> datetime:
    """A capture's time as UTC; times no calendar has are moved to the last or first day of it."""
    micros = nanoseconds // 1000
    return _EPOCH + timedelta(0, 0, micros if 0 <= micros <= _LAST else max(min(micros, _LAST), 0))


class OpenExchange:
    """What is known so far. `anchor` is the place in the answers' stream the client had received when it asked."""

    __slots__ = (
        "anchor",
        "anchor_seen",
        "index",
        "interim",
        "problems",
        "request",
        "request_body",
        "request_done",
        "request_ended",
        "response",
        "response_body",
        "response_done",
        "response_ended",
        "response_started",
        "started",
        "whole",
    )

    def __init__(self, index: int, started: int) -> None:
        self.index = index
        self.started = started
        self.anchor: int | None = None
        self.anchor_seen = False
        self.request: RequestHead | None = None
        self.request_body: BodyReader | None = None
        self.request_done = False
        self.request_ended: int | None = None
        self.interim: list[tuple[int, str, Headers]] = []
        self.response: ResponseHead | None = None
        self.response_body: BodyReader | None = None
        self.response_done = False
        self.response_started: int | None = None
        self.response_ended: int | None = None
        self.problems: list[str] = []
        self.whole = True

    def problem(self, text: str, *, broken: bool = False) -> None:
        """Note a problem; `broken` if the messages are not whole because of it."""
        self.whole = self.whole and not broken
        if text not in self.problems and len(self.problems) < MAX_PROBLEMS:
            self.problems.append(text)

    def close(self, capture: str, client: str, server: str, connection: str, client_mac: str) -> Finished:
        """The exchange as it will be shown."""
        request_body = self._body(self.request_body, " (request)")
        response_body = self._body(self.response_body, "")
        asked, answer = self.request, self.response
        return Finished(
            capture,
            self.index,
            client,
            server,
            connection,
            client_mac,
            self.started,
            self.request_ended,
            self.response_started,
            self.response_ended,
            None if asked is None else (asked.method, asked.target, asked.version, asked.headers),
            request_body,
            None if answer is None else (answer.status, answer.reason, answer.version, answer.headers),
            response_body,
            tuple(self.interim),
            self.whole,
            tuple(self.problems),
        )

    def _body(self, reader: BodyReader | None, whose: str) -> BodyValues:
        if reader is None:
            return NO_BODY
        body = reader.finish()
        for text in reader.problems:
            self.problem(text + whose, broken=bool(reader.missing))
        return body


class Finished(NamedTuple):
    """An exchange that is over, as plain values: they cost little to wait with and to give to another process."""

    capture: str
    number: int
    client: str
    server: str
    connection: str
    client_mac: str
    started: int
    request_ended: int | None
    response_started: int | None
    response_ended: int | None
    request: tuple[str, str, str, Headers] | None
    request_body: BodyValues
    response: tuple[int, str, str, Headers] | None
    response_body: BodyValues
    interim: tuple[tuple[int, str, Headers], ...]
    complete: bool
    problems: tuple[str, ...]
    facts: tuple[Fact, ...] = ()

    @property
    def held(self) -> int:
        """The bytes of bodies it holds."""
        asked, answered = self.request_body, self.response_body
        return len(asked[4] or b"") + len(asked[5] or b"") + len(answered[4] or b"") + len(answered[5] or b"")

    def exchange(self) -> Exchange:
        """The exchange itself."""
        started, request_ended, response_started = self.started, self.request_ended, self.response_started
        answer = self.response
        return exchange_of(
            self.capture,
            self.number,
            self.client,
            self.server,
            moment(started),
            moment(max(started, request_ended or 0, self.response_ended or 0)),
            Request("", "") if self.request is None else request_of(*self.request, body_of(*self.request_body)),
            None if answer is None else response_of(*answer, body_of(*self.response_body), self.interim),
            self.complete,
            self.problems,
            self.facts,
            None,
            None,
            self.connection,
            None if request_ended is None else moment(request_ended),
            None if response_started is None else moment(response_started),
            self.client_mac,
        )


PlainItem = Finished | Observation | JoinedObject | CaptureSummary


class Recorder:
    """What all connections of a capture share. Finished exchanges come out of `ready` in the order they began, as far
    as the bounds on waiting allow.
    """

    def __init__(
        self, capture: str, hold: int, files: BodyFiles | None, counts: Counter[str], *, ordered: bool = True
    ) -> None:
        self.capture = capture
        self.keeping = Keeping(hold, files)
        self.counts = counts
        self.joiner = ObjectJoiner(capture, files)
        self.ready: deque[Finished | Observation] = deque()
        self._ordered = ordered
        self._begun = 0
        self._next = 0
        self._held: dict[int, Finished] = {}
        self._held_bytes = 0
        self._observed: deque[tuple[int, Observation]] = deque()  # with the number of exchanges begun before

    def begin(self, started: int) -> OpenExchange:
        """A new exchange; its index tells the order of beginning."""
        opened = OpenExchange(self._begun, started)
        self._begun += 1
        return opened

    def finish(self, exchange: Finished) -> None:
        """Hand on a finished exchange, after those that began before it."""
        self.counts["exchanges"] += 1
        if not exchange.complete:
            self.counts["exchanges incomplete"] += 1
            self.joiner.broken_off(exchange.exchange())
        if exchange.number < self._next or not self._ordered:
            self.ready.append(exchange)
            return
        if exchange.number == self._next and not self._held and not self._observed:
            self._next += 1
            self.ready.append(exchange)
            return
        self._held[exchange.number] = exchange
        self._held_bytes += exchange.held
        while self._next in self._held:
            self._release(self._next)
        if len(self._held) > MAX_HELD_BACK or self._held_bytes > MAX_HELD_BYTES:
            self.flush()

    def observe(self, observation: Observation) -> None:
        """Hand on what was seen beside the exchanges, after those that began before it."""
        self.counts["observations"] += 1
        if self._next >= self._begun or not self._ordered:
            self.ready.append(observation)
            return
        self._observed.append((self._begun, observation))
        if len(self._observed) > MAX_HELD_BACK:
            self.flush()

    def flush(self) -> None:
        """Hand on all that waits."""
        for index in sorted(self._held):
            self._release(index)
        while self._observed:
            self.ready.append(self._observed.popleft()[1])

    def _release(self, index: int) -> None:
        exchange = self._held.pop(index)
        self._held_bytes -= exchange.held
        while self._observed and self._observed[0][0] <= index:
            self.ready.append(self._observed.popleft()[1])
        self._next = index + 1
        self.ready.append(exchange)
        if self._next >= self._begun:
            while self._observed:
                self.ready.append(self._observed.popleft()[1])
