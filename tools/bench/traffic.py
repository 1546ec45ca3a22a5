"""Captures of any size for the bench, written as they are made: `python -m tools.bench.traffic FILE KIND MIB`.

`download` is one connection fetching one file. `fleet` is many phones at once, half of the bytes downloads and half
update checks; `checks` is the same phones without downloads, all small messages. The mix, and why:

- A phone polls once a day and at power-on, so a capture holds many phones that each say little: 300 are there at a
  time, each asks 20 times on one kept-alive connection and is gone for good.
- Heads and bodies come in packets of their own, as clients and servers that write both in turn send them: a check is
  nine packets. Phones report one to four modules (800 to 1,500 bytes), one in ten is offered four files (2 KB).
- Every phone says its own addresses and serial number, every answer its date. Two milliseconds pass between packets, so
  a second holds a hundred exchanges at most.
- One data segment in a hundred is lost, in front of the place of capture (it comes late) or behind it (it comes twice),
  and one in a hundred is overtaken by a few. Checksums are left at zero, as a sending card leaves them in captures.

The same arguments give the same bytes.
"""

from __future__ import annotations

import random
import struct
import sys
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import BinaryIO

from dissectors.installed_module import InstalledModule
from dissectors.update_urls import PackagePath
from dissectors.version import Version
from tools.bench.checks import FIRMWARE_TARGET, HOST, TARGET, mac
from tools.ucphone.identity import PhoneIdentity
from tools.ucphone.messages import CONTENT_TYPE, write_check
from tools.update_server.messages import NoOffer, write_answer
from tools.update_server.service import Answer, Offer

MSS = 1448
FIRMWARE = 60 << 20  # bytes of one download, if the capture is eight times as large
PHONES = 300  # at a time, in captures of at least 600 MiB
LEAST_PHONES = 10
CHECKS = 20  # of one phone on its connection
OFFERED = 10  # of so many phones one is offered files
LOST = 0.01  # of the data segments
OVERTAKEN = 0.01
RETRANSMITTED = 20  # packets of the connection until a lost segment comes again
OVERTAKING = 3  # packets that come before an overtaken one
WINDOW = 44  # packets of a download that come in a row: 64 KB
TICK = 2_000  # microseconds between packets
START = 1_600_000_000_000_000

SYN, ACK, PUSH_ACK, FIN_ACK = 2, 16, 24, 17
FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
RECORD = struct.Struct("<IIII")
HEADERS = struct.Struct(">12sHBBHHHBBH8sHHIIBBHI12s")
SOURCE, FLAGS = slice(26, 30), 47  # the address and the flags in a packet
SERVER = bytes((10, 0, 0, 2))
MACS = bytes.fromhex("020000000002020000000001"), bytes.fromhex("020000000001020000000002")
OPTIONS = bytes.fromhex("0101080a") + bytes(8)  # timestamps, as everybody sends them

CHECK = (
    f"POST {TARGET} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: Microsoft UCPhone Device\r\n"
    f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: %d\r\n\r\n"
).encode()
ANSWER = (
    f"HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Type: {CONTENT_TYPE}\r\nServer: Microsoft-IIS/7.0\r\n"
    "X-AspNet-Version: 2.0.50727\r\nX-Powered-By: ASP.NET\r\nDate: %b\r\nContent-Length: %d\r\n\r\n"
).encode()
FETCH = f"GET {FIRMWARE_TARGET} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: Microsoft UCPhone Device\r\n\r\n".encode()
FILE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\n"
    b"Server: Microsoft-IIS/7.0\r\nDate: %b\r\nContent-Length: %d\r\n\r\n"
)
MODULES = tuple(
    InstalledModule(f"{name}.nbt", Version(1, 0, 522, 73), "04-05-2008 10:00:00")
    for name in ("CPE", "Second", "Third", "Fourth")
)
PACKAGE = PackagePath.parse(FIRMWARE_TARGET)
POOL = "http://pool01.example.com"
NOTHING = write_answer(Answer((), ""), NoOffer.BLANK)
OFFER = write_answer(
    Answer(
        tuple(
            Offer(PACKAGE, f"{name}.nbt", f"{name}.cat", PACKAGE.version, "12-01-2009 10:00:00", POOL, POOL)
            for name in ("CPE", "Second", "Third", "Fourth")
        ),
        "",
    )
)


