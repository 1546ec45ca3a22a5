"""The directory of a cabinet: header, folders with the index of their data blocks, members. All is validated here.

What makes the directory itself unreadable is raised. What only spoils data (a folder whose blocks are cut off, a member
that reaches beyond its folder) is kept as the `fault` of that folder or member, so that the rest can still be had.
Offsets are checked against the smaller of the declared cabinet size and what is there, in Python's unbounded integers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, NamedTuple

from construct import Construct, ConstructError

from dissectors.cabinet.limits import BLOCK_INPUT, BLOCK_OUTPUT, OVERLAP, Budget
from dissectors.cabinet.names import decode_name
from dissectors.cabinet.structures import (
    CONTINUED_BOTH,
    CONTINUED_FROM_PREVIOUS,
    CONTINUED_TO_NEXT,
    DATA_FIXED,
    DATA_INTEGERS,
    FILE,
    FOLDER,
    HEADER,
    SIGNATURE,
)
from dissectors.cabinet.values import Attributes, Block, Compression, Folder, Header, Link, Member, Part
from dissectors.errors import DissectError, LimitExceeded, Unsupported
from dissectors.source import Source, as_stream

VERSION = (1, 3)
CHECK_EVERY = 4096
"""Members or blocks between two looks at the clock."""


class Directory(NamedTuple):
    """All that is known before anything is decoded. `end` is where the last data block ends."""

    header: Header
    folders: tuple[Folder, ...]
    members: tuple[Member, ...]
    end: int
    problems: tuple[str, ...]


def read_directory(source: Source, budget: Budget) -> Directory:
    """Read and validate; raises DissectError with the offset of what is wrong, LimitExceeded when over budget."""
    header, problems = read_header(source)
    limit = min(source.size, header.cabinet_size)
    if header.file_count > budget.members:
        raise LimitExceeded(28, f"at most {budget.members} members", str(header.file_count))
    stream = as_stream(source, limit)
    stream.seek(header.end)
    raw_folders = [
        parse(FOLDER, stream, f"folder {index} of {header.folder_count}", reserve=header.folder_reserve)
        for index in range(header.folder_count)
    ]
    folders_end = stream.tell()
    if header.files_offset == folders_end:
        members = list(read_members(stream, header, budget))
    else:
        members = choose_members(stream, header, budget, problems)
    directory_end = stream.tell()
    folders = list(index_folders(source, header, raw_folders, directory_end, limit, budget))
    folders = mark_continued(folders, members)
    members = list(check_members(folders, members))
    ends = [block.offset + DATA_FIXED + header.data_reserve + block.packed_size for block in last_blocks(folders)]
    return Directory(header, tuple(folders), tuple(members), max([directory_end, *ends]), tuple(problems))


def choose_members(stream: BinaryIO, header: Header, budget: Budget, problems: list[str]) -> list[Member]:
    """The member list where the header's offset of it is not the end of the folders, where the stream stands.

    Microsoft's `expand` and cabextract read what follows the folders, `extract` and 7-Zip what the offset points to: a
    way to show different members to different programs. Taken is what follows the folders, if that can be read at all;
    what others would see is reported.
    """
    here = stream.tell()
    said = f"members are said to be listed at {header.files_offset}, not right after the folders ({here})"
    there, error = _try_members(stream, header.files_offset, header, budget)
    stream.seek(here)
    if there is not None and header.version == VERSION:
        # Believable enough to be what is left when there is nothing right here.
        members, _reason = _try_members(stream, here, header, budget)
        if members is None:
            stream.seek(max(there[-1].position + 16 + len(there[-1].raw_name) + 1, here))
            problems.append(said)
            return there
    else:
        members = list(read_members(stream, header, budget))
    shown = f"{len(there)} others, the first {there[0].display!r}" if there else f"nothing ({error})"
    problems.append(f"{said}: programs that believe it show {shown}")
    return members


def _try_members(
    stream: BinaryIO, offset: int, header: Header, budget: Budget
) -> tuple[list[Member] | None, DissectError | None]:
    stream.seek(offset)
    try:
        return list(read_members(stream, header, budget)), None
    except LimitExceeded:
        raise
    except DissectError as error:
        return None, error


def parse(table: Construct, stream: BinaryIO, what: str, **parameters: Any) -> Any:
    """Parse one table where the stream stands; DissectError names the place and construct's path to the field."""
    start = stream.tell()
    try:
        return table.parse_stream(stream, **parameters)
    except ConstructError as error:
        field = (error.path or "").removeprefix("(parsing)").replace(" -> ", ".").strip(".")
        reason = str(error).rpartition("\n")[2] or type(error).__name__
        raise DissectError(start, what, f"{field}: {reason}" if field else reason) from None


