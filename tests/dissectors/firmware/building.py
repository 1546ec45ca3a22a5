"""Synthetic firmware files, made with the dissectors' own construct tables. None of them is a real image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dissectors.firmware import control_file, pe, rom

BASE = 0x8C00_0000
FILETIME_2009 = 128839108580000000  # 2009-04-11


def rom_image(
    modules: Sequence[str] = ("nk.exe",),
    files: Mapping[str, bytes] | None = None,
    *,
    base: int = BASE,
    stored: Mapping[str, int] | None = None,
    **header: int,
) -> bytes:
    """An image that begins at `base`; `stored` gives files a smaller stored size, as compression would."""
    files = {} if files is None else files
    names_at: int = rom.MARKER_OFFSET + rom.SIGNATURE.sizeof()
    names = bytearray()
    places: dict[str, int] = {}

    def place(value: bytes) -> int:
        at = names_at + len(names)
        names.extend(value)
        return base + at

    for name in (*modules, *files):
        places[name] = place(name.encode("latin-1") + b"\0")
    contents = {name: place(content) for name, content in files.items()}
    names.extend(bytes(-(names_at + len(names)) % 4))
    header_at = names_at + len(names)
    fields: dict[str, int] = dict.fromkeys((str(sub.name) for sub in rom.ROMHDR.subcons), 0)
    fields |= {"physfirst": base, "physlast": base + 0x10_0000, "usCPUType": 0x01C2}
    fields |= {"nummods": len(modules), "numfiles": len(files), **header}
    table = b"".join(
        rom.TOC_ENTRY.build(
            {
                "dwFileAttributes": 7,
                "ftTime": FILETIME_2009,
                "nFileSize": 4096,
                "lpszFileName": places[name],
                "ulE32Offset": 0,
                "ulO32Offset": 0,
                "ulLoadOffset": 0,
            }
        )
        for name in modules
    )
    table += b"".join(
        rom.FILES_ENTRY.build(
            {
                "dwFileAttributes": 7,
                "ftTime": FILETIME_2009,
                "nRealFileSize": len(content),
                "nCompFileSize": (stored or {}).get(name, len(content)),
                "lpszFileName": places[name],
                "ulLoadOffset": contents[name],
            }
        )
        for name, content in files.items()
    )
    marker = rom.SIGNATURE.build({"romhdr_address": base + header_at, "romhdr_offset": header_at})
    return bytes(rom.MARKER_OFFSET) + bytes(marker) + bytes(names) + bytes(rom.ROMHDR.build(fields)) + table


def pe_image(
    *, plus: bool = False, machine: int = 0x01C2, subsystem: int = 9, body: bytes = b"code", size: int = 0
) -> bytes:
    """A PE image of one section, unsigned; `size` pads the file."""
    magic = pe.PE32_PLUS if plus else pe.PE32
    directories = 112 if plus else 96
    optional_size = directories + 16 * pe.DIRECTORY.sizeof()
    head: dict[str, Any] = {
        "magic": magic,
        "linker": 0,
        "sizes": [len(body), 0, 0],
        "entry_point": 0x1000,
        "bases": [0x1000, 0, 0x10000],
        "section_alignment": 0x1000,
        "file_alignment": 0x200,
        "os_version": [5, 0],
        "image_version": [0, 0],
        "subsystem_version": [5, 0],
        "win32_version": 0,
        "image_size": 0x2000,
        "headers_size": 0x200,
        "checksum": 0,
        "subsystem": subsystem,
    }
    optional = bytes(pe.OPTIONAL_HEADER.build(head))
    optional = optional.ljust(directories - 4, b"\0") + (16).to_bytes(4, "little")
    optional = optional.ljust(optional_size, b"\0")
    header = pe.FILE_HEADER.build(
        {
            "machine": machine,
            "section_count": 1,
            "time_stamp": 1_239_445_058,
            "symbol_table": 0,
            "symbol_count": 0,
            "optional_header_size": optional_size,
            "characteristics": 0x2102,
        }
    )
    section = pe.SECTION.build(
        {
            "name": b".text\0\0\0",
            "virtual_size": len(body),
            "virtual_address": 0x1000,
            "raw_size": len(body),
            "raw_offset": 0x200,
            "line_numbers": bytes(12),
            "characteristics": 0x60000020,
        }
    )
    dos = pe.DOS_HEADER.build({"rest": bytes(58), "pe_offset": 64})
    whole = (bytes(dos) + bytes(header) + optional + bytes(section)).ljust(0x200, b"\0") + body
    return whole.ljust(size, b"\0")


def control(
    files: Mapping[int, tuple[int, str]],
    directories: Mapping[int, Sequence[int]],
    strings: Mapping[int, str],
    **header: Any,
) -> bytes:
    """An MSCE control file: files by number (directory, name), directories as string numbers, strings."""

    def counted(text: str) -> dict[str, Any]:
        return {"length": len(text) + 1, "text": text.encode() + b"\0", "name": text.encode() + b"\0"}

    names = {"app_name": b"Phone\0", "provider": b"Contoso\0", "unsupported": b"HPC\0JORDAN\0\0"}
    at = control_file.HEADER.sizeof()
    places = {}
    for name, value in names.items():
        places[name] = {"offset": at, "length": len(value)}
        at += len(value)
    sections = [
        b"".join(control_file.STRING.build({"id": number, **counted(text)}) for number, text in strings.items()),
        b"".join(
            control_file.DIRECTORY.build(
                {
                    "id": number,
                    "length": 2 * len(parts) + 2,
                    "parts": b"".join(part.to_bytes(2, "little") for part in (*parts, 0)),
                }
            )
            for number, parts in directories.items()
        ),
        b"".join(
            control_file.FILE.build({"id": number, "directory": folder, "unknown": number, "flags": 0, **counted(name)})
            for number, (folder, name) in files.items()
        ),
    ]
    offsets = [at, at + len(sections[0]), at + len(sections[0]) + len(sections[1])]
    end = offsets[2] + len(sections[2])
    fields: dict[str, Any] = {
        "unknown_4": 0,
        "length": end,
        "unknown_12": 0,
        "unknown_16": 1,
        "architecture": 2577,
        "min_version": [4, 0],
        "max_version": [5, 99],
        "min_build": 0,
        "max_build": 0xE0000000,
        "strings_count": len(strings),
        "dirs_count": len(directories),
        "files_count": len(files),
        "hives_count": 0,
        "keys_count": 0,
        "links_count": 0,
        "strings_offset": offsets[0],
        "dirs_offset": offsets[1],
        "files_offset": offsets[2],
        "hives_offset": end,
        "keys_offset": end,
        "links_offset": end,
        **places,
        "unknown_96": 0,
        "unknown_98": 0,
    }
    return bytes(control_file.HEADER.build(fields | header)) + b"".join(names.values()) + b"".join(sections)
