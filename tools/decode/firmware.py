"""Firmware images taken apart for `--extract`: the memory that a B000FF image describes, the files of ROM images.

A ROM image holds its modules as they run, not as files, and files packed by the system's own compression, which is not
public: neither is extracted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dissectors.cabinet import safe_member_names
from dissectors.firmware import BinImage, Rom
from dissectors.source import STEP, Source, as_source
from tools.decode.extraction import Target
from tools.decode.inputs import Content
from tools.decode.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

GAPS = 64 << 20
"""Bytes of nothing that the memory of an image may hold."""
OVERLAP = 4
"""How often the files of an image may claim the bytes of the image."""

Wanted = tuple[str, Source, int, int, dict[str, Any]]
"""A name, where its bytes are, offset and size there, and the entry that tells of it."""


def extract_firmware(content: Content, record: dict[str, Any], settings: Settings, below: str) -> None:
    """Write what can be had; `record`, that of the file, learns what was written where, and what was not."""
    if settings.extract is None:
        return
    target = Target(settings.extract, below)
    problems = record["problems"]
    try:
        wanted = list(_wanted(content, record, problems))
        for name, (_name, source, start, size, entry) in zip(
            safe_member_names(one[0] for one in wanted), wanted, strict=True
        ):
            try:
                _write(target, name, source, start, size, settings)
            except OSError as error:
                problems.append(f"{name}: not extracted: {error.strerror}")
            else:
                entry["extracted"] = f"{below}/{name}" if below else name
    finally:
        target.close()


def _wanted(content: Content, record: dict[str, Any], problems: list[str]) -> Iterator[Wanted]:
    memory = file = as_source(content.file)
    for part, shown in zip(content.firmware.parts, record["parts"], strict=True):
        if isinstance(part.value, BinImage) and part.value.records:
            memory = part.value.memory()
            if memory.size > file.size + GAPS:
                problems.append(f"the image at {part.offset} is not extracted: {memory.size} bytes, most of them gaps")
            else:
                yield f"{part.value.start:08x}.nb0", memory, 0, memory.size, shown
        elif isinstance(part.value, Rom):
            yield from _files(part.value, memory if part.unpacked else file, shown, problems)


def _files(rom: Rom, source: Source, shown: dict[str, Any], problems: list[str]) -> Iterator[Wanted]:
    left = OVERLAP * source.size
    for entry, told in zip(rom.files, shown["files"], strict=True):
        if entry.offset is None or entry.stored is None or entry.stored != entry.size:
            continue
        left -= entry.size
        if left < 0:
            problems.append(f"the files of the image at {rom.base:#x} claim more bytes than it has: not all extracted")
            return
        yield f"rom-{rom.base:08x}/{entry.name}", source, entry.offset, entry.size, told


def _write(target: Target, name: str, source: Source, start: int, size: int, settings: Settings) -> None:
    growing = target.create(name)
    try:
        for at in range(start, start + size, STEP):
            settings.budget.check_time(at)
            growing.write(source.read_at(at, min(STEP, start + size - at)))
            settings.progress(min(STEP, start + size - at))
        growing.finish()
    finally:
        growing.abandon()