def read_header(source: Source) -> tuple[Header, list[str]]:
    """CFHEADER, and what is odd about it."""
    magic = source.read_at(0, len(SIGNATURE))
    if magic != SIGNATURE:
        raise DissectError(0, "a cabinet (MSCF)", repr(magic) if magic else "nothing")
    stream = as_stream(source, source.size)
    raw = parse(HEADER, stream, "a cabinet header")
    end = stream.tell()
    if raw.cabinet_size < end:
        raise DissectError(8, f"a cabinet size of at least {end}", str(raw.cabinet_size))
    if not raw.folder_count:
        raise DissectError(26, "a folder", "none")
    if not raw.file_count:
        raise DissectError(28, "a member", "none")
    problems = []
    if raw.cabinet_size > source.size:
        problems.append(f"truncated: {source.size} of {raw.cabinet_size} bytes")
    if (raw.version_major, raw.version_minor) != VERSION:
        problems.append(f"version {raw.version_major}.{raw.version_minor}, not 1.3")
    if raw.flags & ~0x0007:
        problems.append(f"unknown flags {raw.flags:#06x}")
    header = Header(
        cabinet_size=raw.cabinet_size,
        files_offset=raw.files_offset,
        version=(raw.version_major, raw.version_minor),
        folder_count=raw.folder_count,
        file_count=raw.file_count,
        flags=raw.flags,
        set_id=raw.set_id,
        set_index=raw.set_index,
        reserve=raw.reserve.data if raw.reserve else b"",
        folder_reserve=raw.reserve.folder_size if raw.reserve else 0,
        data_reserve=raw.reserve.data_size if raw.reserve else 0,
        previous=_link(raw.previous),
        next=_link(raw.next),
        end=end,
    )
    return header, problems


def _link(raw: Any) -> Link | None:
    return Link(raw.cabinet.decode("latin-1"), raw.disk.decode("latin-1")) if raw else None


def read_members(stream: BinaryIO, header: Header, budget: Budget) -> Iterator[Member]:
    """The CFFILE table."""
    for index in range(header.file_count):
        position = stream.tell()
        if index % CHECK_EVERY == 0:
            budget.check_time(position)
        raw = parse(FILE, stream, f"member {index} of {header.file_count}")
        if not raw.name:
            raise DissectError(position + 16, f"a name for member {index}", "an empty one")
        folder, from_previous, to_next = raw.folder, False, False
        if raw.folder in (CONTINUED_FROM_PREVIOUS, CONTINUED_BOTH):
            folder, from_previous = 0, True
        if raw.folder in (CONTINUED_TO_NEXT, CONTINUED_BOTH):
            folder, to_next = header.folder_count - 1, True
        if folder >= header.folder_count:
            raise DissectError(position + 8, f"a folder below {header.folder_count}", str(raw.folder))
        if raw.folder == CONTINUED_BOTH and header.folder_count != 1:
            raise DissectError(position + 8, "one folder around a member continued on both sides", str(raw.folder))
        yield Member(
            name=decode_name(raw.name, raw.attributes),
            raw_name=raw.name,
            size=raw.size,
            folder=folder,
            offset=raw.folder_offset,
            date=raw.date,
            time=raw.time,
            attributes=Attributes(raw.attributes),
            from_previous=from_previous,
            to_next=to_next,
            position=position,
        )


def index_folders(
    source: Source, header: Header, raw_folders: list[Any], directory_end: int, limit: int, budget: Budget
) -> list[Folder]:
    """Walk every folder's blocks once, in the order of their offsets: spans that overlap are not walked twice."""
    order = sorted(range(len(raw_folders)), key=lambda index: raw_folders[index].data_offset)
    folders: dict[int, Folder] = {}
    taken, walked = directory_end, 0
    for index in order:
        raw = raw_folders[index]
        blocks: tuple[Block, ...] = ()
        fault: DissectError | None = None
        entry = header.end + index * (8 + header.folder_reserve)
        if walked + raw.block_count > budget.blocks:
            raise LimitExceeded(entry, f"at most {budget.blocks} data blocks", str(walked + raw.block_count))
        if raw.block_count and raw.data_offset < taken:
            fault = DissectError(entry, f"the blocks of folder {index} at {taken} or later", f"at {raw.data_offset}")
        else:
            blocks, fault = walk_blocks(source, header, raw, limit, budget)
        if raw.compression & 0x000F not in tuple(Compression):
            fault = Unsupported(entry + 6, "stored, MSZIP, Quantum or LZX data", f"type {raw.compression:#06x}")
        walked += len(blocks)
        if blocks:
            taken = blocks[-1].offset + DATA_FIXED + header.data_reserve + blocks[-1].packed_size
        part = Part(source, header.data_reserve, blocks)
        folders[index] = Folder(index, raw.data_offset, raw.compression, raw.reserve, (part,), fault)
    return [folders[index] for index in range(len(raw_folders))]


