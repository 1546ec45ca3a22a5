"""A long capture read by a second process, while this one makes use of what it finds.

Packets to exchanges is about half of the work on a capture of many small exchanges, and what they mean and how they are
shown the other half. The first exchanges are always read here: most captures have no more, and a capture of a few large
bodies gains nothing. Then another process reads the capture from its beginning and sends what follows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from captures.errors import CaptureError
from captures.open_exchange import Finished

if TYPE_CHECKING:
    from captures.open_exchange import PlainItem
    from captures.read_options import ReadOptions

LARGE = 32 << 20  # bytes of a file for which a second process is worth its start
MANY = 1000  # exchanges that are read here first
BATCH = 64  # items sent at once
BATCH_BYTES = 1 << 20  # of bodies in them

Read = Callable[[Path, "ReadOptions"], Generator["PlainItem", None, None]]


def worth_two_processes(path: Path) -> bool:
    """Whether a capture is so large, and there is a second processor."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        return path.stat().st_size >= LARGE and processors > 1
    except OSError:
        return False  # whoever opens it will say so


def read_ahead(read: Read, path: Path, options: ReadOptions) -> Generator[PlainItem, None, None]:
    """What `read`, a function of a module, gives. Raises `CaptureError`."""
    progress = _Progress(options.progress)
    shown = 0
    with closing(read(path, replace(options, progress=progress.advance))) as here:
        for item in islice(here, MANY):
            yield item
            shown += 1
    if shown == MANY:
        yield from islice(_elsewhere(read, path, options, progress), MANY, None)


class _Progress:
    """Tells of bytes read, those that are read a second time once."""

    def __init__(self, tell: Callable[[int], None] | None) -> None:
        self._tell = tell
        self._told = 0

    def advance(self, size: int) -> None:
        self.reached(self._told + size)

    def reached(self, position: int) -> None:
        if self._tell is not None and position > self._told:
            self._tell(position - self._told)
            self._told = position


def _elsewhere(read: Read, path: Path, options: ReadOptions, progress: _Progress) -> Iterator[PlainItem]:
    import pickle  # noqa: PLC0415 - most captures are read by one process
    import subprocess  # noqa: PLC0415

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:  # noqa: S603
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        try:
            with process.stdin as words:
                pickle.dump((read, path, replace(options, progress=None)), words)
            while True:
                items, position, end = pickle.load(process.stdout)  # noqa: S301 - from our own process
                progress.reached(position)
                yield from items
                if isinstance(end, Exception):
                    raise end
                if end:
                    return
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            raise CaptureError(path, "the process that read it was ended") from None
        finally:
            process.kill()


def _send(out: BinaryIO, read: Read, path: Path, options: ReadOptions) -> None:
    """Write pickles of (items, bytes of the file read, whether that was all or the error that ended it)."""
    import pickle  # noqa: PLC0415

    position = 0

    def advance(size: int) -> None:
        nonlocal position
        position += size

    batch: list[PlainItem] = []
    size = 0
    end: Exception | bool = True
    try:
        for item in read(path, replace(options, progress=advance)):
            batch.append(item)
            size += item.held if isinstance(item, Finished) else 0
            if len(batch) >= BATCH or size >= BATCH_BYTES:
                pickle.dump((batch, position, False), out)
                batch = []
                size = 0
    except (CaptureError, OSError) as error:
        end = error
    pickle.dump((batch, position, end), out)


def main() -> None:
    """Read what standard input names."""
    import pickle  # noqa: PLC0415
    import signal  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever reads what is sent is interrupted, and ends this process
    read, path, options = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own process
    try:
        with sys.stdout.buffer as out:
            _send(out, read, path, options)
    except BrokenPipeError:
        pass  # nobody wants more


if __name__ == "__main__":
    main()
