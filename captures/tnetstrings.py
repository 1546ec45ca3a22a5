"""The frame of a mitmproxy flow file: a row of tnetstrings (`LENGTH:DATA` and a byte for the type), each checked.

Nothing is decoded here. mitmproxy's decoder trusts the lengths it reads: it asks for terabytes of memory, recurses as
deep as the data says and, with a negative length, runs for ever. So a record's lengths, nesting and number of values
are looked at first; what is handed out is safe to decode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dissectors.errors import DissectError, LimitExceeded

MAX_RECORD = 256 << 20  # bytes
MAX_VALUES = 500_000  # values in one record; a WebSocket message has about eight
MAX_DEPTH = 32  # dictionaries and lists within each other

SCALARS = b",;#^!~"
CONTAINERS = b"]}"
LENGTH = re.compile(rb"(0|[1-9][0-9]{0,11}):")
START = re.compile(rb"[0-9]{1,12}:[0-9]{1,9}:[a-z_]")  # a dictionary, and its first key
LONGEST = 13  # bytes of a length with its colon
READ = 1 << 20


class Record(NamedTuple):
    """One record as it stands in the file, or why it was passed over; reading can go on behind it."""

    offset: int
    data: bytes
    refused: DissectError | None = None


def sniff(head: bytes, _path: Path) -> bool:
    """Whether a file starts like a flow file."""
    return START.match(head) is not None


def read_records(file: BinaryIO) -> Iterator[Record]:
    """The dictionaries of a file, one after the other. Raises `DissectError` where the rest cannot be read."""
    offset = 0
    while head := _head(file):
        match = LENGTH.fullmatch(head)
        if match is None:
            raise DissectError(offset, "the length of a flow", repr(head))
        size = int(match[1]) + 1  # with the type
        if size > MAX_RECORD:
            if _skip(file, size) < size:
                raise DissectError(offset, f"a flow of {size} bytes", "the end of the file")
            refused = LimitExceeded(offset, f"a flow of at most {MAX_RECORD} bytes", f"{size} bytes")
            yield Record(offset, b"", refused)
        else:
            data = _read(file, size)
            if len(data) < size:
                raise DissectError(offset, f"a flow of {size} bytes", f"{len(data)} bytes, then the end of the file")
            try:
                check_record(data, offset + len(head))
            except DissectError as error:
                yield Record(offset, b"", error)
            else:
                yield Record(offset, head + data)
        offset += len(head) + size


def check_record(data: bytes, base: int = 0) -> None:
    """Walk the values of a dictionary without decoding them. Raises `DissectError`; `base` is where `data` starts."""
    if not data.endswith(b"}"):
        raise DissectError(base + len(data) - 1, "a dictionary", f"type {data[-1:]!r}")
    ends = [len(data) - 1]
    position = values = 0
    while ends:
        if position == ends[-1]:
            ends.pop()
            position += 1
            continue
        match = LENGTH.match(data, position, min(position + LONGEST, ends[-1]))
        if match is None:
            raise DissectError(base + position, "the length of a value", repr(data[position : position + LONGEST]))
        end = match.end() + int(match[1])
        if end >= ends[-1]:
            left = max(ends[-1] - match.end() - 1, 0)
            raise DissectError(base + position, f"a value of at most {left} bytes", f"one of {int(match[1])}")
        values += 1
        if values > MAX_VALUES:
            raise LimitExceeded(base + position, f"at most {MAX_VALUES} values in a flow", "more")
        kind = data[end]
        if kind in CONTAINERS:
            if len(ends) == MAX_DEPTH:
                raise LimitExceeded(base + position, f"at most {MAX_DEPTH} nested values", "more")
            ends.append(end)
            position = match.end()
        elif kind in SCALARS:
            position = end + 1
        else:
            raise DissectError(base + end, "the type of a value", repr(data[end : end + 1]))


def flow_id(record: Record) -> bytes | None:
    """The id a flow has, from a record that was checked."""
    data, position = record.data, record.data.find(b":") + 1
    key, is_value = b"", False
    while match := LENGTH.match(data, position, position + LONGEST):
        end = match.end() + int(match[1])
        if is_value and key == b"id":
            return data[match.end() : end]
        is_value = not is_value
        key = data[match.end() : end] if is_value else b""
        position = end + 1
    return None


def _head(file: BinaryIO) -> bytes:
    head = b""
    while len(head) < LONGEST and not head.endswith(b":") and (byte := file.read(1)):
        head += byte
    return head


def _read(file: BinaryIO, size: int) -> bytes:
    """In pieces: a file may declare more than it has, and memory for that would be taken first."""
    parts: list[bytes] = []
    while size and (part := file.read(min(size, READ))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _skip(file: BinaryIO, size: int) -> int:
    skipped = 0
    while skipped < size and (part := file.read(min(size - skipped, READ))):
        skipped += len(part)
    return skipped
