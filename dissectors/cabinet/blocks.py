"""The data of a folder, block by block: read, checked against its checksum, halves of split blocks joined."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import NamedTuple

from dissectors.cabinet.limits import BLOCK_INPUT
from dissectors.cabinet.structures import DATA_FIXED
from dissectors.cabinet.values import Block, Folder
from dissectors.errors import DissectError
from dissectors.source import Source

_PIECE = 4096
"""Bytes converted to one integer at a time; longer ones cost more to fold than they save."""


AHEAD = 1 << 18
"""Bytes read at a time."""


class PackedBlock(NamedTuple):
    """The compressed bytes of a block, the size they must decode to, and the offset of its CFDATA (its last half's)."""

    offset: int
    data: bytes
    size: int


def checksum(data: bytes, seed: int = 0) -> int:
    """The XOR of [MS-CAB] 3.1: 32-bit little-endian words; the last one to three bytes count as a big-endian number."""
    whole = len(data) & ~3
    pieces = [int.from_bytes(data[start : min(start + _PIECE, whole)], "little") for start in range(0, whole, _PIECE)]
    folded = functools.reduce(operator.xor, pieces, 0)
    bits = _PIECE * 8
    while bits > 32:
        bits //= 2
        folded = folded >> bits ^ folded & (1 << bits) - 1
    return seed ^ folded ^ int.from_bytes(data[whole:], "big")


def block_checksum(data: bytes, reserve: bytes, size: int) -> int:
    """The checksum of a CFDATA: over its data, then over the rest of its header (both sizes, the reserve)."""
    return checksum(reserve, checksum(data) ^ len(data) ^ size << 16)


class _Ahead:
    """A source read AHEAD bytes at a time: blocks follow each other."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._data = b""
        self._start = 0

    def read_at(self, offset: int, size: int) -> bytes:
        """Like `Source.read_at`."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._data):
            self._data = self._source.read_at(offset, max(size, AHEAD))
            self._start, begin = offset, 0
        return self._data[begin : begin + size]


def read_blocks(folder: Folder) -> Iterator[PackedBlock]:
    """The blocks in order. Raises DissectError at the first that is cut off or fails its checksum."""
    half = b""
    for number, part in enumerate(folder.parts):
        ahead = _Ahead(part.source)
        for block in part.blocks:
            data = half + read_block(ahead, part.data_reserve, block)
            if len(data) > BLOCK_INPUT:
                found = f"{len(data)} in two halves"
                raise DissectError(block.offset + 4, f"at most {BLOCK_INPUT} bytes in a data block", found)
            if block.size:
                half = b""
                yield PackedBlock(block.offset, data, block.size)
            elif number + 1 < len(folder.parts):
                half = data
    if folder.fault is not None:
        raise folder.fault


def read_block(ahead: _Ahead, data_reserve: int, block: Block) -> bytes:
    """The compressed bytes of one CFDATA, its checksum verified; 0 means there is none."""
    data = ahead.read_at(block.offset + DATA_FIXED, data_reserve + block.packed_size)
    if len(data) < data_reserve + block.packed_size:
        raise DissectError(block.offset, f"{block.packed_size} bytes of data", f"{len(data)} before the end")
    reserve = b""
    if data_reserve:
        reserve, data = data[:data_reserve], data[data_reserve:]
    if block.checksum:
        found = block_checksum(data, reserve, block.size)
        if found != block.checksum:
            raise DissectError(block.offset, f"a data block with checksum {block.checksum:#010x}", f"{found:#010x}")
    return data
