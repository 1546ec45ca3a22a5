"""Bodies as files named by the sha256 of their content: written once, shared by equal bodies, complete or absent."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import re
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 18
PAGE = 200  # bodies looked at in one go
PREFIX = "incoming-"
NAME = re.compile(r"[0-9a-f]+")


def is_name(sha256: str) -> bool:
    """Whether this can name a body: files tell hashes too, and one that is a path would be followed."""
    return NAME.fullmatch(sha256) is not None


class BodyFiles:
    """The `bodies/` folder of a recording; a body appears under its name only when it is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._folder = str(folder)  # every body of every batch is looked for: a path takes longer than the kernel

    def path(self, sha256: str) -> Path:
        """Where the body of this hash is, or would be."""
        return self.folder / sha256

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a body held in memory. Raises `OSError`."""
        try:
            os.utime(f"{self._folder}/{sha256}")  # it is needed again: see `remove_stale`
        except FileNotFoundError:
            with self.incoming() as incoming:
                incoming.file.write(data)
                incoming.keep(sha256)

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A body that arrives in pieces; it is dropped unless `keep` was called."""
        incoming = self.begin()
        try:
            yield incoming
        finally:
            incoming.drop()

    def begin(self) -> Incoming:
        """Start a body that arrives in pieces; the caller ends it with `keep` or `drop`. Raises `OSError`."""
        import tempfile  # noqa: PLC0415 - slow to import, and most captures are read without keeping bodies

        handle, name = tempfile.mkstemp(prefix=f"{PREFIX}{os.getpid()}-", dir=self.folder)  # mkstemp makes it 0600
        return Incoming(self, os.fdopen(handle, "wb"), Path(name))

    def sweep(self) -> None:
        """Remove what a killed process left half-written. Raises `OSError`."""
        for leftover in self.folder.glob(f"{PREFIX}*"):
            writer = leftover.name.removeprefix(PREFIX).partition("-")[0]
            if not (writer.isdecimal() and Path("/proc", writer).exists()):
                leftover.unlink(missing_ok=True)

    def stale(self, before: float) -> Iterator[list[str]]:
        """Names of bodies not written or asked for since `before` (seconds since 1970), some at a time.

        Raises `OSError`.
        """
        with os.scandir(self.folder) as entries:
            while page := list(itertools.islice(entries, PAGE)):
                yield [one.name for one in page if not one.name.startswith(PREFIX) and _touched(one) < before]

    def remove_stale(self, names: Iterable[str], before: float) -> tuple[int, int]:
        """Remove these bodies, which nobody needs, unless somebody asks for one meanwhile; count and bytes.

        A body is first taken away under another name and then looked at once more: whoever wants it in between finds
        it gone and writes it anew, or has touched it and it is put back. Raises `OSError`.
        """
        count = size = 0
        for name in names:
            path, aside = self.path(name), self.path(f"{PREFIX}{os.getpid()}-{name}")
            try:
                path.replace(aside)
            except FileNotFoundError:
                continue  # another process was faster
            status = aside.stat()
            if status.st_mtime >= before:
                aside.replace(path)
                continue
            aside.unlink()
            count, size = count + 1, size + status.st_size
        return count, size

    def unneeded(self, needed: Container[str]) -> int:
        """How many bodies are not among those needed, or not yet. Raises `OSError`."""
        return sum(path.name not in needed for path in self.folder.iterdir())

    def has(self, sha256: str) -> bool:
        """Whether this body was kept; one without a hash is not."""
        return is_name(sha256) and self.path(sha256).is_file()

    def taken(self, sha256: str) -> None:
        """A body that arrived in pieces is there."""

    def open(self, sha256: str) -> BinaryIO:
        """Open a body for reading. Raises `FileNotFoundError` where it was not kept."""
        if not is_name(sha256):
            raise FileNotFoundError(errno.ENOENT, "no body of this name", sha256)
        return self.path(sha256).open("rb")

    def chunks(self, sha256: str) -> Iterator[bytes]:
        """A body in pieces. Raises `FileNotFoundError` where it was not kept."""
        with self.open(sha256) as file:
            while chunk := file.read(CHUNK):
                yield chunk


def _touched(entry: os.DirEntry[str]) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return math.inf


class Incoming:
    """A body on its way into the folder."""

    def __init__(self, bodies: BodyFiles, file: BinaryIO, name: Path) -> None:
        self.file = file
        self._bodies = bodies
        self._name: Path | None = name

    def keep(self, sha256: str) -> None:
        """Give the body its name; an equal one that is already there stays."""
        self.file.close()
        if self._name is not None:
            self._name.replace(self._bodies.path(sha256))
            self._name = None
            self._bodies.taken(sha256)

    def drop(self) -> None:
        """Forget the body; does nothing after `keep`."""
        self.file.close()
        if self._name is not None:
            self._name.unlink(missing_ok=True)
            self._name = None
