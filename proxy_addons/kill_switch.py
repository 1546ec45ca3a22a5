"""The switch that turns all rewriting off: a file that exists, a signal, or a command. It acts on the next exchange.

There are two files. The one of `--kill-switch` is the operator's, and says all by being there. What was switched off by
command or signal is kept as `stopped` in the state folder, one line of who, since when and why: whoever runs with that
folder now or later, after a crash or a hand-over, is stopped as well.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

from proxy_addons.log_lines import event

logger = logging.getLogger("upshim")

KEPT = "stopped"
MAX_LINE = 1000  # bytes


class KillSwitch:
    """Off by itself; on while one of its files exists, or once `stop` was called and until `start`."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._kept: Path | None = None
        self._unkept = ""  # what was switched off and could not be kept: this process alone knows
        self._seen = ""
        self._lock = threading.Lock()  # metrics are read in a thread of their own

    def why(self) -> str:
        """What has switched everything off; blank where nothing has. A change is logged when it is first seen."""
        why = self._commanded() or (why_file(self.file) if self.file is not None else "")
        if why != self._seen:
            with self._lock:
                changed, self._seen = why != self._seen, why
            if changed:
                switched = f"off: {why}" if why else "on"
                told = event("switch", stopped=bool(why), why=why)
                logger.warning("upshim: rewriting is switched %s", switched, extra=told)
        return why

    def stop(self, by: str, reason: str = "") -> str:
        """Switch off; where there is a folder for it, in a way that outlives the process. Returns why it is off."""
        if not self._commanded():
            since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            said = f"switched off by {by} since {since}{f': {reason}' if reason else ''}"
            try:
                if self._kept is None:
                    self._unkept = said
                else:
                    keep(self._kept, said)
            except OSError as error:
                self._unkept = said
                told = "rewriting is off, but not beyond a restart"
                logger.warning("upshim: %s: %s: %s", told, self._kept, error.strerror)
        return self.why()

    def keep_in(self, folder: Path | None) -> None:
        """Keep what is switched off in this folder from now on, and take up what is kept there."""
        self._kept = None if folder is None else folder / KEPT
        self.why()

    def watch(self, file: Path | None) -> None:
        """Have a file for it from now on. Raises `OSError` where it cannot be made when it is needed."""
        if file is not None:
            if not stat.S_ISDIR(file.parent.stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), file)
            refuse_folder(file)
        self.file = file
        self.why()

    def start(self) -> str:
        """Switch on again; returns what still keeps it off, blank where nothing does."""
        self._resume()
        try:
            if self.file is not None:
                remove(self.file)
        except OSError as error:
            logger.warning("upshim: %s cannot be removed: %s", self.file, error.strerror)
        return self.why()

    def toggle(self) -> None:
        """The signal: off, or on again. It leaves the operator's file alone."""
        if self._commanded():
            self._resume()
            self.why()
        else:
            self.stop("signal")

    def _resume(self) -> None:
        self._unkept = ""
        try:
            if self._kept is not None:
                self._kept.unlink(missing_ok=True)
        except NotADirectoryError:
            return  # nothing is kept there
        except OSError as error:
            logger.warning("upshim: %s cannot be removed: %s", self._kept, error.strerror)

    def _commanded(self) -> str:
        if self._unkept or self._kept is None:
            return self._unkept
        why = why_file(self._kept)
        # Being there is what counts: a disk that was full may have had no room for the line.
        return (line_of(self._kept) or why) if why else ""


def keep(file: Path, line: str) -> None:
    """Make the file of what is switched off. Raises `OSError` where it could not be made."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):
        os.write(descriptor, line.encode()[:MAX_LINE] + b"\n")
    # Over the loss of power, too; a disk that hangs holds up nobody else.
    threading.Thread(target=_settle, args=(descriptor, file.parent), name="upshim-switch", daemon=True).start()


def _settle(descriptor: int, folder: Path) -> None:
    with contextlib.suppress(OSError):
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def line_of(file: Path) -> str:
    """What such a file tells; blank where it tells nothing."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.read(descriptor, MAX_LINE).decode("utf-8", "replace").strip()
        finally:
            os.close(descriptor)
    except OSError:
        return ""


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
