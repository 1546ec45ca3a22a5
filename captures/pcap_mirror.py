"""A packet capture that grows beside a recording: each exchange is added once it is committed.

Where it is not to grow for ever it is several files, each whole by itself, of which the oldest goes when there is no
room for another: those alone that were written from here. What an earlier process has left takes room and stays.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from captures.bodies import BodyFiles
from captures.exchange import Exchange
from captures.growing_capture import growing_capture, places
from captures.pcap_writer import PcapWriter

FILES = 4  # that share the room


class PcapMirror:
    """An observer of a recording that writes the phones' side of it as packets."""

    def __init__(self, path: Path, most: int = 0) -> None:
        """Start the file, or go on with it; `path` is where that is. All files of this name may take `most` bytes and
        what the last exchange is over, 0 any. Raises `OSError`.
        """
        self._named, self._most = path, most
        self._written: deque[tuple[Path, os.stat_result]] = deque()  # files that are full, the oldest first
        self._writer: PcapWriter | None = None
        self.path = path
        self._writer = self._begin()

    def taken(self) -> int:
        """Bytes that the files of this name take, whoever wrote them."""
        return sum(status.st_size for place in places(self._named) if (status := status_of(place)) is not None)

    def recorded(self, bodies: BodyFiles, exchange: Exchange) -> None:
        """Write one exchange; bodies come from the recording. Raises `OSError`."""

        def chunks(sha256: str) -> Iterable[bytes] | None:
            return bodies.chunks(sha256) if bodies.has(sha256) else None

        writer = self._writer = self._writer or self._begin()
        writer.write(exchange, chunks)
        status = os.fstat(self._stream.fileno())
        if self._most and stat.S_ISREG(status.st_mode) and status.st_size >= self._most // FILES:
            self._written.append((self.path, status))
            self._writer = None  # the next exchange begins another one
            writer.close()

    def close(self) -> None:
        """End every connection in the file."""
        if self._writer is not None:
            self._writer.close()

    def _begin(self) -> PcapWriter:
        """Open the next file, and make room for it."""
        while self._written and self.taken() > self._most - self._most // FILES:
            place, status = self._written.popleft()
            found = status_of(place)
            if found is not None and os.path.samestat(found, status):  # and not what somebody has put there since
                place.unlink()
        stream, self.path = growing_capture(self._named, self._most // FILES)
        self._stream = stream
        return PcapWriter(stream)


def status_of(place: Path) -> os.stat_result | None:
    """What a file is; None where there is none."""
    try:
        return place.lstat()
    except OSError:
        return None
