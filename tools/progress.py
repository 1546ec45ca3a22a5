"""A progress line on standard error, for work over a second, on a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PATIENCE = 1.0


class Progress:
    """Counts bytes; shows them once it takes long. `total` is how many there will be, if that is known."""

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._started = time.monotonic()
        self._done = 0
        self._bar: Bar | None = None
        self._enabled = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.hide()

    def advance(self, count: int) -> None:
        """So many more bytes are done."""
        self._done += count
        if self._bar is None and self._enabled and time.monotonic() - self._started > PATIENCE:
            self._bar = _bar(self._what, self._total)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def hide(self) -> None:
        """Leave the terminal to what is printed next."""
        self._started = time.monotonic()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _bar(what: str, total: int | None) -> Bar:
    # For a file that is done at once, loading this would be most of the work.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn, TransferSpeedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Bar(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
    bar.add_task(what, total=total)
    bar.start()
    return bar
