"""The switch that turns all rewriting off: a file that exists, a signal, or a command. It acts on the next exchange."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

from proxy_addons.log_lines import event

logger = logging.getLogger("upshim")


class KillSwitch:
    """Off by itself; on while its file exists, or once `stop` was called and until `start`."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._by = ""

    def why(self) -> str:
        """What has switched everything off; blank where nothing has."""
        return self._by or (why_file(self.file) if self.file is not None else "")

    def stop(self, by: str) -> None:
        """Switch off; where there is a file for it, in a way that outlives the process."""
        self._by = f"switched off by {by}"
        try:
            if self.file is not None:
                make(self.file)
        except OSError as error:
            logger.warning("upshim: rewriting is off, but not beyond a restart: %s: %s", self.file, error.strerror)
        self._tell()

    def watch(self, file: Path | None) -> None:
        """Have a file for it from now on. Raises `OSError` where it cannot be made when it is needed."""
        if file is not None:
            if not stat.S_ISDIR(file.parent.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), file)
            refuse_folder(file)
        self.file = file
        if self.why():
            self._tell()

    def start(self) -> str:
        """Switch on again; returns what still keeps it off, blank where nothing does."""
        self._by = ""
        try:
            if self.file is not None:
                remove(self.file)
        except OSError as error:
            logger.warning("upshim: %s cannot be removed: %s", self.file, error.strerror)
        self._tell()
        return self.why()

    def toggle(self) -> None:
        """The signal: off, or on again. It leaves the file alone."""
        self._by = "" if self._by else "switched off by signal"
        self._tell()

    def _tell(self) -> None:
        why = self.why()
        switched = f"off: {why}" if why else "on"
        logger.warning("upshim: rewriting is switched %s", switched, extra=event("switch", stopped=bool(why)))


def make(file: Path) -> None:
    """The file that stops everything. Raises `OSError`, also for what is no file."""
    refuse_folder(file)
    file.touch()


def refuse_folder(file: Path) -> None:
    """Raises `IsADirectoryError`: a folder is always there."""
    if file.is_dir():
        raise IsADirectoryError(errno.EISDIR, "expected a file, found a folder", file)


def remove(file: Path) -> None:
    """Remove it, if it is there. Raises `OSError`, also for a file that holds something: it may be another."""
    if file.is_file() and file.stat().st_size:
        raise FileExistsError(errno.EEXIST, "expected the empty file that stops everything, found another", file)
    file.unlink(missing_ok=True)


def why_file(file: Path) -> str:
    """Why a kill-switch file stops everything; blank where it does not."""
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return f"{file} cannot be looked at: {error.strerror}"  # better stopped for nothing than not stopped
    return f"{file} exists"
