"""The errors of this layer: a file that cannot be read as a capture, a place that is no recording."""

from __future__ import annotations

from pathlib import Path

from dissectors.errors import DissectError


class CaptureError(Exception):
    """A file is of no known kind, or damaged before anything of it could be read; one line names file and place."""

    def __init__(self, path: Path | str, cause: DissectError | OSError | str) -> None:
        reason = (cause.strerror or str(cause)) if isinstance(cause, OSError) else str(cause)
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[CaptureError], tuple[Path | str, str]]:
        return type(self), (self.path, self.reason)  # so that one process can tell it to another


class StoreError(CaptureError):
    """A folder or database that is not a recording, or not one that this version can read or write."""
