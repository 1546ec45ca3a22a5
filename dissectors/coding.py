"""Content codings of HTTP (RFC 9110 section 8.4.1), undone within stated bounds: gzip and deflate, which are applied
too, and brotli and zstd (dissectors/brotli_zstd.py).

`deflate` is zlib-wrapped by the RFC and raw from servers that got it wrong; both are read, told apart by the zlib
header. A gzip body may have several members (RFC 1952 section 2.2), and zero bytes behind the last one are padding.
Input is fed to zlib in slices, so that neither a bomb nor a body of a million tiny members costs more than linear work.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

from dissectors.errors import DissectError, LimitExceeded, Unsupported

MAX_CODINGS = 4  # codings on one body; real ones have one
MAX_MEMBERS = 4096  # gzip members of one body
SLICE = 1 << 14  # bytes given to zlib at a time: bounds its copies of unconsumed input, and its output to 17 MB
DEFAULT_LIMIT = 256 << 20  # decoded bytes of one body

IDENTITY = frozenset(("", "identity"))
GZIP = frozenset(("gzip", "x-gzip"))
DEFLATE = frozenset(("deflate", "x-deflate"))
BROTLI = frozenset(("br",))
ZSTD = frozenset(("zstd",))
WIDE = BROTLI | ZSTD  # their decoders hold up to 16 MiB of what they have given


def parse_codings(value: str) -> tuple[str, ...]:
    """The codings of a Content-Encoding (or Transfer-Encoding) value in the order they were applied, lower case.

    `identity` and empty members are left out. Parameters, which no content coding has, stay with their coding.
    """
    names = (part.strip(" \t").lower() for part in value.split(","))
    return tuple(name for name in names if name not in IDENTITY)


def decode_body(data: bytes, codings: Sequence[str], limit: int = DEFAULT_LIMIT) -> bytes:
    """Undo the codings, given in the order they were applied.

    Raises `DissectError` for damaged or cut data, `LimitExceeded` past `limit` decoded bytes, `Unsupported` for a
    coding that is none of these and not identity.
    """
    decoder = BodyDecoder(codings, limit)
    return decoder.feed(data) + decoder.finish()


def encode_body(data: bytes, codings: Sequence[str], like: bytes = b"") -> bytes:
    """Apply the codings in order; the same input gives the same bytes. Raises `Unsupported`.

    `like` is a body in these codings: `deflate` is written as it is there, zlib-wrapped or raw, for who sends it raw
    may read nothing else. Raises `DissectError` where `like` is damaged.
    """
    raw = _raw_deflate(like, codings)
    for place, name in enumerate(codings):
        if name in GZIP:
            import gzip  # noqa: PLC0415 - only writing needs it

            data = gzip.compress(data, mtime=0)
        elif name in DEFLATE:
            deflate = zlib.compressobj(wbits=-15 if place in raw else 15)
            data = deflate.compress(data) + deflate.flush()
        elif name not in IDENTITY:
            raise Unsupported(0, "gzip, deflate or identity", repr(name))
    return data


def _raw_deflate(body: bytes, codings: Sequence[str]) -> set[int]:
    """Which of the codings of a body, counted from 0, are deflate without the wrapping of zlib."""
    raw = set()
    for place in reversed(range(len(codings))):
        if codings[place] in DEFLATE and len(body) >= 2 and not _has_zlib_header(body):
            raw.add(place)
        if place and body and not DEFLATE.isdisjoint(codings[:place]):
            body = decode_body(body, codings[place : place + 1])
    return raw


class BodyDecoder:
    """Undoes the codings of one body as its bytes come. Errors are those of `decode_body`; after one it is spent."""

    def __init__(self, codings: Sequence[str], limit: int = DEFAULT_LIMIT) -> None:
        names = [name.lower() for name in codings if name.lower() not in IDENTITY]
        if len(names) > MAX_CODINGS:
            raise LimitExceeded(0, f"at most {MAX_CODINGS} codings", str(len(names)))
        self._stages = [_stage(name, limit) for name in reversed(names)]

    def feed(self, data: bytes) -> bytes:
        """The decoded bytes these bring."""
        for stage in self._stages:
            data = stage.feed(data)
        return data

    def finish(self) -> bytes:
        """The decoded bytes still held back. Raises `DissectError` where the body was cut off."""
        data = b""
        for stage in self._stages:
            data = stage.feed(data) + stage.finish()
        return data


class _Stage(Protocol):
    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


def _stage(name: str, limit: int) -> _Stage:
    if name in GZIP:
        return _Gzip(limit)
    if name in DEFLATE:
        return _Deflate(limit)
    if name in WIDE:
        from dissectors.brotli_zstd import Brotli, Zstd  # noqa: PLC0415 - seldom needed

        return Brotli(limit) if name in BROTLI else Zstd(limit)
    raise Unsupported(0, "gzip, deflate, br, zstd or identity", repr(name))


class _Inflater:
    """What gzip and deflate share: bounded zlib calls, counted input and output."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._read = 0
        self._written = 0

    def _inflate(self, zlib_stream: zlib._Decompress, data: bytes) -> bytes:
        room = self._limit - self._written
        try:
            out = zlib_stream.decompress(data, room + 1)
        except zlib.error as error:
            raise DissectError(self._read, f"{self._name} data", str(error)) from None
        if len(out) > room:
            raise LimitExceeded(self._read, f"at most {self._limit} decoded bytes", "more")
        self._written += len(out)
        self._read += len(data) - len(zlib_stream.unused_data)
        return out


