"""MSZIP ([MS-MCI]): each block is `CK` and a whole raw deflate stream, the last 32 KiB of output its dictionary."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from dissectors.cabinet.blocks import PackedBlock
from dissectors.cabinet.limits import BLOCK_OUTPUT
from dissectors.cabinet.structures import DATA_FIXED
from dissectors.errors import DissectError

MAGIC = b"CK"


def decode_mszip(blocks: Iterable[PackedBlock]) -> Iterator[bytes]:
    """One chunk per block. Raises DissectError; no block can make more than one byte over what it declares."""
    history = b""
    for offset, data, size in blocks:
        start = offset + DATA_FIXED
        if data[:2] != MAGIC:
            raise DissectError(start, "an MSZIP block (CK)", repr(data[:2]))
        inflater = zlib.decompressobj(-zlib.MAX_WBITS, history) if history else zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            chunk = inflater.decompress(memoryview(data)[2:], size + 1)
        except zlib.error as error:
            raise DissectError(start, "a deflate stream", str(error)) from None
        if len(chunk) != size:
            found = f"{len(chunk)}" if len(chunk) < size else "more"
            raise DissectError(start, f"{size} bytes out of an MSZIP block", found)
        if not inflater.eof:
            raise DissectError(start, "the end of the deflate stream within its block", "more of it")
        yield chunk
        history = chunk if size == BLOCK_OUTPUT else (history + chunk)[-BLOCK_OUTPUT:]
