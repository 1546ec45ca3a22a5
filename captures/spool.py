"""What waits on this machine while the database is away: a bounded file, one line for each thing to be written.

A line is on the disk before it is acknowledged, so that it survives `kill -9`. Lines carry the uid under which the
exchange is written, so that one whose commit had an unknown outcome is not written twice: after a crash the file is
read again from its start. Each process has a file of its own and holds its lock; the files of processes that are gone
are taken over by whoever starts next.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captures.exchange import Exchange
from captures.journalling import Told
from captures.rows import exchange_of, row_of

SPOOL = "spool"
MAX_SPOOLED = 256 << 20  # bytes; exchanges beyond are lost and counted
MAX_LINE = 16 << 20


class Waiting(NamedTuple):
    """An exchange as it is to be stored, with what the journal will tell; or the beginning of a download."""

    uid: str
    exchange: Exchange | None = None
    told: Told | None = None
    fetch: dict[str, Any] | None = None


class SpoolFull(OSError):
    """There is no more room for what waits."""


class Spool:
    """The file of this process, and those left behind by others. For one thread. All methods raise `OSError`."""

    def __init__(self, folder: Path, most: int = MAX_SPOOLED) -> None:
        """Open a file of one's own in this folder."""
        self._most = most
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._mine, self._left = -1, list[int]()
        for number in itertools.count():
            descriptor = _locked(folder / f"{number}.jsonl")
            if descriptor is not None and self._mine < 0:
                self._mine = descriptor
            elif descriptor is not None:
                self._left.append(descriptor)
            if self._mine >= 0 and not (folder / f"{number + 1}.jsonl").exists():
                break
        if self.size and os.pread(self._mine, 1, self.size - 1) != b"\n":
            os.write(self._mine, b"\n")  # what a killed process left half-written must not spoil what follows
        self._at = 0  # where the next page begins, in what is read now: our own file last

    @property
    def pending(self) -> bool:
        """Whether anything waits."""
        return bool(self._left) or self._at < self.size

    @property
    def size(self) -> int:
        """Bytes of the file of this process."""
        return os.fstat(self._mine).st_size

    def append(self, waiting: Sequence[Waiting]) -> None:
        """Write these behind what waits already; on return they are on the disk. Raises `SpoolFull` beside."""
        data = b"".join(_line(one) for one in waiting)
        start = self.size
        if start + len(data) > self._most:
            raise SpoolFull(f"more than {self._most} bytes wait for the database")
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._mine, left) :]
            os.fsync(self._mine)
        except OSError:
            os.ftruncate(self._mine, start)
            raise

    def page(self, most: int) -> tuple[list[Waiting], int]:
        """What comes next, and how many bytes it takes; nothing where nothing waits. A damaged line is passed over."""
        descriptor = self._left[0] if self._left else self._mine
        data = os.pread(descriptor, MAX_LINE, self._at)
        found: list[Waiting] = []
        taken = 0
        while len(found) < most and (end := data.find(b"\n", taken)) >= 0:
            one = _waiting(data[taken:end])
            taken = end + 1
            if one is not None:
                found.append(one)
        if not taken:
            taken = len(data)  # the torn line of a killed process, or one that nobody of us wrote
        return found, taken

    def done(self, taken: int) -> None:
        """What the last `page` gave is written; a file that is all written is emptied."""
        self._at += taken
        descriptor = self._left[0] if self._left else self._mine
        if self._at >= os.fstat(descriptor).st_size:
            os.ftruncate(descriptor, 0)
            self._at = 0
            if self._left:
                os.close(self._left.pop(0))

    def close(self) -> None:
        """Let go of the files; what waits in them waits for the next start."""
        for descriptor in (self._mine, *self._left):
            os.close(descriptor)
        self._left = []


def _locked(path: Path) -> int | None:
    """A file nobody else has, made where it is not there; it is kept, for another process may have it open."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _line(one: Waiting) -> bytes:
    content: dict[str, Any] = {"uid": one.uid, "fetch": one.fetch}
    if one.exchange is not None:
        facts = [dict(fact) for fact in one.exchange.facts]
        content |= {"row": row_of(one.exchange), "facts": facts, "told": one.told}
    return json.dumps(content, ensure_ascii=True).encode("ascii") + b"\n"


def _waiting(line: bytes) -> Waiting | None:
    try:
        content = json.loads(line)
        if content.get("row") is None:
            return Waiting(content["uid"], fetch=content["fetch"])
        told = content["told"]
        exchange = exchange_of(content["row"], content["facts"], "live", 0)
        return Waiting(content["uid"], exchange, told and Told(*told))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


__all__ = ["Spool", "SpoolFull", "Waiting"]
