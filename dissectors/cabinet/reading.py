"""Members out of folders: one forward pass per folder, every member hashed on the way, nothing kept.

`read_pieces` is what everything else stands on: it yields the bytes of the wanted members as they come by, folder after
folder. A folder that cannot be decoded to its end costs its remaining members and no others; the budget ends it all.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dissectors.cabinet.decoders import decode_folder
from dissectors.cabinet.limits import Budget
from dissectors.cabinet.values import Folder, Member
from dissectors.errors import DissectError, LimitExceeded

_NOTHING = memoryview(b"")


class Digests(NamedTuple):
    """Of the whole content of a member, in hex."""

    sha1: str
    sha256: str


class Piece(NamedTuple):
    """Some bytes of a member, in order. The last piece of each has either `digests` or the `fault` that ended it."""

    member: Member
    data: memoryview
    digests: Digests | None = None
    fault: DissectError | None = None


@dataclass(frozen=True, slots=True)
class MemberContent:
    """A member as examined: its digests, or why there are none."""

    member: Member
    digests: Digests | None
    fault: DissectError | None

    def to_json(self) -> dict[str, Any]:
        """Plain values for `decode --json`."""
        entry = self.member.to_json()
        if self.digests is not None:
            entry |= {"sha1": self.digests.sha1, "sha256": self.digests.sha256}
        if self.fault is not None:
            entry["problem"] = str(self.fault)
        return entry


class _Reading:
    """A member whose bytes are coming by."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.start = member.offset
        self.end = member.offset + member.size
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    def piece(self, view: memoryview) -> Piece:
        self._sha1.update(view)
        self._sha256.update(view)
        return Piece(self.member, view)

    def last(self) -> Piece:
        digests = Digests(self._sha1.hexdigest(), self._sha256.hexdigest())
        return Piece(self.member, _NOTHING, digests=digests)


def read_pieces(
    folders: Sequence[Folder], wanted: Iterable[Member], budget: Budget, *, native: bool = True
) -> Iterator[Piece]:
    """The pieces of the wanted members, in the order of their place in the folders.

    Members may overlap; their pieces then alternate. Raises LimitExceeded when the budget is used up, and no other
    error: what is wrong with a member comes as the fault of its last piece.
    """
    queues: dict[int, list[_Reading]] = {}
    declared = 0
    for member in wanted:
        declared += member.size if member.fault is None else 0
        if declared > budget.output:
            raise LimitExceeded(member.position, f"at most {budget.output} bytes of members", f"{declared} declared")
        if member.fault is not None:
            yield Piece(member, _NOTHING, fault=member.fault)
        elif member.size:
            queues.setdefault(member.folder, []).append(_Reading(member))
        else:
            yield _Reading(member).last()
    left = budget.output
    for index in sorted(queues):
        left -= yield from _read_folder(folders[index], queues[index], left, budget, native)


def _read_folder(
    folder: Folder, readings: list[_Reading], left: int, budget: Budget, native: bool
) -> Generator[Piece, None, int]:
    """The pieces of one folder's members; returns how many bytes it took to decode them."""
    waiting = deque(sorted(readings, key=lambda reading: reading.start))
    active: list[_Reading] = []
    position = 0
    chunks = _lazily(folder, native)
    while active or waiting:
        try:
            chunk = next(chunks)
        except DissectError as fault:
            for reading in [*active, *waiting]:
                yield Piece(reading.member, _NOTHING, fault=fault)
            break
        end = position + len(chunk)
        if end > left:
            raise LimitExceeded(folder.offset, f"at most {budget.output} bytes decoded", "more")
        budget.check_time(folder.offset)
        while waiting and waiting[0].start < end:
            active.append(waiting.popleft())
        view = memoryview(chunk)
        for reading in active:
            yield reading.piece(view[max(reading.start - position, 0) : reading.end - position])
            if reading.end <= end:
                yield reading.last()
        active = [reading for reading in active if reading.end > end]
        position = end
    return position


def _lazily(folder: Folder, native: bool) -> Iterator[bytes]:
    """The chunks of a folder. It raises where they end: whoever asks for more was promised more by the index."""
    yield from decode_folder(folder, native=native)
    raise DissectError(folder.offset, f"{folder.size} bytes out of folder {folder.index}", "fewer")
