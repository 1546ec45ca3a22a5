"""Firmware files: what is inside, told by what can be recognised.

A `.nbt` file has no public description (formats.md section 5). So no header is ever assumed: known formats are looked
for at the beginning and behind whatever comes first, and what remains is described by size, hashes and entropy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from dissectors.errors import DissectError
from dissectors.firmware.bin_records import MAGIC, BinImage
from dissectors.firmware.control_file import ControlFile
from dissectors.firmware.pe import PeImage, parse_pe
from dissectors.firmware.rom import SEARCHED, Rom, find_roms
from dissectors.source import Readable, Source, WindowSource, as_source, places

MAX_PARTS = 16  # recognised parts of one kind
SHOWN_HEAD = 64
SAMPLE = 1 << 12
SAMPLES = 16  # spread over the file; so many tell as much as all of it, to the second decimal

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
            "entropy": round(self.entropy, 3),
            "head": self.head.hex(),
            "leading": self.leading,
            "parts": [part.to_json() for part in self.parts],
            "problems": list(self.problems),
        }


def looks_like_firmware(data: bytes) -> bool:
    """Whether the very beginning is that of a firmware format (a cabinet is not told here)."""
    return data.startswith((MAGIC, b"MSCE")) or data[0x40:0x44] == b"ECEC" or (data[:2] == b"MZ" and _is_pe(data))


def identify(data: Readable) -> Firmware:
    """Describe any file as firmware; never raises. What nothing is recognised in has no parts."""
    source = as_source(data)
    parts: list[Part] = []
    problems: list[str] = []
    for offset in _places(source, MAGIC):
        image = _attempt(BinImage.parse, source, offset, problems if offset == 0 else [])
        if image is None or (offset and not image.records):
            continue
        parts.append(Part("b000ff", offset, image))
        problems += (f"b000ff at {offset}: {problem}" for problem in image.problems)
        if image.records:
            for rom in find_roms(image.memory()):
                problems += (f"rom at {rom.base:#x}: {problem}" for problem in rom.problems)
                parts.append(Part("rom", offset, rom, unpacked=True))
            break  # whatever follows is that image's own data
    if not parts:
        roms = find_roms(source)
        parts += (Part("rom", rom.offset, rom) for rom in roms)
        problems += (f"rom at {rom.offset}: {problem}" for rom in roms for problem in rom.problems)
        parts += (Part("cab", offset) for offset in _places(source, CABINET_START))
    head = source.read_at(0, SHOWN_HEAD)
    if head.startswith(b"MZ") and (executable := _attempt(parse_pe, source, 0, problems)):
        parts.append(Part("pe", 0, executable))
    if head.startswith(b"MSCE") and (control := _attempt(ControlFile.parse, source, 0, problems)):
        parts.append(Part("msce", 0, control))
        problems += control.problems
    return Firmware(
        size=source.size,
        entropy=entropy(source),
        head=head,
        parts=tuple(sorted(parts, key=lambda part: (part.offset, part.unpacked))),
        problems=tuple(problems),
    )


def entropy(data: Readable) -> float:
    """Shannon entropy in bits per byte, of samples spread evenly over the data."""
    source = as_source(data)
    step = max(SAMPLE, math.ceil(source.size / SAMPLES))
    sampled = b"".join(source.read_at(at, SAMPLE) for at in range(0, source.size, step))
    counts = Counter(sampled).values()
    return sum(count / len(sampled) * math.log2(len(sampled) / count) for count in counts)


def _places(source: Source, magic: bytes) -> Iterator[int]:
    """Where a magic number stands near the beginning, the first few times."""
    yield from islice(places(source, magic, 0, SEARCHED), MAX_PARTS)


def _attempt(parse: Callable[[Source], T], source: Source, offset: int, problems: list[str]) -> T | None:
    try:
        return parse(WindowSource(source, offset, source.size - offset) if offset else source)
    except DissectError as error:
        problems.append(str(error))
        return None


def _is_pe(data: bytes) -> bool:
    return _attempt(parse_pe, as_source(data), 0, []) is not None
