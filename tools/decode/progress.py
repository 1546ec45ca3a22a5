"""A progress line on standard error, for work over a second, on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

PATIENCE = 1.0


class Progress:
    """Counts decoded bytes; shows them once it takes long."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._done = 0
        self._bar: Bar | None = None
        self._enabled = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.hide()

    def advance(self, count: int) -> None:
        """So many more bytes are decoded."""
        self._done += count
        if self._bar is None and self._enabled and time.monotonic() - self._started > PATIENCE:
            columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task("decoding", total=None)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def hide(self) -> None:
        """Leave the terminal to the next record."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._started = time.monotonic()
