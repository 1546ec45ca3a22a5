"""HTTP/1.x messages as they would stand on the wire, made from recorded ones.

Headers go out as recorded, in their order and case. A recording keeps bodies after transfer- and content-decoding, so
the body is framed (RFC 9112 section 6) and coded (RFC 9110 section 8.4) again the way the headers say; the coded form
is taken where it was kept, and a body that was recorded as it came goes out as it came. Where that cannot give the
recorded length, the framing header is set right and a note says so: the message is always one that a reader takes apart
at the same place.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from captures.content import codings_of, words_of
from captures.exchange import Body, Exchange, Headers, Request, Response, header
from dissectors.coding import DEFLATE, GZIP

Leg = Literal["phone", "server"]
Bodies = Callable[[str], Iterable[bytes] | None]  # the sha256 of a body, decoded or encoded -> its bytes, if kept

BODY_ABSENT = "streamed bodies absent"
BODY_RECODED = "bodies content-coded anew"
CODING_UNDONE = "content codings taken off"
LENGTH_CORRECTED = "framing headers corrected"
MAC_LOST = "client MAC addresses"
OTHER_VERSION = "messages of another HTTP version written as HTTP/1.1"

CHUNK = 16384  # bytes per chunk where a body is chunked
WBITS = {**dict.fromkeys(GZIP, 31), **dict.fromkeys(DEFLATE, 15)}  # how zlib is told the coding
TRANSFER = {*WBITS, "compress", "x-compress"}  # transfer codings beside chunked; with others no reader finds the end

LINE_BREAK = re.compile(r"[\r\n\0]+[ \t]*")
DIGITS = re.compile(r"[0-9]{1,18}", re.ASCII)


class Gap(NamedTuple):
    """Bytes that were on the wire and are not in the recording."""

    size: int


def no_bodies(_sha256: str) -> None:
    """The source of bodies where none are kept beside the exchanges."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way to the wire.

    `body` is read once; it is framed already. `length` is the number of body bytes the headers promise, None where
    chunks or the end of the connection say it. A message that is not `complete` ends without its end.
    """

    head: bytes
    body: Iterator[bytes | Gap]
    length: int | None
    complete: bool
    until_close: bool = False
    notes: tuple[str, ...] = ()


class Coded(NamedTuple):
    """A body in the content coding its headers name, and the headers with the right length."""

    headers: Headers
    pieces: Iterable[bytes | Gap]
    size: int
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Framing:
    """What is found out about one body before its headers are written."""

    headers: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)

    def put(self, name: str, value: str) -> None:
        """Set a header in its place, or add it at the end; doubled ones become one."""
        lower = name.lower()
        places = [i for i, (key, _) in enumerate(self.headers) if key.lower() == lower]
        if not places:
            self.headers.append((name, value))
            return
        self.headers[places[0]] = (self.headers[places[0]][0], value)
        for place in reversed(places[1:]):
            del self.headers[place]

    def drop(self, name: str) -> None:
        self.headers = [pair for pair in self.headers if pair[0].lower() != name]


def coded_body(headers: Headers, body: Body, bodies: Bodies = no_bodies) -> Coded:
    """A body as it was before content-decoding, for formats that frame bodies themselves."""
    framing = _Framing(list(headers))
    pieces, size = _coded(framing, body, bodies)
    if framing.notes != [BODY_ABSENT] and framing.notes and declared_length(framing.headers) is not None:
        framing.put("Content-Length", str(size))
    return Coded(tuple(framing.headers), pieces, size, tuple(framing.notes))


def messages_of(exchange: Exchange, leg: Leg) -> tuple[Request, Response | None]:
    """The request and the answer as the phone sent and got them, or as the server got and sent them."""
    if leg == "server":
        return exchange.rewritten_request or exchange.request, exchange.response
    return exchange.request, exchange.rewritten_response or exchange.response


def request_message(request: Request, *, complete: bool = True, bodies: Bodies = no_bodies) -> Message:
    """A request for the wire; a body that it does not hold is asked from `bodies`, which may be read twice."""
    framing = _Framing(list(request.headers))
    version = _version(request.version, framing)
    translated = version != request.version and request.body.size > 0
    chunks, length = _frame(framing, request.body, complete, translated=translated, answer=False, bodies=bodies)
    head = _head(f"{request.method} {request.target} HTTP/{version}", framing.headers)
    return Message(head, chunks, length, complete, notes=tuple(framing.notes))


def response_message(response: Response, method: str, *, complete: bool = True, bodies: Bodies = no_bodies) -> Message:
    """An answer to `method` for the wire; see `request_message`."""
    framing = _Framing(list(response.headers))
    version = _version(response.version, framing)
    start = f"HTTP/{version} {response.status:03d} {response.reason}"
    if bodiless(method, response.status):
        return Message(_head(start, framing.headers), iter(()), 0, complete, notes=tuple(framing.notes))
    translated = version != response.version
    chunks, length = _frame(framing, response.body, complete, translated=translated, answer=True, bodies=bodies)
    until_close = length is None and not _chunked(framing.headers)
    return Message(_head(start, framing.headers), chunks, length, complete, until_close, tuple(framing.notes))


def interim_head(status: int, reason: str, headers: Headers) -> bytes:
    """A 1xx answer, which has no body."""
    return _head(f"HTTP/1.1 {status:03d} {reason}", headers)


def bodiless(method: str, status: int) -> bool:
    """Whether an answer has no body whatever its headers say (RFC 9112 section 6.3)."""
    return method == "HEAD" or status < 200 or status in {204, 304} or (method == "CONNECT" and status < 300)


def request_whole(exchange: Exchange, request: Request, response: Response | None) -> bool:
    """Whether the request has its end; where the exchange has not, either message may be the one that was cut off."""
    if exchange.complete or response is None:
        return exchange.complete
    if not _chunked(request.headers):
        return request.body.encoded_size >= (declared_length(request.headers) or 0)
    length = None if _chunked(response.headers) else declared_length(response.headers)
    answer_whole = bodiless(request.method, response.status) or length == response.body.encoded_size
    return not answer_whole


def ends_connection(request: Request, response: Response) -> bool:
    """Whether no further exchange can follow on the connection."""
    if response.status == 101 or (request.method == "CONNECT" and response.status < 300):
        return True
    words = {*words_of(request.headers, "connection"), *words_of(response.headers, "connection")}
    if "close" in words:
        return True
    return response.version == "1.0" and "keep-alive" not in words


def declared_length(headers: Headers | list[tuple[str, str]]) -> int | None:
    """The Content-Length, if there is one and all of them agree on a decimal number."""
    values = {v.strip() for name, value in headers if name.lower() == "content-length" for v in value.split(",")}
    if len(values) != 1:
        return None
    (value,) = values
    return int(value) if DIGITS.fullmatch(value) else None


def _version(version: str, framing: _Framing) -> str:
    if version in {"1.0", "1.1"}:
        return version
    framing.headers = [pair for pair in framing.headers if not pair[0].startswith(":")]
    framing.notes.append(OTHER_VERSION)
    return "1.1"


def _frame(
    framing: _Framing, body: Body, complete: bool, *, translated: bool, answer: bool, bodies: Bodies
) -> tuple[Iterator[bytes | Gap], int | None]:
    """The body's wire form and the length its headers promise; sets the headers right first."""
    pieces, size = _coded(framing, body, bodies)
    *others, last = words_of(framing.headers, "transfer-encoding") or ("",)
    if last == "chunked":
        if not TRANSFER.issuperset(others):
            framing.put("Transfer-Encoding", "chunked")
            framing.notes.append(LENGTH_CORRECTED)
        return _chunks(pieces, complete), None
    if answer and TRANSFER.issuperset((*others, last)):
        return iter(pieces), None
    if header(tuple(framing.headers), "transfer-encoding") is not None:
        framing.drop("transfer-encoding")
        framing.notes.append(LENGTH_CORRECTED)
    stated = header(tuple(framing.headers), "content-length")
    length = declared_length(framing.headers)
    if length != size and (stated is not None or translated) and (complete or size > (length or 0)):
        framing.put("Content-Length", str(size))
        if stated is not None:
            framing.notes.append(LENGTH_CORRECTED)
        length = size
    if length is None and not answer:
        # Only an answer may be ended by closing; a request without a length has no body.
        length = size
        if length:
            framing.put("Content-Length", str(length))
            framing.notes.append(LENGTH_CORRECTED)
    return _limited(pieces, length), length


