"""A shim in a process of its own, which can be killed: what it is asked and answers goes through a pair of sockets.

Messages are tnetstrings, as mitmproxy's own files of flows are: `[number, what, arguments]` there, `[number, result]`
back. Many may be under way at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from mitmproxy.io import tnetstring

from tools.fleet.shim import AddonShim, ShimGone, State

START_WITHIN = 60.0
STOP_WITHIN = 60.0


class ShimProcess:
    """A shim that is a process. What it logs goes into a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, writer: asyncio.StreamWriter) -> None:
        """Use `start`."""
        self.gone = False
        self._process = process
        self._log = log
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._writer = writer
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, log: Path, upstream: str, **settings: object) -> Self:
        """A new one, ready for phones."""
        ours, theirs = socket.socketpair()
        with theirs, log.open("ab") as output:
            words = [sys.executable, "-m", "tools.fleet.shim_process", str(theirs.fileno())]
            process = subprocess.Popen(
                words, stdout=output, stderr=output, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        shim = cls(process, log, writer)
        shim._listening = asyncio.create_task(shim._listen(reader))
        async with asyncio.timeout(START_WITHIN):
            await shim._call("start", upstream, settings)
        return shim

    def kill(self) -> None:
        """kill -9: what is under way is lost."""
        self.gone = True
        self._process.kill()
        self._process.wait()

    async def request(self, number: int, request: State, address: str) -> State:
        """As in `Shim`."""
        return State(await self._call("request", number, request, address))

    async def response(self, number: int, response: State, whole: bool) -> State:
        """As in `Shim`."""
        return State(await self._call("response", number, response, whole))

    async def settled(self) -> None:
        """As in `Shim`."""
        await self._call("settled")

    async def caught_up(self) -> None:
        """As in `Shim`."""
        await self._call("caught_up")

    async def reload(self) -> None:
        """As in `Shim`."""
        await self._call("reload")

    async def close(self) -> None:
        """As in `Shim`."""
        self.gone = True
        self._writer.close()
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, STOP_WITHIN)
        self.kill()
        if self._listening is not None:
            await self._listening

    async def _call(self, what: str, *arguments: object) -> Any:
        if self.gone:
            raise ShimGone
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(tnetstring.dumps([number, what, list(arguments)]))
        return await answer

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while (message := await receive(reader)) is not None:
                number, result = message
                self._waiting.pop(number).set_result(result)
        self._writer.close()
        for answer in self._waiting.values():
            answer.set_exception(ShimGone() if self.gone else RuntimeError(f"a shim has ended: {self._log}"))
        self._waiting.clear()


async def receive(reader: asyncio.StreamReader) -> Any:
    """The next message; None where there will be none."""
    try:
        head = await reader.readuntil(b":")
        return tnetstring.loads(head + await reader.readexactly(int(head[:-1]) + 1))
    except asyncio.IncompleteReadError:
        return None


async def serve(sock: socket.socket) -> None:
    """The process: do what is asked until nobody asks any more."""
    log = logging.StreamHandler()
    log.setLevel(logging.WARNING)
    logging.getLogger("upshim").addHandler(log)
    reader, writer = await asyncio.open_connection(sock=sock)
    number, _, (upstream, settings) = await receive(reader)
    shim = AddonShim(upstream, **settings)
    await shim.ready()
    writer.write(tnetstring.dumps([number, None]))

    async def perform(number: int, what: str, arguments: list[Any]) -> None:
        result = await getattr(shim, what)(*arguments)
        writer.write(tnetstring.dumps([number, result]))

    async with asyncio.TaskGroup() as tasks:  # a fault ends the process, and so the story
        while (message := await receive(reader)) is not None:
            tasks.create_task(perform(*message))
    await shim.close()
    writer.close()


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        os.set_inheritable(inherited.fileno(), False)
        asyncio.run(serve(inherited))
