"""The ROM image of Windows CE: the `ECEC` marker, ROMHDR, its tables of modules and files (formats.md section 5)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from construct import Const, ConstructError, Int16ul, Int32ul, Int64ul, Struct

from dissectors.errors import DissectError, LimitExceeded
from dissectors.filetime import rfc3339
from dissectors.source import Readable, Source, as_source, places
from dissectors.tables import integers

MARKER = b"ECEC"
MARKER_OFFSET = 0x40  # from the start of the image
SEARCHED = 8 << 20  # bytes at the beginning of a file in which a marker is looked for
MAX_CANDIDATES = 256  # markers tried
MAX_ROMS = 16  # images found in one file: a kernel and its execute-in-place regions
MAX_MODULES = 10_000
MAX_FILES = 50_000
MAX_NAME = 260  # Windows' MAX_PATH
KERNEL_ADDRESSES = range(0x8000_0000, 0xC000_0000)

# fmt: off
SIGNATURE = Struct(
    "marker"         / Const(MARKER),
    "romhdr_address" / Int32ul,
    "romhdr_offset"  / Int32ul,  # from the start of the image, since Windows CE 4
)
ROMHDR = Struct(
    "dllfirst"        / Int32ul,
    "dlllast"         / Int32ul,
    "physfirst"       / Int32ul,
    "physlast"        / Int32ul,
    "nummods"         / Int32ul,
    "ulRAMStart"      / Int32ul,
    "ulRAMFree"       / Int32ul,
    "ulRAMEnd"        / Int32ul,
    "ulCopyEntries"   / Int32ul,
    "ulCopyOffset"    / Int32ul,
    "ulProfileLen"    / Int32ul,
    "ulProfileOffset" / Int32ul,
    "numfiles"        / Int32ul,
    "ulKernelFlags"   / Int32ul,
    "ulFSRamPercent"  / Int32ul,
    "ulDrivglobStart" / Int32ul,
    "ulDrivglobLen"   / Int32ul,
    "usCPUType"       / Int16ul,
    "usMiscFlags"     / Int16ul,
    "pExtensions"     / Int32ul,
    "ulTrackingStart" / Int32ul,
    "ulTrackingLen"   / Int32ul,
)
TOC_ENTRY = Struct(
    "dwFileAttributes" / Int32ul,
    "ftTime"           / Int64ul,
    "nFileSize"        / Int32ul,
    "lpszFileName"     / Int32ul,
    "ulE32Offset"      / Int32ul,
    "ulO32Offset"      / Int32ul,
    "ulLoadOffset"     / Int32ul,
)
FILES_ENTRY = Struct(
    "dwFileAttributes" / Int32ul,
    "ftTime"           / Int64ul,
    "nRealFileSize"    / Int32ul,
    "nCompFileSize"    / Int32ul,
    "lpszFileName"     / Int32ul,
    "ulLoadOffset"     / Int32ul,
)
# fmt: on
TOC_INTEGERS, FILES_INTEGERS = integers(TOC_ENTRY), integers(FILES_ENTRY)

CPU_TYPES = {
    0x014C: "x86",
    0x0166: "MIPS R4000",
    0x01A2: "SH-3",
    0x01A6: "SH-4",
    0x01C0: "ARM",
    0x01C2: "Thumb",
}


@dataclass(frozen=True, slots=True)
class RomEntry:
    """A module (an executable placed for running in ROM) or a file.

    `modified` is a FILETIME; `size` that of the file; `offset` where a file's bytes begin in the dissected input (None
    for modules, and where the address is outside of it); `stored` how many bytes are there, fewer when compressed.
    """

    name: str
    size: int
    modified: int
    attributes: int
    offset: int | None = None
    stored: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The entry as plain JSON values."""
        shown: dict[str, Any] = {"name": self.name, "size": self.size, "modified": rfc3339(self.modified)}
        if self.stored is not None:
            shown |= {"offset": self.offset, "stored": self.stored, "compressed": self.stored != self.size}
        return shown


