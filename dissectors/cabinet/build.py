"""Cabinets written: stored and MSZIP (with the history that real cabinets use), several folders, reserves, sets.

Dates are MS-DOS local times as given; nothing here asks a clock, so equal input makes equal bytes.
"""

from __future__ import annotations

import datetime as dt
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from construct import ConstructError

from dissectors.cabinet.blocks import block_checksum
from dissectors.cabinet.limits import BLOCK_INPUT, BLOCK_OUTPUT, MAX_NAME
from dissectors.cabinet.mszip import MAGIC
from dissectors.cabinet.structures import (
    CONTINUED_BOTH,
    CONTINUED_FROM_PREVIOUS,
    CONTINUED_TO_NEXT,
    DATA,
    DATA_FIXED,
    FILE,
    FOLDER,
    HEADER,
    NEXT_CABINET,
    PREVIOUS_CABINET,
    RESERVE_PRESENT,
)
from dissectors.cabinet.values import Attributes, Compression, Link
from dissectors.errors import DissectError, LimitExceeded, Unsupported

EPOCH = dt.datetime(1980, 1, 1)
LEVEL = 6
MSZIP_INPUT = BLOCK_OUTPUT + 12
"""Bytes of an MSZIP block at most ([MS-MCI] 2)."""


@dataclass(frozen=True, slots=True)
class NewMember:
    """A file to be put into a cabinet. The name may have directories, separated by a backslash."""

    name: str
    data: bytes
    modified: dt.datetime = EPOCH
    attributes: Attributes = Attributes.ARCHIVE


@dataclass(frozen=True, slots=True)
class NewFolder:
    """Members compressed together. `frames` gives the blocks ready-made, as (packed data, decoded size) each."""

    members: Sequence[NewMember]
    compression: Compression = Compression.MSZIP
    window: int = 0
    reserve: bytes = b""
    frames: Sequence[tuple[bytes, int]] | None = None

    @classmethod
    def of(cls, files: Mapping[str, bytes], compression: Compression = Compression.MSZIP) -> NewFolder:
        """A folder of files by name."""
        return cls([NewMember(name, data) for name, data in files.items()], compression)


class _Entry(NamedTuple):
    member: NewMember
    offset: int
    folder: int


class _Blocks(NamedTuple):
    """A folder ready to be written: typeCompress, reserve, and (packed data, decoded size) per block."""

    type: int
    reserve: bytes
    blocks: list[tuple[bytes, int]]


def build_cabinet(
    folders: Sequence[NewFolder],
    *,
    set_id: int = 0,
    set_index: int = 0,
    previous: Link | None = None,
    next_: Link | None = None,
    header_reserve: bytes = b"",
    data_reserve: int = 0,
    level: int = LEVEL,
) -> bytes:
    """The bytes of a new cabinet.

    Folders must have reserves of one length. `data_reserve` is the length of each block's reserve, filled with zeros.
    Raises Unsupported for a method that is not written here (ready-made `frames` may be of any), LimitExceeded or
    DissectError for what the format cannot hold.
    """
    entries = [
        _Entry(member, offset, index)
        for index, folder in enumerate(folders)
        for member, offset in _placed(folder.members)
    ]
    packed = [_Blocks(_type(folder), folder.reserve, list(_packed(folder, level))) for folder in folders]
    return _write(packed, entries, set_id, set_index, previous, next_, header_reserve, data_reserve)


