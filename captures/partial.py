"""Hands the parts that an answer carries to the joiner, as its body streams by: a 206, or a 200 that broke off."""

from __future__ import annotations

from captures.body_reader import BodyReader
from captures.exchange import header
from captures.objects import ObjectJoiner, Resource, validator_of
from dissectors.byteranges import ContentRange, MultipartReader, parse_boundary, parse_content_range
from dissectors.errors import DissectError
from dissectors.http1 import Framing, Headers, Kind


def join_parts(
    joiner: ObjectJoiner, exchange: int, name: tuple[str, str], headers: Headers, framing: Framing, body: BodyReader
) -> str | None:
    """Let `joiner` see the parts in `body`, an answer for the (host, target) of `name`; the problem, if it cannot."""
    if joiner.continued is not None:  # all but the answers that broke off were joined before
        resource = joiner.continued.get(exchange)
        if resource is not None:
            start = _Parts(joiner, exchange, (resource.host, resource.target), resource.validator)
            start.single = ContentRange(0, resource.size - 1, resource.size)
            body.part, body.part_hole = start.data, start.hole
        return None
    parts = _Parts(joiner, exchange, name, validator_of(headers))
    boundary = parse_boundary(header(headers, "content-type") or "")
    if boundary is not None:
        parts.multipart = MultipartReader(boundary, parts.write)
    else:
        try:
            parts.single = parse_content_range(header(headers, "content-range") or "")
        except DissectError as error:
            return f"Content-Range is not usable: expected {error.expected}, found {error.found}"
        size = parts.single.last - parts.single.first + 1
        if framing.kind is Kind.LENGTH and framing.length != size:
            return f"Content-Range tells {size} bytes and Content-Length {framing.length}"
    parts.body = body
    body.part = parts.data
    body.part_hole = parts.hole
    return None


class _Parts:
    def __init__(self, joiner: ObjectJoiner, exchange: int, name: tuple[str, str], validator: str) -> None:
        self.multipart: MultipartReader | None = None
        self.single: ContentRange | None = None
        self.body: BodyReader | None = None
        self._joiner = joiner
        self._exchange = exchange
        self._name = name
        self._validator = validator
        self._done = 0

    def write(self, part: ContentRange, offset: int, data: bytes) -> None:
        if part.total is not None:
            resource = Resource(*self._name, part.total, self._validator)
            self._joiner.write(resource, self._exchange, offset, data)

    def data(self, data: bytes) -> None:
        if self.single is not None:
            room = self.single.last + 1 - self.single.first - self._done
            if room > 0:
                self.write(self.single, self.single.first + self._done, data[:room])
            self._done += len(data)
        elif self.multipart is not None:
            try:
                self.multipart.feed(data)
            except DissectError as error:
                self._stop(error)

    def hole(self, size: int) -> None:
        self._done += size
        if self.multipart is not None:
            try:
                self.multipart.hole(size)
            except DissectError as error:
                self._stop(error)

    def _stop(self, error: DissectError) -> None:
        self.multipart = None
        if self.body is not None:
            self.body.problems.append(f"byte ranges are not usable: expected {error.expected}, found {error.found}")
