"""PE images, as far as telling one and its Authenticode hash need it (Microsoft's PE/COFF specification)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from construct import Array, Bytes, Const, ConstructError, Int16ul, Int32ul, Struct

from dissectors.errors import DissectError, LimitExceeded, Unsupported
from dissectors.source import STEP, Readable, Source, as_source, as_stream

MAX_SECTIONS = 96  # what the loader accepts
SECURITY_DIRECTORY = 4
PE32, PE32_PLUS = 0x10B, 0x20B
SUBSYSTEM_OFFSET_END = 70  # the part of the optional header that every image needs
CHECKSUM_OFFSET = 64  # in the optional header
_DIRECTORIES = {PE32: 96, PE32_PLUS: 112}  # where they begin in the optional header; their count is before them
MAX_SIGNATURE = 16 << 20
PKCS_SIGNED_DATA = 2
_ALIGNMENT = 8  # of a certificate table; an unsigned image is hashed as if it were padded for one

# fmt: off
DOS_HEADER = Struct(
    "magic"     / Const(b"MZ"),
    "rest"      / Bytes(58),
    "pe_offset" / Int32ul,
)
FILE_HEADER = Struct(
    "signature"            / Const(b"PE\0\0"),
    "machine"              / Int16ul,
    "section_count"        / Int16ul,
    "time_stamp"           / Int32ul,
    "symbol_table"         / Int32ul,
    "symbol_count"         / Int32ul,
    "optional_header_size" / Int16ul,
    "characteristics"      / Int16ul,
)
OPTIONAL_HEADER = Struct(  # as far as PE32 and PE32+ agree
    "magic"             / Int16ul,
    "linker"            / Int16ul,
    "sizes"             / Array(3, Int32ul),
    "entry_point"       / Int32ul,
    "bases"             / Array(3, Int32ul),
    "section_alignment" / Int32ul,
    "file_alignment"    / Int32ul,
    "os_version"        / Array(2, Int16ul),
    "image_version"     / Array(2, Int16ul),
    "subsystem_version" / Array(2, Int16ul),
    "win32_version"     / Int32ul,
    "image_size"        / Int32ul,
    "headers_size"      / Int32ul,
    "checksum"          / Int32ul,
    "subsystem"         / Int16ul,
)
DIRECTORY = Struct(
    "offset" / Int32ul,  # of the certificate table; the other directories hold addresses
    "size"   / Int32ul,
)
CERTIFICATE = Struct(  # what stands in the certificate table, PKCS #7 behind it
    "length"   / Int32ul,
    "revision" / Int16ul,
    "type"     / Int16ul,
)
SECTION = Struct(
    "name"            / Bytes(8),
    "virtual_size"    / Int32ul,
    "virtual_address" / Int32ul,
    "raw_size"        / Int32ul,
    "raw_offset"      / Int32ul,
    "line_numbers"    / Bytes(12),
    "characteristics" / Int32ul,
)
# fmt: on

MACHINES = {
    0x014C: "x86",
    0x0166: "MIPS R4000",
    0x01A2: "SH-3",
    0x01A6: "SH-4",
    0x01C0: "ARM",
    0x01C2: "Thumb",
    0x01C4: "ARMv7",
    0x0266: "MIPS16",
    0x0366: "MIPS with FPU",
    0x8664: "x86-64",
    0xAA64: "ARM64",
}
SUBSYSTEMS = {1: "native", 2: "Windows GUI", 3: "Windows console", 9: "Windows CE"}


@dataclass(frozen=True, slots=True)
class Section:
    """A section: its name and where its bytes are in the file."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class PeImage:
    """A PE image. `security` is offset and size of its certificate table, None where it is not signed.

    `checksum_offset` and `security_entry` are the places that the Authenticode hash leaves out.
    """

    machine: str
    subsystem: str
    built: datetime
    is_dll: bool
    sections: tuple[Section, ...]
    checksum_offset: int
    security_entry: int | None
    security: tuple[int, int] | None

    def to_json(self) -> dict[str, Any]:
        """The image as plain JSON values."""
        return {
            "machine": self.machine,
            "subsystem": self.subsystem,
            "built": self.built.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "dll": self.is_dll,
            "sections": [{"name": s.name, "offset": s.offset, "size": s.size} for s in self.sections],
            "signed": self.security is not None,
        }


@dataclass(frozen=True, slots=True)
class PeSignature:
    """The Authenticode signature of an image: where its PKCS #7 begins, and its length in bytes."""

    offset: int
    length: int
    _source: Source = field(repr=False, compare=False)

    @property
    def der(self) -> bytes:
        """The PKCS #7 SignedData; padding may follow it."""
        return self._source.read_at(self.offset, self.length)

    def digest(self, algorithm: str) -> str:
        """The digest of what is signed, in hex. Raises `DissectError`."""
        return authenticode_digests(self._source, algorithm)[0].hex()


