"""Listening sockets that somebody else has opened: the service manager, or the upshim that is to be replaced.

A socket that is handed over stays open all the while, so that no connection is refused and none is lost in its queue.
(Sockets that merely share a port by SO_REUSEPORT have a queue each, and what waits in that of the older one is reset
when it closes.)

- systemd passes sockets as sd_listen_fds(3) tells; those whose address a `--listen` names are taken.
- `upshim proxy --hand-over` asks the upshim with the same state folder for its sockets, over the Unix socket
  `listeners` there, and tells it when it listens itself; the old one then ends as after SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path

logger = logging.getLogger("upshim")

NAME = "listeners"
FIRST = 3  # descriptor that a service manager passes
MOST = 64  # sockets handed over
LISTENS_WITHIN = 60.0  # seconds that the new one may take to start
ASKS_WITHIN = 5.0  # and the old one to answer
TAKEN = b"listening"
HERE = b"."  # with the sockets; behind it how many of them, the first ones, are for phones

Address = tuple[str, int]


def address_of(listener: socket.socket) -> Address:
    """Where a socket listens, written one way."""
    host, port = listener.getsockname()[:2]
    return normal(str(host)), int(port)


def normal(host: str) -> str:
    """An address written one way; a name stays what it is."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def from_manager(environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets a service manager has passed; processes started from here on do not get them again."""
    count, process = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    found = []
    for descriptor in range(FIRST, FIRST + min(int(count), MOST)):
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
        if listener.family in {socket.AF_INET, socket.AF_INET6} and listener.type == socket.SOCK_STREAM:
            found.append(listener)
        else:
            listener.detach()
    return found


class HandedOver:
    """The sockets of an older upshim, those that phones come by first; `done` lets it end."""

    def __init__(self, connection: socket.socket, listeners: Sequence[socket.socket], phones: int = 0) -> None:
        self._connection = connection
        self.listeners = listeners
        self.for_phones = listeners[:phones]

    def done(self) -> None:
        """We listen."""
        with self._connection:
            try:
                self._connection.sendall(TAKEN)
            except OSError as error:
                logger.warning("upshim: the upshim before does not hear that it is replaced: %s", error)

    def drop(self) -> None:
        """We do not: it goes on."""
        self._connection.close()
        for listener in self.listeners:
            listener.close()


def ask(state: Path) -> HandedOver | None:
    """Ask the upshim with this state folder for its sockets; None where there is none. Raises `OSError`."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ASKS_WITHIN)
    try:
        with _at(state) as path:
            connection.connect(path)
        message, descriptors, _, _ = socket.recv_fds(connection, 2, MOST)
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError:
        connection.close()
        raise
    listeners = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    for listener in listeners:
        listener.set_inheritable(False)
    if not message:
        connection.close()
        return None
    return HandedOver(connection, listeners, *message[1:])


class Offer:
    """Offers the sockets of a running upshim to the next one."""

    def __init__(
        self, state: Path, descriptors: Callable[[], tuple[list[int], list[int]]], replaced: Callable[[], None]
    ) -> None:
        """`descriptors` tells what is listened on, for phones and for others; `replaced` is called when another upshim
        listens. Raises `OSError`.
        """
        self._state = state
        self._descriptors = descriptors
        self._replaced = replaced
        self._loop = asyncio.get_running_loop()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        own = f"{NAME}.{os.getpid()}"
        with _at(state, own) as path:
            Path(path).unlink(missing_ok=True)
            self._listener.bind(path)
            Path(path).chmod(0o600)
        self._listener.listen()
        # What a process before has left is replaced; one that still runs is then not to be reached any more.
        (state / own).replace(state / NAME)
        self._inode = (state / NAME).stat().st_ino
        self._task = self._loop.create_task(self._serve())

    def close(self) -> None:
        """Offer nothing any more; a second time it does nothing."""
        if self._listener.fileno() == -1:
            return
        # First of all, for the task ends later: what gets this number next would be taken for what waits here.
        self._loop.remove_reader(self._listener)
        self._task.cancel()
        self._listener.close()
        with contextlib.suppress(OSError):
            if (self._state / NAME).stat().st_ino == self._inode:
                (self._state / NAME).unlink()

    async def _serve(self) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:
                logger.warning("upshim: cannot hand over: %s", error)
                return
            with connection:
                try:
                    if await asyncio.wait_for(self._hand_over(connection), LISTENS_WITHIN):
                        logger.info("upshim: replaced by another process")
                        self._replaced()
                        return
                except (OSError, TimeoutError) as error:
                    logger.warning("upshim: a hand-over came to nothing: %s", error or "no answer")

    async def _hand_over(self, connection: socket.socket) -> bool:
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user not in {0, os.getuid()}:
            logger.warning("upshim: user %d may not take over", user)
            return False
        phones, others = self._descriptors()
        socket.send_fds(connection, [HERE, bytes([min(len(phones), MOST)])], [*phones, *others][:MOST])
        return await self._loop.sock_recv(connection, len(TAKEN)) == TAKEN


@contextlib.contextmanager
def _at(state: Path, name: str = NAME) -> Iterator[str]:
    """The path of a Unix socket, which may not be longer than 107 bytes."""
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{name}"
    finally:
        os.close(folder)
