"""An exchange while its messages are still arriving, and the order in which finished ones are handed on."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from captures.bodies import BodyFiles
from captures.body_reader import BodyReader, Keeping
from captures.exchange import Body, Exchange, Headers, Request, Response
from captures.items import Observation
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

    def close(self, capture: str, client: str, server: str, connection: str, client_mac: str) -> Exchange:
        """The exchange as it will be shown."""
        request_body = self._body(self.request_body, " (request)")
        response_body = self._body(self.response_body, "")
        head, answer = self.request, self.response
        request = (
            Request(head.method, head.target, head.version, head.headers, request_body) if head else Request("", "")
        )
        response = None
        if answer is not None:
            response = Response(
                answer.status, answer.reason, answer.version, answer.headers, response_body, tuple(self.interim)
            )
        ended = max(self.started, self.request_ended or 0, self.response_ended or 0)
        return Exchange(
            capture,
            self.index,
            client,
            server,
            moment(self.started),
            moment(ended),
            request,
            response,
            complete=self.whole,
            problems=tuple(self.problems),
            connection=connection,
            request_ended=None if self.request_ended is None else moment(self.request_ended),
            response_started=None if self.response_started is None else moment(self.response_started),
            client_mac=client_mac,
        )

    def _body(self, reader: BodyReader | None, whose: str) -> Body:
        if reader is None:
            return Body()
        body = reader.finish()
        for text in reader.problems:
            self.problem(text + whose, broken=bool(reader.missing))
        return body


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
        self.ready: deque[Exchange | Observation] = deque()
        self.on_exchange: Callable[[Exchange], None] = lambda _exchange: None
        self._ordered = ordered
        self._begun = 0
        self._next = 0
        self._held: dict[int, tuple[Exchange, int]] = {}  # with the bytes of bodies it holds
        self._held_bytes = 0
        self._observed: deque[tuple[int, Observation]] = deque()  # with the number of exchanges begun before

    def begin(self, started: int) -> OpenExchange:
        """A new exchange; its index tells the order of beginning."""
        opened = OpenExchange(self._begun, started)
        self._begun += 1
        return opened

    def finish(self, exchange: Exchange) -> None:
        """Hand on a finished exchange, after those that began before it."""
        self.counts["exchanges"] += 1
        if not exchange.complete:
            self.counts["exchanges incomplete"] += 1
            self.joiner.broken_off(exchange)
        if exchange.index < self._next or not self._ordered:
            self.ready.append(exchange)
            return
        if exchange.index == self._next and not self._held and not self._observed:
            self._next += 1
            self.ready.append(exchange)
            return
        size = _held(exchange)
        self._held[exchange.index] = exchange, size
        self._held_bytes += size
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
        exchange, size = self._held.pop(index)
        self._held_bytes -= size
        while self._observed and self._observed[0][0] <= index:
            self.ready.append(self._observed.popleft()[1])
        self._next = index + 1
        self.ready.append(exchange)
        if self._next >= self._begun:
            while self._observed:
                self.ready.append(self._observed.popleft()[1])


def _held(exchange: Exchange) -> int:
    body = exchange.request.body
    size = len(body.data or b"") + len(body.encoded or b"")
    if exchange.response is not None:
        body = exchange.response.body
        size += len(body.data or b"") + len(body.encoded or b"")
    return size
