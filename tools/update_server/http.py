"""The update service over HTTP/1.1: keep-alive, HEAD, ranges, chunked requests, on tornado in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler

from captures.exchange import endpoint
from dissectors.audit_log import AuditRow
from dissectors.errors import DissectError
from dissectors.update_urls import PackagePath
from tools.update_server.audit import FLUSH_INTERVAL, AuditLogWriter
from tools.update_server.messages import NoOffer, audit_row, read_check, write_answer
from tools.update_server.packages import package_folder
from tools.update_server.rules import DeviceKey
from tools.update_server.service import Check, UpdateService

ANSWER_TYPE = "text/xml; charset=utf-8"
MAX_BODY = 16 << 20  # bytes of a request; the documented limit for an uploaded log is a tenth of that
_BACKLOG = 512  # a fleet that starts at once
_LEAST_FLUSH = 0.1  # seconds, however much the clock is scaled
_CLOSING = 5.0  # seconds a transfer may take to end when the server stops

# What tornado would write to stderr is told by events instead.
logging.getLogger("tornado").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """Something the server did: `check`, `file`, `upload`, `denied`, `refused` or `error`."""

    time: datetime
    kind: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values: `time` (RFC 3339), `event`, `text`, and the data."""
        return {
            "time": self.time.isoformat().replace("+00:00", "Z"),
            "event": self.kind,
            "text": self.text,
            **self.data,
        }


EventSink = Callable[[ServerEvent], None]


def _ignore(_event: ServerEvent) -> None:
    pass


