"""Emulated phones for the soak: so many checks a second, whoever is slow, and now and then a download."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from array import array
from collections import Counter, deque
from collections.abc import Coroutine

from tools.bench import checks

PHONES = 500
KEPT = 40  # connections kept open; the other checks come over new ones
NEW = 0.1  # of the checks
DOWNLOADS = 0.005  # for each check
BROKEN_OFF = 0.2  # of the downloads: the phone hangs up in the middle
MOST_WAITING = 64  # requests under way; above that the machine is too slow, and fewer are sent
WITHIN = 60.0
LATE = "answered too late"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Phones:
    """All phones of one soak. `latencies` are those of checks, in seconds."""

    def __init__(self, port: int, rate: float, file_size: int) -> None:
        self._port = port
        self._rate = rate
        self._file_size = file_size
        self._random = random.Random(1)
        self._kept: deque[Streams] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self.latencies = array("d")
        self.sent = self.downloads = self.held_back = self.most_under_way = 0
        self.failures: Counter[str] = Counter()

    async def run(self, seconds: float) -> None:
        """Ask for so long, then let what is under way end."""
        began = time.monotonic()
        count = 0
        while (now := time.monotonic() - began) < seconds:
            while count < now * self._rate:
                count += 1
                self._next(count)
            await asyncio.sleep(0.005)
        await asyncio.gather(*self._tasks)
        for _, writer in self._kept:
            writer.close()
        self._kept.clear()

    def _next(self, count: int) -> None:
        if len(self._tasks) >= MOST_WAITING:
            self.held_back += 1
            return
        works = [self._check(count % PHONES)]
        if self._random.random() < DOWNLOADS:
            works.append(self._download(broken_off=self._random.random() < BROKEN_OFF))
        for work in works:
            task = asyncio.create_task(self._guarded(work))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.most_under_way = max(self.most_under_way, len(self._tasks))

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            async with asyncio.timeout(WITHIN):
                await work
        except TimeoutError:
            self.failures[LATE] += 1
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self.failures[f"{type(error).__name__}: {error}"] += 1

    async def _connect(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _check(self, number: int) -> None:
        keeps = self._random.random() >= NEW
        began = time.perf_counter()
        # The one that was used longest ago: none is idle for as long as upshim keeps idle ones.
        streams = self._kept.popleft() if keeps and self._kept else await self._connect()
        try:
            self.sent += 1
            streams[1].write(checks.check(number, keep_alive=keeps))
            length = await answered(streams[0])
            if await streams[0].readexactly(length) != checks.ANSWER:
                raise ValueError("another answer than the server's")
        except BaseException:
            streams[1].close()
            raise
        self.latencies.append(time.perf_counter() - began)
        if keeps and len(self._kept) < KEPT:
            self._kept.append(streams)
        else:
            streams[1].close()

    async def _download(self, *, broken_off: bool) -> None:
        reader, writer = await self._connect()
        try:
            self.sent += 1
            request = f"GET {checks.FIRMWARE_TARGET} HTTP/1.1\r\nHost: {checks.HOST}\r\n\r\n"
            writer.write(request.encode())
            left = await answered(reader)
            if left != self._file_size:
                raise ValueError(f"a file of {left} bytes")
            while left and (piece := await reader.read(min(left, 1 << 16))):
                left -= len(piece)
                if broken_off and left < self._file_size // 2:
                    return
            if left:
                raise ValueError(f"{left} bytes of a file are missing")
            self.downloads += 1
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def answered(reader: asyncio.StreamReader) -> int:
    """Read the head of an answer; the length of its body. Raises `ValueError` for anything but 200."""
    head = await reader.readuntil(b"\r\n\r\n")
    found = _LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 200 ") or found is None:
        raise ValueError(f"answer {head[:40]!r}")
    return int(found[1])
