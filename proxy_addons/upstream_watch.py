"""Whether the servers can be reached from here.

Nobody is asked while all goes well. Once an exchange could not reach its server the servers are asked for a connection
(and, where they speak TLS, for a handshake by the same options), again and again until one can be had; meanwhile the
health check of a load balancer fails, so that phones go to the server past an upshim that cannot.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from proxy_addons.failures import Failures
from proxy_addons.log_lines import event
from proxy_addons.upstream_files import Origin, Tls, connected, told

logger = logging.getLogger("upshim")

ASK_EVERY = 2.0  # seconds between questions
WITHIN = 5.0  # seconds for one


class UpstreamWatch:
    """`unreachable` says why no server can be reached; blank while one can, or nobody has found otherwise."""

    def __init__(self, failures: Failures, tls: Tls, clock: Callable[[], float] = time.monotonic) -> None:
        self.unreachable = ""
        self._failures = failures
        self._tls = tls
        self._clock = clock
        self._origins: list[Origin] = []
        self._asked = -ASK_EVERY  # when the last round of questions was over
        self._asking: asyncio.Task[None] | None = None

    def configure(self, origins: Iterable[tuple[str, str, int]]) -> None:
        """Scheme, host and port of the servers; none where the phones' own destinations are the servers."""
        self._origins = [Origin(*origin) for origin in origins]

    def failed(self) -> None:
        """An exchange could not reach its server."""
        if self._asking is None and self._origins and self._clock() - self._asked >= ASK_EVERY:
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    async def _ask(self) -> None:
        try:
            while reasons := await self._why_not():
                if not self.unreachable:
                    logger.warning(
                        "upshim: the server cannot be reached from here: %s: the health check fails from now on",
                        reasons[0],
                        extra=event("server", unreachable=reasons[0]),
                    )
                self.unreachable = reasons[0]
                await asyncio.sleep(ASK_EVERY)
            if self.unreachable:
                logger.warning("upshim: the server can be reached again", extra=event("server", unreachable=""))
        except Exception as error:  # noqa: BLE001 - without an answer all goes on as before
            self._failures.exception(error)
        self.unreachable = ""
        self._asked = self._clock()
        self._asking = None

    async def _why_not(self) -> list[str]:
        """A reason for each server; none where one of them can be reached."""
        reasons = await asyncio.gather(*map(self._try, self._origins))
        return [] if "" in reasons else reasons

    async def _try(self, origin: Origin) -> str:
        try:
            async with asyncio.timeout(WITHIN):
                _, writer = await connected(origin, self._tls)
            writer.transport.abort()
        except TimeoutError:
            return f"{origin.authority}: no answer within {WITHIN:g} s"
        except (OSError, ValueError) as error:
            return f"{origin.authority}: {told(error)}"
        return ""
