"""How the three messages lie in bytes: a fixed header of (length, allocated, offset) triples, the payload behind it.

Older clients end the header early, so how much of it is there is told by where the payload begins, not by the flags:
messages with NEGOTIATE_VERSION set and no Version field are in use today ([MS-NLMP] 2.2.1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from construct import Bytes, Const, Container, Int8ub, Int16ul, Int32ul, Padding, Struct

from dissectors.errors import DissectError, LimitExceeded
from dissectors.ntlm.av_pairs import AvPair, parse_av_pairs
from dissectors.ntlm.flags import Flags

SIGNATURE = b"NTLMSSP\0"
MAX_MESSAGE = 1 << 17  # six fields of 64 KiB would be more; real messages stay below 3 KiB

_FIELDS = Struct(
    "length" / Int16ul,
    "allocated" / Int16ul,
    "offset" / Int32ul,
)
_VERSION = Struct(  # 2.2.2.10
    "major" / Int8ub,
    "minor" / Int8ub,
    "build" / Int16ul,
    Padding(3),
    "revision" / Int8ub,
)
PREFIX = Struct(
    "signature" / Const(SIGNATURE),
    "type" / Int32ul,
)
NEGOTIATE = Struct(
    "flags" / Int32ul,
    "domain" / _FIELDS,
    "workstation" / _FIELDS,
    "version" / _VERSION,
)
CHALLENGE = Struct(
    "target_name" / _FIELDS,
    "flags" / Int32ul,
    "server_challenge" / Bytes(8),
    "reserved" / Bytes(8),
    "target_info" / _FIELDS,
    "version" / _VERSION,
)
AUTHENTICATE = Struct(
    "lm_response" / _FIELDS,
    "nt_response" / _FIELDS,
    "domain" / _FIELDS,
    "user" / _FIELDS,
    "workstation" / _FIELDS,
    "session_key" / _FIELDS,
    "flags" / Int32ul,
    "version" / _VERSION,
    "mic" / Bytes(16),
)
_NO_VERSION = {"major": 0, "minor": 0, "build": 0, "revision": 0}


class OsVersion(NamedTuple):
    """The VERSION structure: operating system and NTLM revision (15)."""

    major: int
    minor: int
    build: int
    revision: int = 15

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"


class Reader:
    """One message: its header, zero-filled where the sender ended it early, and its payload."""

    def __init__(self, data: bytes, header: Struct, shortest: int, ignored: frozenset[str] = frozenset()) -> None:
        """`shortest` is the least header size; fields in `ignored` may point anywhere, and then count as empty."""
        self.data = data
        self.problems: list[str] = []
        size = 12 + header.sizeof()
        if len(data) < shortest:
            raise DissectError(len(data), f"an NTLM header of at least {shortest} bytes", f"{len(data)} bytes")
        self.room = len(data)
        whole = header.parse(data[12:size].ljust(size - 12, b"\0"))
        end = 12
        for part in header.subcons:
            end += part.sizeof()
            found = whole[part.name] if part.name else None
            if end > self.room or not isinstance(found, Container) or "offset" not in found:
                continue
            if part.name in ignored and not shortest <= found.offset <= len(data) - found.length:
                data = data[: end - 8] + bytes(8) + data[end:]
            elif found.length:
                self.room = min(self.room, found.offset)
        if self.room < shortest:
            raise DissectError(self.room, f"the payload behind a header of {shortest} bytes", "a field inside it")
        # Read again: what lies behind the room is payload, not header.
        self.header: Container[Any] = header.parse(data[12 : min(size, self.room)].ljust(size - 12, b"\0"))

    def raw(self, name: str) -> bytes:
        """What a field points at; raises where it points outside."""
        part = self.header[name]
        if not part.length:
            return b""
        if part.offset + part.length > len(self.data):
            what = f"bytes {part.offset} to {part.offset + part.length}"
            raise DissectError(part.offset, f"{name} at {what}", f"a message of {len(self.data)} bytes")
        return self.data[part.offset : part.offset + part.length]

    def text(self, name: str, *, wide: bool) -> str:
        """A field as text: UTF-16 where `wide`, else of an OEM code page."""
        raw = self.raw(name)
        if wide:
            if len(raw) % 2:
                self.problems.append(f"{name}: {len(raw)} bytes are no UTF-16 text; the last one is left out")
            return raw[: len(raw) & ~1].decode("utf-16-le", "surrogatepass")
        if not raw.isascii():
            self.problems.append(f"{name}: an OEM code page that the message does not tell; shown as ISO 8859-1")
        return raw.decode("latin-1")

    def version(self, flags: Flags, end: int) -> OsVersion | None:
        """The Version field that ends at `end`, where it is both announced and there."""
        if Flags.NEGOTIATE_VERSION not in flags or self.room < end:
            return None
        found = self.header.version
        return OsVersion(found.major, found.minor, found.build, found.revision)

    def av_pairs(self, name: str) -> tuple[AvPair, ...]:
        """A field as AV pairs."""
        raw = self.raw(name)
        return parse_av_pairs(raw, self.header[name].offset) if raw else ()


def oem(text: str) -> bytes:
    """Text in ISO 8859-1; raises `DissectError` where it does not fit."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise DissectError(error.start, "text in ISO 8859-1", repr(text[error.start])) from None


def encode(text: str, flags: Flags) -> bytes:
    """Text in the encoding that the flags announce."""
    return text.encode("utf-16-le", "surrogatepass") if Flags.NEGOTIATE_UNICODE in flags else oem(text)


def build(kind: int, header: Struct, payload: dict[str, bytes], fixed: dict[str, Any]) -> bytes:
    """Header and payload in the order given; a missing version or MIC at the header's end is left out."""
    mic, version = fixed.get("mic"), fixed["version"]
    size = 12 + header.sizeof()
    if "mic" in fixed and mic is None:
        size -= 16
        if version is None:
            size -= 8
    fixed = {**fixed, "version": _NO_VERSION if version is None else version._asdict(), "mic": mic or bytes(16)}
    offset = size
    for name, value in payload.items():
        if len(value) > 0xFFFF:
            raise LimitExceeded(offset, f"{name} of at most 65535 bytes", f"{len(value)} bytes")
        fixed[name] = {"length": len(value), "allocated": len(value), "offset": offset}
        offset += len(value)
    start: bytes = PREFIX.build({"type": kind}) + header.build(fixed)
    return start[:size] + b"".join(payload.values())
