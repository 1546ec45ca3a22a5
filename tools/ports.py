"""A port for a process that is told its port when it is started."""

from __future__ import annotations

import contextlib
import random
import socket

PORTS = range(10_240, 32_768)  # below those that Linux gives to outgoing connections: none of them takes it meanwhile
TRIES = 100


def free_port() -> int:
    """A port of 127.0.0.1 nobody listens on. Raises `OSError`."""
    for port in random.sample(PORTS, TRIES):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"{TRIES} ports tried, none of them free")
