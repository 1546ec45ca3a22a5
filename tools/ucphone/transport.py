"""Acts for a phone over real sockets: one keep-alive connection, bodies streamed, errors told as WinInet would."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

from tools.ucphone.actions import Download, Get, Post, Reply
from tools.ucphone.messages import CONTENT_TYPE

TIMEOUT = 30.0  # seconds for each socket operation
MAX_ANSWER = 1 << 20  # bytes of an answer to a check
_CHUNK = 1 << 16
_USER_AGENT = "upshim-phone"  # a real phone's is not known

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", re.ASCII)

_TIMED_OUT = 12002
_NOT_RESOLVED = 12007
_CANNOT_CONNECT = 12029
_ABORTED = 12030
_RESET = 12031
_BAD_ANSWER = 12152
_SECURE_FAILURE = 12175
_CERTIFICATE_ERRORS = {  # OpenSSL's verify codes
    9: 12037,
    10: 12037,
    18: 12045,
    19: 12045,
    20: 12045,
    62: 12038,
    64: 12038,
}


class HttpTransport:
    """Carries out `Post` and `Get`. `abort` may be called from another thread and ends what is going on."""

    def __init__(self, timeout: float = TIMEOUT, tls: ssl.SSLContext | None = None, source: str = "") -> None:
        """`source` is the address to connect from, blank for any."""
        self._source = (source, 0) if source else None
        self._timeout = timeout
        self._tls = tls
        self._origin: tuple[str, str] | None = None
        self._connection: http.client.HTTPConnection | None = None
        self._aborted = False

    def perform(self, action: Post | Get) -> Reply:
        """Do it; every failure of the network or the peer is a `Reply` with a WinInet code."""
        reply, stale = self._attempt(action)
        return self._attempt(action)[0] if stale else reply

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._origin = None

    def abort(self) -> None:
        """Break off; nothing is connected again afterwards."""
        self._aborted = True
        connection = self._connection
        sock = connection.sock if connection else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _attempt(self, action: Post | Get) -> tuple[Reply, bool]:
        """What came of it; True where all that happened is that a kept connection had been closed meanwhile."""
        url = urlsplit(action.url)
        reused = self._connection is not None and self._origin == (url.scheme, url.netloc)
        try:
            connection = self._connected(url)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            return _failed(error, _CANNOT_CONNECT), False
        response = None
        try:
            connection.request(*request_of(action, url))
            response = connection.getresponse()
            reply = self._answer(response) if isinstance(action, Post) else self._file(response, action.download)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            stale = reused and response is None and isinstance(error, (ConnectionError, http.client.RemoteDisconnected))
            return _failed(error, _ABORTED), stale and not self._aborted
        if response.will_close or not response.isclosed():
            self.close()
        return reply, False

    def _connected(self, url: SplitResult) -> http.client.HTTPConnection:
        origin = (url.scheme, url.netloc)
        if self._connection is not None and self._origin == origin:
            return self._connection
        self.close()
        if self._aborted:
            raise ConnectionAbortedError
        host = url.hostname or ""
        if url.scheme == "https":
            self._connection = http.client.HTTPSConnection(
                host, url.port, timeout=self._timeout, context=self._tls, source_address=self._source
            )
        else:
            self._connection = http.client.HTTPConnection(
                host, url.port, timeout=self._timeout, source_address=self._source
            )
        self._origin = origin
        self._connection.connect()
        return self._connection

    @staticmethod
    def _answer(response: http.client.HTTPResponse) -> Reply:
        expected = response.length
        body = response.read(MAX_ANSWER + 1)
        content_type = response.getheader("Content-Type", "")
        if len(body) > MAX_ANSWER:
            return Reply(wininet=_BAD_ANSWER)
        if expected is not None and len(body) < expected:
            return Reply(wininet=_ABORTED)
        response.read()  # to the end of a chunked body, so that the connection can be kept
        return Reply(response.status, 0, content_type, body)

    @staticmethod
    def _file(response: http.client.HTTPResponse, download: Download) -> Reply:
        if response.status not in (200, 206):
            return Reply(response.status)
        if response.status == 206:
            match = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range", ""))
            if match is None:
                return Reply(wininet=_BAD_ANSWER)
            offset, total = int(match[1]), None if match[2] == "*" else int(match[2])
        else:
            offset, total = None, response.length
        if not download.begin(offset, total, response.getheader("ETag")):
            return Reply(wininet=_BAD_ANSWER)
        expected = None if response.length is None else download.received + response.length
        while chunk := response.read(_CHUNK):
            if not download.write(chunk):
                return Reply(wininet=_BAD_ANSWER)
        if expected is not None and download.received < expected:
            return Reply(wininet=_ABORTED)
        download.complete = download.total is None or download.received == download.total
        return Reply(response.status)


def request_of(action: Post | Get, url: SplitResult) -> tuple[str, str, bytes | None, dict[str, str]]:
    """Method, target, body and header fields of what a phone sends."""
    target = url.path + (f"?{url.query}" if url.query else "") or "/"
    headers = {"User-Agent": _USER_AGENT}
    if isinstance(action, Post):
        headers["Content-Type"] = CONTENT_TYPE
        return "POST", target, action.body, headers
    download = action.download
    if download.received:
        headers["Range"] = f"bytes={download.received}-"
        if download.entity_tag and not download.entity_tag.startswith("W/"):
            headers["If-Range"] = download.entity_tag
    return "GET", target, None, headers


def _failed(error: Exception, otherwise: int) -> Reply:
    detail = getattr(error, "verify_message", None) or getattr(error, "reason", None) or ""
    return Reply(wininet=_wininet(error, otherwise), detail=str(detail) if isinstance(error, ssl.SSLError) else "")


def _wininet(error: Exception, otherwise: int) -> int:
    match error:
        case TimeoutError():
            return _TIMED_OUT
        case socket.gaierror() | UnicodeError():
            return _NOT_RESOLVED
        case ssl.SSLCertVerificationError():
            return _CERTIFICATE_ERRORS.get(error.verify_code, _SECURE_FAILURE)
        case ssl.SSLError():
            return _SECURE_FAILURE
        case http.client.RemoteDisconnected() | BrokenPipeError() | http.client.IncompleteRead():
            return _ABORTED
        case ConnectionResetError():
            return _RESET
        case http.client.HTTPException() | ValueError():
            return _BAD_ANSWER
    return otherwise
