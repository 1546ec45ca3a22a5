"""Memory that is free is given back to the system, so that a proxy is as small after months as after minutes.

The C library keeps what was freed between things that stay. asyncio reads into buffers of 256 KiB, which are cut down
to what has come: with what stays of them here and there, two thirds of a heap were free after an hour, and more every
minute. Such buffers are mapped by themselves at first, but no longer once one of them was freed, unless told to.
"""

from __future__ import annotations

import asyncio
import ctypes

EVERY = 60.0  # seconds; it takes some thousandths of one
LARGE = 128 << 10  # bytes; what glibc begins with
M_MMAP_THRESHOLD = -3  # malloc.h


def map_large() -> bool:
    """Have large buffers mapped by themselves for good; whether the C library can (glibc, mallopt(3))."""
    try:
        return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE))
    except (OSError, AttributeError):
        return False


def give_back() -> bool:
    """Give back what is free; whether the C library can (glibc, malloc_trim(3))."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    trim(ctypes.c_size_t(0))
    return True


async def keep_small() -> None:
    """Map what is large, give back what is free until cancelled; where it cannot be done, no longer."""
    map_large()
    while give_back():
        await asyncio.sleep(EVERY)
