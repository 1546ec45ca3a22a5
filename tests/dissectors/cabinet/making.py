"""Cabinets for the tests: good ones by `Cabinet.build`, bad ones by changing the wire's own tables."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from dissectors.cabinet import Cabinet, Compression, NewFolder, NewMember
from dissectors.cabinet.structures import DATA, FILE, FOLDER, HEADER
from tests.dissectors.firmware.building import pe_image

TEXT = b"The quick brown fox jumps over the lazy dog. " * 2000


def cabinet_of(files: dict[str, bytes], compression: Compression = Compression.STORED, **options: Any) -> bytes:
    return Cabinet.build([NewFolder.of(files, compression)], **options)


def folder_of(*blocks: tuple[bytes, int], compression: Compression, size: int, window: int = 0) -> bytes:
    """One member of `size` bytes in a folder of ready-made blocks."""
    folder = NewFolder([NewMember("member", bytes(size))], compression, window, frames=blocks)
    return Cabinet.build([folder])


def raw_cabinet(
    files: Sequence[dict[str, Any]],
    folders: Sequence[dict[str, Any]] = ({},),
    data: bytes = b"",
    **header: Any,
) -> bytes:
    """A cabinet written table by table, lies included. `data` stands right behind the member list.

    A folder's `data_offset` counts from there.
    """
    table = b"".join(
        FILE.build(
            {"size": 1, "folder_offset": 0, "folder": 0, "date": 0, "time": 0, "attributes": 32, "name": b"x"} | file
        )
        for file in files
    )
    data_start = 36 + 8 * len(folders) + len(table)
    folder_table = b"".join(
        FOLDER.build(
            {"block_count": 1, "compression": 0, "reserve": b""}
            | folder
            | {"data_offset": data_start + folder.get("data_offset", 0)},
            reserve=0,
        )
        for folder in folders
    )
    fields = {
        "cabinet_size": data_start + len(data),
        "files_offset": 36 + len(folder_table),
        "folder_count": len(folders),
        "file_count": len(files),
        "flags": 0,
        "set_id": 0,
        "set_index": 0,
        "reserve": None,
        "previous": None,
        "next": None,
    }
    built: bytes = HEADER.build(fields | header) + folder_table + table + data
    return built


def block(data: bytes, size: int | None = None, checksum: int = 0) -> bytes:
    head: bytes = DATA.build(
        {"checksum": checksum, "packed_size": len(data), "size": len(data) if size is None else size}
    )
    return head + data


def patched(data: bytes, offset: int, form: str, change: Callable[[int], int] | int) -> bytes:
    """A copy with one integer changed."""
    (value,) = struct.unpack_from(form, data, offset)
    result = bytearray(data)
    struct.pack_into(form, result, offset, change(value) if callable(change) else change)
    return bytes(result)


def self_extractor(*cabinets: bytes, tail: bytes = b"") -> bytes:
    """A synthetic self-extractor: a program that knows the magic, the first cabinet in its section, the rest behind it.

    Before the first stands what a search stumbles over: the magic as text and as an operand, a header that breaks off
    in zeros, one of a cabinet larger than the file, one without folders. No cabinet begins at an aligned offset.
    """
    whole = cabinets[0]
    decoys = (
        b"\x81\x38MSCF\x75\x07",  # cmp dword ptr [eax], "MSCF"; jne
        b"MSCF\0\0\0\0" + bytes(32),
        whole[:8] + (1 << 30).to_bytes(4, "little") + whole[12:60],
        patched(whole[:80], 26, "<H", 0),
        b"not a cabinet: no MSCF header\0",
    )
    section = b"".join(decoys)
    section += b"\xcc" * (3 - (0x200 + len(section)) % 4) + whole + b"PADDINGXXPADDING"
    program = pe_image(machine=0x014C, subsystem=2, body=section)
    for cabinet in cabinets[1:]:
        program += b"\0" * (1 + len(program) % 2) + cabinet
    return program + tail
