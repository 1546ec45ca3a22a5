"""A capture file of our own that goes on where the process before has ended.

What a killed process has left half-written at its end is cut off; another section follows (draft-ietf-opsawg-pcapng,
section 4.1). A file is written by one process at a time: whoever finds it busy writes another one beside it, and so
does who finds it full.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from captures.pcapng_blocks import MADE_BY

MOST = 100  # files beside each other
HEAD = 4096  # bytes that tell whose file it is
LAST = 16  # blocks at the end that have to be whole; where they are, so are those before
BUFFER = 1 << 20

_SIZE = struct.Struct("<I")
_SMALLEST = 12


def places(path: Path) -> Iterator[Path]:
    """Where captures of a name are, the first one by that name itself."""
    yield path
    for number in range(2, MOST):
        yield path.with_name(f"{path.stem}.{number}{path.suffix}")


def growing_capture(path: Path, full: int = 0) -> tuple[BinaryIO, Path]:
    """The file, at its end and only for its owner, and where it is. Raises `OSError`, also for what is not ours.

    One of `full` bytes or more is left, and another one taken; 0: none is.
    """
    for place in places(path):
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe, or a device
            return os.fdopen(descriptor, "wb"), place
        file = os.fdopen(descriptor, "r+b", BUFFER)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = _whole(file, place)
            if (full and size >= full) or not os.fstat(file.fileno()).st_nlink:  # removed since it was opened
                file.close()
                continue
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size)
            file.seek(0, os.SEEK_END)
        except BlockingIOError:
            file.close()
        except FileExistsError:
            file.close()
            if place == path:
                raise
        except BaseException:
            file.close()
            raise
        else:
            return file, place
    raise OSError(errno.EBUSY, f"{MOST - 1} files of this name are full or being written", path)


def _whole(file: BinaryIO, place: Path) -> int:
    """The size of what is whole. Raises `FileExistsError` for another kind of file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD)
    if head and MADE_BY.encode() not in head:
        raise FileExistsError(errno.EEXIST, "expected no file, or a packet capture made by upshim", place)
    return size if _ends_well(file, size) else _read_through(file, size)


def _ends_well(file: BinaryIO, size: int) -> bool:
    end = size
    for _ in range(LAST):
        if not end:
            break
        length = _number(file, end - 4) if end >= _SMALLEST else 0
        if not _SMALLEST <= length <= end or _number(file, end - length + 4) != length:
            return False
        end -= length
    return True


def _read_through(file: BinaryIO, size: int) -> int:
    end = 0
    while end + _SMALLEST <= size:
        length = _number(file, end + 4)
        if length < _SMALLEST or end + length > size or _number(file, end + length - 4) != length:
            break
        end += length
    return end


def _number(file: BinaryIO, position: int) -> int:
    file.seek(position)
    return int(_SIZE.unpack(file.read(_SIZE.size))[0])