class _Gzip(_Inflater):
    def __init__(self, limit: int) -> None:
        super().__init__(limit, "gzip")
        self._zlib = zlib.decompressobj(wbits=31)
        self._members = 0
        self._inside = False  # a member has begun

    def feed(self, data: bytes) -> bytes:
        out = []
        for start in range(0, len(data), SLICE):
            part = data[start : start + SLICE]
            while part:
                if not self._inside:
                    part = self._begin(part)
                    if not part:
                        break
                out.append(self._inflate(self._zlib, part))
                part = self._zlib.unused_data
                self._inside = not self._zlib.eof
        return b"".join(out)

    def _begin(self, part: bytes) -> bytes:
        """Make ready for the next member; `part` without the padding before it."""
        if self._members:
            padding = len(part) - len(part.lstrip(b"\0"))
            self._read += padding
            part = part[padding:]
        if part:
            if self._members == MAX_MEMBERS:
                raise LimitExceeded(self._read, f"at most {MAX_MEMBERS} gzip members", "more")
            self._members += 1
            self._inside = True
            self._zlib = zlib.decompressobj(wbits=31)
        return part

    def finish(self) -> bytes:
        if self._inside:
            raise DissectError(self._read, "the end of the gzip data", "the end of the body")
        return b""  # an empty body is empty in every coding: servers send it so


class _Deflate(_Inflater):
    def __init__(self, limit: int) -> None:
        super().__init__(limit, "deflate")
        self._zlib: zlib._Decompress | None = None
        self._head = b""

    def feed(self, data: bytes) -> bytes:
        if self._zlib is None:
            data = self._head + data
            if len(data) < 2:
                self._head = data
                return b""
            self._zlib = zlib.decompressobj(wbits=15 if _has_zlib_header(data) else -15)
        out = []
        for start in range(0, len(data), SLICE):
            part = data[start : start + SLICE]
            if self._zlib.eof:
                raise DissectError(self._read, "the end of the body", "more bytes behind the deflate data")
            out.append(self._inflate(self._zlib, part))
            if self._zlib.unused_data:
                raise DissectError(self._read, "the end of the body", "more bytes behind the deflate data")
        return b"".join(out)

    def finish(self) -> bytes:
        if self._head and self._zlib is None:
            raise DissectError(0, "deflate data", f"{len(self._head)} byte")
        if self._zlib is not None and not self._zlib.eof:
            raise DissectError(self._read, "the end of the deflate data", "the end of the body")
        return b""


def _has_zlib_header(data: bytes) -> bool:
    """RFC 1950 section 2.2: method 8, window at most 32 KiB, the two bytes a multiple of 31."""
    return data[0] & 0x0F == 8 and data[0] >> 4 <= 7 and (data[0] << 8 | data[1]) % 31 == 0
