"""How many connections phones may have, and how long one may take: whoever is slow or greedy is let go, for the others.

The limits are wider than those of IIS (120 s idle, 240 bytes a second), so that no phone is cut off that the server
would have served.
"""

from __future__ import annotations

import logging
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from mitmproxy import connection, http
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from proxy_addons.failures import Failures
from proxy_addons.forwarded import Fronts
from proxy_addons.metrics import Metrics

logger = logging.getLogger("upshim")

AHEAD = 1 << 20  # bytes of a body that may come before the server is connected
SLOWEST = 240  # bytes a second of a request's body
RESERVE = 128  # descriptors for everything but phones: recording, log, listeners
WANTED_DESCRIPTORS = 65_536


@dataclass(frozen=True, slots=True)
class Bounds:
    """What phones may take. Times are in seconds; `per_client` None means half of all."""

    connections: int = 1000
    per_client: int | None = None
    head_bytes: int = 64 << 10
    head_within: float = 30.0
    idle: float = 150.0
    stalled: float = 150.0  # a body that should come or go and does not

    @property
    def of_one(self) -> int:
        """Connections of one address."""
        return self.per_client if self.per_client is not None else max(1, self.connections // 2)


class Transport(Protocol):
    """A phone's socket, as asyncio has it."""

    def close(self) -> None:
        """Close once everything is sent."""

    def abort(self) -> None:
        """Close at once."""

    def get_write_buffer_size(self) -> int:
        """Bytes the phone has not taken yet."""

    def pause_reading(self) -> None:
        """Leave to the network what else comes."""

    def resume_reading(self) -> None:
        """Take it again."""


class Seat(NamedTuple):
    """An open connection: the phone's socket, when anything last came on either side, and whether it leads on.

    What is not HTTP passes through to where it leads, and it may be silent for as long as it likes.
    """

    transport: Transport
    activity: float
    relayed: bool


@dataclass(slots=True)
class State:
    """A connection: since when it is in its present phase, and what has come in it."""

    address: str
    since: float
    flow: http.HTTPFlow | None = None  # under way, its head having come
    is_http: bool = False  # some has been seen
    received: int = 0
    held: bool = False  # not read from
    begun: float | None = None  # when the head began to come
    unsent: tuple[int, float] = (0, 0.0)  # bytes that wait to be taken, and when something last came
    stuck: float = 0.0  # since when that is so

    def enter(self, now: float, flow: http.HTTPFlow | None) -> None:
        """Another phase begins."""
        self.since, self.flow, self.received, self.begun = now, flow, 0, None


class Limits:
    """An addon that counts connections and ends those that overstay; `why` is what the metric calls it."""

    def __init__(
        self, bounds: Bounds, failures: Failures, metrics: Metrics, find: Callable[[str], Transport | None]
    ) -> None:
        self.bounds = bounds
        self.failures = failures
        self._metrics = metrics
        self._find = find
        self._states: dict[str, State] = {}
        self._by_address: Counter[str] = Counter()
        self._unsent: dict[str, tuple[float, Transport]] = {}  # what may be left when the connection is over
        self._lingering = 0
        self.fronts = Fronts()  # many phones may come from the address of one

    def client_connected(self, client: connection.Client) -> None:
        """A phone has connected; setting its error closes the connection."""
        address = str(client.peername[0])
        if len(self._states) + self._lingering >= self.bounds.connections:
            client.error = why = "too many connections"
        elif self._by_address[address] >= self.bounds.of_one and not self.fronts.trusts(address):
            client.error = why = "too many connections of one address"
        else:
            self._states[client.id] = State(address, time.monotonic())
            self._by_address[address] += 1
            return
        self.refused(why)
        self.failures.note(why, f"{address}: closed")

    def client_disconnected(self, client: connection.Client) -> None:
        """It is over."""
        state = self._states.pop(client.id, None)
        if state is not None:
            self._by_address[state.address] -= 1
            if not self._by_address[state.address]:
                del self._by_address[state.address]

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """An exchange begins."""
        self._enter(flow, flow)

    def response(self, flow: http.HTTPFlow) -> None:
        """It is over."""
        self._enter(flow, None)

    def error(self, flow: http.HTTPFlow) -> None:
        """It broke."""
        self._enter(flow, None)

    def _enter(self, flow: http.HTTPFlow, current: http.HTTPFlow | None) -> None:
        state = self._states.get(flow.client_conn.id)
        if state is not None:
            state.enter(time.monotonic(), current)

    def received(self, connection: str, size: int) -> None:
        """So many bytes of HTTP have come from a phone."""
        state = self._states.get(connection)
        if state is not None:
            state.is_http = True
            state.received += size
            if state.flow is None:
                state.begun = state.begun or time.monotonic()
            elif state.received > AHEAD and state.flow.server_conn.timestamp_tcp_setup is None:
                # mitmproxy keeps what comes before there is a server to send it to.
                state.held = True
                self.hold(connection)  # each time: asyncio's reader may have begun again by itself

    def server_connected(self, data: ServerConnectionHookData) -> None:
        """A server is there to send things to."""
        state = self._states.get(data.client.id)
        if state is not None and state.held:
            state.held = False
            self.release(data.client.id)

    def hold(self, connection: str) -> None:
        """Read no more from a phone."""
        if (transport := self._find(connection)) is not None:
            transport.pause_reading()

    def release(self, connection: str) -> None:
        """Go on reading."""
        if (transport := self._find(connection)) is not None:
            transport.resume_reading()

    def refused(self, why: str) -> None:
        """A connection was closed, or was not wanted."""
        self._metrics.refused(why)

    def overdue(self, seats: Mapping[str, Seat], now: float) -> Iterator[tuple[str, str]]:
        """The connections to end, by their id, and why."""
        bounds = self.bounds
        for name, state in self._states.items():
            seat = seats.get(name)
            if seat is None or (not state.is_http and seat.relayed):
                continue
            unsent = seat.transport.get_write_buffer_size()
            if (unsent, seat.activity) != state.unsent:
                state.unsent, state.stuck = (unsent, seat.activity), now
            flow = state.flow
            if unsent:
                if now - state.stuck > bounds.stalled:
                    yield name, "slow reader"
            elif flow is not None:
                late = now - state.since - state.received / SLOWEST > bounds.stalled
                if flow.request.timestamp_end is None and late:
                    yield name, "slow body"
            elif state.begun is not None:
                if now - state.begun > bounds.head_within:
                    yield name, "slow head"
            elif now - state.since > bounds.idle:
                yield name, "idle"

    def sweep(self, seats: Mapping[str, Seat], now: float) -> None:
        """End what is overdue. What a phone never takes is dropped after a while: it would keep a socket for good."""
        for name, why in list(self.overdue(seats, now)):
            self.refused(why)
            if why == "idle":
                seats[name].transport.close()
            else:
                self.failures.note(why, f"{self._states[name].address}: closed")
                seats[name].transport.abort()
        self._unsent |= {
            name: (now + self.bounds.stalled, seat.transport)
            for name, seat in seats.items()
            if seat.transport.get_write_buffer_size()
        }
        for name, (until, transport) in list(self._unsent.items()):
            if now > until:
                transport.abort()
            if not transport.get_write_buffer_size():
                del self._unsent[name]
        self._lingering = sum(name not in seats for name in self._unsent)


def descriptors(bounds: Bounds) -> Bounds:
    """Raise the process's limit of descriptors, and lower the bounds to what that leaves: two to a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(2 * bounds.connections + RESERVE, WANTED_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = max(1, (soft - RESERVE) // 2)
    if soft == resource.RLIM_INFINITY or room >= bounds.connections:
        return bounds
    logger.warning("upshim: %d connections at most: there are no more than %d descriptors", room, soft)
    return replace(bounds, connections=room)
