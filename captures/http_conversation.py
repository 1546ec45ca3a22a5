"""The HTTP/1.x of one TCP connection: which side asks, which answer belongs to which request, what is missing.

Answers belong to requests in order. Two things make that hold on captures as they are:

- An answer that comes before its request (packets of the two directions out of order) waits for it, within bounds.
- Every request remembers its *anchor*: how far into the answers the client had acknowledged when it asked. Its answer
  cannot start before that place, and without pipelining starts exactly there. So, after a gap has swallowed messages,
  the next answer finds its request again, and an answer nobody can have asked for yet is not given to a later request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from captures.body_reader import BodyReader
from captures.exchange import endpoint, header
from captures.open_exchange import OpenExchange, Recorder
from captures.partial import join_parts
from captures.tcp import Connection, Sink
from dissectors.http1 import (
    Framing,
    Headers,
    Kind,
    Reader,
    RequestHead,
    ResponseHead,
    request_framing,
    response_framing,
)
from dissectors.http1.reader import Role, State, begins_message, broken_off

MAX_OUTSTANDING = 1000  # requests without answers on one connection
MAX_QUEUED = 256 << 10  # bytes of answers that wait for their request
MAX_QUEUED_EVENTS = 64
MAX_INTERIM = 100  # kept of one exchange

Address = Callable[[bytes], str]
Claim = Callable[[Connection, int, bytes], tuple[Sink, Sink] | None]


class Conversation:
    """One connection. It starts undecided: the side whose bytes begin like a request is the client."""

    def __init__(self, connection: Connection, recorder: Recorder, address: Address, claims: tuple[Claim, ...]) -> None:
        self.connection = connection
        self.recorder = recorder
        self.outstanding: deque[OpenExchange] = deque()
        self.uncertain = False  # messages may have been missed: answers no longer follow by order alone
        self.preludes = (_Prelude(self, 0, claims), _Prelude(self, 1, claims))
        self.server: _ServerSide | None = None
        self._address = address
        self._names = ("", "", "")

    def decide(self, side: int, role: Role) -> None:
        """Make `side` the one that sends messages of this role, and let both read what came so far."""
        asking = side if role == "request" else 1 - side
        halves = self.connection.halves
        client = _ClientSide(self, asking)
        self.server = server = _ServerSide(self, 1 - asking, client)
        ends = self.connection.endpoints
        there = (
            endpoint(self._address(ends.source), ends.source_port),
            endpoint(self._address(ends.target), ends.target_port),
        )
        self._names = there[asking], there[1 - asking], ends.macs[asking]
        self.recorder.counts["HTTP connections"] += 1
        for index, sink in ((asking, client), (1 - asking, server)):
            prelude = self.preludes[index]
            sink.reader.position = halves[index].position - prelude.size
            if index in self.connection.open_halves:
                halves[index].attach(sink)
            sink.passed_over = prelude.passed_over
            for event in prelude.events:
                sink.take(event)

    @property
    def server_name(self) -> str:
        """The server's address and port."""
        return self._names[1]

    def request_for(self, position: int) -> OpenExchange | None:
        """The request that an answer starting at `position` belongs to, taken out of the outstanding ones."""
        queue = self.outstanding
        if not queue:
            return None
        if not self.uncertain:
            first = queue[0]
            if first.anchor_seen and first.anchor is not None and first.anchor > position:
                return None  # asked when this answer had been received already
            return queue.popleft()
        chosen = self._anchored(position)
        if chosen is None:
            return None
        while (skipped := queue.popleft()) is not chosen:
            skipped.problem("no answer: it fell into a gap of the capture", broken=True)
            self.give_up(skipped)
        return chosen

    def _anchored(self, position: int) -> OpenExchange | None:
        for exchange in self.outstanding:
            if exchange.anchor == position:
                self.uncertain = False
                return exchange
        candidates = [one for one in self.outstanding if one.anchor is None or one.anchor <= position]
        if not candidates:
            return None
        nearest = max(one.anchor or 0 for one in candidates)
        group = [one for one in candidates if (one.anchor or 0) == nearest]
        if len(group) > 1:
            group[0].problem("the answer is the next one after a gap and may belong to another pipelined request")
        return group[0]

    def settle(self, exchange: OpenExchange) -> None:
        """Hand the exchange on, now that both its messages are over."""
        client, server, mac = self._names
        number = str(self.connection.number)
        self.recorder.finish(exchange.close(self.recorder.capture, client, server, number, mac))

    def give_up(self, exchange: OpenExchange) -> None:
        """Wait no longer for an answer."""
        exchange.response_done = True
        if exchange.request_done:
            self.settle(exchange)

    def finish(self) -> None:
        """No answers will follow."""
        while self.outstanding:
            exchange = self.outstanding.popleft()
            other = self.server.passed_over if self.server else 0
            instead = f"; {other} bytes that are no HTTP answer came on the connection" if other else ""
            exchange.problem(f"no answer in the capture{instead}", broken=True)
            self.give_up(exchange)


