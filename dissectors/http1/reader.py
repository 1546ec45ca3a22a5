"""A sans-IO reader of one direction of an HTTP/1.x connection: bytes and holes in, calls on a handler out.

The reader is always in one of these states:

    LOST      it is not known where a message starts: pieces are passed over until one *begins* like a message
    HEAD      at a message boundary, or within a head
    LENGTH    within a body of known length
    SIZE, CHUNK, CHUNK_END, TRAILERS     within a chunked body
    CLOSE     within a body that ends with the connection
    TUNNEL    behind an upgrade: nothing more is HTTP

A hole inside a body whose end is known is a hole of the body and nothing else; any other hole leads to LOST, and so
does every message whose length is in doubt. Only the beginning of a piece (a TCP segment) is taken for the beginning
of a message then: a "request" smuggled inside a doubtful body is never mistaken for one.

Work is linear in the input: a head is searched for its end once, and buffered up to `MAX_HEAD` bytes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Literal, Protocol

from dissectors.errors import DissectError
from dissectors.http1.framing import MAX_LENGTH, Framing, Kind
from dissectors.http1.head import (
    MAX_HEAD,
    TOKEN,
    Headers,
    RequestHead,
    ResponseHead,
    parse_request_head,
    parse_response_head,
    parse_trailers,
    shown,
)

MAX_CHUNK_LINE = 16 << 10
MAX_UNDECIDED = 8 << 10  # bytes of a first line waited for before it is taken for one
CHECKED = 256  # bytes of a first line looked at before it is whole
Role = Literal["request", "response"]
ENDINGS = {
    "closed": "the connection was closed",
    "reset": "the connection was reset",
    "open": "the capture does not show the end of the connection",
}

_HEAD_END = re.compile(rb"\n\r?\n")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(;[^\x00\r]*)?\r\n")
_NAME = TOKEN.encode()
_START = {
    "request": re.compile(rb"[\r\n]*(?:" + _NAME + rb"[ \t][^\n]* HTTP/[^\n]*|(?:GET|HEAD|POST) +/[^\r\n ]*\r?)\n"),
    "response": re.compile(rb"[\r\n]*HTTP/\d+\.\d+[ \t]+\d{3}(?:[ \t\r][^\n]*)?\n"),
}
# First lines with nothing left to ask about them.
_WHOLE = {"request": re.compile(_NAME + rb"[ \t][^\n]* HTTP/[^\n]*\n"), "response": _START["response"]}
# First lines that are not whole yet. Where a message is only hoped for, text in lower case is not waited for.
_BEGUN = {
    "request": re.compile(rb"[\r\n]*" + _NAME + rb"(?:[ \t][^\x00-\x08]*)?"),
    "response": re.compile(rb"[\r\n]*(?:H|HT|HTT|HTTP|HTTP/[0-9. ]{0,12}(?:[^\x00-\x08]*)?)"),
}
_HOPED = {
    "request": re.compile(rb"[\r\n]*[A-Z][A-Z\-_]{0,31}(?: [^\x00-\x1f]*\r?)?"),
    "response": _BEGUN["response"],
}
_CUT_OFF: dict[Role, re.Pattern[bytes]] = {
    "request": re.compile(rb"[\r\n]*([A-Z][A-Z\-_]{1,31}) (/[^\x00-\x20]*|http[^\x00-\x20]*)(?: |$)"),
    "response": re.compile(rb"[\r\n]*HTTP/"),
}


class State(enum.Enum):
    """Where in a message the reader is."""

    __hash__ = object.__hash__  # looked up for every piece: Enum's own hashes the name

    LOST = enum.auto()
    HEAD = enum.auto()
    LENGTH = enum.auto()
    SIZE = enum.auto()
    CHUNK = enum.auto()
    CHUNK_END = enum.auto()
    TRAILERS = enum.auto()
    CLOSE = enum.auto()
    TUNNEL = enum.auto()


_COUNTED = frozenset((State.LENGTH, State.CHUNK))
_BETWEEN = frozenset((State.HEAD, State.LOST))  # messages, or in a head


class Handler(Protocol):
    """What a reader tells. A message is `head`, any number of `body` and `missing`, then `done`."""

    def head(self, head: RequestHead | ResponseHead, position: int) -> Framing:
        """A head, and where in the stream it started; answers with the framing of the body."""

    def body(self, data: bytes) -> None:
        """Bytes of the body, chunks undone."""

    def missing(self, size: int) -> None:
        """Bytes of the body that are missing."""

    def done(self, trailers: Headers, problems: tuple[str, ...]) -> None:
        """The message is over; it is whole if there are no problems."""

    def malformed(self, reason: str, position: int) -> None:
        """Where a head should be is something else."""

    def lost(self, reason: str) -> None:
        """It is no longer known where messages start; one may have been missed."""

    def skipped(self, size: int) -> None:
        """Bytes were passed over."""


def begins_message(role: Role, data: bytes | bytearray) -> bool | None:
    """Whether these bytes begin a message; None where more are needed to tell."""
    if _START[role].match(data):
        return True
    if not _HOPED[role].fullmatch(data):
        return False
    return None if len(data) < MAX_UNDECIDED else broken_off(role, data)


def broken_off(role: Role, data: bytes | bytearray) -> bool:
    """Whether these bytes, behind which some are missing, were the beginning of a message."""
    return _CUT_OFF[role].match(data) is not None


def head_end(data: bytes, start: int) -> int:
    """Where the head that starts there ends, behind its empty line; 0 where it is not whole, or too long.

    The same as `_HEAD_END` finds; two searches for fixed bytes take a tenth of the time.
    """
    limit = start + MAX_HEAD
    end = data.find(b"\n\r\n", start, limit)
    bare = data.find(b"\n\n", start, limit if end < 0 else end + 1)
    return bare + 2 if bare >= 0 else end + 3 if end >= 0 else 0


class Reader:
    """Reads one direction. `position` counts the bytes taken, holes included; `room` is how many more are sure to be of
    the body or chunk under way, whatever pieces they come in.
    """

    __slots__ = ("_buffer", "_handler", "_line", "_role", "_searched", "_start", "position", "room", "state")

    def __init__(self, role: Role, handler: Handler) -> None:
        self.state = State.LOST
        self.position = 0
        self._role: Role = role
        self._handler = handler
        self.room = 0
        self._buffer = bytearray()  # a head, chunk line or trailer section that is not whole
        self._line = -1  # where the first line of a head ends in it
        self._searched = 0  # how much of it holds no end
        self._start = 0  # position of the first byte of the head

    @property
    def at_boundary(self) -> bool:
        """Whether no message is under way."""
        return self.state in _BETWEEN and not self._buffer

    @property
    def in_head(self) -> bool:
        """Whether a head is under way."""
        return bool(self._buffer) and self.state in _BETWEEN

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        size = len(data)
        if self.state is State.LENGTH and size <= self.room:  # most bytes of a capture pass here
            self.room -= size
            self._handler.body(data)
            if not self.room:
                self._message_done()
            self.position += size
            return
        at = 0
        while at < size:
            at = _STEPS[self.state](self, data, at)
        self.position += size

    def hole(self, size: int) -> None:
        """Take note that bytes are missing here."""
        if self.state in _COUNTED and size <= self.room:
            self.room -= size
            self._handler.missing(size)
            if not self.room:
                self._body_done()
        elif self.state is State.CLOSE:
            self._handler.missing(size)
        elif self.state in _BETWEEN and self._head_begun():
            self._broken_head(f"gap: {size} bytes missing in the head")
        elif self.state in _BETWEEN:
            self._lose(f"gap: {size} bytes missing between messages")
        elif self.state is not State.TUNNEL:
            self._abandon(f"gap: {size} bytes missing across the end of the body")
        self.position += size

    def finish(self, how: str) -> None:
        """The stream ends; `how` is one of `ENDINGS`."""
        if self.state is State.CLOSE:
            self._handler.done((), () if how == "closed" else (f"the end of the body is not certain: {ENDINGS[how]}",))
        elif self.state in _BETWEEN:
            if self._head_begun():
                self._broken_head(f"cut off in the head ({ENDINGS[how]})")
        elif self.state in _COUNTED:
            of = "the body" if self.state is State.LENGTH else "a chunk"
            self._abandon(f"cut off: {self.room} bytes of {of} are missing ({ENDINGS[how]})")
        elif self.state is not State.TUNNEL:
            self._abandon(f"cut off before the last chunk ({ENDINGS[how]})")
        self.state = State.LOST
        self.room = 0
        self._buffer.clear()

    def tunnel(self) -> None:
        """What follows is another protocol."""
        self.state = State.TUNNEL
        self.room = 0

    # Steps: take bytes of `data` from `at` on and return how far they went. Each goes further, or changes the state.

    def _step_lost(self, data: bytes, at: int) -> int:
        if at:  # the rest of a piece behind a doubtful message
            self._handler.skipped(len(data) - at)
            return len(data)
        waiting = self._buffer
        begins = begins_message(self._role, bytes(waiting) + data if waiting else data)
        if begins is None:
            waiting += data
            return len(data)
        if not begins:
            self._handler.skipped(len(data) + len(waiting))
            waiting.clear()
            return len(data)
        self.state = State.HEAD
        self._line = -1
        self._searched = 0
        self._start = self.position - len(waiting)
        while waiting and waiting[0] in b"\r\n":
            del waiting[0]
            self._start += 1
        return at

    def _step_head(self, data: bytes, at: int) -> int:
        buffer = self._buffer
        if not buffer:
            while data[at] in b"\r\n":  # empty lines before a message (section 2.2)
                at += 1
                if at == len(data):
                    return at
            self._start = self.position + at
            whole = head_end(data, at)
            if whole and _WHOLE[self._role].match(data, at):  # most heads come in one piece
                return self._take_head(data[at:whole], data, whole)
            self._line = -1
            self._searched = 0
        before = len(buffer)
        buffer += data[at:]
        end = self._head_end()
        if end:
            block = bytes(buffer[:end])
            buffer.clear()
            return self._take_head(block, data, at + end - before)
        if end is None:
            self._not_a_head(data, at)
        elif len(buffer) > MAX_HEAD:
            self._broken_head(f"malformed: the head is longer than {MAX_HEAD} bytes")
        return len(data)

    def _head_end(self) -> int | None:
        """How long the head in the buffer is; 0 where it is not whole, None where it is none."""
        buffer = self._buffer
        if self._line < 0:
            self._line = buffer.find(b"\n", self._searched)
            self._searched = len(buffer)
            if self._line < 0:
                return 0 if len(buffer) >= CHECKED or _BEGUN[self._role].fullmatch(buffer) else None
            line = buffer[: self._line + 1]
            if not _START[self._role].match(line):
                return None
            if self._role == "request" and b" HTTP/" not in line:
                return self._line + 1  # HTTP/0.9: a line and nothing else
            self._searched = self._line
        match = _HEAD_END.search(buffer, max(self._searched - 2, 0))
        self._searched = len(buffer)
        return 0 if match is None else match.end()

    def _take_head(self, block: bytes, data: bytes, following: int) -> int:
        head = self._parsed(block)
        if head is None:
            self._buffer += block
            self._not_a_head(data, 0)
            return len(data)
        framing = self._handler.head(head, self._start)
        if framing.kind is Kind.LENGTH:
            self.room = framing.length
            self.state = State.LENGTH
            if not framing.length:
                self._message_done()
        elif framing.kind is Kind.CHUNKED:
            self.state = State.SIZE
        elif framing.kind is Kind.CLOSE:
            self.state = State.CLOSE
        elif framing.kind is Kind.TUNNEL:
            self._handler.done((), ())
            self.state = State.TUNNEL
        else:
            self._abandon(*head.faults, *framing.faults)
        if head.version == "0.9":
            self.state = State.LOST
        return following

    def _parsed(self, block: bytes) -> RequestHead | ResponseHead | None:
        try:
            return parse_request_head(block) if self._role == "request" else parse_response_head(block)
        except DissectError:
            return None

    def _step_length(self, data: bytes, at: int) -> int:
        piece = data[at : at + self.room]
        self.room -= len(piece)
        self._handler.body(piece)
        if not self.room:
            self._body_done()
        return at + len(piece)

    def _step_size(self, data: bytes, at: int) -> int:
        line, following = self._take_line(data, at)
        if line is None:
            return following
        match = _CHUNK_SIZE.fullmatch(line)
        digits = match[1].lstrip(b"0") if match else b""
        if match is None:
            self._abandon(f"malformed: chunk size {shown(line.decode('latin-1'))}")
        elif len(digits) > 16 or int(match[1], 16) > MAX_LENGTH:
            self._abandon(f"malformed: chunk size {shown(match[1].decode())} is over 2^63-1")
        elif digits:
            self.room = int(digits, 16)
            self.state = State.CHUNK
        else:
            self._buffer += b"\r\n"  # so that an empty trailer section ends like any other
            self._searched = 0
            self.state = State.TRAILERS
        return following

    def _take_line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """A line with its end, once it is whole, and where the next byte is."""
        end = data.find(b"\n", at)
        if end < 0:
            self._buffer += data[at:]
            if len(self._buffer) > MAX_CHUNK_LINE:
                self._abandon(f"malformed: a chunk line longer than {MAX_CHUNK_LINE} bytes")
            return None, len(data)
        line = bytes(self._buffer) + data[at : end + 1]
        self._buffer.clear()
        return line, end + 1

    def _step_chunk_end(self, data: bytes, at: int) -> int:
        piece = data[at : at + 2 - len(self._buffer)]
        self._buffer += piece
        if not b"\r\n".startswith(self._buffer):
            self._abandon("malformed: no line end behind the data of a chunk")
        elif len(self._buffer) == 2:
            self._buffer.clear()
            self.state = State.SIZE
        return at + len(piece)

    def _step_trailers(self, data: bytes, at: int) -> int:
        before = len(self._buffer)
        self._buffer += data[at:]
        match = _HEAD_END.search(self._buffer, max(self._searched - 2, 0))
        self._searched = len(self._buffer)
        if match is None:
            if len(self._buffer) > MAX_HEAD:
                self._abandon(f"malformed: trailers longer than {MAX_HEAD} bytes")
            return len(data)
        trailers, problems = parse_trailers(bytes(self._buffer[2 : match.end()]))
        self._buffer.clear()
        self._message_done(trailers, problems)
        return at + match.end() - before

    def _step_close(self, data: bytes, at: int) -> int:
        self._handler.body(data[at:])
        return len(data)

    def _step_tunnel(self, data: bytes, at: int) -> int:
        self._handler.skipped(len(data) - at)
        return len(data)

    # What the steps end in.

    def _body_done(self) -> None:
        if self.state is State.CHUNK:
            self.state = State.CHUNK_END
        else:
            self._message_done()

    def _message_done(self, trailers: Headers = (), problems: tuple[str, ...] = ()) -> None:
        self.state = State.HEAD
        self._handler.done(trailers, problems)

    def _abandon(self, *reasons: str) -> None:
        """The message under way cannot be followed further."""
        self._handler.done((), reasons)
        self._lose(reasons[-1] if reasons else "a message of unknown length")

    def _head_begun(self) -> bool:
        if self.state is State.HEAD:
            return bool(self._buffer)
        self._start = self.position - len(self._buffer)
        return broken_off(self._role, self._buffer)

    def _broken_head(self, reason: str) -> None:
        """Show of a head what there is of it."""
        head: RequestHead | ResponseHead | None = None
        if b"\n" in self._buffer.lstrip(b"\r\n"):
            head = self._parsed(bytes(self._buffer[:MAX_HEAD]) + b"\r\n\r\n")
        elif self._role == "request" and (match := _CUT_OFF["request"].match(self._buffer)):
            head = RequestHead(match[1].decode("latin-1"), match[2].decode("latin-1"), "", ())
        if head is None:
            line = bytes(self._buffer[:CHECKED]).decode("latin-1")
            self._handler.malformed(f"{reason}: {shown(line)}", self._start)
        else:
            self._handler.head(head, self._start)
            self._handler.done((), (reason,))
        self._lose(reason)

    def _not_a_head(self, data: bytes, at: int) -> None:
        what = "a request line" if self._role == "request" else "a status line"
        line = bytes(self._buffer[:CHECKED]).partition(b"\n")[0].decode("latin-1")
        reason = f"malformed: expected {what}, found {shown(line)}"
        self._handler.malformed(reason, self._start)
        self._handler.skipped(len(data) - at)
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        self.state = State.LOST
        self.room = 0
        self._buffer.clear()
        self._handler.lost(reason)


_STEPS: dict[State, Callable[[Reader, bytes, int], int]] = {
    State.LOST: Reader._step_lost,
    State.HEAD: Reader._step_head,
    State.LENGTH: Reader._step_length,
    State.SIZE: Reader._step_size,
    State.CHUNK: Reader._step_length,
    State.CHUNK_END: Reader._step_chunk_end,
    State.TRAILERS: Reader._step_trailers,
    State.CLOSE: Reader._step_close,
    State.TUNNEL: Reader._step_tunnel,
}