def _coded(framing: _Framing, body: Body, bodies: Bodies) -> tuple[Iterable[bytes | Gap], int]:
    """The coded bytes and their number."""

    def plain() -> Iterable[bytes] | None:
        if body.data is None:
            return bodies(body.sha256) if body.sha256 else None
        return (body.data,)

    if not body.size and not body.encoded_size and body.sha256:
        return (), 0
    if body.encoded is not None:
        return (body.encoded,), body.encoded_size
    if body.encoded_sha256 is not None and (as_it_came := bodies(body.encoded_sha256)) is not None:
        return as_it_came, body.encoded_size
    if (kept := plain()) is None:
        framing.notes.append(BODY_ABSENT)
        size = body.encoded_size or body.size
        return (Gap(size),), size
    codings = codings_of(framing.headers)
    if not codings or body.as_it_came:
        return kept, body.size
    if len(codings) > 1 or codings[0] not in WBITS:
        _undo_codings(framing)
        return kept, body.size
    framing.notes.append(BODY_RECODED)
    wbits = WBITS[codings[0]]
    # Twice, because the length comes before the body and the body may be too large to hold.
    size = sum(map(len, _compressed(kept, wbits)))
    return _compressed(plain() or (), wbits), size


def _undo_codings(framing: _Framing) -> None:
    framing.notes.append(CODING_UNDONE)
    framing.drop("content-encoding")
    if _chunked(framing.headers):
        framing.put("Transfer-Encoding", "chunked")
    else:
        framing.drop("transfer-encoding")


