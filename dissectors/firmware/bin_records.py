"""B000FF: the BIN image of Windows CE, a list of records to be written to memory (formats.md section 5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from construct import Const, ConstructError, Int32ul, Struct

from dissectors.errors import DissectError, LimitExceeded

MAGIC = b"B000FF\n"
MAX_RECORDS = 65536
MAX_PROBLEMS = 100
MAX_FLAT = 64 << 20  # bytes of memory that `flat` may lay out
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
    source: memoryview = field(default=memoryview(b""), repr=False, compare=False)

    @classmethod
    def parse(cls, data: bytes | memoryview) -> BinImage:
        """Read an image. Raises `DissectError` where the header or a record's place is impossible, `LimitExceeded`."""
        view = memoryview(data)
        try:
            return _parse(view)
        except ConstructError as error:
            raise DissectError(0, "a B000FF image", " ".join(str(error).split())[:120]) from None

    def flat(self) -> bytearray:
        """The memory that the records make, from `start` to the last record's end; gaps are zero.

        Raises `LimitExceeded`.
        """
        records = [record for record in self.records if record.address >= self.start]
        size = max((record.address + record.length for record in records), default=self.start) - self.start
        if size > MAX_FLAT:
            raise LimitExceeded(len(MAGIC), f"an image of at most {MAX_FLAT} bytes", f"{size}")
        memory = bytearray(size)
        for record in records:
            at = record.address - self.start
            memory[at : at + record.length] = self.source[record.offset : record.offset + record.length]
        return memory

    @staticmethod
    def build(start: int, length: int, records: Iterable[tuple[int, bytes]], entry: int) -> bytes:
        """The file with these records (address, data), which ends by naming the entry point."""
        parts: list[bytes] = [HEADER.build({"start": start, "length": length})]
        for address, data in records:
            parts += (RECORD.build({"address": address, "length": len(data), "checksum": _sum(data)}), data)
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


def _parse(view: memoryview) -> BinImage:
    header = HEADER.parse(view[: HEADER.sizeof()])
    if header.start + header.length > ADDRESSES:
        raise DissectError(len(MAGIC), "an image within 4 GiB of addresses", f"{header.length} at {header.start:#x}")
    records: list[BinRecord] = []
    problems: list[str] = []
    entry = None
    end = HEADER.sizeof()
    while True:
        at = end
        if at + RECORD.sizeof() > len(view):
            problems.append(f"it ends at offset {at} without naming its entry point")
            break
        offset = at + RECORD.sizeof()
        record = RECORD.parse(view[at:offset])
        if record.address == 0:
            end = offset
            entry = record.length
            if record.checksum:
                problems.append(f"the closing record at offset {at} has a checksum")
            break
        if len(records) == MAX_RECORDS:
            raise LimitExceeded(at, f"at most {MAX_RECORDS} records", "more")
        if record.length > len(view) - offset:
            problems.append(f"the record at offset {at} is cut off: {record.length} bytes, {len(view) - offset} left")
            break
        if not header.start <= record.address <= record.address + record.length <= header.start + header.length:
            problems.append(f"the record at offset {at} is outside of the image")
        right = _sum(view[offset : offset + record.length]) == record.checksum
        if not right:
            problems.append(f"the record at offset {at} has a wrong sum")
        records.append(BinRecord(record.address, offset, record.length, record.checksum, right))
        end = offset + record.length
    if entry is not None and end < len(view):
        problems.append(f"{len(view) - end} bytes follow the image")
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more problems"]
    return BinImage(header.start, header.length, tuple(records), entry, end, tuple(problems), view)


def _sum(data: bytes | memoryview) -> int:
    return sum(data) & 0xFFFFFFFF
