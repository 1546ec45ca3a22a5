"""What the readers of packet files share: the packet, the account of a file, and the buffer records are cut from."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from captures.packet_files.gunzip import ByteStream

CHUNK = 1 << 18  # bytes read at a time: what is taken apart is still in the processor's cache
MAX_PACKET = 1 << 20  # captured bytes of one packet; libpcap's own limit is 256 KiB, USB captures have more
MAX_BLOCK = 16 << 20  # one pcapng block: a secrets block may hold the keys of a whole day
MAX_SECRETS = 64 << 20  # bytes of all secrets blocks of a file

ETHERNET = 1  # LINKTYPE_ETHERNET; the numbers are those of the pcap link-type registry

# (time in ns since 1970, link type, buffer, start and end of the captured bytes in it, length on the wire).
# A plain tuple over a shared buffer: nothing is copied before somebody knows what the packet is.
Packet = tuple[int, int, bytes, int, int, int]


@dataclass(slots=True)
class PacketFile:
    """One file of packets. `packets` can be gone through once; the other fields grow with it.

    `problems` name file offsets (of the uncompressed content). `secrets` are the contents of TLS key log blocks.
    """

    format: str
    packets: Iterator[Packet] = field(default_factory=lambda: iter(()))
    problems: list[str] = field(default_factory=list)
    damaged: bool = False
    secrets: list[bytes] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def damage(self, offset: int, expected: str, found: str) -> None:
        """Note that the file cannot be read further."""
        self.damaged = True
        self.problems.append(f"at offset {offset}: expected {expected}, found {found}")


class Window:
    """A growing buffer over a stream, whose consumed front is dropped: at most one record plus `CHUNK` bytes."""

    def __init__(self, stream: ByteStream, owner: PacketFile) -> None:
        self.data = b""
        self.offset = 0  # where `data` starts in the stream
        self._stream = stream
        self._owner = owner

    def more(self, position: int) -> bool:
        """Drop what is before `position` and read on; false at the end. The caller's position is then 0."""
        try:
            fresh = self._stream.read(CHUNK)
        except (EOFError, zlib.error, OSError) as error:
            # gzip: cut off, corrupt or followed by junk; what came before is good.
            self._owner.damage(self.offset + len(self.data), "more of the compressed file", str(error))
            return False
        if not fresh:
            return False
        self.data = self.data[position:] + fresh
        self.offset += position
        return True

    def need(self, position: int, size: int) -> int | None:
        """Make `size` bytes at `position` available; the position in the new buffer, or None at the end."""
        while len(self.data) - position < size:
            if not self.more(position):
                return None
            position = 0
        return position