def walk_blocks(
    source: Source, header: Header, raw: Any, limit: int, budget: Budget
) -> tuple[tuple[Block, ...], DissectError | None]:
    """The CFDATA headers of one folder, up to the first that is wrong, and what is wrong with it."""
    stored = raw.compression & 0x000F == Compression.STORED
    blocks: list[Block] = []
    offset = raw.data_offset
    for number in range(raw.block_count):
        if number % CHECK_EVERY == 0:
            budget.check_time(offset)
        head = source.read_at(offset, DATA_FIXED) if offset + DATA_FIXED <= limit else b""
        if len(head) < DATA_FIXED:
            return tuple(blocks), DissectError(offset, f"data block {number} of {raw.block_count}", "the end")
        block = Block(offset, *DATA_INTEGERS.unpack(head))
        fault = wrong_sizes(block, stored, limit - offset - DATA_FIXED - header.data_reserve)
        # A block without output is the first half of one that goes on in the next cabinet: only ever the last.
        if fault is None and not block.size and not (number == raw.block_count - 1 and header.next):
            fault = DissectError(offset + 6, "a data block with output", "none declared")
        if fault is not None:
            return tuple(blocks), fault
        blocks.append(block)
        offset += DATA_FIXED + header.data_reserve + block.packed_size
    return tuple(blocks), None


def wrong_sizes(block: Block, stored: bool, left: int) -> DissectError | None:
    """What is wrong with the sizes of a block, `left` bytes being there for its data."""
    if not block.packed_size:
        return DissectError(block.offset + 4, "a data block with data", "none declared")
    if block.packed_size > BLOCK_INPUT:
        return DissectError(block.offset + 4, f"at most {BLOCK_INPUT} bytes in a data block", str(block.packed_size))
    if block.size > BLOCK_OUTPUT:
        return DissectError(block.offset + 6, f"at most {BLOCK_OUTPUT} bytes out of a data block", str(block.size))
    # The halves of a split block declare 0 and the whole output: those are compared when they are joined.
    if stored and block.packed_size > block.size > 0:
        return DissectError(block.offset + 4, f"{block.size} stored bytes", str(block.packed_size))
    if block.packed_size > left:
        return DissectError(block.offset, f"{block.packed_size} bytes of data", f"{max(left, 0)} before the end")
    return None


def mark_continued(folders: list[Folder], members: list[Member]) -> list[Folder]:
    """Folders that start in the previous or go on in the next cabinet, as their members tell."""
    first = any(member.from_previous for member in members)
    last = any(member.to_next for member in members)
    return [
        replace(
            folder,
            starts_before=first and folder.index == 0,
            goes_on=last and folder.index == len(folders) - 1,
        )
        for folder in folders
    ]


def check_members(folders: list[Folder], members: list[Member]) -> Iterator[Member]:
    """The members with their faults: why they reach beyond their folder, or are more than it can hold."""
    claimed: Counter[int] = Counter()
    for member in members:
        claimed[member.folder] += member.size
    sizes = [folder.size for folder in folders]
    for member in members:
        folder = folders[member.folder]
        size = sizes[member.folder]
        fault: DissectError | None = None
        end = member.offset + member.size
        if folder.starts_before:
            fault = DissectError(member.position + 8, "the previous cabinet of the set", "this one alone")
        elif end > size and folder.fault is not None:
            fault = folder.fault
        elif end > size and folder.goes_on:
            fault = DissectError(member.position + 8, "the next cabinet of the set", "this one alone")
        elif end > size:
            fault = DissectError(member.position, f"a member within the {size} bytes of its folder", f"up to {end}")
        elif claimed[member.folder] > OVERLAP * size:
            fault = LimitExceeded(
                member.position,
                f"members of folder {folder.index} within {OVERLAP} times its {size} bytes",
                f"{claimed[member.folder]} bytes claimed",
            )
        yield replace(member, fault=fault)


def last_blocks(folders: list[Folder]) -> Iterator[Block]:
    """The last block of every folder that has one."""
    return (part.blocks[-1] for folder in folders for part in folder.parts if part.blocks)
