"""The journal of a folder: `journal.jsonl`, appended to by whoever holds its lock, one line per entry.

A batch of entries is one write and one fsync, before the exchanges are acknowledged. An exchange is committed and
journalled under the same lock, so that what the store holds and the journal does not is a process killed in between or
a disk that failed: it is made up for (`late`) at the next start, or once writing works again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from captures.exchange import rfc3339
from captures.journal import Head, decode, encode

JOURNAL = "journal.jsonl"
TAIL = 1 << 20  # bytes looked at first for the last good entry

Clock = Callable[[], datetime]


class JournalFile:
    """The file. Every method but `locked` is for whoever holds the lock; all raise `OSError`."""

    def __init__(self, path: Path, clock: Clock = lambda: datetime.now(UTC)) -> None:
        self.path = path
        self.torn = 0  # bytes of torn lines found
        self._clock = clock
        self._descriptor: int | None = None
        self._head = Head()
        self._size = -1  # of the file when `_head` was its last entry

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; other processes wait meanwhile."""
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self.path, flags, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def append(self, contents: Sequence[Mapping[str, Any]]) -> None:
        """Write entries; on return they are on the disk."""
        if self._descriptor is None:
            raise OSError("the journal is not open")
        if os.fstat(self._descriptor).st_size != self._size:
            mending, contents = self._find_head(contents)
        else:
            mending = b""
        written = rfc3339(self._clock())
        head, lines = self._head, [mending]
        for content in contents:
            line, head = encode(content, head, written)
            lines.append(line)
        self._size = -1  # until all of it is known to be there
        data = memoryview(b"".join(lines))
        if data:
            while data:
                data = data[os.write(self._descriptor, data) :]
            os.fsync(self._descriptor)
        self._head, self._size = head, os.fstat(self._descriptor).st_size

    def recent(self) -> tuple[set[int], int]:
        """Exchanges the end of the journal tells of, and the index from which on it tells of all."""
        wanted = TAIL
        while True:
            data, start = self._tail(wanted)
            entries = [entry for line in data.splitlines(keepends=True) if (entry := decode(line)) is not None]
            told = {int(entry["exchange"]) for entry in entries if isinstance(entry.get("exchange"), int)}
            if told or not start:
                return told, min(told) if start else 1
            wanted *= 4

    def close(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _find_head(self, contents: Sequence[Mapping[str, Any]]) -> tuple[bytes, Sequence[Mapping[str, Any]]]:
        """Go to the last good entry; what a killed process left behind it is accounted for by an entry of its own."""
        wanted = TAIL
        while True:
            data, start = self._tail(wanted)
            end = len(data)
            self._head = Head()
            while end:
                begin = data.rfind(b"\n", 0, end - 1) + 1
                entry = decode(data[begin:end]) if begin or not start else None
                if entry is not None:
                    self._head = Head(entry["n"], entry["hash"])
                    break
                end = begin
            if self._head.number or not start:
                break
            wanted *= 4
        torn = data[end:]
        if not torn:
            return b"", contents
        self.torn += len(torn)
        mending = b"" if torn.endswith(b"\n") else b"\n"
        torn += mending
        told = {"entry": "torn", "size": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
        return mending, [told, *contents]

    def _tail(self, wanted: int) -> tuple[bytes, int]:
        """The last bytes of the file and where they start."""
        if self._descriptor is None:
            raise OSError("the journal is not open")
        size = os.fstat(self._descriptor).st_size
        start = max(0, size - wanted)
        data = b""
        while start + len(data) < size and (part := os.pread(self._descriptor, wanted, start + len(data))):
            data += part
        return data, start