def build_set(folder: NewFolder, part_size: int, names: Sequence[str], *, set_id: int = 1) -> list[bytes]:
    """One folder spread over several cabinets, each with up to `part_size` bytes of packed data.

    A block that does not fit is split. `names` are the file names of the cabinets, one for each that comes to be.
    """
    parts = list(_split(_packed(folder, LEVEL), part_size))
    if len(names) < len(parts):
        raise DissectError(0, f"names for {len(parts)} cabinets", str(len(names)))
    links = [Link(name, f"Disk {number}") for number, name in enumerate(names, 1)]
    cabinets = []
    for index, part in enumerate(parts):
        had = parts[index - 1].end if index else 0
        to_come = parts[index + 1].start if index + 1 < len(parts) else part.end + 1
        # An empty member belongs to the first part that reaches past its place, or to the last.
        holds = part.end if index + 1 < len(parts) else part.end + 1
        entries = []
        for member, offset in _placed(folder.members):
            end = offset + len(member.data)
            before, after = bool(member.data) and offset < had, end > to_come
            if (end > part.start and offset < part.end) if member.data else had <= offset < holds:
                entries.append(_Entry(member, offset, _CODES[before, after]))
        cabinets.append(
            _write(
                [_Blocks(_type(folder), folder.reserve, part.blocks)],
                entries,
                set_id,
                index,
                links[index - 1] if index else None,
                links[index + 1] if index + 1 < len(parts) else None,
            )
        )
    return cabinets


_CODES = {
    (False, False): 0,
    (True, False): CONTINUED_FROM_PREVIOUS,
    (False, True): CONTINUED_TO_NEXT,
    (True, True): CONTINUED_BOTH,
}


class _Part(NamedTuple):
    """The blocks of one cabinet and the stretch of output they belong to, halves counted whole."""

    start: int
    end: int
    blocks: list[tuple[bytes, int]]


def _split(packed: Iterable[tuple[bytes, int]], part_size: int) -> Iterator[_Part]:
    blocks: list[tuple[bytes, int]] = []
    room, start, position = part_size, 0, 0
    for data, size in packed:
        rest = data
        while len(rest) > room:
            if room:
                blocks.append((rest[:room], 0))
            yield _Part(start, position + size if room else position, blocks)
            blocks, rest, room, start = [], rest[room:], part_size, position
        blocks.append((rest, size))
        room -= len(rest)
        position += size
    yield _Part(start, position, blocks)


def _placed(members: Iterable[NewMember]) -> Iterator[tuple[NewMember, int]]:
    """Each member with its offset in the folder."""
    offset = 0
    for member in members:
        yield member, offset
        offset += len(member.data)


def _type(folder: NewFolder) -> int:
    return folder.compression | folder.window << 8


def _packed(folder: NewFolder, level: int) -> Iterator[tuple[bytes, int]]:
    """The blocks of a folder."""
    if folder.frames is not None:
        return iter(folder.frames)
    chunks = _chunks(folder.members)
    match folder.compression:
        case Compression.STORED:
            return ((chunk, len(chunk)) for chunk in chunks)
        case Compression.MSZIP:
            return encode_mszip(chunks, level)
    raise Unsupported(0, "stored or MSZIP to write", folder.compression.name)


def _chunks(members: Iterable[NewMember]) -> Iterator[bytes]:
    """The contents one after the other, cut at block size."""
    pending = bytearray()
    for member in members:
        for start in range(0, len(member.data), BLOCK_OUTPUT):
            pending += member.data[start : start + BLOCK_OUTPUT]
            if len(pending) >= BLOCK_OUTPUT:
                yield bytes(pending[:BLOCK_OUTPUT])
                del pending[:BLOCK_OUTPUT]
    if pending:
        yield bytes(pending)


def encode_mszip(chunks: Iterable[bytes], level: int) -> Iterator[tuple[bytes, int]]:
    """An MSZIP block of each chunk, with the chunk before it as history ([MS-MCI] 2)."""
    history = b""
    for chunk in chunks:
        deflater = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, history)
        data = deflater.compress(chunk) + deflater.flush()
        if len(MAGIC + data) > MSZIP_INPUT:
            # One stored deflate block: final, length, and its complement.
            data = struct.pack("<BHH", 1, len(chunk), len(chunk) ^ 0xFFFF) + chunk
        yield MAGIC + data, len(chunk)
        history = chunk


