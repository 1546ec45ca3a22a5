"""Bodies that came with a content coding, decoded within a limit: gzip and deflate, and what mitmproxy's own
dependencies add, brotli (RFC 7932) and zstd (RFC 8878), which browsers speak and phones do not.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from captures.exchange import Body, Headers
from dissectors.coding import DEFAULT_LIMIT, decode_body, parse_codings
from dissectors.errors import DissectError, LimitExceeded

# One brotli command of a few bytes may copy 16 MiB: small slices keep what comes beyond the limit small.
BROTLI_SLICE = 16
ZSTD_SLICE = 1 << 16


def codings_of(headers: Headers) -> tuple[str, ...]:
    """The content codings in the order they were applied."""
    return parse_codings(",".join(value for name, value in headers if name.lower() == "content-encoding"))


def decoded_body(headers: Headers, raw: bytes, limit: int = DEFAULT_LIMIT) -> tuple[Body, str | None]:
    """The body whose bytes came as `raw`, and why it could not be decoded, in which case it stays as it came."""
    codings = codings_of(headers)
    if not codings or not raw:
        return Body.of(raw), None
    data = raw
    try:
        for coding in reversed(codings):
            data = DECODERS[coding](data, limit) if coding in DECODERS else decode_body(data, (coding,), limit)
    except DissectError as error:
        return Body.of(raw), f"body not decoded ({', '.join(codings)}): {error}"
    return Body.of(data, raw), None


def _brotli(data: bytes, limit: int) -> bytes:
    import brotli  # type: ignore[import-untyped]  # noqa: PLC0415 - seldom needed

    decoder = brotli.Decompressor()
    parts: list[bytes] = []
    size = 0
    try:
        for start in range(0, len(data), BROTLI_SLICE):
            parts.append(decoder.process(data[start : start + BROTLI_SLICE]))
            size += len(parts[-1])
            if size > limit:
                raise LimitExceeded(start, f"at most {limit} decoded bytes", "more")
        finished = decoder.is_finished()
    except brotli.error as error:
        raise DissectError(0, "brotli data", str(error)) from None
    if not finished:
        raise DissectError(len(data), "the end of the brotli data", "the end of the body")
    return b"".join(parts)


def _zstd(data: bytes, limit: int) -> bytes:
    import zstandard  # noqa: PLC0415 - seldom needed

    source: Any = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
        io.BytesIO(data), read_across_frames=True
    )
    parts: list[bytes] = []
    size = 0
    try:
        while part := source.read(ZSTD_SLICE):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise LimitExceeded(0, f"at most {limit} decoded bytes", "more")
    except zstandard.ZstdError as error:
        raise DissectError(0, "zstd data", str(error)) from None
    return b"".join(parts)


DECODERS: dict[str, Callable[[bytes, int], bytes]] = {"br": _brotli, "zstd": _zstd}