Event = tuple[str, bytes, int, int]  # ("data", data, time, ack), ("hole", b"", time, size) or ("end:how", b"", time, 0)


class _Prelude:
    """A direction before it is known to be HTTP."""

    def __init__(self, conversation: Conversation, side: int, claims: tuple[Claim, ...]) -> None:
        self.events: list[Event] = []
        self.size = 0  # bytes and holes in the events
        self.seen = 0
        self.passed_over = 0
        self._text = b""
        self._conversation = conversation
        self._side = side
        self._claims = claims

    def data(self, data: bytes, time: int, ack: int) -> None:
        conversation = self._conversation
        connection, counts = conversation.connection, conversation.recorder.counts
        first = not any(prelude.seen for prelude in conversation.preludes)
        self.seen += len(data)
        if first:
            for claim in self._claims:
                if sinks := claim(connection, self._side, data):
                    for half, sink in zip(connection.halves, sinks, strict=True):
                        half.attach(sink)
                    sinks[self._side].data(data, time, ack)
                    return
            if data[0] in range(0x14, 0x18) and data[1:2] == b"\3":
                counts["TLS connections"] += 1
        self._text += data
        self.size += len(data)
        self.events.append(("data", data, time, ack))
        begins: dict[Role, bool | None] = {
            "request": begins_message("request", self._text),
            "response": begins_message("response", self._text),
        }
        for role, begun in begins.items():
            if begun:
                conversation.decide(self._side, role)
                return
        if None not in begins.values():
            self._forget()

    def hole(self, size: int, time: int) -> None:
        role = self._broken_off()
        if role is None:
            self._forget()
        self.events.append(("hole", b"", time, size))
        self.size += size
        if role is not None:
            self._conversation.decide(self._side, role)

    def conflict(self, size: int) -> None:
        """It is counted; no message is there to say it of."""

    def end(self, how: str, time: int) -> None:
        role = self._broken_off()
        self.events.append((f"end:{how}", b"", time, 0))
        if role is not None:
            self._conversation.decide(self._side, role)
            return
        connection = self._conversation.connection
        if not connection.open_halves and any(prelude.seen for prelude in self._conversation.preludes):
            self._conversation.recorder.counts["connections that are not HTTP"] += 1

    def _broken_off(self) -> Role | None:
        roles: tuple[Role, ...] = ("request", "response")
        return next((role for role in roles if broken_off(role, self._text)), None)

    def _forget(self) -> None:
        self._conversation.recorder.counts["bytes not read as HTTP"] += len(self._text)
        self.passed_over += len(self._text)
        self.events.clear()
        self.size = 0
        self._text = b""


def _nothing(_data: bytes) -> None:
    """Take bytes of a body nobody asked about."""


def _not_shown(trailers: Headers) -> str:
    names = ", ".join(sorted({name for name, _ in trailers})[:5])
    return f"{len(trailers)} trailer fields not shown: {names}"


class _Side:
    """What both directions share: the reader, the time of what it reads, and the exchange it is about."""

    role: Role

    def __init__(self, conversation: Conversation, index: int) -> None:
        self.conversation = conversation
        self.half = conversation.connection.halves[index]
        self.reader = Reader(self.role, self)
        self.first = 0  # time of the first piece of the message under way
        self.time = 0
        self.exchange: OpenExchange | None = None
        self.passed_over = 0
        self.body: Callable[[bytes], None] = _nothing
        self._body_reader: BodyReader | None = None

    # The reader's handler, as far as both do the same.

    def head(self, head: RequestHead | ResponseHead, position: int) -> Framing:
        raise NotImplementedError

    def done(self, trailers: Headers, problems: tuple[str, ...]) -> None:
        raise NotImplementedError

    def malformed(self, reason: str, position: int) -> None:
        raise NotImplementedError

    def missing(self, size: int) -> None:
        if self._body_reader is not None:
            self._body_reader.hole(size)

    def lost(self, _reason: str) -> None:
        self.conversation.uncertain = True

    def skipped(self, size: int) -> None:
        self.passed_over += size
        name = "bytes in tunnels" if self.reader.state is State.TUNNEL else "bytes not read as HTTP"
        self.conversation.recorder.counts[name] += size

    # The sink of a TCP direction.

    def data(self, data: bytes, time: int, ack: int) -> None:
        raise NotImplementedError

    def hole(self, size: int, time: int) -> None:
        raise NotImplementedError

    def end(self, how: str, time: int) -> None:
        raise NotImplementedError

    def conflict(self, size: int) -> None:
        if self.exchange is not None:
            self.exchange.problem(f"conflict: a repeated segment differs in {size} bytes; the first copy stands")

    def take(self, event: Event) -> None:
        """Take an event that has waited."""
        kind, data, time, value = event
        if kind == "data":
            self.data(data, time, value)
        elif kind == "hole":
            self.hole(value, time)
        else:
            self.end(kind.removeprefix("end:"), time)

    def _start_body(self, head: RequestHead | ResponseHead, framing: Framing) -> BodyReader:
        reader = BodyReader(head.content_codings + framing.codings, self.conversation.recorder.keeping)
        self._body_reader = reader
        return reader

    def _note(self, exchange: OpenExchange, remarks: tuple[str, ...], whose: str, *, broken: bool = False) -> None:
        for remark in remarks:
            exchange.problem(remark + whose, broken=broken)


