"""A message body as it streams by: decoded, counted and hashed, held while it is small, kept as a file if asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from captures.bodies import BodyFiles, Incoming
from captures.exchange import EMPTY_SHA256
from dissectors.coding import WIDE, BodyDecoder
from dissectors.errors import DissectError, LimitExceeded

MAX_HELD = 64 << 20  # bytes of all bodies under way
MAX_WIDE = 16  # codings of them whose decoders take 16 MiB each

BodyValues = tuple[int, str, int, str | None, bytes | None, bytes | None]  # the fields of a `Body`
NO_BODY: BodyValues = (0, EMPTY_SHA256, 0, None, None, None)


class Keeping:
    """How bodies are kept: up to `hold` bytes of each in memory, `left` bytes of all that are under way, and files.

    `wide` is how many more decoders there may be that take much memory.
    """

    __slots__ = ("files", "hold", "left", "wide")

    def __init__(self, hold: int, files: BodyFiles | None, left: int = MAX_HELD) -> None:
        self.hold = hold
        self.files = files
        self.left = left
        self.wide = MAX_WIDE


class Tally:
    """Bytes passing by: their number and hash; themselves while they may be held, a file once they may not."""

    __slots__ = ("_hash", "_held", "_incoming", "_keeping", "size")

    def __init__(self, keeping: Keeping) -> None:
        self.size = 0
        self._hash: hashlib._Hash | None = None  # while the bytes are held they are not hashed: that is done at once
        self._keeping = keeping
        self._held: list[bytes] | None = []
        self._incoming: Incoming | None = None

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises `OSError` where a file cannot be written."""
        size = len(data)
        self.size += size
        held = self._held
        if held is not None:
            keeping = self._keeping
            keeping.left -= size
            held.append(data)
            if self.size > keeping.hold or keeping.left < 0:
                self._overflow(held)
            return
        if self._hash is not None:
            self._hash.update(data)
        if self._incoming is not None:
            self._incoming.file.write(data)

    def _overflow(self, held: list[bytes]) -> None:
        self._keeping.left += self.size
        self._held = None
        self._hash = hashlib.sha256()
        for data in held:
            self._hash.update(data)
        if self._keeping.files is not None:
            self._incoming = self._keeping.files.begin()
            self._incoming.file.writelines(held)

    def result(self) -> tuple[str, bytes | None]:
        """The hash of what has passed, and what has passed, if it is small enough."""
        held = self._held
        if held is None:
            assert self._hash is not None  # noqa: S101 - what is not held is hashed
            return self._hash.hexdigest(), None
        if not self.size:
            return EMPTY_SHA256, b""
        data = held[0] if len(held) == 1 else b"".join(held)
        return hashlib.sha256(data).hexdigest(), data

    def keep(self, sha256: str, data: bytes | None) -> None:
        """Let the file appear under its name. Raises `OSError`."""
        if self._incoming is not None:
            self._incoming.keep(sha256)
        elif self._keeping.files is not None and self._held and data is not None:
            self._keeping.files.put(sha256, data)

    def let_go(self) -> None:
        """Hold nothing any more, and forget a file that was not kept."""
        if self._held is not None:
            self._keeping.left += self.size
            self._held = None
        if self._incoming is not None:
            self._incoming.drop()


class BodyReader:
    """One body. What cannot be decoded is described as it came, and `problems` say so."""

    __slots__ = (
        "_came",
        "_decoded",
        "_decoder",
        "_failure",
        "_keeping",
        "_wide",
        "missing",
        "part",
        "part_hole",
        "problems",
    )

    def __init__(self, codings: Sequence[str], keeping: Keeping) -> None:
        self.problems: list[str] = []
        self.missing = 0
        # Both are told of what comes before content decoding: byte ranges count there.
        self.part: Callable[[bytes], None] | None = None
        self.part_hole: Callable[[int], None] | None = None
        self._failure: DissectError | None = None
        self._decoder: BodyDecoder | None = None
        self._keeping = keeping
        self._wide = 0
        if codings:
            try:
                self._decoder = self._decoder_of(codings)
            except DissectError as error:
                self._failure = error
        self._came = Tally(keeping)
        self._decoded = Tally(keeping) if self._decoder else None

    def _decoder_of(self, codings: Sequence[str]) -> BodyDecoder:
        wide = sum(name in WIDE for name in codings)
        if wide > self._keeping.wide:
            raise LimitExceeded(0, f"at most {MAX_WIDE} bodies in brotli or zstd at a time", "more")
        decoder = BodyDecoder(codings)
        self._wide = wide
        self._keeping.wide -= wide
        return decoder

    def taker(self) -> Callable[[bytes], None]:
        """What takes the bytes, transfer coding undone, now that it is known who is told of them."""
        return self._came.write if self.part is None and self._decoder is None else self.write

    def write(self, data: bytes) -> None:
        """Take the next bytes, transfer coding undone."""
        self._came.write(data)
        if self.part is not None:
            self.part(data)
        if self._decoder is not None and self._decoded is not None and self._failure is None:
            try:
                self._decoded.write(self._decoder.feed(data))
            except DissectError as error:
                self._failure = error

    def hole(self, size: int) -> None:
        """Note missing bytes."""
        self.problems.append(f"gap: {size} bytes missing at {self._came.size + self.missing} of the body")
        self.missing += size
        if self.part_hole is not None:
            self.part_hole(size)

    def finish(self) -> BodyValues:
        """The body; its files get their names."""
        came, decoded = self._came, self._decoded
        if self._decoder is not None and decoded is not None and self._failure is None and not self.missing:
            try:
                decoded.write(self._decoder.finish())
            except DissectError as error:
                self._failure = error
        body: BodyValues
        came_sha256, came_data = came.result()
        if decoded is not None and self._failure is None and not self.missing:
            sha256, data = decoded.result()
            decoded.keep(sha256, data)
            body = decoded.size, sha256, came.size, came_sha256, data, came_data
        else:
            if self._failure is not None:
                self.problems.append(
                    f"the body is given as it came: its content coding cannot be undone: {self._failure}"
                )
            elif decoded is not None:
                self.problems.append("the body is given as it came: its content coding cannot be undone across the gap")
            came.keep(came_sha256, came_data)
            body = came.size, came_sha256, came.size, None, came_data, None
        came.let_go()
        if decoded is not None:
            decoded.let_go()
        self._decoder = None
        self._keeping.wide += self._wide
        self._wide = 0
        return body