def find_signature(data: Readable) -> PeSignature | None:
    """The first signature in the certificate table of an image, None where there is none. Raises `DissectError`."""
    source = as_source(data)
    image = parse_pe(source)
    if image.security is None:
        return None
    at, size = image.security
    try:
        head = CERTIFICATE.parse(source.read_at(at, CERTIFICATE.sizeof()))
    except ConstructError:
        raise DissectError(at, "an entry of the certificate table", f"{size} bytes") from None
    if head.type != PKCS_SIGNED_DATA:
        raise Unsupported(at + 6, "a PKCS #7 signature", f"type {head.type}")
    if not CERTIFICATE.sizeof() < head.length <= min(size, MAX_SIGNATURE):
        raise DissectError(at, f"a signature within the {size} bytes of its table", f"{head.length}")
    return PeSignature(at + CERTIFICATE.sizeof(), head.length - CERTIFICATE.sizeof(), source)


def parse_pe(data: Readable) -> PeImage:
    """Read the headers of a PE image. Raises `DissectError`."""
    try:
        return _parse(as_source(data))
    except ConstructError as error:
        raise DissectError(0, "the headers of a PE image", " ".join(str(error).split())[:120]) from None


def authenticode_digests(data: Readable, *algorithms: str) -> tuple[bytes, ...]:
    """The hashes that Authenticode signs: of all but checksum, signature, and the entry that points to it.

    An algorithm is "sha1" or "sha256". Raises `DissectError` where this is no PE image.
    """
    source = as_source(data)
    image = parse_pe(source)
    digests = [hashlib.new(algorithm, usedforsecurity=False) for algorithm in algorithms]
    for start, end in _hashed_parts(source.size, image):
        for at in range(start, end, STEP):
            piece = source.read_at(at, min(STEP, end - at))
            for digest in digests:
                digest.update(piece)
    if not image.security:
        for digest in digests:
            digest.update(b"\0" * (-source.size % _ALIGNMENT))
    return tuple(digest.digest() for digest in digests)


def _hashed_parts(size: int, image: PeImage) -> Iterator[tuple[int, int]]:
    """Start and end of each."""
    yield 0, image.checksum_offset
    after = image.checksum_offset + 4
    if image.security_entry is not None:
        yield after, image.security_entry
        after = image.security_entry + DIRECTORY.sizeof()
    yield after, image.security[0] if image.security else size
    if image.security:
        yield sum(image.security), size


def _parse(source: Source) -> PeImage:
    stream = as_stream(source, source.size)
    at = DOS_HEADER.parse_stream(stream).pe_offset
    if at + FILE_HEADER.sizeof() > source.size:
        raise DissectError(60, f"a PE header before offset {source.size}", f"one at {at}")
    stream.seek(at)
    header = FILE_HEADER.parse_stream(stream)
    optional_at = stream.tell()
    size = header.optional_header_size
    if size < SUBSYSTEM_OFFSET_END or optional_at + size > source.size:
        raise DissectError(optional_at, "a whole optional header", f"{size} bytes of it")
    optional = OPTIONAL_HEADER.parse_stream(stream)
    if optional.magic not in _DIRECTORIES:
        raise Unsupported(optional_at, "a PE32 or PE32+ header", f"magic {optional.magic:#x}")
    if header.section_count > MAX_SECTIONS:
        raise LimitExceeded(at + 6, f"at most {MAX_SECTIONS} sections", f"{header.section_count}")
    directories = _DIRECTORIES[optional.magic]
    count = int.from_bytes(source.read_at(optional_at + directories - 4, 4), "little")
    entry = directories + SECURITY_DIRECTORY * DIRECTORY.sizeof()
    security_entry = security = None
    if count > SECURITY_DIRECTORY and entry + DIRECTORY.sizeof() <= size:
        security_entry = optional_at + entry
        stream.seek(security_entry)
        table = DIRECTORY.parse_stream(stream)
        if table.size:
            if table.offset < security_entry + DIRECTORY.sizeof() or table.offset + table.size > source.size:
                raise DissectError(security_entry, "a certificate table in the file", f"{table.size} at {table.offset}")
            security = (table.offset, table.size)
    stream.seek(optional_at + size)
    sections = Array(header.section_count, SECTION).parse_stream(stream)
    return PeImage(
        machine=MACHINES.get(header.machine, f"{header.machine:#06x}"),
        subsystem=SUBSYSTEMS.get(optional.subsystem, str(optional.subsystem)),
        built=datetime.fromtimestamp(header.time_stamp, UTC),
        is_dll=bool(header.characteristics & 0x2000),
        sections=tuple(Section(s.name.rstrip(b"\0").decode("latin-1"), s.raw_offset, s.raw_size) for s in sections),
        checksum_offset=optional_at + CHECKSUM_OFFSET,
        security_entry=security_entry,
        security=security,
    )