class _ClientSide(_Side):
    role: Role = "request"

    def __init__(self, conversation: Conversation, index: int) -> None:
        super().__init__(conversation, index)
        self._answers = conversation.connection.halves[1 - index]
        self._ack = 0  # what came with the first piece of the head under way
        self._last_ack = 0

    def data(self, data: bytes, time: int, ack: int) -> None:
        reader = self.reader
        if not reader.room and reader.at_boundary:
            self.first = time
        self.time = time
        self._last_ack = ack
        if not reader.in_head:  # an early answer is acknowledged by the rest of the head, and belongs to it
            self._ack = ack
        reader.feed(data)
        self.half.room = reader.room
        server = self.conversation.server
        if server is not None and server.queue:
            server.pump()

    def hole(self, size: int, time: int) -> None:
        self.time = time
        self.reader.hole(size)
        self.half.room = self.reader.room
        self._pump()

    def end(self, how: str, time: int) -> None:
        self.time = time
        self.reader.finish(how)
        self._pump(force=True)
        if not self.conversation.connection.open_halves:
            self.conversation.finish()

    def _pump(self, *, force: bool = False) -> None:
        server = self.conversation.server
        if server is not None:
            server.client_ended = server.client_ended or force
            if server.queue:
                server.pump()

    def head(self, head: RequestHead | ResponseHead, position: int) -> Framing:  # noqa: ARG002
        assert isinstance(head, RequestHead)  # noqa: S101 - a request reader reads requests
        exchange = self._begin()
        exchange.request = head
        framing = request_framing(head)
        if remarks := head.notes + framing.notes:
            self._note(exchange, remarks, " (request)")
        if faults := head.faults + framing.faults:
            self._note(exchange, faults, " (request)", broken=True)
        exchange.request_body = self._start_body(head, framing)
        self.body = exchange.request_body.taker()
        return framing

    def malformed(self, reason: str, position: int) -> None:  # noqa: ARG002
        exchange = self._begin()
        exchange.problem(f"{reason} (request)", broken=True)
        self._over(exchange)

    def done(self, trailers: Headers, problems: tuple[str, ...]) -> None:
        exchange = self.exchange
        if exchange is not None:
            if trailers:
                exchange.problem(f"{_not_shown(trailers)} (request)")
            if problems:
                self._note(exchange, problems, " (request)", broken=True)
            self._over(exchange)

    def _begin(self) -> OpenExchange:
        conversation = self.conversation
        exchange = conversation.recorder.begin(self.first)
        exchange.anchor = anchor = self._answers.position_of(self._ack)
        self._ack = self._last_ack  # of the next head in the same piece
        exchange.anchor_seen = anchor is not None and anchor <= self._answers.position
        self.exchange = exchange
        if len(conversation.outstanding) >= MAX_OUTSTANDING:
            oldest = conversation.outstanding.popleft()
            oldest.problem(f"no answer among the last {MAX_OUTSTANDING} exchanges of the connection", broken=True)
            conversation.give_up(oldest)
        conversation.outstanding.append(exchange)
        return exchange

    def _over(self, exchange: OpenExchange) -> None:
        exchange.request_ended = self.time
        exchange.request_done = True
        self.body = _nothing
        self._body_reader = None
        if exchange.request_done and exchange.response_done:
            self.conversation.settle(exchange)


