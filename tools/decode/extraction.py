"""Members of cabinets and parts of images written below a folder: never outside it, never over anything, never half.

Every component of a path is opened relative to the one before, links not followed, so that nothing that stands in the
folder already can lead out of it. A member grows under a temporary name and gets its own by a link, which fails where
that name is taken.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tools.errors import UnusableInput

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Target:
    """The folder to extract to; it is made if need be. Raises `UnusableInput` where it cannot be used."""

    def __init__(self, folder: str, below: str = "") -> None:
        self._root = -1
        try:
            Path(folder).mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UnusableInput(f"{folder}: {error.strerror}") from error
        self._below = [below] if below else []

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._root)

    def create(self, path: str) -> Growing:
        """Begin a file at a safe relative path (`/` between components). Raises `OSError`."""
        *folders, name = [*self._below, *path.split("/")]
        with self._folder(folders) as parent:
            return Growing(os.dup(parent), name)

    @contextmanager
    def _folder(self, parts: list[str]) -> Iterator[int]:
        at = os.dup(self._root)
        try:
            for part in parts:
                with suppress(FileExistsError):
                    os.mkdir(part, FOLDER_MODE, dir_fd=at)
                inner = os.open(part, _FOLDER, dir_fd=at)
                os.close(at)
                at = inner
            yield at
        finally:
            os.close(at)


class Growing:
    """A file that is being written, under a name that says so; `finish` or `abandon` ends it."""

    def __init__(self, parent: int, name: str) -> None:
        self._parent = parent
        self._name = name
        self._temporary = f".upshim-{secrets.token_hex(8)}.part"
        try:
            self._file: BinaryIO = os.fdopen(os.open(self._temporary, _NEW, FILE_MODE, dir_fd=parent), "wb")
        except OSError:
            os.close(parent)
            raise

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        self._file.write(data)

    def finish(self) -> None:
        """Give the file its name. Raises `FileExistsError` where it is taken."""
        try:
            self._file.close()
            self._rename()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave nothing behind that is not whole."""
        if self._parent >= 0:
            with suppress(OSError):
                self._file.close()
            with suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._parent)
            os.close(self._parent)
            self._parent = -1

    def _rename(self) -> None:
        here = {"src_dir_fd": self._parent, "dst_dir_fd": self._parent}
        try:
            os.link(self._temporary, self._name, **here, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # A file system without links: hold the name with an empty file of our own, then move over it.
            os.close(os.open(self._name, _NEW, FILE_MODE, dir_fd=self._parent))
            os.rename(self._temporary, self._name, **here)  # noqa: PTH104 - relative to a folder that is open
