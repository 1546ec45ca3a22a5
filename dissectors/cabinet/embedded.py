"""Cabinets inside larger files: self-extractors, resources, concatenations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dissectors.cabinet.authenticode import SIGNATURE_RESERVE
from dissectors.cabinet.directory import Directory, read_directory, read_header
from dissectors.cabinet.limits import MAX_CANDIDATES, Budget
from dissectors.cabinet.structures import SIGNATURE
from dissectors.cabinet.values import Header
from dissectors.errors import DissectError, LimitExceeded
from dissectors.source import STEP, Source, WindowSource, places


class Embedded(NamedTuple):
    """A cabinet found: its place in the file, its bytes as a source of its own, its directory."""

    offset: int
    source: Source
    directory: Directory


def find_cabinets(source: Source, budget: Budget) -> Iterator[Embedded]:
    """Every cabinet that lies whole in the file and has a valid directory, from front to back, none within another.

    All candidates share the budget of members and blocks, so many almost-cabinets cost no more than one cabinet. Raises
    LimitExceeded after MAX_CANDIDATES.
    """
    members = budget.members
    position = 0
    for _attempt in range(MAX_CANDIDATES):
        offset = _find(source, position, budget)
        if offset < 0:
            return
        position = offset + 1
        try:
            header, _problems = read_header(WindowSource(source, offset, source.size - offset))
        except DissectError:
            continue
        size = _whole_size(header)
        if offset + size > source.size:
            continue
        window = WindowSource(source, offset, size)
        members -= header.folder_count + header.file_count
        if members < 0:
            raise LimitExceeded(offset, f"at most {budget.members} folders and members in all candidates", "more")
        try:
            directory = read_directory(window, budget)
        except DissectError:
            continue
        yield Embedded(offset, window, directory)
        position = offset + size
    raise LimitExceeded(position, f"at most {MAX_CANDIDATES} places that look like a cabinet", "more")


def _whole_size(header: Header) -> int:
    """The size with an appended signature, where the header reserve tells of one."""
    if len(header.reserve) != SIGNATURE_RESERVE.sizeof() or header.reserve[:4] != b"\0\0\x10\0":
        return header.cabinet_size
    reserve = SIGNATURE_RESERVE.parse(header.reserve)
    return header.cabinet_size + (reserve.length if reserve.offset == header.cabinet_size else 0)


def _find(source: Source, position: int, budget: Budget) -> int:
    """The next place of the magic, -1 for none."""
    for start in range(position, source.size, STEP):
        budget.check_time(start)
        for found in places(source, SIGNATURE, start, start + STEP + len(SIGNATURE) - 1):
            return found
    return -1
