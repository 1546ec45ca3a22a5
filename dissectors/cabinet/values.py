"""The parts of a cabinet as plain values."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple

from dissectors.cabinet.names import display_name
from dissectors.errors import DissectError
from dissectors.source import Source


class Compression(IntEnum):
    """The compression methods of [MS-CAB] 2.3 (low four bits of typeCompress)."""

    STORED = 0
    MSZIP = 1
    QUANTUM = 2
    LZX = 3


class Attributes(IntFlag):
    """File attributes of [MS-CAB] 2.4."""

    READ_ONLY = 0x01
    HIDDEN = 0x02
    SYSTEM = 0x04
    ARCHIVE = 0x20
    EXECUTE = 0x40
    UTF8_NAME = 0x80


class Link(NamedTuple):
    """The neighbour in a set as the header names it. A label: never to be opened."""

    cabinet: str
    disk: str


@dataclass(frozen=True, slots=True)
class Header:
    """CFHEADER, [MS-CAB] 2.1. Sizes and offsets in bytes; `end` is where the folder table starts."""

    cabinet_size: int
    files_offset: int
    version: tuple[int, int]
    folder_count: int
    file_count: int
    flags: int
    set_id: int
    set_index: int
    reserve: bytes
    folder_reserve: int
    data_reserve: int
    previous: Link | None
    next: Link | None
    end: int


class Block(NamedTuple):
    """One CFDATA as the folder's index has it: where it is and what it declares."""

    offset: int
    checksum: int
    packed_size: int
    size: int


@dataclass(frozen=True, slots=True)
class Part:
    """The blocks of a folder that lie in one cabinet, and the cabinet's bytes."""

    source: Source = field(repr=False)
    data_reserve: int
    blocks: tuple[Block, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Folder:
    """CFFOLDER and the index of its blocks; in a joined set the parts are of several cabinets.

    `type` is the wire's typeCompress, `size` what the blocks decode to, `fault` why the index ends early.
    `starts_before` and `goes_on` tell that the first or the last blocks are in a cabinet that is not here.
    """

    index: int
    offset: int
    type: int
    reserve: bytes = field(repr=False)
    parts: tuple[Part, ...]
    fault: DissectError | None = None
    starts_before: bool = False
    goes_on: bool = False

    @property
    def method(self) -> Compression | None:
        """The compression method; None for a number that has no meaning."""
        number = self.type & 0x000F
        return Compression(number) if number <= Compression.LZX else None

    @property
    def window(self) -> int | None:
        """Window bits (LZX) or memory bits (Quantum)."""
        return self.type >> 8 & 0x1F if self.method in (Compression.LZX, Compression.QUANTUM) else None

    @property
    def level(self) -> int | None:
        """Level of Quantum."""
        return self.type >> 4 & 0x0F if self.method is Compression.QUANTUM else None

    @property
    def compression(self) -> str:
        """The method in words: `stored`, `MSZIP`, `LZX-21`."""
        match self.method:
            case None:
                return f"type {self.type:#06x}"
            case Compression.STORED:
                return "stored"
            case Compression.MSZIP:
                return "MSZIP"
            case method:
                return f"{'LZX' if method is Compression.LZX else 'Quantum'}-{self.window}"

    @property
    def blocks(self) -> int:
        """Number of data blocks."""
        return sum(len(part.blocks) for part in self.parts)

    @property
    def size(self) -> int:
        """Bytes the blocks declare to decode to."""
        return sum(block.size for part in self.parts for block in part.blocks)

    @property
    def packed_size(self) -> int:
        """Bytes of compressed data."""
        return sum(block.packed_size for part in self.parts for block in part.blocks)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `decode --json`."""
        return {
            "compression": self.method.name.lower() if self.method is not None else self.compression,
            "window": self.window,
            "offset": self.offset,
            "blocks": self.blocks,
            "size": self.size,
            "packed_size": self.packed_size,
            "reserve": self.reserve.hex() or None,
        }


@dataclass(frozen=True, slots=True)
class Member:
    """CFFILE. `name` is a label from outside, never a path: see `names.safe_member_names`.

    `folder` indexes the folders (after joining: of the set), `offset` and `size` count decoded bytes of that folder,
    `position` is where the entry stands in the cabinet. `fault` says why it cannot be had.
    """

    name: str
    raw_name: bytes = field(repr=False)
    size: int
    folder: int
    offset: int
    date: int = field(repr=False)
    time: int = field(repr=False)
    attributes: Attributes
    from_previous: bool = False
    to_next: bool = False
    position: int = field(default=0, repr=False)
    fault: DissectError | None = None

    @property
    def display(self) -> str:
        """The name with control and direction-changing characters escaped."""
        return display_name(self.name)

    @property
    def modified(self) -> dt.datetime | None:
        """MS-DOS date and time: local time of an unknown zone; None when no such day exists."""
        try:
            return dt.datetime(
                1980 + (self.date >> 9),
                self.date >> 5 & 0x0F,
                self.date & 0x1F,
                self.time >> 11,
                self.time >> 5 & 0x3F,
                (self.time & 0x1F) * 2,
            )
        except ValueError:
            return None

    def to_json(self) -> dict[str, Any]:
        """Plain values for `decode --json`, without digests."""
        modified = self.modified
        entry: dict[str, Any] = {
            "name": self.name,
            "size": self.size,
            "folder": self.folder,
            "offset": self.offset,
            "date": modified.isoformat() if modified else None,
            "attributes": [str(flag.name).lower().replace("_", "-") for flag in Attributes if flag in self.attributes],
        }
        if self.attributes & ~Attributes(0xE7):
            entry["attributes"].append(f"{int(self.attributes):#06x}")
        if "\ufffd" in self.name:
            entry["name_bytes"] = self.raw_name.hex()
        return entry