def _compressed(pieces: Iterable[bytes], wbits: int) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=wbits)
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _chunks(pieces: Iterable[bytes | Gap], complete: bool) -> Iterator[bytes | Gap]:
    for piece in pieces:
        if isinstance(piece, Gap):
            if piece.size:  # an empty chunk would be the last
                yield b"%x\r\n" % piece.size
                yield piece
                yield b"\r\n"
            continue
        for start in range(0, len(piece), CHUNK):
            chunk = piece[start : start + CHUNK]
            yield b"%x\r\n%b\r\n" % (len(chunk), chunk)
    if complete:
        yield b"0\r\n\r\n"


def _limited(pieces: Iterable[bytes | Gap], length: int | None) -> Iterator[bytes | Gap]:
    """The pieces up to the promised length: one byte more would be read as the next message."""
    left = length
    for piece in pieces:
        size = piece.size if isinstance(piece, Gap) else len(piece)
        if left is None or size <= left:
            yield piece
        elif left:
            yield Gap(left) if isinstance(piece, Gap) else piece[:left]
        left = None if left is None else max(left - size, 0)


def _chunked(headers: Headers | list[tuple[str, str]]) -> bool:
    codings = words_of(headers, "transfer-encoding")
    return bool(codings) and codings[-1] == "chunked"


def _head(start: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers)]
    # A folded value is unfolded (RFC 9112 section 5.2); no value may end its line.
    text = "\r\n".join(LINE_BREAK.sub(" ", line) for line in lines) + "\r\n\r\n"
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")
