"""Lines of a text log out of a stream of bytes, in constant memory, whatever wrote or resaved the file.

UTF-16 and UTF-32 are told by their byte order mark or by their zero bytes; anything else is UTF-8, and a line that is
not falls back to Windows-1252, the code page of the servers of that time. Runs of zero bytes (what a crash leaves at
the end of a file on NTFS) are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dissectors.errors import LimitExceeded

MAX_LINE = 128 * 1024  # bytes; the csv module's own limit for one field
_SNIFFED = 64
_TOO_LONG = (f"a line of at most {MAX_LINE} bytes", "a longer one")

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),  # before UTF-16: its mark begins with theirs
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


class Line(NamedTuple):
    """One line without its end; `number` counts from 1, `offset` is where it starts in the file, in bytes."""

    number: int
    offset: int
    text: str


def sniff_encoding(head: bytes) -> tuple[str, int]:
    """Encoding (`utf-8`, `utf-16-le`, `utf-16-be`, `utf-32-le` or `utf-32-be`) and length of the byte order mark."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    whole = head[: len(head) // 4 * 4]
    if len(whole) >= 16 and not any(whole[2::4]) and not any(whole[3::4]) and all(whole[0::4]):
        return "utf-32-le", 0
    if len(whole) >= 16 and not any(whole[0::4]) and not any(whole[1::4]) and all(whole[3::4]):
        return "utf-32-be", 0
    pairs = len(head) // 2
    if pairs >= 4 and head[1::2].count(0) > pairs * 3 // 4 and head[::2].count(0) == 0:
        return "utf-16-le", 0
    if pairs >= 4 and head[::2].count(0) > pairs * 3 // 4 and head[1::2].count(0) == 0:
        return "utf-16-be", 0
    return "utf-8", 0


def text_lines(chunks: Iterable[bytes]) -> Iterator[Line]:
    """Lines of a file given in chunks of any size. Raises `LimitExceeded` at a line of more than `MAX_LINE` bytes."""
    stream = iter(chunks)
    buffer = bytearray()
    for chunk in stream:
        buffer += chunk
        if len(buffer) >= _SNIFFED:
            break
    encoding, mark = sniff_encoding(bytes(buffer[:_SNIFFED]))
    del buffer[:mark]
    unit = len("\0".encode(encoding))
    newline = "\n".encode(encoding)
    number, offset, scanned, dropped = 1, mark, 0, 0
    more = True
    while more:
        start = 0
        while (end := _find(buffer, newline, max(start, scanned), unit)) >= 0:
            line = buffer[start:end]
            if len(line) > MAX_LINE and (unit > 1 or len(line) - line.count(0) > MAX_LINE):
                raise LimitExceeded(offset, *_TOO_LONG)
            yield Line(number, offset, _text(line, encoding))
            number += 1
            offset += end + unit - start + dropped
            start, dropped = end + unit, 0
        del buffer[:start]
        if len(buffer) > MAX_LINE and unit == 1:
            kept = buffer.replace(b"\0", b"")
            dropped += len(buffer) - len(kept)
            buffer = kept
        if len(buffer) > MAX_LINE:
            raise LimitExceeded(offset, *_TOO_LONG)
        scanned = len(buffer) - len(buffer) % unit
        chunk_or_end = next(stream, None)
        more = chunk_or_end is not None
        buffer += chunk_or_end or b""
    if buffer.strip(b"\0"):
        yield Line(number, offset, _text(buffer, encoding))


def _find(buffer: bytearray, newline: bytes, position: int, unit: int) -> int:
    """Where the next line end is, at a whole character; -1 for none."""
    while (found := buffer.find(newline, position)) >= 0 and found % unit:
        position = found + 1
    return found


def _text(raw: bytearray, encoding: str) -> str:
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        text = raw.decode("cp1252" if encoding == "utf-8" else encoding, "replace")
    return text.replace("\0", "").removesuffix("\r")
