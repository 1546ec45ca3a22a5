"""Firmware files: what is inside, told by what can be recognised.

A `.nbt` file has no public description (formats.md section 5). So no header is ever assumed: known formats are looked
for at the beginning and behind whatever comes first, and what remains is described by size, hashes and entropy.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from dissectors.errors import DissectError
from dissectors.firmware.bin_records import MAGIC, BinImage
from dissectors.firmware.control_file import ControlFile
from dissectors.firmware.pe import PeImage, parse_pe
from dissectors.firmware.rom import SEARCHED, Rom, find_roms

MAX_PARTS = 16  # recognised parts of one kind
SHOWN_HEAD = 64
ENTROPY_BLOCK = 1 << 14
ENTROPY_BLOCKS = 64  # spread over the file; a megabyte tells as much as all of it

T = TypeVar("T")

CABINET_START = b"MSCF\0\0\0\0"  # with its first reserved field


@dataclass(frozen=True, slots=True)
class Part:
    """Something recognised at an offset of the file: "b000ff", "rom", "cab", "pe", "msce"; `value` is its view.

    A part that lies in the memory which a BIN image describes has that image's offset and `unpacked` set. Of a cabinet
    only the place is told here (`dissectors.cabinet` reads it), its value is None.
    """

    kind: str
    offset: int
    value: BinImage | Rom | PeImage | ControlFile | None = None
    unpacked: bool = False

    def to_json(self) -> dict[str, Any]:
        """The part as plain JSON values."""
        shown: dict[str, Any] = {"part": self.kind, "offset": self.offset}
        if self.unpacked:
            shown["unpacked"] = True
        return shown | ({} if self.value is None else self.value.to_json())


@dataclass(frozen=True, slots=True)
class Firmware:
    """A firmware file. `leading` counts the bytes before the first recognised part, all of them where there is none.

    `entropy` is in bits per byte, of evenly spread samples: near 8 for what is compressed or encrypted.
    """

    size: int
    sha1: str
    sha256: str
    entropy: float
    head: bytes
    parts: tuple[Part, ...]
    problems: tuple[str, ...] = ()

    @property
    def leading(self) -> int:
        """Bytes before the first recognised part."""
        return min((part.offset for part in self.parts), default=self.size)

    @property
    def recognised(self) -> bool:
        """Whether anything was recognised."""
        return bool(self.parts)

    def to_json(self) -> dict[str, Any]:
        """The line of `decode --json`, without the file's name."""
        return {
            "kind": "firmware",
            "size": self.size,
            "sha1": self.sha1,
            "sha256": self.sha256,
            "entropy": round(self.entropy, 3),
            "head": self.head.hex(),
            "leading": self.leading,
            "parts": [part.to_json() for part in self.parts],
            "problems": list(self.problems),
        }


def looks_like_firmware(data: bytes) -> bool:
    """Whether the very beginning is that of a firmware format (a cabinet is not told here)."""
    return data.startswith((MAGIC, b"MSCE")) or data[0x40:0x44] == b"ECEC" or (data[:2] == b"MZ" and _is_pe(data))


def identify(data: bytes) -> Firmware:
    """Describe any file as firmware; never raises. What nothing is recognised in has no parts."""
    parts: list[Part] = []
    problems: list[str] = []
    for offset in _places(data, MAGIC):
        image = _attempt(BinImage.parse, data, offset, problems if offset == 0 else [])
        if image is None or (offset and not image.records):
            continue
        parts.append(Part("b000ff", offset, image))
        problems += (f"b000ff at {offset}: {problem}" for problem in image.problems)
        if image.records:
            parts += _unpacked(image, offset, problems)
            break  # whatever follows is that image's own data
    if not parts:
        roms = find_roms(data)
        parts += (Part("rom", rom.offset, rom) for rom in roms)
        problems += (f"rom at {rom.offset}: {problem}" for rom in roms for problem in rom.problems)
        parts += (Part("cab", offset) for offset in _places(data, CABINET_START))
    if data[:2] == b"MZ" and (executable := _attempt(parse_pe, data, 0, problems)):
        parts.append(Part("pe", 0, executable))
    if data[:4] == b"MSCE" and (control := _attempt(ControlFile.parse, data, 0, problems)):
        parts.append(Part("msce", 0, control))
        problems += control.problems
    return Firmware(
        size=len(data),
        sha1=hashlib.sha1(data, usedforsecurity=False).hexdigest(),
        sha256=hashlib.sha256(data).hexdigest(),
        entropy=entropy(data),
        head=data[:SHOWN_HEAD],
        parts=tuple(sorted(parts, key=lambda part: (part.offset, part.unpacked))),
        problems=tuple(problems),
    )


def entropy(data: bytes) -> float:
    """Shannon entropy in bits per byte, of samples spread evenly over the data."""
    if not data:
        return 0.0
    step = max(ENTROPY_BLOCK, math.ceil(len(data) / ENTROPY_BLOCKS))
    counts: Counter[int] = Counter()
    for at in range(0, len(data), step):
        counts.update(data[at : at + ENTROPY_BLOCK])
    total = counts.total()
    return sum(count / total * math.log2(total / count) for count in counts.values())


def _unpacked(image: BinImage, offset: int, problems: list[str]) -> Iterator[Part]:
    """The ROM images in the memory that a BIN image describes."""
    try:
        memory = image.flat()
    except DissectError as error:
        problems.append(f"b000ff at {offset}: not unpacked: {error}")
        return
    for rom in find_roms(memory):
        problems += (f"rom at {rom.base:#x}: {problem}" for problem in rom.problems)
        yield Part("rom", offset, rom, unpacked=True)


def _places(data: bytes, magic: bytes) -> Iterator[int]:
    """Where a magic number stands near the beginning, the first few times."""
    at = data.find(magic, 0, SEARCHED)
    for _ in range(MAX_PARTS):
        if at < 0:
            return
        yield at
        at = data.find(magic, at + len(magic), SEARCHED)


def _attempt(parse: Callable[[bytes], T], data: bytes, offset: int, problems: list[str]) -> T | None:
    try:
        return parse(data[offset:])
    except DissectError as error:
        problems.append(str(error))
        return None


def _is_pe(data: bytes) -> bool:
    return _attempt(parse_pe, data, 0, []) is not None
