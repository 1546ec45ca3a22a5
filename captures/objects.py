"""Resources joined from partial answers, over any number of exchanges and connections.

Parts go to a file (in memory while small) at their place, so that they may come in any order; the first copy of a byte
stands, and a later one that differs is reported. Only bytes that were sent are written: a lying total costs nothing.

A download that broke off may be continued by a range: then its 200 is a part as well. That is known too late for its
bytes, so the capture is read again for such answers, and for them alone.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from typing import IO, NamedTuple

from captures.bodies import BodyFiles
from captures.exchange import Exchange, Headers, header
from captures.http_wire import declared_length
from captures.items import JoinedObject

MAX_OBJECTS = 200  # objects under way, and so open files; past it the one begun first is finished as it is
MAX_OBJECT = 8 << 30  # bytes; parts beyond are not joined
MAX_SPANS = 100_000  # separate stretches of one object
MAX_BROKEN_OFF = 1000  # answers remembered because a range may continue them
IN_MEMORY = 1 << 18
CHUNK = 1 << 20


class Resource(NamedTuple):
    """What makes parts belong together: the target on a host, its size, and the validator sent with it."""

    host: str
    target: str
    size: int
    validator: str


class BrokenOff(NamedTuple):
    """A 200 that brought only the first bytes of its resource."""

    exchange: int
    resource: Resource
    received: int


def validator_of(headers: Headers) -> str:
    """What tells versions of a resource apart; empty where nothing does."""
    return header(headers, "etag") or header(headers, "last-modified") or ""


class _Parts:
    def __init__(self) -> None:
        import tempfile  # noqa: PLC0415 - slow to import, and most captures have no parts

        self.file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - lives with the object
        self.spans: list[tuple[int, int]] = []  # (start, end), apart and in order
        self.exchanges: list[int] = []
        self.problems: list[str] = []

    def write(self, start: int, data: bytes) -> None:
        end = start + len(data)
        if self.spans and self.spans[-1][1] == start:  # parts mostly come in order
            self._put(start, data)
            self.spans[-1] = (self.spans[-1][0], end)
            return
        index = bisect_left(self.spans, (start, start))
        if index and self.spans[index - 1][1] >= start:
            index -= 1
        first, merged_start, merged_end, position = index, start, end, start
        while index < len(self.spans) and self.spans[index][0] <= end:
            known_start, known_end = self.spans[index]
            if position < known_start:
                self._put(position, data[position - start : known_start - start])
            self._compare(max(start, known_start), data[max(known_start - start, 0) : known_end - start])
            position = max(position, known_end)
            merged_start, merged_end = min(merged_start, known_start), max(merged_end, known_end)
            index += 1
        if position < end:
            self._put(position, data[position - start :])
        del self.spans[first:index]
        insort(self.spans, (merged_start, merged_end))

    def _put(self, start: int, data: bytes) -> None:
        if start + len(data) > IN_MEMORY:
            self.file.rollover()  # a real file has holes where memory would be filled with zeros
        self.file.seek(start)
        self.file.write(data)

    def _compare(self, start: int, data: bytes) -> None:
        self.file.seek(start)
        if data and self.file.read(len(data)) != data and len(self.problems) < 10:
            self.problems.append(f"conflict: two answers differ from byte {start} on; the one joined first stands")


class ObjectJoiner:
    """Collects parts while a capture is read. `finished` gives the objects at the end."""

    def __init__(self, capture: str, files: BodyFiles | None) -> None:
        self._capture = capture
        self._files = files
        self._objects: dict[Resource, _Parts] = {}
        self._done: list[JoinedObject] = []
        self._broken_off: list[BrokenOff] = []
        # The answers by exchange that are now read again; None while the capture is read for the first time.
        self.continued: Mapping[int, Resource] | None = None
        # Reads the capture again; where it cannot be, there is none.
        self.read_again: Callable[[ObjectJoiner], None] | None = None

    def write(self, resource: Resource, exchange: int, start: int, data: bytes) -> None:
        """Take bytes of a resource from `start` on. Raises `OSError` where they cannot be kept."""
        parts = self._objects.get(resource)
        if parts is None:
            if len(self._objects) >= MAX_OBJECTS:
                oldest = next(iter(self._objects))
                self._done.append(self._finish(oldest, self._objects.pop(oldest)))
            parts = self._objects[resource] = _Parts()
        if exchange not in parts.exchanges[-1:]:
            parts.exchanges.append(exchange)
        if start + len(data) > min(resource.size, MAX_OBJECT) or len(parts.spans) > MAX_SPANS:
            if "parts were left out" not in parts.problems:
                parts.problems.append("parts were left out")
            return
        parts.write(start, data)

    def broken_off(self, exchange: Exchange) -> None:
        """Remember an answer that did not come to its end, if a range may continue it."""
        response = exchange.response
        if response is None or response.status != 200 or len(self._broken_off) >= MAX_BROKEN_OFF:
            return
        size = declared_length(response.headers)
        if size and response.body.encoded_size and header(response.headers, "transfer-encoding") is None:
            place = exchange.request.host or exchange.server, exchange.request.target
            resource = Resource(*place, size, validator_of(response.headers))
            self._broken_off.append(BrokenOff(exchange.index, resource, response.body.encoded_size))

    def _join_broken_off(self) -> None:
        """Join what the objects continue; what they seem to continue and do not is their problem."""
        continued: dict[int, Resource] = {}
        for one in self._broken_off:
            same = [each for each in self._objects if each[:2] == one.resource[:2]]
            agreeing = [each for each in same if _agree(each, one.resource)]
            for each in agreeing[:1]:
                continued[one.exchange] = each
            for each in () if agreeing else same:
                self._objects[each].problems.append(
                    f"exchange {one.exchange} broke off after {one.received} bytes of another version"
                    f" ({_version(one.resource)}; here {_version(each)}): not joined"
                )
        if continued and self.read_again is None:
            for exchange, each in continued.items():
                self._objects[each].problems.append(f"exchange {exchange} began it, and its bytes were not kept")
        elif continued and self.read_again is not None:
            self.continued = continued
            self.read_again(self)

    def finished(self) -> Iterator[JoinedObject]:
        """All objects, in the order they were begun. Raises `OSError` where they cannot be kept."""
        self._join_broken_off()
        yield from self._done
        for resource, parts in self._objects.items():
            yield self._finish(resource, parts)
        self._objects.clear()

    def close(self) -> None:
        """Forget what is under way."""
        for parts in self._objects.values():
            parts.file.close()
        self._objects.clear()

    def _finish(self, resource: Resource, parts: _Parts) -> JoinedObject:
        missing = tuple(_missing(parts.spans, resource.size))
        sha256 = sha1 = None
        with parts.file as file:
            if not missing:
                sha256, sha1 = self._hash(file)
        return JoinedObject(
            self._capture,
            resource.host,
            resource.target,
            resource.size,
            sha256,
            sha1,
            complete=not missing,
            exchanges=tuple(sorted(set(parts.exchanges))),
            missing=missing,
            problems=tuple(parts.problems),
        )

    def _hash(self, file: IO[bytes]) -> tuple[str, str]:
        sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
        incoming = self._files.begin() if self._files else None
        file.seek(0)
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            sha1.update(chunk)
            if incoming is not None:
                incoming.file.write(chunk)
        if incoming is not None:
            incoming.keep(sha256.hexdigest())
        return sha256.hexdigest(), sha1.hexdigest()


def _agree(one: Resource, other: Resource) -> bool:
    told = one.validator, other.validator
    return one.size == other.size and ("" in told or told[0] == told[1])


def _version(resource: Resource) -> str:
    return f"{resource.size} bytes, {resource.validator or 'no validator'}"


def _missing(spans: list[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    position = 0
    for start, end in spans:
        if start > position:
            yield position, start - 1
        position = max(position, end)
    if position < size:
        yield position, size - 1
