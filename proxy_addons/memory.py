"""Memory that is free is given back to the system, again and again.

The C library keeps what was freed between things that stay. Of buffers that come and go for months, with a few bytes of
each connection here and there between them, two thirds of the heap of a proxy were free after an hour, and more every
minute.
"""

from __future__ import annotations

import asyncio
import ctypes

EVERY = 60.0  # seconds; it takes some thousandths of one


def give_back() -> bool:
    """Give back what is free; whether the C library can (glibc, malloc_trim(3))."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    trim(ctypes.c_size_t(0))
    return True


async def keep_small() -> None:
    """Do so until cancelled; where it cannot be done, no longer."""
    while give_back():
        await asyncio.sleep(EVERY)