class _ServerSide(_Side):
    role: Role = "response"

    def __init__(self, conversation: Conversation, index: int, client: _ClientSide) -> None:
        super().__init__(conversation, index)
        self.queue: deque[Event] = deque()
        self.client_ended = False
        self._client = client
        self._queued = 0
        self._interim = False

    def data(self, data: bytes, time: int, ack: int) -> None:  # noqa: ARG002 - the anchors are the requests'
        reader = self.reader
        if self.queue or (not reader.room and self._must_wait()):
            self._take_or_wait(("data", data, time, 0))
            return
        if not reader.room and reader.at_boundary:
            self.first = time
        self.time = time
        reader.feed(data)
        self.half.room = reader.room

    def hole(self, size: int, time: int) -> None:
        self._take_or_wait(("hole", b"", time, size))

    def end(self, how: str, time: int) -> None:
        self._take_or_wait((f"end:{how}", b"", time, 0))

    def pump(self, *, force: bool = False) -> None:
        """Read what has waited, as far as requests are known for it."""
        while self.queue and (force or not self._must_wait()):
            event = self.queue.popleft()
            self._queued -= len(event[1])
            self._read(event)

    def _must_wait(self) -> bool:
        """Whether the next message is one whose request has not been seen, and still may be."""
        return not self.conversation.outstanding and not self.client_ended and self.reader.at_boundary

    def _take_or_wait(self, event: Event) -> None:
        if not self.queue and not self._must_wait():
            self._read(event)
            return
        self.queue.append(event)
        self._queued += len(event[1])
        if self._queued > MAX_QUEUED or len(self.queue) > MAX_QUEUED_EVENTS:
            if self._client.half.waiting:
                self._client.half.release(event[2])
            else:
                self.pump(force=True)

    def _read(self, event: Event) -> None:
        kind, data, time, size = event
        if kind == "data":
            if self.reader.at_boundary:
                self.first = time
            self.time = time
            self.reader.feed(data)
        elif kind == "hole":
            self.time = time
            self.reader.hole(size)
        else:
            self.time = time
            self.reader.finish(kind.removeprefix("end:"))
            if not self.conversation.connection.open_halves:
                self.conversation.finish()
        # What has waited is read behind the place the segments have come to.
        self.half.room = 0 if self.queue else self.reader.room

    # The reader's handler.

    def head(self, head: RequestHead | ResponseHead, position: int) -> Framing:
        assert isinstance(head, ResponseHead)  # noqa: S101 - a response reader reads responses
        conversation = self.conversation
        exchange = conversation.request_for(position)
        self._interim = head.status < 200 and head.status != 101
        if self._interim:
            if exchange is None:
                conversation.recorder.counts["interim answers without a request"] += 1
            else:
                conversation.outstanding.appendleft(exchange)
                if len(exchange.interim) < MAX_INTERIM:
                    exchange.interim.append((head.status, head.reason, head.headers))
            return Framing(Kind.LENGTH)
        if exchange is None:
            exchange = conversation.recorder.begin(self.first)
            exchange.problem("the request of this answer is not in the capture", broken=True)
            exchange.request_done = True
        self.exchange = exchange
        exchange.response = head
        exchange.response_started = self.first
        framing = response_framing(head, exchange.request.method if exchange.request else None)
        if remarks := head.notes + framing.notes:
            self._note(exchange, remarks, "")
        if faults := head.faults + framing.faults:
            self._note(exchange, faults, "", broken=True)
        exchange.response_body = self._start_body(head, framing)
        if (
            (head.status == 206 or (head.status == 200 and conversation.recorder.joiner.continued is not None))
            and exchange.request
            and framing.kind in {Kind.LENGTH, Kind.CHUNKED, Kind.CLOSE}
            and not framing.codings
        ):
            host = header(exchange.request.headers, "host")
            name = host or conversation.server_name, exchange.request.target
            joiner = conversation.recorder.joiner
            problem = join_parts(joiner, exchange.index, name, head.headers, framing, exchange.response_body)
            if problem:
                exchange.problem(problem)
        self.body = exchange.response_body.taker()
        if framing.kind is Kind.TUNNEL:
            self._client.reader.tunnel()
        return framing

    def malformed(self, reason: str, position: int) -> None:
        exchange = self.conversation.request_for(position)
        if exchange is None:
            self.conversation.recorder.counts["malformed answers without a request"] += 1
            return
        exchange.problem(reason, broken=True)
        self._over(exchange)

    def done(self, trailers: Headers, problems: tuple[str, ...]) -> None:
        exchange = self.exchange
        if self._interim or exchange is None:
            self._interim = False
            return
        if trailers:
            exchange.problem(_not_shown(trailers))
        if problems:
            self._note(exchange, problems, "", broken=True)
        self._over(exchange)

    def _over(self, exchange: OpenExchange) -> None:
        if self.half.connection.how == "reset" and exchange.whole:
            exchange.problem("the answer was still on its way when the connection was reset")
        exchange.response_ended = self.time
        exchange.response_done = True
        self.body = _nothing
        self._body_reader = None
        if exchange.request_done and exchange.response_done:
            self.conversation.settle(exchange)
