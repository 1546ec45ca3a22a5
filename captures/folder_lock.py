"""Who writes to a recording's folder: one process alone, which may then keep in memory what it has written, or several.

Whoever writes holds a lock on `writers.lock` for as long as it lives, and so does the process that writes for it: an
exclusive one while it is alone, else a shared one. One that comes later asks the one that is alone to make room, by
the file `writers.wanted`, and does not count as a writer until that has happened.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK, WANTED = "writers.lock", "writers.wanted"


class FolderLock:
    """A writer's lock. Its methods raise `OSError` where the folder cannot be used."""

    def __init__(self, folder: Path) -> None:
        """Take the lock alone if nobody else writes there."""
        self._wanted = folder / WANTED
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(folder / LOCK, flags, 0o600)
        self.alone = self.shared = False
        self.look()

    @property
    def wanted(self) -> bool:
        """Whether somebody else wants to write there too."""
        return self._wanted.exists()

    def look(self) -> None:
        """Become alone where the others have gone; make room for one who wants to come in."""
        if self.alone:
            if self.wanted:
                self.make_room()
        elif self._take(fcntl.LOCK_EX):
            self.alone, self.shared = True, False
            self._wanted.unlink(missing_ok=True)  # those who wanted to come in are not there, or will ask again
        else:
            # Linux lets go of a lock it could not change.
            self.shared = self._take(fcntl.LOCK_SH)
            if not self.shared:
                self._wanted.touch(mode=0o600)

    def make_room(self) -> None:
        """Be one of several from now on."""
        self.alone, self.shared = False, self._take(fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go; a process that has inherited the descriptor holds the lock until it ends."""
        os.close(self.descriptor)

    def _take(self, kind: int) -> bool:
        try:
            fcntl.flock(self.descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
