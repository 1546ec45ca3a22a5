"""pcapng (draft-ietf-opsawg-pcapng): sections of either byte order, interfaces, name and secrets blocks.

Packets that name an interface the section did not declare are left out and counted in the problems.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from captures.packet_files.common import MAX_BLOCK, MAX_PACKET, MAX_SECRETS, Packet, PacketFile, Window

SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, NAMES, PACKET, SECRETS = 0x0A0D0D0A, 1, 2, 3, 4, 6, 10
MAGIC = b"\x0a\x0d\x0d\x0a"
TLS_KEY_LOG = 0x544C534B
OPTION_TSRESOL, OPTION_TSOFFSET = 9, 14
NAME_SIZES = {1: 4, 2: 16}  # name record type -> address bytes
MAX_NAMES = 100_000
MAX_INTERFACES = 65_536


@dataclass(slots=True)
class _Interface:
    link_type: int
    snap_length: int
    numerator: int = 1000  # nanoseconds = ticks * numerator // denominator + offset
    denominator: int = 1
    offset: int = 0


@dataclass(slots=True)
class _Section:
    order: str
    interfaces: list[_Interface] = field(default_factory=list)
    undeclared: int = 0


def packets(window: Window, file: PacketFile) -> Iterator[Packet]:
    """The packets of a file that starts with `MAGIC`."""
    section = _Section("<")
    position = 0
    while (at := window.need(position, 12)) is not None:
        if window.data[at : at + 4] == MAGIC:
            _note_undeclared(file, section)
            mark = window.data[at + 8 : at + 12]
            if mark not in {b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a"}:
                return file.damage(window.offset + at + 8, "a byte-order mark", mark.hex())
            section = _Section(">" if mark[0] == 0x1A else "<")
        kind, length = struct.unpack_from(f"{section.order}II", window.data, at)
        if length < 12 or length % 4 or length > MAX_BLOCK:
            return file.damage(window.offset + at + 4, f"a block length from 12 to {MAX_BLOCK}", str(length))
        placed = window.need(at, length)
        if placed is None:
            if not file.damaged:
                file.damage(window.offset + at, f"a block of {length} bytes", "the end of the file")
            break
        start, end = placed + 8, placed + length - 4
        try:
            if kind in {PACKET, OLD_PACKET, SIMPLE_PACKET}:
                packet = _packet(kind, window.data, start, end, section)
                if packet is not None:
                    yield packet
            else:
                _other_block(kind, window.data[start:end], section, file)
        except (struct.error, _BadBlock) as error:
            return file.damage(window.offset + placed, f"a well-formed block of type {kind:#x}", str(error))
        position = placed + length
    else:
        if position < len(window.data) and not file.damaged:
            file.damage(window.offset + position, "a whole block", "the end of the file")
    _note_undeclared(file, section)
    return None


class _BadBlock(Exception):
    pass


def _note_undeclared(file: PacketFile, section: _Section) -> None:
    if section.undeclared:
        file.problems.append(f"{section.undeclared} packets of interfaces that are not declared were left out")
        section.undeclared = 0


def _packet(kind: int, data: bytes, start: int, end: int, section: _Section) -> Packet | None:
    number, high, low = 0, 0, 0
    if kind == PACKET:
        number, high, low, captured, wire = struct.unpack_from(f"{section.order}5I", data, start)
        start += 20
    elif kind == OLD_PACKET:
        number, _drops, high, low, captured, wire = struct.unpack_from(f"{section.order}2H4I", data, start)
        start += 20
    else:
        (wire,) = struct.unpack_from(f"{section.order}I", data, start)
        start += 4
        captured = min(wire, end - start)
    if number >= len(section.interfaces):
        section.undeclared += 1
        return None
    interface = section.interfaces[number]
    if kind == SIMPLE_PACKET and interface.snap_length:
        captured = min(captured, interface.snap_length)
    if start + captured > end or captured > MAX_PACKET:
        raise _BadBlock(f"a packet of {captured} bytes")
    ticks = high << 32 | low
    time = ticks * interface.numerator // interface.denominator + interface.offset
    return time, interface.link_type, data, start, start + captured, wire


def _other_block(kind: int, body: bytes, section: _Section, file: PacketFile) -> None:
    if kind == INTERFACE:
        if len(section.interfaces) >= MAX_INTERFACES:
            raise _BadBlock("too many interfaces")
        section.interfaces.append(_interface(body, section.order))
    elif kind == SECRETS:
        secrets_type, size = struct.unpack_from(f"{section.order}II", body)
        if 8 + size > len(body):
            raise _BadBlock(f"secrets of {size} bytes")
        if secrets_type == TLS_KEY_LOG and sum(map(len, file.secrets)) + size <= MAX_SECRETS:
            file.secrets.append(body[8 : 8 + size])
    elif kind == NAMES:
        _names(body, section.order, file)


def _interface(body: bytes, order: str) -> _Interface:
    link_type, _reserved, snap_length = struct.unpack_from(f"{order}HHI", body)
    interface = _Interface(link_type, snap_length)
    for code, value in _options(body, 8, order):
        if code == OPTION_TSRESOL and len(value) == 1:
            exponent = value[0] & 0x7F
            interface.numerator = 1_000_000_000
            interface.denominator = 2**exponent if value[0] & 0x80 else 10**exponent
        elif code == OPTION_TSOFFSET and len(value) == 8:
            interface.offset = struct.unpack(f"{order}q", value)[0] * 1_000_000_000
    return interface


def _options(body: bytes, position: int, order: str) -> Iterator[tuple[int, bytes]]:
    while position + 4 <= len(body):
        code, size = struct.unpack_from(f"{order}HH", body, position)
        if code == 0:
            return
        yield code, body[position + 4 : position + 4 + size]
        position += 4 + (size + 3) // 4 * 4


def _names(body: bytes, order: str, file: PacketFile) -> None:
    for kind, value in _options(body, 0, order):
        size = NAME_SIZES.get(kind)
        if size is None or len(value) <= size or len(file.names) >= MAX_NAMES:
            continue
        name = value[size:].split(b"\0", 1)[0].decode("utf-8", "replace")
        file.names[str(ipaddress.ip_address(value[:size]))] = name
