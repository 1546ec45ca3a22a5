"""Where the bytes of a large input come from: a buffer, a memory map, or an open binary file.

Nothing is opened here. A `Source` is read by position, so that an input of any size costs its reader little
memory.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Readable: TypeAlias = "bytes | bytearray | memoryview | mmap.mmap | BinaryIO | Source"
"""What a caller may hand over."""


STEP = 1 << 20


class Source(Protocol):
    """Bytes readable by position."""

    @property
    def size(self) -> int:
        """Number of bytes there are."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer at the end."""


class BufferSource:
    """A bytes-like object."""

    def __init__(self, buffer: bytes | bytearray | memoryview | mmap.mmap) -> None:
        # No view of a memory map is kept: it could not be closed while the cabinet lives.
        self._buffer = memoryview(buffer).cast("B") if isinstance(buffer, memoryview) else buffer
        self.size = len(self._buffer)

    def read_at(self, offset: int, size: int) -> bytes:
        """Copy of a slice."""
        return bytes(self._buffer[offset : offset + size])


class FileSource:
    """A seekable binary file that the caller has opened and keeps open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)

    def read_at(self, offset: int, size: int) -> bytes:
        """Seek and read."""
        self._file.seek(offset)
        return self._file.read(size)


class WindowSource:
    """A stretch of another source, seen as a source of its own."""

    def __init__(self, source: Source, offset: int, size: int) -> None:
        self._source = source
        self._offset = offset
        self.size = size

    def read_at(self, offset: int, size: int) -> bytes:
        """Read within the window only."""
        return self._source.read_at(self._offset + offset, max(min(size, self.size - offset), 0))


def places(source: Source, magic: bytes, start: int, end: int) -> Iterator[int]:
    """Every place of `magic` that lies whole between `start` and `end`, in order."""
    end = min(end, source.size)
    for position in range(start, end, STEP):
        piece = source.read_at(position, min(STEP + len(magic) - 1, end - position))
        found = piece.find(magic)
        while found >= 0:
            yield position + found
            found = piece.find(magic, found + 1)


def as_source(data: Readable) -> Source:
    """`data` as a Source."""
    if isinstance(data, bytes | bytearray | memoryview | mmap.mmap):
        return BufferSource(data)
    return cast(Source, data) if hasattr(data, "read_at") else FileSource(data)


class _RawStream(io.RawIOBase):
    """A source as a raw stream that ends at `end`."""

    def __init__(self, source: Source, end: int) -> None:
        self._source = source
        self._end = end
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (0, self._position, self._end)[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read_at(self._position, max(min(len(view), self._end - self._position), 0))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


def as_stream(source: Source, end: int) -> BinaryIO:
    """The first `end` bytes of a source as a buffered stream, as construct wants it."""
    return io.BufferedReader(_RawStream(source, end))
