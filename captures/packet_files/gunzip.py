"""A gzip file as a stream that gives all that can be had of it before it complains.

The standard library's `GzipFile` drops up to a whole buffer of good bytes when the end of the file is missing.
"""

from __future__ import annotations

import zlib
from typing import Protocol

PIECE = 1 << 14  # compressed bytes at a time: what an error in the check at the end may cost


class ByteStream(Protocol):
    """What a packet file is read from."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; none at the end. Raises `EOFError`, `zlib.error` or `OSError` where it is damaged."""


class Gunzip:
    """Undoes gzip, of one or several members; zero bytes behind the last one are padding."""

    def __init__(self, file: ByteStream) -> None:
        self._file = file
        self._zlib = zlib.decompressobj(wbits=31)
        self._begun = False  # inside a member
        self._input = b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end. Raises `EOFError` where the file is cut off, `zlib.error` where it is
        damaged, both only when nothing is left to give.
        """
        out = b""
        while not out:
            if not self._input:
                self._input = self._file.read(PIECE)
                if not self._input:
                    if self._begun:
                        raise EOFError("the end of the file inside the gzip data")
                    return b""
            if not self._begun:
                self._input = self._input.lstrip(b"\0")
                self._begun = bool(self._input)
                continue
            out = self._zlib.decompress(self._input, size)
            self._input = self._zlib.unconsumed_tail
            if self._zlib.eof:
                self._input = self._zlib.unused_data
                self._zlib = zlib.decompressobj(wbits=31)
                self._begun = False
        return out
