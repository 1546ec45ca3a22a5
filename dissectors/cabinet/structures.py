"""The cabinet format as construct tables, one for parsing and building alike ([MS-CAB] section 2).

All integers are little-endian and nothing is padded. Tables hold the wire's own numbers; meaning, validation and plain
values are in `directory`.
"""

from __future__ import annotations

from typing import Any

from construct import (
    Bytes,
    Const,
    Construct,
    Default,
    If,
    Int8ul,
    Int16ul,
    Int32ul,
    Rebuild,
    Struct,
    len_,
    this,
)
from construct.core import StreamError, stream_seek, stream_tell, stream_write

from dissectors.cabinet.limits import MAX_NAME
from dissectors.tables import integers

SIGNATURE = b"MSCF"

PREVIOUS_CABINET = 0x0001
NEXT_CABINET = 0x0002
RESERVE_PRESENT = 0x0004

CONTINUED_FROM_PREVIOUS = 0xFFFD
CONTINUED_TO_NEXT = 0xFFFE
CONTINUED_BOTH = 0xFFFF


class ZString(Construct):  # type: ignore[misc]
    """Bytes up to a NUL, at most MAX_NAME of them. (construct's CString reads without bound and in quadratic time.)"""

    def _parse(self, stream: Any, _context: Any, path: str) -> bytes:
        start = stream_tell(stream, path)
        text, nul, _ = bytes(stream.read(MAX_NAME + 1)).partition(b"\0")
        if not nul:
            raise StreamError(f"no NUL within {len(text)} bytes", path=path)
        stream_seek(stream, start + len(text) + 1, 0, path)
        return text

    def _build(self, obj: bytes, stream: Any, _context: Any, path: str) -> bytes:
        if b"\0" in obj or len(obj) > MAX_NAME:
            raise StreamError(f"name of {len(obj)} bytes cannot be written", path=path)
        stream_write(stream, obj + b"\0", len(obj) + 1, path)
        return obj


RESERVE = Struct(
    "header_size" / Rebuild(Int16ul, len_(this.data)),
    "folder_size" / Int8ul,
    "data_size" / Int8ul,
    "data" / Bytes(this.header_size),
)

LINK = Struct(
    "cabinet" / ZString(),
    "disk" / ZString(),
)

HEADER = Struct(
    "signature" / Const(SIGNATURE),
    "reserved1" / Default(Int32ul, 0),
    "cabinet_size" / Int32ul,
    "reserved2" / Default(Int32ul, 0),
    "files_offset" / Int32ul,
    "reserved3" / Default(Int32ul, 0),
    "version_minor" / Default(Int8ul, 3),
    "version_major" / Default(Int8ul, 1),
    "folder_count" / Int16ul,
    "file_count" / Int16ul,
    "flags" / Int16ul,
    "set_id" / Int16ul,
    "set_index" / Int16ul,
    "reserve" / If(this.flags & RESERVE_PRESENT, RESERVE),
    "previous" / If(this.flags & PREVIOUS_CABINET, LINK),
    "next" / If(this.flags & NEXT_CABINET, LINK),
)
HEADER_FIXED = 36

FOLDER = Struct(
    "data_offset" / Int32ul,
    "block_count" / Int16ul,
    "compression" / Int16ul,
    "reserve" / Bytes(this._params.reserve),
)

FILE = Struct(
    "size" / Int32ul,
    "folder_offset" / Int32ul,
    "folder" / Int16ul,
    "date" / Int16ul,
    "time" / Int16ul,
    "attributes" / Int16ul,
    "name" / ZString(),
)

DATA = Struct(
    "checksum" / Int32ul,
    "packed_size" / Int16ul,
    "size" / Int16ul,
)
"""The fixed part of CFDATA; the per-block reserve and the data follow and are read, or skipped, by length."""
DATA_FIXED = DATA.sizeof()

DATA_INTEGERS = integers(DATA)
