"""Sends recorded requests to a server: one connection for each recorded one, in the recorded order."""

from __future__ import annotations

import contextlib
import http.client
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from captures.content import decoded_body
from captures.exchange import Exchange, Request, Response
from captures.redaction import COOKIES, CREDENTIALS
from proxy_addons.upstream_tls import verifying
from proxy_addons.upstream_url import parse_upstream

TIMEOUT = 60.0
MAX_CONNECTIONS = 64  # open at a time
LEFT_OUT = CREDENTIALS | COOKIES | {"content-length", "transfer-encoding", "expect", "connection", "proxy-connection"}


class Resender:
    """Connections to one server. A context manager; raises `ValueError` for a URL that cannot be used."""

    def __init__(self, url: str, speed: float | None, roots: Path | None = None) -> None:
        """`roots` are what an https server is verified by; the system's otherwise."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"expected http://HOST[:PORT] or https://HOST[:PORT], found {url!r}")
        self._host, self._port = parse_upstream(url)
        self._tls = verifying(None if roots is None else str(roots.expanduser())) if url.startswith("https:") else None
        self._speed = speed
        self._open: dict[tuple[str, str], http.client.HTTPConnection] = {}
        self._began: tuple[datetime, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for connection in self._open.values():
            connection.close()

    def send(self, exchange: Exchange) -> Response | list[str]:
        """Send one request; the answer, or why there is none."""
        self._wait(exchange.started)
        key = exchange.client, exchange.connection
        try:
            return self._answer(key, exchange.request)
        except (OSError, http.client.HTTPException, ValueError) as error:  # the last where it may not be sent so
            with contextlib.suppress(KeyError):
                self._open.pop(key).close()
            return [f"no answer: {type(error).__name__}: {error}"]

    def _wait(self, started: datetime) -> None:
        if self._speed is None:
            return
        if self._began is None:
            self._began = started, time.monotonic()
        due = self._began[1] + (started - self._began[0]).total_seconds() / self._speed
        time.sleep(max(0.0, due - time.monotonic()))

    def _answer(self, key: tuple[str, str], request: Request) -> Response:
        connection = self._open.get(key)
        if connection is None:
            if len(self._open) >= MAX_CONNECTIONS:
                self._open.pop(next(iter(self._open))).close()
            connection = self._open[key] = (
                http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
                if self._tls is None
                else http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=self._tls)
            )
        body = request.body.encoded if request.body.encoded is not None else request.body.data
        connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers:
            if name.lower() not in LEFT_OUT:
                connection.putheader(name, value.encode("latin-1"))
        if body or request.method in {"POST", "PUT"}:
            connection.putheader("Content-Length", str(len(body or b"")))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        headers = tuple(answer.headers.items())
        decoded, _ = decoded_body(headers, answer.read())
        version = "1.0" if answer.version == 10 else "1.1"
        return Response(answer.status, answer.reason, version, headers, decoded)
