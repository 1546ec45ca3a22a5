"""`MSCE`: the control file (first member, `*.000`) of a Windows CE installation cabinet.

Field order after cabextract's `wince_cab_format`, sizes checked (formats.md section 5). Registry and link sections are
counted only.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from construct import Array, Bytes, Const, Construct, ConstructError, Int16ul, Int32ul, Struct, this

from dissectors.errors import DissectError
from dissectors.source import Readable, as_source

MAX_SIZE = 1 << 20
MAX_PARTS = 64  # strings that make up one directory
MAX_PATH = 520  # characters shown of a path or a name; twice what the system takes

# fmt: off
TEXT_PLACE = Struct(
    "offset" / Int16ul,
    "length" / Int16ul,
)
HEADER = Struct(
    "magic"          / Const(b"MSCE"),
    "unknown_4"      / Int32ul,
    "length"         / Int32ul,
    "unknown_12"     / Int32ul,
    "unknown_16"     / Int32ul,
    "architecture"   / Int32ul,
    "min_version"    / Array(2, Int32ul),
    "max_version"    / Array(2, Int32ul),
    "min_build"      / Int32ul,
    "max_build"      / Int32ul,
    "strings_count"  / Int16ul,
    "dirs_count"     / Int16ul,
    "files_count"    / Int16ul,
    "hives_count"    / Int16ul,
    "keys_count"     / Int16ul,
    "links_count"    / Int16ul,
    "strings_offset" / Int32ul,
    "dirs_offset"    / Int32ul,
    "files_offset"   / Int32ul,
    "hives_offset"   / Int32ul,
    "keys_offset"    / Int32ul,
    "links_offset"   / Int32ul,
    "app_name"       / TEXT_PLACE,
    "provider"       / TEXT_PLACE,
    "unsupported"    / TEXT_PLACE,
    "unknown_96"     / Int16ul,
    "unknown_98"     / Int16ul,
)
STRING = Struct(
    "id"     / Int16ul,
    "length" / Int16ul,
    "text"   / Bytes(this.length),
)
DIRECTORY = Struct(
    "id"     / Int16ul,
    "length" / Int16ul,
    "parts"  / Bytes(this.length),  # u16 string identifiers, the last one 0
)
FILE = Struct(
    "id"        / Int16ul,
    "directory" / Int16ul,
    "unknown"   / Int16ul,
    "flags"     / Int32ul,
    "length"    / Int16ul,
    "name"      / Bytes(this.length),
)
# fmt: on

ARCHITECTURES = {
    103: "SH-3",
    104: "SH-4",
    386: "x86 (386)",
    486: "x86 (486)",
    586: "x86 (Pentium)",
    601: "PowerPC 601",
    603: "PowerPC 603",
    604: "PowerPC 604",
    620: "PowerPC 620",
    821: "PowerPC 821",
    1824: "ARM720",
    2080: "ARM820",
    2336: "ARM920",
    2577: "StrongARM",
    4000: "MIPS R4000",
    10003: "Hitachi SH-3",
    10004: "Hitachi SH-3E",
    10005: "Hitachi SH-4",
    21064: "Alpha 21064",
    70001: "ARM7TDMI",
}


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """A file to be installed: the cabinet member's numeric extension, and the path it gets on the device."""

    number: int
    path: str

    def to_json(self) -> dict[str, Any]:
        """The file as plain JSON values."""
        return {"member": f"{self.number:03}", "path": self.path}


@dataclass(frozen=True, slots=True)
class ControlFile:
    """What an installation cabinet is for. Versions are major, minor, build; all zero where there is no limit."""

    app_name: str
    provider: str
    architecture: str
    min_version: tuple[int, int, int]
    max_version: tuple[int, int, int]
    unsupported: tuple[str, ...]
    files: tuple[InstalledFile, ...]
    registry_keys: int
    links: int
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, whole: Readable) -> ControlFile:
        """Read a control file. Raises `DissectError` where its header does not fit."""
        source = as_source(whole)
        data = source.read_at(0, MAX_SIZE)
        try:
            header = HEADER.parse(data[: HEADER.sizeof()])
        except ConstructError as error:
            raise DissectError(0, "the 100-byte header of an MSCE file", " ".join(str(error).split())[:120]) from None
        problems: list[str] = []
        if header.length != source.size:
            problems.append(f"its header says {header.length} bytes, it has {source.size}")
        if source.size > MAX_SIZE:
            problems.append(f"only the first {MAX_SIZE} bytes are read")
        strings = {
            entry.id: _text(entry.text)
            for entry in _section(data, header.strings_offset, header.strings_count, STRING, problems)
        }
        directories = {
            entry.id: _directory(entry.parts, strings)
            for entry in _section(data, header.dirs_offset, header.dirs_count, DIRECTORY, problems)
        }
        files = tuple(
            InstalledFile(entry.id, _joined(directories.get(entry.directory, ""), _text(entry.name)))
            for entry in _section(data, header.files_offset, header.files_count, FILE, problems)
        )
        unsupported = _place(data, header.unsupported).split(b"\0")
        return cls(
            app_name=_text(_place(data, header.app_name)),
            provider=_text(_place(data, header.provider)),
            architecture=ARCHITECTURES.get(header.architecture, str(header.architecture)),
            min_version=(*header.min_version, header.min_build),
            max_version=(*header.max_version, header.max_build),
            unsupported=tuple(_text(name) for name in unsupported if name),
            files=files,
            registry_keys=header.keys_count,
            links=header.links_count,
            problems=tuple(problems),
        )

    def to_json(self) -> dict[str, Any]:
        """The control file as plain JSON values."""
        return {
            "app_name": self.app_name,
            "provider": self.provider,
            "architecture": self.architecture,
            "min_version": ".".join(map(str, self.min_version)),
            "max_version": ".".join(map(str, self.max_version)),
            "unsupported": list(self.unsupported),
            "files": [file.to_json() for file in self.files],
            "registry_keys": self.registry_keys,
            "links": self.links,
        }


def _section(data: bytes, offset: int, count: int, entry: Construct, problems: list[str]) -> list[Any]:
    """The entries of a section as far as the file holds them."""
    entries: list[Any] = []
    stream = io.BytesIO(data)
    stream.seek(offset)
    try:
        entries += (entry.parse_stream(stream) for _ in range(count))
    except ConstructError:
        problems.append(f"only {len(entries)} of {count} entries at offset {offset} can be read")
    return entries


def _place(data: bytes, place: Any) -> bytes:
    return data[place.offset : place.offset + place.length]


def _directory(parts: bytes, strings: dict[int, str]) -> str:
    numbers = [int.from_bytes(parts[at : at + 2], "little") for at in range(0, len(parts) - 1, 2)]
    names = (strings.get(number, f"<{number}>") for number in numbers[:MAX_PARTS] if number)
    return "\\".join(names)[:MAX_PATH]


def _joined(directory: str, name: str) -> str:
    return f"{directory}\\{name}"[:MAX_PATH] if directory else name


def _text(octets: bytes) -> str:
    return octets.partition(b"\0")[0][:MAX_PATH].decode("latin-1")
