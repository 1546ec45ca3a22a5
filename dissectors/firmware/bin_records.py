"""B000FF: the BIN image of Windows CE, a list of records to be written to memory (formats.md section 5)."""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from construct import Const, ConstructError, Int32ul, Struct

from dissectors.errors import DissectError, LimitExceeded
from dissectors.source import STEP, Readable, Source, as_source
from dissectors.tables import integers

MAGIC = b"B000FF\n"
MAX_RECORDS = 65536
MAX_PROBLEMS = 100
SUMMED = 256  # bytes whose sum stays below 65521, the modulus of Adler-32
ADDRESSES = 1 << 32

# fmt: off
HEADER = Struct(
    "magic"  / Const(MAGIC),
    "start"  / Int32ul,
    "length" / Int32ul,
)
RECORD = Struct(
    "address"  / Int32ul,
    "length"   / Int32ul,
    "checksum" / Int32ul,
)
# fmt: on
RECORD_INTEGERS = integers(RECORD)


@dataclass(frozen=True, slots=True)
class BinRecord:
    """One record: where in memory its bytes go, where in the file they are, and whether their sum is right."""

    address: int
    offset: int
    length: int
    checksum: int
    sum_ok: bool

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return {
            "address": f"{self.address:#010x}",
            "offset": self.offset,
            "length": self.length,
            "checksum": f"{self.checksum:#010x}",
            "sum_ok": self.sum_ok,
        }


@dataclass(frozen=True, slots=True)
class BinImage:
    """A BIN image. `entry` is where execution begins; None where the closing record is missing.

    `end` is the offset past what was read; `problems` names wrong sums, records outside the image and a lost end.
    """

    start: int
    length: int
    records: tuple[BinRecord, ...]
    entry: int | None
    end: int
    problems: tuple[str, ...] = ()
    source: Source = field(default_factory=lambda: as_source(b""), repr=False, compare=False)

    @classmethod
    def parse(cls, data: Readable) -> BinImage:
        """Read an image. Raises `DissectError` where the header or a record's place is impossible, `LimitExceeded`."""
        try:
            return _parse(as_source(data))
        except ConstructError as error:
            raise DissectError(0, "a B000FF image", " ".join(str(error).split())[:120]) from None

    def memory(self) -> Source:
        """The memory that the records make, from `start` to the end of the last record; gaps are zero."""
        return Memory(self)

    @staticmethod
    def build(start: int, length: int, records: Iterable[tuple[int, bytes]], entry: int) -> bytes:
        """The file with these records (address, data), which ends by naming the entry point."""
        parts: list[bytes] = [HEADER.build({"start": start, "length": length})]
        for address, data in records:
            parts += (
                RECORD.build({"address": address, "length": len(data), "checksum": byte_sum(data) & 0xFFFFFFFF}),
                data,
            )
        parts.append(RECORD.build({"address": 0, "length": entry, "checksum": 0}))
        return b"".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The image as plain JSON values."""
        return {
            "start": f"{self.start:#010x}",
            "length": self.length,
            "entry": None if self.entry is None else f"{self.entry:#010x}",
            "sums_ok": all(record.sum_ok for record in self.records),
            "records": [record.to_json() for record in self.records],
        }


class Memory:
    """The memory that a BIN image describes, as a source: laid out as it is asked for, later records over earlier."""

    def __init__(self, image: BinImage) -> None:
        self._source = image.source
        records = [record for record in image.records if record.address >= image.start and record.length]
        self.size = max((record.address + record.length - image.start for record in records), default=0)
        self._places = _painted([(record.address - image.start, record.length, record.offset) for record in records])
        self._starts = [start for start, _length, _offset in self._places]

    def read_at(self, offset: int, size: int) -> bytes:
        """The bytes of the records that lie there, zeros between them."""
        end = min(offset + size, self.size)
        memory = bytearray(max(end - offset, 0))
        for index in range(max(bisect.bisect_right(self._starts, offset) - 1, 0), len(self._places)):
            start, length, place = self._places[index]
            if start >= end:
                break
            skipped = max(offset - start, 0)
            taken = min(start + length, end) - start - skipped
            if taken > 0:
                at = start + skipped - offset
                memory[at : at + taken] = self._source.read_at(place + skipped, taken)
        return bytes(memory)


def _painted(stretches: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Stretches (start, length, offset in the file) by start, cut so that none covers another; later ones win."""
    borders = sorted({border for start, length, _offset in stretches for border in (start, start + length)})
    number = {border: index for index, border in enumerate(borders)}
    free = list(range(len(borders) + 1))  # the next cell at or after this one that nothing covers yet

    def next_free(cell: int) -> int:
        root = cell
        while free[root] != root:
            root = free[root]
        while free[cell] != root:
            free[cell], cell = root, free[cell]
        return root

    cells = []
    for start, length, offset in reversed(stretches):
        cell, last = next_free(number[start]), number[start + length]
        while cell < last:
            cells.append((borders[cell], borders[cell + 1] - borders[cell], offset + borders[cell] - start))
            free[cell] = cell + 1
            cell = next_free(cell + 1)
    return sorted(cells)


def _parse(source: Source) -> BinImage:
    header = HEADER.parse(source.read_at(0, HEADER.sizeof()))
    if header.start + header.length > ADDRESSES:
        raise DissectError(len(MAGIC), "an image within 4 GiB of addresses", f"{header.length} at {header.start:#x}")
    records: list[BinRecord] = []
    problems: list[str] = []
    entry = None
    end = HEADER.sizeof()
    while True:
        at = end
        offset = at + RECORD.sizeof()
        if offset > source.size:
            problems.append(f"it ends at offset {at} without naming its entry point")
            break
        address, length, checksum = RECORD_INTEGERS.unpack(source.read_at(at, RECORD.sizeof()))
        if address == 0:
            end = offset
            entry = length
            if checksum:
                problems.append(f"the closing record at offset {at} has a checksum")
            break
        if len(records) == MAX_RECORDS:
            raise LimitExceeded(at, f"at most {MAX_RECORDS} records", "more")
        if length > source.size - offset:
            problems.append(f"the record at offset {at} is cut off: {length} bytes, {source.size - offset} left")
            break
        if not header.start <= address <= address + length <= header.start + header.length:
            problems.append(f"the record at offset {at} is outside of the image")
        right = _sum(source, offset, length) == checksum
        if not right:
            problems.append(f"the record at offset {at} has a wrong sum")
        records.append(BinRecord(address, offset, length, checksum, right))
        end = offset + length
    if entry is not None and end < source.size:
        problems.append(f"{source.size - end} bytes follow the image")
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more problems"]
    return BinImage(header.start, header.length, tuple(records), entry, end, tuple(problems), source)


def _sum(source: Source, offset: int, length: int) -> int:
    """The checksum of a record: the plain sum of its bytes."""
    total = 0
    for start in range(offset, offset + length, STEP):
        total += byte_sum(source.read_at(start, min(STEP, offset + length - start)))
    return total & 0xFFFFFFFF


def byte_sum(data: bytes) -> int:
    """The sum of all bytes. Of so few at a time half of an Adler-32 is just that, much sooner than `sum` has it."""
    return sum((zlib.adler32(data[at : at + SUMMED]) & 0xFFFF) - 1 for at in range(0, len(data), SUMMED))