def _write(
    folders: Sequence[_Blocks],
    entries: Sequence[_Entry],
    set_id: int,
    set_index: int,
    previous: Link | None,
    next_: Link | None,
    header_reserve: bytes = b"",
    data_reserve: int = 0,
) -> bytes:
    folder_reserve = len(folders[0].reserve) if folders else 0
    if any(len(folder.reserve) != folder_reserve for folder in folders):
        raise DissectError(0, f"folder reserves of {folder_reserve} bytes", "another length")
    if max(len(folders), len(entries), *(len(folder.blocks) for folder in folders)) > 0xFFFF:
        raise LimitExceeded(0, "at most 65535 folders, members, and blocks in a folder", "more")
    reserved = bool(header_reserve or folder_reserve or data_reserve)
    header = {
        "cabinet_size": 0,
        "files_offset": 0,
        "folder_count": len(folders),
        "file_count": len(entries),
        "flags": PREVIOUS_CABINET * (previous is not None)
        | NEXT_CABINET * (next_ is not None)
        | RESERVE_PRESENT * reserved,
        "set_id": set_id,
        "set_index": set_index,
        "reserve": {"folder_size": folder_reserve, "data_size": data_reserve, "data": header_reserve},
        "previous": _encode_link(previous),
        "next": _encode_link(next_),
    }
    try:
        files = b"".join(FILE.build(_file(entry)) for entry in entries)
        files_offset = len(HEADER.build(header)) + len(folders) * (8 + folder_reserve)
        offset = files_offset + len(files)
        tables: list[bytes] = []
        data: list[bytes] = []
        for folder in folders:
            table = {"data_offset": offset, "block_count": len(folder.blocks), "compression": folder.type}
            tables.append(FOLDER.build(table | {"reserve": folder.reserve}, reserve=folder_reserve))
            for block in folder.blocks:
                data += _block(block, data_reserve)
                offset += DATA_FIXED + data_reserve + len(block[0])
        whole = HEADER.build(header | {"cabinet_size": offset, "files_offset": files_offset})
    except ConstructError as error:
        raise DissectError(0, "a cabinet that the format can hold", str(error).rpartition("\n")[2]) from None
    return b"".join([whole, *tables, files, *data])


def _encode_link(link: Link | None) -> dict[str, bytes] | None:
    if link is None:
        return None
    return {"cabinet": link.cabinet.encode("latin-1", "replace"), "disk": link.disk.encode("latin-1", "replace")}


def _file(entry: _Entry) -> dict[str, object]:
    member = entry.member
    attributes = member.attributes & ~Attributes.UTF8_NAME
    name = member.name.encode("utf-8", "surrogatepass")
    if not member.name.isascii():
        attributes |= Attributes.UTF8_NAME
    if not 0 < len(name) <= MAX_NAME or b"\0" in name:
        raise LimitExceeded(0, f"a name of 1 to {MAX_NAME} bytes without NUL", f"{len(name)} bytes")
    when = member.modified
    if not 1980 <= when.year <= 2107:
        raise LimitExceeded(0, "a year from 1980 to 2107", str(when.year))
    return {
        "size": len(member.data),
        "folder_offset": entry.offset,
        "folder": entry.folder,
        "date": (when.year - 1980) << 9 | when.month << 5 | when.day,
        "time": when.hour << 11 | when.minute << 5 | when.second // 2,
        "attributes": attributes,
        "name": name,
    }


def _block(block: tuple[bytes, int], data_reserve: int) -> Iterator[bytes]:
    """One CFDATA with its checksum."""
    data, size = block
    if not data or len(data) > BLOCK_INPUT or size > BLOCK_OUTPUT:
        raise LimitExceeded(0, f"blocks of up to {BLOCK_INPUT} bytes for {BLOCK_OUTPUT}", f"{len(data)} for {size}")
    reserve = bytes(data_reserve)
    yield DATA.build({"checksum": block_checksum(data, reserve, size), "packed_size": len(data), "size": size})
    yield reserve
    yield data
