"""The data of a folder, block by block: read, checked against its checksum, halves of split blocks joined."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import NamedTuple

from dissectors.cabinet.limits import BLOCK_INPUT
from dissectors.cabinet.structures import DATA, DATA_FIXED
from dissectors.cabinet.values import Block, Folder, Part
from dissectors.errors import DissectError

_PIECE = 1024
"""Bytes converted to one integer at a time; longer ones cost more to fold than they save."""


class PackedBlock(NamedTuple):
    """The compressed bytes of a block, the size they must decode to, and the offset of its CFDATA (its last half's)."""

    offset: int
    data: bytes
    size: int


def checksum(data: bytes, seed: int = 0) -> int:
    """The XOR of [MS-CAB] 3.1: 32-bit little-endian words; the last one to three bytes count as a big-endian number.

    It covers the compressed data and then the rest of the CFDATA header, whose words are the second call's `data`.
    """
    whole = len(data) & ~3
    pieces = (
        int.from_bytes(data[start : start + _PIECE], "little") for start in range(0, whole - whole % _PIECE, _PIECE)
    )
    folded = functools.reduce(operator.xor, pieces, int.from_bytes(data[whole - whole % _PIECE : whole], "little"))
    bits = _PIECE * 8
    while bits > 32:
        bits //= 2
        folded = folded >> bits ^ folded & (1 << bits) - 1
    return seed ^ folded ^ int.from_bytes(data[whole:], "big")


def read_blocks(folder: Folder) -> Iterator[PackedBlock]:
    """The blocks in order. Raises DissectError at the first that is cut off or fails its checksum."""
    half = b""
    for number, part in enumerate(folder.parts):
        for block in part.blocks:
            data = half + read_block(part, block)
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


def read_block(part: Part, block: Block) -> bytes:
    """The compressed bytes of one CFDATA, its checksum verified; 0 means there is none."""
    start = block.offset + DATA_FIXED
    data = part.source.read_at(start, part.data_reserve + block.packed_size)
    if len(data) < part.data_reserve + block.packed_size:
        raise DissectError(block.offset, f"{block.packed_size} bytes of data", f"{len(data)} before the end")
    if part.data_reserve:
        reserve, data = data[: part.data_reserve], data[part.data_reserve :]
    else:
        reserve = b""
    if block.checksum:
        head = DATA.build({"checksum": 0, "packed_size": block.packed_size, "size": block.size})[4:]
        found = checksum(head + reserve, checksum(data))
        if found != block.checksum:
            raise DissectError(block.offset, f"a data block with checksum {block.checksum:#010x}", f"{found:#010x}")
    return data