@dataclass(frozen=True, slots=True)
class Rom:
    """One ROM image: where it begins in the input, the address of that byte, and what its tables hold."""

    offset: int
    base: int
    first: int
    last: int
    cpu: str
    modules: tuple[RomEntry, ...]
    files: tuple[RomEntry, ...]
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The image as plain JSON values."""
        return {
            "offset": self.offset,
            "base": f"{self.base:#010x}",
            "first": f"{self.first:#010x}",
            "last": f"{self.last:#010x}",
            "cpu": self.cpu,
            "modules": [entry.to_json() for entry in self.modules],
            "files": [entry.to_json() for entry in self.files],
            "problems": list(self.problems),
        }


def find_roms(data: Readable) -> tuple[Rom, ...]:
    """Every ROM image whose marker lies at the beginning of `data`; what only looks like one is left out."""
    source = as_source(data)
    found: list[Rom] = []
    entries = 0
    for start in _candidates(source):
        try:
            rom = parse_rom(source, start)
        except DissectError:
            continue
        found.append(rom)
        entries += len(rom.modules) + len(rom.files)
        if len(found) == MAX_ROMS or entries > MAX_MODULES + MAX_FILES:
            break
    return tuple(found)


def parse_rom(data: Readable, start: int = 0) -> Rom:
    """Read the ROM image that begins at `start`. Raises `DissectError` where marker or header do not fit."""
    source = as_source(data)
    at = start + MARKER_OFFSET
    head = source.read_at(at, SIGNATURE.sizeof())
    try:
        signature = SIGNATURE.parse(head)
    except ConstructError:
        raise DissectError(at, "the marker ECEC and the place of ROMHDR", repr(head[:4])) from None
    if signature.romhdr_address not in KERNEL_ADDRESSES:
        raise DissectError(at + 4, "an address of the kernel", f"{signature.romhdr_address:#x}")
    base = signature.romhdr_address - signature.romhdr_offset
    place = start + signature.romhdr_offset
    if base < 0 or place + ROMHDR.sizeof() > source.size:
        raise DissectError(at + 8, "a ROMHDR inside the image", f"one at {signature.romhdr_offset:#x}")
    header = ROMHDR.parse(source.read_at(place, ROMHDR.sizeof()))
    if header.physfirst > header.physlast:
        raise DissectError(place + 8, "an image that ends after its start", f"{header.physlast:#x}")
    if header.nummods > MAX_MODULES or header.numfiles > MAX_FILES:
        counts = f"{header.nummods} and {header.numfiles}"
        raise LimitExceeded(place + 16, f"at most {MAX_MODULES} modules and {MAX_FILES} files", counts)
    problems: list[str] = []
    modules_at = place + ROMHDR.sizeof()
    files_at = modules_at + header.nummods * TOC_ENTRY.sizeof()
    modules = _table(source, modules_at, header.nummods, TOC_INTEGERS, "module", problems)
    files = _table(source, files_at, header.numfiles, FILES_INTEGERS, "file", problems)
    here = _Addresses(source, start - base)
    return Rom(
        *(start, base, header.physfirst, header.physlast),
        CPU_TYPES.get(header.usCPUType, f"{header.usCPUType:#06x}"),
        tuple(
            RomEntry(here.name(name), size, modified, attributes)
            for attributes, modified, size, name, _e32, _o32, _load in modules
        ),
        tuple(
            RomEntry(here.name(name), size, modified, attributes, here.offset(load, stored), stored)
            for attributes, modified, size, stored, name, load in files
        ),
        tuple(problems),
    )


class _Addresses:
    """Addresses of an image turned into offsets of the input."""

    def __init__(self, source: Source, shift: int) -> None:
        self._source = source
        self._shift = shift

    def offset(self, address: int, size: int) -> int | None:
        """The offset of `size` bytes at an address, None where the input does not hold them."""
        offset = address + self._shift
        return offset if 0 <= offset <= offset + size <= self._source.size else None

    def name(self, address: int) -> str:
        """The zero-terminated name at an address; empty where there is none."""
        offset = self.offset(address, 1)
        if offset is None:
            return ""
        return self._source.read_at(offset, MAX_NAME).partition(b"\0")[0].decode("latin-1")


def _candidates(source: Source) -> Iterator[int]:
    """Starts of images by the marker's place; images begin at multiples of four."""
    aligned = (at - MARKER_OFFSET for at in places(source, MARKER, MARKER_OFFSET, SEARCHED) if at % 4 == 0)
    yield from islice(aligned, MAX_CANDIDATES)


def _table(
    source: Source, at: int, count: int, entry: struct.Struct, what: str, problems: list[str]
) -> Iterator[tuple[int, ...]]:
    """The entries that the input holds."""
    held = max(0, min(count, (source.size - at) // entry.size))
    if held < count:
        problems.append(f"only {held} of {count} {what} entries are there")
    return entry.iter_unpack(source.read_at(at, held * entry.size))
