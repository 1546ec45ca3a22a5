"""What the service manager is told (sd_notify(3)): ready, stopping, and that the event loop still turns."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

logger = logging.getLogger("upshim")


def notify(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send one state such as READY=1; False where nobody listens. Never raises: traffic matters more."""
    path = environment.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path[0] == "@" else path  # @ stands for Linux's abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)
            connection.sendto(state.encode(), address)
    except OSError as error:
        logger.warning("upshim: the service manager was not told %s: %s", state, error.strerror or error)
        return False
    return True


def watchdog_period(environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds between signs of life, half of what the service manager waits; None where it does not watch."""
    text, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (text.isascii() and text.isdigit() and int(text)) or process not in {"", str(os.getpid())}:
        return None
    return int(text) / 2_000_000


async def keep_alive(period: float) -> None:
    """Give signs of life for as long as the event loop turns."""
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(period)
