"""Partial content (RFC 9110 section 14): Content-Range, and multipart/byteranges as it streams by."""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol

from dissectors.errors import DissectError, LimitExceeded

MAX_PART_HEAD = 16 << 10
MAX_PARTS = 10_000
MAX_SIZE = 1 << 48  # bytes of one resource

_CONTENT_RANGE = re.compile(r"bytes[ \t]+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
_BOUNDARY = re.compile(r';[ \t]*boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_PART_RANGE = re.compile(rb"^content-range:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_HEAD_END = re.compile(rb"\n\r?\n")


class ContentRange(NamedTuple):
    """Bytes `first` to `last` (both included) of a resource of `total` bytes, None where that is not said."""

    first: int
    last: int
    total: int | None


def parse_content_range(value: str) -> ContentRange:
    """Read a Content-Range value. Raises `DissectError` where it is none or contradicts itself."""
    match = _CONTENT_RANGE.fullmatch(value.strip(" \t"))
    if match is None:
        raise DissectError(0, "bytes first-last/total", repr(value[:60]))
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if last < first or (total is not None and last >= total) or max(last, total or 0) > MAX_SIZE:
        raise DissectError(0, "a range within the resource", repr(value[:60]))
    return ContentRange(first, last, total)


def parse_boundary(content_type: str) -> str | None:
    """The boundary of a `multipart/byteranges` type, None for any other type."""
    if not content_type.lower().lstrip().startswith("multipart/byteranges"):
        return None
    match = _BOUNDARY.search(content_type)
    return (match[1] or match[2]) if match else None


class PartSink(Protocol):
    """What takes the parts."""

    def __call__(self, part: ContentRange, offset: int, data: bytes, /) -> None:
        """Bytes of a part; the first of them is byte `offset` of the resource."""


class MultipartReader:
    """Takes a multipart/byteranges body apart. The length of a part is told by its range, never by searching."""

    def __init__(self, boundary: str, sink: PartSink) -> None:
        self._mark = b"--" + boundary.encode("latin-1", "replace")
        self._sink = sink
        self._buffer = bytearray()
        self._range: ContentRange | None = None
        self._done = 0
        self._parts = 0
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body. Raises `DissectError` where they are not parts."""
        while data and not self._ended:
            if self._range is None:
                data = self._head(data)
                continue
            first, last, _total = self._range
            piece = data[: last - first + 1 - self._done]
            self._sink(self._range, first + self._done, piece)
            self._done += len(piece)
            data = data[len(piece) :]
            self._close_part()

    def hole(self, size: int) -> None:
        """Bytes are missing. Raises `DissectError` where they are not all of one part."""
        if self._range is None or self._range.first + self._done + size > self._range.last + 1:
            self._ended = True
            raise DissectError(0, "whole part headers", f"{size} bytes missing")
        self._done += size
        self._close_part()

    def _close_part(self) -> None:
        if self._range is not None and self._range.first + self._done > self._range.last:
            self._range = None

    def _head(self, data: bytes) -> bytes:
        """Collect delimiter and part header; the bytes behind them."""
        searched = max(len(self._buffer) - 2, 0)
        self._buffer += data
        while (delimiter := self._buffer.find(b"\n", 0)) >= 0 and not self._buffer[:delimiter].strip(b"\r"):
            del self._buffer[: delimiter + 1]  # the line end before a delimiter
            searched = 0
        if self._buffer.startswith(self._mark + b"--"):
            self._ended = True
            return b""
        match = _HEAD_END.search(self._buffer, searched)
        if match is None:
            if len(self._buffer) > MAX_PART_HEAD:
                raise LimitExceeded(0, f"part headers of at most {MAX_PART_HEAD} bytes", "more")
            return b""
        head, rest = bytes(self._buffer[: match.end()]), bytes(self._buffer[match.end() :])
        self._buffer.clear()
        if not head.startswith(self._mark):
            raise DissectError(0, f"the delimiter {self._mark!r}", repr(head[:60]))
        found = _PART_RANGE.search(head)
        if found is None:
            raise DissectError(0, "a part with Content-Range", repr(head[:60]))
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise LimitExceeded(0, f"at most {MAX_PARTS} parts", "more")
        self._range = parse_content_range(found[1].decode("latin-1"))
        self._done = 0
        return rest
