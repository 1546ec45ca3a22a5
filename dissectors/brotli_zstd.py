"""Brotli (RFC 7932) and zstd (RFC 8878), which browsers speak and phones do not, undone as their bytes come.

The decoders are those that mitmproxy brings. They are fed so that what one call gives stays small: a few bytes of
either may stand for megabytes.
"""

from __future__ import annotations

from typing import Any

import brotli  # type: ignore[import-untyped]
import zstandard

from dissectors.errors import DissectError, LimitExceeded

OUTPUT = 1 << 20  # bytes that brotli is asked for at a time
# Before version 1.2 it could not be asked so; a command of a few bytes may copy 16 MiB.
BROTLI_SLICE = 16
ASKED = hasattr(brotli.Decompressor, "can_accept_more_data")
ZSTD_SLICE = 64  # a block of 4 bytes may stand for 128 KiB
ZSTD_WINDOW = 8 << 20  # RFC 9659: no content coding needs more
MAX_FRAMES = 4096  # zstd frames of one body


class Brotli:
    """One brotli stream."""

    def __init__(self, limit: int) -> None:
        self._brotli = brotli.Decompressor()
        self._limit = limit
        self._read = 0
        self._written = 0

    def feed(self, data: bytes) -> bytes:
        """The decoded bytes these bring. Raises `DissectError`."""
        out: list[bytes] = []
        size = len(data) if ASKED else BROTLI_SLICE
        for start in range(0, len(data), size or 1):
            self._process(data[start : start + size], out)
        return b"".join(out)

    def _process(self, part: bytes, out: list[bytes]) -> None:
        while True:
            try:
                got = self._brotli.process(part, output_buffer_limit=OUTPUT) if ASKED else self._brotli.process(part)
            except brotli.error as error:
                raise DissectError(self._read, "brotli data", str(error)) from None
            self._written += len(got)
            if self._written > self._limit:
                raise LimitExceeded(self._read, f"at most {self._limit} decoded bytes", "more")
            out.append(got)
            self._read += len(part)
            if not ASKED or self._brotli.can_accept_more_data():
                return
            part = b""

    def finish(self) -> bytes:
        """Nothing more. Raises `DissectError` where the stream was cut off."""
        if self._read and not self._brotli.is_finished():
            raise DissectError(self._read, "the end of the brotli data", "the end of the body")
        return b""


class Zstd:
    """Frames of zstd, one after the other."""

    def __init__(self, limit: int) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._frame: Any = None  # the one under way
        self._frames = 0
        self._limit = limit
        self._read = 0
        self._written = 0

    def feed(self, data: bytes) -> bytes:
        """The decoded bytes these bring. Raises `DissectError`."""
        out: list[bytes] = []
        for start in range(0, len(data), ZSTD_SLICE):
            part = data[start : start + ZSTD_SLICE]
            while part:
                part = self._decompress(part, out)
        return b"".join(out)

    def _decompress(self, part: bytes, out: list[bytes]) -> bytes:
        """Decode up to the end of a frame; the rest of `part`."""
        if self._frame is None:
            if self._frames == MAX_FRAMES:
                raise LimitExceeded(self._read, f"at most {MAX_FRAMES} zstd frames", "more")
            self._frames += 1
            self._frame = self._decompressor.decompressobj()
        try:
            got = self._frame.decompress(part)
        except zstandard.ZstdError as error:
            raise DissectError(self._read, "zstd data", str(error)) from None
        self._written += len(got)
        if self._written > self._limit:
            raise LimitExceeded(self._read, f"at most {self._limit} decoded bytes", "more")
        out.append(got)
        rest: bytes = self._frame.unused_data
        self._read += len(part) - len(rest)
        if self._frame.eof:
            self._frame = None
        return rest

    def finish(self) -> bytes:
        """Nothing more. Raises `DissectError` where a frame was cut off."""
        if self._frame is not None:
            raise DissectError(self._read, "the end of the zstd data", "the end of the body")
        return b""
