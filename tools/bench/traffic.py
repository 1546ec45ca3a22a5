"""Captures of any size for the bench, written as they are made: `python -m tools.bench.traffic FILE KIND MIB`.

`download` is one connection fetching one file. `fleet` is many phones at once: checks on kept-alive connections, now
and then a download of 60 MB, one segment in a hundred coming late and one coming twice. Checksums are left at zero,
as a sending card leaves them in captures. The same arguments give the same bytes.
"""

from __future__ import annotations

import random
import struct
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dissectors.installed_module import InstalledModule
from dissectors.version import Version
from tools.ucphone.identity import PhoneIdentity
from tools.ucphone.messages import write_check
from tools.update_server.messages import NoOffer, write_answer
from tools.update_server.service import Answer

MSS = 1448
FIRMWARE = 60 << 20  # bytes of one download
PHONES = 50  # at a time
CHECKS = 40  # of one phone on its connection
DISTURBED = 0.01  # segments that come late, and as many that come twice
LATE = 8  # packets of the same connection that overtake a late one
TICK = 15  # microseconds between packets

SYN, ACK, PUSH_ACK, FIN_ACK = 2, 16, 24, 17
FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
RECORD = struct.Struct("<IIII")
HEADERS = struct.Struct(">12sHBBHHHBBH8sHHIIBBHI12s")
SERVER = bytes((10, 0, 0, 2))
MACS = bytes.fromhex("020000000002020000000001"), bytes.fromhex("020000000001020000000002")
OPTIONS = bytes.fromhex("0101080a") + bytes(8)  # timestamps, as everybody sends them

CHECK = (
    b"POST /RequestHandler/ucdevice.upx HTTP/1.1\r\nHost: ucupdates-r2.example.com\r\nUser-Agent: Microsoft UCPhone "
    b"Device\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"
)
ANSWER_BODY = write_answer(Answer((), ""), NoOffer.BLANK)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Type: text/xml; charset=utf-8\r\n"
    b"Server: Microsoft-IIS/7.0\r\nX-AspNet-Version: 2.0.50727\r\nX-Powered-By: ASP.NET\r\n"
    b"Date: Sun, 13 Sep 2020 12:26:40 GMT\r\nContent-Length: %d"
    b"\r\n\r\n%b" % (len(ANSWER_BODY), ANSWER_BODY)
)
RUNNING = InstalledModule("CPE.nbt", Version(1, 0, 522, 73), "04-05-2008 10:00:00")


class Phone:
    """One connection: packets of both directions, in order."""

    def __init__(self, number: int) -> None:
        self._client = bytes((10, 1 + (number >> 16), number >> 8 & 0xFF, number & 0xFF))
        self._port = 1024 + number % 60000
        self._next = [1000 + number, 5000 + number]
        identity = PhoneIdentity(
            f"00-04-F2-{number >> 16:02X}-{number >> 8 & 0xFF:02X}-{number & 0xFF:02X}", str(number)
        )
        body = write_check(identity, (RUNNING,))
        self._check = CHECK % (len(body), body)

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
        for side, message in ((0, self._check), (1, ANSWER)):
            for place in range(0, len(message), MSS):
                yield self.packet(side, message[place : place + MSS], PUSH_ACK)
        yield self.packet(0, b"", ACK)

    def download(self, content: bytes, size: int) -> Iterator[bytes]:
        """A file of `size` bytes: `content` over and over. Every second segment is acknowledged."""
        target = b"GET /RequestHandler/Files/UCPhone/Vendor/CX700/A/ENU/3.5.6907.35/CPE/CPE.nbt HTTP/1.1\r\n"
        yield self.packet(0, target + b"Host: ucupdates-r2.example.com\r\n\r\n", PUSH_ACK)
        yield self.packet(1, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size, ACK)
        for number, place in enumerate(range(0, size, MSS)):
            start = place % (len(content) - MSS)
            yield self.packet(1, content[start : start + min(MSS, size - place)], ACK)
            if number % 2:
                yield self.packet(0, b"", ACK)


def life_of(number: int, content: bytes, downloads: int) -> Iterator[bytes]:
    """A phone of the fleet: checks, for every twentieth phone a download among them as long as there are any."""
    phone = Phone(number)
    yield from phone.open()
    for check in range(CHECKS):
        yield from phone.check()
        if number % 20 == 0 and number // 20 < downloads and check == CHECKS // 2:
            yield from phone.download(content, FIRMWARE)
    yield from phone.close()


def disturbed(packets: Iterator[bytes], chance: random.Random) -> Iterator[bytes]:
    """Some packets with data late, some twice."""
    held: deque[tuple[int, bytes]] = deque()
    for number, packet in enumerate(packets):
        fate = chance.random() if len(packet) > HEADERS.size else 1.0
        if fate < DISTURBED:
            held.append((number + LATE, packet))
        else:
            yield packet
            if fate < 2 * DISTURBED:
                held.append((number + LATE, packet))
        while held and held[0][0] <= number:
            yield held.popleft()[1]
    for _, packet in held:
        yield packet


def fleet(content: bytes, size: int) -> Iterator[bytes]:
    """Phones that come and go until `size` bytes are written, about half of them downloads."""
    return phones(content, size, max(size // (2 * FIRMWARE), 1))


def checks(content: bytes, size: int) -> Iterator[bytes]:
    """The same without downloads: what is read is many small messages."""
    return phones(content, size, 0)


def phones(content: bytes, size: int, downloads: int) -> Iterator[bytes]:
    """Phones that come and go until `size` bytes are written."""
    chance = random.Random(2)
    number = written = 0
    present: list[Iterator[bytes]] = []
    while present or written < size:
        while len(present) < PHONES and written < size:
            present.append(disturbed(life_of(number, content, downloads), chance))
            number += 1
        gone = []
        for phone in present:
            # A download comes in bursts, the way a window of segments does.
            for _ in range(8):
                packet = next(phone, None)
                if packet is None:
                    gone.append(phone)
                    break
                written += len(packet)
                yield packet
        for phone in gone:
            present.remove(phone)


def download(content: bytes, size: int) -> Iterator[bytes]:
    """One phone and one file."""
    phone = Phone(1)
    yield from phone.open()
    yield from phone.download(content, size)
    yield from phone.close()


KINDS = {"download": download, "fleet": fleet, "checks": checks}


def write(file: BinaryIO, kind: str, size: int) -> int:
    """Write a capture of about `size` bytes of traffic; how many packets."""
    content = random.Random(1).randbytes(1 << 20)
    file.write(FILE_HEADER)
    time = 1_600_000_000_000_000
    count = 0
    for packet in KINDS[kind](content, size):
        time += TICK
        count += 1
        seconds, micros = divmod(time, 1_000_000)
        file.write(RECORD.pack(seconds, micros, len(packet), len(packet)) + packet)
    return count


def main() -> None:
    """Write one file; print its packets."""
    path, kind, size = sys.argv[1:]
    with Path(path).open("wb") as file:
        print(write(file, kind, int(size) << 20))


if __name__ == "__main__":
    main()