class Mix:
    """What all phones of a capture share: the clock, the chance, and how much of what was written is downloads."""

    def __init__(self, content: bytes, size: int, *, downloads: bool) -> None:
        self.content = content
        self.size = size
        self.file = min(FIRMWARE, size // 8)
        self.chance = random.Random(2)
        self.time = START  # microseconds
        self.written = 0
        self.fetched = 0
        self.exchanges = 0
        self._downloads = downloads
        self._date = (0, b"")

    def date(self) -> bytes:
        """The value of a Date header."""
        second = self.time // 1_000_000
        if self._date[0] != second:
            self._date = second, format_datetime(datetime.fromtimestamp(second, UTC), usegmt=True).encode()
        return self._date[1]

    def fetches(self) -> bool:
        """Whether the next phone that is offered files fetches one."""
        if not self._downloads or 2 * self.fetched > self.written:
            return False
        self.fetched += self.file
        return True


class Phone:
    """One connection: packets of both directions, in order."""

    def __init__(self, number: int, mix: Mix) -> None:
        self._mix = mix
        self._client = bytes((10, 1 + (number >> 16), number >> 8 & 0xFF, number & 0xFF))
        self._port = 1024 + number % 60000
        self._next = [1000 + number, 5000 + number]
        identity = PhoneIdentity(mac(number), f"{number:08}")
        self._check = write_check(identity, MODULES[: 1 + number % len(MODULES)])
        self.offered = number % OFFERED == 0

    def packet(self, side: int, payload: bytes, flags: int) -> bytes:
        """The next packet of the phone (0) or the server (1)."""
        addresses = self._client + SERVER if side == 0 else SERVER + self._client
        ports = (self._port, 80) if side == 0 else (80, self._port)
        sequence, ack = self._next[side], 0 if flags == SYN else self._next[1 - side]
        self._next[side] += len(payload) + (flags & 3 != 0)
        ip = (0x0800, 0x45, 0, 52 + len(payload), 0, 0x4000, 64, 6, 0, addresses)
        return HEADERS.pack(MACS[side], *ip, *ports, sequence, ack, 0x80, flags, 65535, 0, OPTIONS) + payload

    def open(self) -> Iterator[bytes]:
        """The handshake."""
        yield self.packet(0, b"", SYN)
        yield self.packet(1, b"", SYN | ACK)
        yield self.packet(0, b"", ACK)

    def close(self) -> Iterator[bytes]:
        """The end, begun by the phone."""
        yield self.packet(0, b"", FIN_ACK)
        yield self.packet(1, b"", FIN_ACK)
        yield self.packet(0, b"", ACK)

    def check(self) -> Iterator[bytes]:
        """One update check and its answer."""
        self._mix.exchanges += 1
        yield self.packet(0, CHECK % len(self._check), PUSH_ACK)
        yield self.packet(0, self._check, PUSH_ACK)
        yield self.packet(1, b"", ACK)
        body = OFFER if self.offered else NOTHING
        yield self.packet(1, ANSWER % (self._mix.date(), len(body)), PUSH_ACK)
        for place in range(0, len(body), MSS):
            yield self.packet(1, body[place : place + MSS], PUSH_ACK)
        yield self.packet(0, b"", ACK)

    def download(self, size: int) -> Iterator[bytes]:
        """A file of `size` bytes: the same content over and over. Every second segment is acknowledged."""
        self._mix.exchanges += 1
        yield self.packet(0, FETCH, PUSH_ACK)
        yield self.packet(1, FILE % (self._mix.date(), size), ACK)
        content = self._mix.content
        for number, place in enumerate(range(0, size, MSS)):
            start = place % (len(content) - MSS)
            yield self.packet(1, content[start : start + min(MSS, size - place)], ACK)
            if number % 2:
                yield self.packet(0, b"", ACK)

    def life(self) -> Iterator[bytes]:
        """All of it: checks, and perhaps the file offered."""
        yield from self.open()
        for number in range(CHECKS):
            yield from self.check()
            if self.offered and number == CHECKS // 2 and self._mix.fetches():
                yield from self.download(self._mix.file)
        yield from self.close()


def disturbed(packets: Iterator[bytes], chance: random.Random) -> Iterator[bytes]:
    """Some packets with data late, some twice, but never later than what answers them."""
    held: deque[tuple[int, bytes]] = deque()
    side = b""
    for number, packet in enumerate(packets):
        fate = 1.0
        if len(packet) > HEADERS.size:
            fate = chance.random()
            if packet[SOURCE] != side:
                side = packet[SOURCE]
                yield from (late for _, late in held)
                held.clear()
        if fate < LOST:
            held.append((number + RETRANSMITTED, packet))
        elif fate < LOST + OVERTAKEN:
            held.appendleft((number + OVERTAKING, packet))
        if fate < LOST / 2 or fate >= LOST + OVERTAKEN:
            yield packet
        while held and held[0][0] <= number:
            yield held.popleft()[1]
    for _, packet in held:
        yield packet


def phones(mix: Mix) -> Iterator[tuple[int, bytes]]:
    """Phones that come and go until enough is written: times in microseconds, and packets."""
    at_a_time = max(min(PHONES, mix.size >> 21), LEAST_PHONES)
    number = 0
    present: list[Iterator[bytes]] = []
    while present or mix.written < mix.size:
        while len(present) < at_a_time and mix.written < mix.size:
            present.append(disturbed(Phone(number, mix).life(), mix.chance))
            number += 1
        gone = []
        for phone in present:
            for _ in range(WINDOW):
                packet = next(phone, None)
                if packet is None:
                    gone.append(phone)
                    break
                mix.written += len(packet)
                mix.time += TICK
                yield mix.time, packet
                if packet[FLAGS] == PUSH_ACK:  # a download goes on, of checks all phones' mingle
                    break
        for phone in gone:
            present.remove(phone)


def download(mix: Mix) -> Iterator[tuple[int, bytes]]:
    """One phone and one file."""
    phone = Phone(1, mix)
    for packets in (phone.open(), phone.download(mix.size), phone.close()):
        for packet in packets:
            mix.time += 10
            yield mix.time, packet


def write(file: BinaryIO, kind: str, size: int) -> tuple[int, int]:
    """Write a capture of about `size` bytes of traffic; how many packets, and exchanges."""
    mix = Mix(random.Random(1).randbytes(1 << 20), size, downloads=kind == "fleet")
    file.write(FILE_HEADER)
    count = 0
    for time, packet in download(mix) if kind == "download" else phones(mix):
        count += 1
        seconds, micros = divmod(time, 1_000_000)
        file.write(RECORD.pack(seconds, micros, len(packet), len(packet)) + packet)
    return count, mix.exchanges


def main() -> None:
    """Write one file; print its packets and exchanges."""
    path, kind, size = sys.argv[1:]
    with Path(path).open("wb") as file:
        print(*write(file, kind, int(size) << 20))


if __name__ == "__main__":
    main()