class UpdateServer:
    """Serves an `UpdateService`. `start` returns when it listens; use it as a context manager.

    `port` 0 takes a free port. `audit` is flushed every five minutes divided by `time_scale`, and at the end.
    `on_event` is called on the server's thread. `clock` gives the time of events and of the audit log, which is written
    in local time.
    """

    def __init__(
        self,
        service: UpdateService,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        audit: AuditLogWriter | None = None,
        time_scale: float = 1.0,
        no_offer: NoOffer = NoOffer.ABSENT,
        deny_external: bool = False,
        on_event: EventSink = _ignore,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.service = service
        self.address = address
        self.port = port
        self.audit = audit
        self.no_offer = no_offer
        self.deny_external = deny_external
        self.ready = threading.Event()
        self._on_event = on_event
        self.clock = clock
        self._flush_interval = max(_LEAST_FLUSH, FLUSH_INTERVAL / time_scale)
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._serve, name="update-server", daemon=True)

    @property
    def url(self) -> str:
        """`http://address:port`, with the port it really has."""
        return f"http://{endpoint(self.address, self.port)}"

    def start(self) -> Self:
        """Listen and serve. Raises `OSError` where the address cannot be had."""
        family, _, _, _, bound = socket.getaddrinfo(self.address, self.port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(bound[:2], family=family, backlog=_BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        self.port = listener.getsockname()[1]
        self._thread.start()
        self.ready.wait()
        return self

    def stop(self) -> None:
        """Stop listening, close every connection, write what the audit log still has in memory."""
        if self._loop is not None and self._stopped is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def emit(self, kind: str, text: str, **data: Any) -> None:
        """Tell an event."""
        self._on_event(ServerEvent(self.clock(), kind, text, data))

    def answer(self, check: Check, host: str, address: str) -> bytes:
        """The body of the answer to a check, logged and told."""
        answer = self.service.answer(check, host)
        self.log(audit_row(check, answer, address, self.clock()))
        self.emit(
            "check",
            f"{check.mac or address} {check.key} reports {check.installed('CPE')}: {answer.reason}",
            client=address,
            mac=check.mac,
            serial=check.serial,
            device=str(check.key),
            installed=str(check.installed("CPE")),
            offered=[str(offer.version) for offer in answer.offers],
            reason=answer.reason,
        )
        return write_answer(answer, self.no_offer)

    def log(self, row: AuditRow) -> None:
        """Put a row into the audit log; a log that cannot be written does not keep a phone from its answer."""
        try:
            if self.audit is not None:
                self.audit.add(row)
        except (OSError, DissectError) as error:
            self.emit("error", f"audit log not written: {error}")

    def _serve(self) -> None:
        try:
            asyncio.run(self._run())
        finally:
            self.ready.set()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        server = HTTPServer(_application(self), max_body_size=MAX_BODY)
        if self._listener is not None:
            server.add_socket(self._listener)
        flushing = PeriodicCallback(self._flush, self._flush_interval * 1000)
        flushing.start()
        self.ready.set()
        await self._stopped.wait()
        flushing.stop()
        server.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.close_all_connections(), _CLOSING)
        self._flush()

    def _flush(self) -> None:
        try:
            if self.audit is not None:
                self.audit.flush()
        except OSError as error:
            self.emit("error", f"audit log not written: {error}")


def _application(server: UpdateServer) -> Application:
    files = {"path": str(server.service.updates.absolute()), "server": server}
    return Application(
        [
            (r"/(?i:RequestHandler(?:Ext)?/ucdevice\.upx)", _CheckHandler, {"server": server}),
            (r"/(?i:DeviceUpdateFiles_(?:Int|Ext)|RequestHandler(?:Ext)?/Files)/(.+)", _FileHandler, files),
        ],
        default_handler_class=_NotFound,
        default_handler_args={"server": server},
        log_function=lambda _handler: None,
    )


class _Handler(RequestHandler):
    """What every answer has in common."""

    def initialize(self, server: UpdateServer) -> None:
        self.server = server

    def set_default_headers(self) -> None:
        self.set_header("Server", "upshim-serve")

    def write_error(self, status_code: int, **_kwargs: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code} {self._reason}\n")

    def log_exception(self, *error: Any) -> None:
        if not isinstance(error[1], HTTPError):
            self.server.emit("error", f"{self.request.method} {self.request.uri}: {error[1]!r}")


class _NotFound(_Handler):
    def prepare(self) -> None:
        self.server.emit("refused", f"{self.request.method} {self.request.uri}: nothing is there", status=404)
        raise HTTPError(404)


class _CheckHandler(_Handler):
    """`POST /RequestHandler(Ext)/ucdevice.upx`: update checks and, on the same address, log uploads."""

    def post(self) -> None:
        request = self.request
        if self.server.deny_external and "handlerext" in request.path.lower():
            self.set_status(401)
            self.add_header("WWW-Authenticate", "Negotiate")
            self.add_header("WWW-Authenticate", "NTLM")
            self.server.emit("denied", f"{request.remote_ip} is anonymous, {request.path} wants a logon", status=401)
            return
        try:
            check = read_check(request.body, request.headers.get("Content-Type", ""))
        except DissectError as error:
            self._not_a_check(error)
            return
        self.set_header("Content-Type", ANSWER_TYPE)
        self.write(self.server.answer(check, request.host, request.remote_ip or ""))

    def _not_a_check(self, error: DissectError) -> None:
        """A log upload is taken and dropped: how one looks is not public, and refusing would make phones repeat it."""
        body = self.request.body
        if not body or body[:16].replace(b"\0", b"").strip(b"\xef\xbb\xbf\xff\xfe\t\r\n ").startswith(b"<"):
            self.server.emit("refused", f"not an update check: {error}", status=400, size=len(body))
            raise HTTPError(400)
        digest = hashlib.sha256(body).hexdigest()
        self.server.emit("upload", f"{len(body)} bytes that are no check, dropped", size=len(body), sha256=digest)


class _FileHandler(StaticFileHandler, _Handler):
    """The files of a package, and nothing else below the folder; names are compared without case, as IIS does."""

    def initialize(self, path: str, server: UpdateServer) -> None:  # type: ignore[override]
        StaticFileHandler.initialize(self, path)
        self.server = server

    def parse_url_path(self, url_path: str) -> str:  # noqa: ARG002 - unescaped once already; %2F must stay apart
        found = _find_file(Path(self.root), self.request.path)
        if found is None:
            raise HTTPError(404)
        wanted = self.request.headers.get("If-Range")
        if wanted is not None and wanted != _etag(found):
            # Another file by now: the whole of it is the answer (RFC 9110, 13.1.5).
            self.request.headers.pop("Range", None)
        return str(found)

    def compute_etag(self) -> str | None:
        return None if self.absolute_path is None else _etag(Path(self.absolute_path))

    def get_content_type(self) -> str:
        return "application/octet-stream"

    def on_finish(self) -> None:
        status = self.get_status()
        self.server.emit(
            "file" if status < 400 else "refused",
            f"{self.request.method} {self.request.path}: {status}",
            client=self.request.remote_ip,
            status=status,
            range=self.request.headers.get("Range"),
        )


def _etag(path: Path) -> str:
    stat = path.stat()
    return f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'


def _find_file(root: Path, url_path: str) -> Path | None:
    """The file a download URL names, its folders and name compared without case; None for anything else."""
    try:
        package = PackagePath.parse(url_path)
        key = DeviceKey(package.device_type, package.vendor, package.model, package.revision, package.locale)
        wanted = package_folder(root, key, package.version, package.update_type) / package.file_name
    except (DissectError, ValueError):
        return None
    if wanted.name != package.file_name or "\0" in package.file_name:
        return None
    found = root
    for part in wanted.relative_to(root).parts:
        step = found / part
        if not step.exists():
            try:
                step = next(entry for entry in found.iterdir() if entry.name.casefold() == part.casefold())
            except (StopIteration, OSError):
                return None
        found = step
    return found if found.is_file() else None
