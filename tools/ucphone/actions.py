"""What a phone wants done, and what comes of it: the border between its behaviour and the sockets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from dissectors.update_status import LastUpdateStatus

MAX_KEPT = 1 << 20  # bytes of a catalog; an image is hashed and not kept
MAX_IMAGE = 1 << 30


class Download:
    """One file as it arrives: counted, hashed, and kept where asked to. A new attempt resumes at `received`."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self.entity_tag: str | None = None
        self.total: int | None = None
        self.complete = False
        self.resumed = 0
        self._restart()

    def _restart(self) -> None:
        self.received = 0
        self.sha256 = hashlib.sha256()
        self.sha1 = hashlib.sha1(usedforsecurity=False)
        self.kept = bytearray()

    def begin(self, offset: int | None, total: int | None, entity_tag: str | None) -> bool:
        """An answer starts at `offset` (None: at the beginning, a whole file). False where it does not fit."""
        if offset is None:
            self._restart()
        elif offset != self.received or (self.total is not None and total != self.total):
            return False
        else:
            self.resumed += 1
        self.total = total
        self.entity_tag = entity_tag
        return total is None or total <= (MAX_KEPT if self._keep else MAX_IMAGE)

    def write(self, chunk: bytes) -> bool:
        """Take the next bytes; False where there are more than there may be."""
        self.received += len(chunk)
        if self.received > (MAX_KEPT if self._keep else MAX_IMAGE):
            return False
        self.sha256.update(chunk)
        self.sha1.update(chunk)
        if self._keep:
            self.kept += chunk
        return True


@dataclass(frozen=True, slots=True)
class Post:
    """Send an update check."""

    url: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Get:
    """Fetch a file into `download`, from where it stands."""

    url: str
    download: Download


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection: the phone goes down, or has nothing to say for a day."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let so many real seconds pass."""

    seconds: float


Action = Post | Get | Disconnect | Pause


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a `Post` or `Get`: an HTTP status, or a WinInet error code where it did not come to one."""

    status: int = 0
    wininet: int = 0
    content_type: str = ""
    body: bytes = field(default=b"", repr=False)
    detail: str = field(default="", compare=False)  # what OpenSSL said, where it was that

    @property
    def last_update_status(self) -> LastUpdateStatus:
        """The pair the phone would show."""
        return LastUpdateStatus.parse(f"0x{self.wininet:x};{self.status}")


NOTHING = Reply()
