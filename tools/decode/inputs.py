"""What the command line names: files, folders, patterns, standard input; each opened as a seekable file."""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from captures.recording_folder import DATABASE
from dissectors.errors import LimitExceeded
from dissectors.file_digests import digests
from dissectors.lines import sniff_encoding
from tools.decode.settings import Settings
from tools.errors import UnusableInput

if TYPE_CHECKING:
    from dissectors.firmware import Firmware

HEAD = 1 << 16
STEP = 1 << 18
STDIN = "-"
MAX_FILES = 100_000
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_ASCII = re.compile(r"[\t\r\n -~]+")
_BEGINNING = 16  # characters of which none of a text is a control character
_PER_CONTROL = 256  # characters for each that there may be later, such as what somebody sent and a server logged


@dataclass
class Content:
    """Bytes with a name, read by position; nothing but the head is kept."""

    name: str
    file: BinaryIO
    path: Path | None = None

    @classmethod
    def of(cls, name: str, data: bytes, digests: tuple[str, str]) -> Content:
        """Bytes already in memory, and their SHA-1 and SHA-256 in hex."""
        content = cls(name, BytesIO(data))
        content.digests = digests
        return content

    @cached_property
    def size(self) -> int:
        """Number of bytes."""
        return self.file.seek(0, os.SEEK_END)

    @cached_property
    def head(self) -> bytes:
        """The first bytes."""
        self.file.seek(0)
        return self.file.read(HEAD)

    @cached_property
    def is_text(self) -> bool:
        """Whether the head is text of UTF-8, UTF-16, UTF-32 or an 8-bit code page, but for a few control characters."""
        return _is_text(self.head)

    @cached_property
    def may_be_log(self) -> bool:
        """Whether the head is text but for zero bytes, which a crash leaves in a log."""
        return self.is_text or (b"\0" in self.head and _is_text(self.head.replace(b"\0", b"")))

    @cached_property
    def digests(self) -> tuple[str, str]:
        """SHA-1 and SHA-256 in hex."""
        return digests(self.chunks())

    @cached_property
    def firmware(self) -> Firmware:
        """What the file is as firmware."""
        from dissectors.firmware import identify

        return identify(self.file)

    def chunks(self) -> Iterator[bytes]:
        """The whole, in pieces."""
        position = 0
        while True:
            self.file.seek(position)
            chunk = self.file.read(STEP)
            if not chunk:
                return
            yield chunk
            position += len(chunk)

    def whole(self, limit: int) -> bytes:
        """All of it at once. Raises `LimitExceeded`."""
        if self.size > limit:
            raise LimitExceeded(limit, f"at most {limit} bytes of such a file", f"{self.size}")
        self.file.seek(0)
        return self.file.read()


def _is_text(head: bytes) -> bool:
    encoding, mark = sniff_encoding(head[:64])
    unit = len("\0".encode(encoding))
    text = head[mark : mark + (len(head) - mark) // unit * unit].decode(encoding, "replace").rstrip("\0")
    if not text.strip() or "\0" in text or _CONTROL.search(text[:_BEGINNING]):
        return False
    if len(_CONTROL.findall(text)) * _PER_CONTROL > len(text):
        return False
    if encoding == "utf-8" and text.count("\ufffd") > max(len(text) // 20, 1):
        # A code page; padding with FF and the like has nothing of ASCII.
        return len(_ASCII.sub("", text)) * 4 <= len(text) * 3
    return True


def expand(words: Sequence[str], unreadable: Callable[[OSError], None]) -> Iterator[tuple[str, Path | None]]:
    """Names to show and paths, None for standard input. Raises `UnusableInput` for a pattern that fits nothing.

    `unreadable` hears of folders that may not be looked into.
    """
    for word in words:
        path = Path(word)
        if word == STDIN:
            yield "standard input", None
        elif path.is_dir():
            yield from ((str(found), found) for found in files_below(path, unreadable))
        elif glob.has_magic(word) and not path.exists():
            matches = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - absolute patterns too
            if not matches:
                raise UnusableInput(f"{word}: no file fits this pattern")
            for match in matches:
                if Path(match).is_dir():
                    yield from ((str(found), found) for found in files_below(Path(match), unreadable))
                else:
                    yield match, Path(match)
        else:
            yield word, path


def files_below(folder: Path, unreadable: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """The regular files of a folder tree in order; links to folders are not followed."""
    count = 0
    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders.sort()
        if DATABASE in names:  # a recording: other verbs read it, and only its bodies are files to look at
            continue
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file():
                count += 1
                if count > MAX_FILES:
                    raise UnusableInput(f"{folder}: more than {MAX_FILES} files")
                yield path


def open_content(name: str, path: Path | None, settings: Settings) -> Content:
    """Open a file; what cannot seek is copied to a temporary one first. Raises `UnusableInput`."""
    try:
        if path is None:
            return Content(name, _copied(name, sys.stdin.buffer, settings))
        file = path.open("rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return Content(name, file, path)
        with file:
            return Content(name, _copied(name, file, settings))
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name.
        raise UnusableInput(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _copied(name: str, stream: BinaryIO, settings: Settings) -> BinaryIO:
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as its Content
    size = 0
    while chunk := stream.read(STEP):
        size += len(chunk)
        if size > settings.output or settings.expired():
            raise UnusableInput(f"{name}: no end within {settings.output} bytes and {settings.seconds:g} seconds")
        copy.write(chunk)
    return copy
