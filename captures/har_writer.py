"""Exchanges written as an HTTP archive: HAR 1.2, entry by entry, so that a long recording is never held.

Text that the format has no place for, or would lose, goes into fields that begin with an underscore, which the format
leaves to its users: `_upshim` (endpoints, problems), `_target`, `_rewritten` (messages as upshim changed them, in the
form of `request` and `response`), `_interim`, and of bodies the content-coded form or, where the bytes are absent,
sizes and hashes.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import parse_qsl, quote, urlsplit

from captures.exchange import Body, Exchange, Headers, Request, Response, header, rfc3339
from captures.har_text import as_text
from captures.http_wire import BODY_ABSENT, Bodies, no_bodies
from captures.private_file import private_file

MAX_BODY = 100 << 20  # bytes of a body put into an archive: its readers hold it as one string

BODY_TOO_LARGE = "bodies too large for an archive"

HTTPS = 443
MILLISECOND = timedelta(milliseconds=1)
AUTHORITY = re.compile(r"[A-Za-z0-9._~-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
ABSOLUTE = re.compile(r"https?://[^/?#]+.*", re.IGNORECASE | re.DOTALL)
SAFE = "/?&=%:;,+$!*'()~@[]-._"


class HarWriter:
    """Writes an archive; it is whole once closed."""

    def __init__(self, stream: BinaryIO, creator_version: str = "") -> None:
        self._stream = stream
        self._separator = b"\n"
        creator = json.dumps({"name": "upshim", "version": creator_version})
        stream.write(b'{"log": {"version": "1.2", "creator": %b, "entries": [' % creator.encode())

    @classmethod
    def create(cls, path: Path, creator_version: str = "") -> Self:
        """A writer into a new file that only its owner can read."""
        return cls(private_file(path), creator_version)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, exchange: Exchange, bodies: Bodies = no_bodies) -> tuple[str, ...]:
        """Write one exchange; returns what could not be kept."""
        notes: list[str] = []
        entry = json.dumps(_entry(exchange, bodies, notes))
        self._stream.write(self._separator + entry.encode())
        self._separator = b",\n"
        return tuple(notes)

    def close(self) -> None:
        """End the archive and close the stream."""
        try:
            self._stream.write(b"\n]}}\n")
        finally:
            self._stream.close()


def _entry(exchange: Exchange, bodies: Bodies, notes: list[str]) -> dict[str, Any]:
    request_ended = exchange.request_ended or exchange.started
    response_started = exchange.response_started or exchange.ended
    address = exchange.server.rpartition(":")[0].strip("[]")
    kept = {
        "client": exchange.client,
        "server": exchange.server,
        "client_mac": exchange.client_mac,
        "complete": exchange.complete,
        "problems": list(exchange.problems),
    }
    entry: dict[str, Any] = {
        "startedDateTime": rfc3339(exchange.started),
        "time": _milliseconds(exchange.started, exchange.ended),
        "request": _request(exchange.request, exchange.server, bodies, notes),
        "response": _response(exchange.response, bodies, notes),
        "cache": {},
        "timings": {
            "send": _milliseconds(exchange.started, request_ended),
            "wait": _milliseconds(request_ended, response_started),
            "receive": _milliseconds(response_started, exchange.ended),
        },
        "_upshim": kept,
    }
    if address not in {"", "0.0.0.0", "::"}:
        entry["serverIPAddress"] = address
    if exchange.connection:
        entry["connection"] = exchange.connection
    rewritten: dict[str, Any] = {}
    if exchange.rewritten_request:
        rewritten["request"] = _request(exchange.rewritten_request, exchange.server, bodies, notes)
    if exchange.rewritten_response:
        rewritten["response"] = _response(exchange.rewritten_response, bodies, notes)
    if rewritten:
        entry["_rewritten"] = rewritten
    return entry


def _request(request: Request, server: str, bodies: Bodies, notes: list[str]) -> dict[str, Any]:
    url = url_of(request, server)
    shown = {
        "method": request.method,
        "url": url,
        "httpVersion": f"HTTP/{request.version}",
        "cookies": _cookies(request.headers, "cookie"),
        "headers": _headers(request.headers),
        "queryString": [
            {"name": name, "value": value} for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True)
        ],
        "headersSize": -1,
        "bodySize": _came_size(request.body),
        "_target": request.target,
    }
    if request.body.size or request.body.encoded_size or not request.body.sha256:
        mime = header(request.headers, "content-type") or ""
        posted: dict[str, Any] = {"mimeType": mime, **_content(request.body, mime, bodies, notes)}
        if "encoding" in posted:
            posted["_encoding"] = posted.pop("encoding")  # the format knows it for answers only
        shown["postData"] = posted
    return shown


def _response(response: Response | None, bodies: Bodies, notes: list[str]) -> dict[str, Any]:
    """An answer; a missing one has status 0, as browsers write it."""
    response = response or Response(0, "")
    mime = header(response.headers, "content-type") or ""
    shown: dict[str, Any] = {
        "status": response.status,
        "statusText": response.reason,
        "httpVersion": f"HTTP/{response.version}",
        "cookies": _cookies(response.headers, "set-cookie"),
        "headers": _headers(response.headers),
        "content": {"size": response.body.size, "mimeType": mime, **_content(response.body, mime, bodies, notes)},
        "redirectURL": header(response.headers, "location") or "",
        "headersSize": -1,
        "bodySize": _came_size(response.body),
    }
    if response.interim:
        shown["_interim"] = [
            {"status": status, "statusText": reason, "headers": _headers(headers)}
            for status, reason, headers in response.interim
        ]
    return shown


def _content(body: Body, mime: str, bodies: Bodies, notes: list[str]) -> dict[str, Any]:
    """The text of a body, its encoding if it has one, and what is kept beside it."""
    if not body.size and not body.encoded_size and body.sha256:
        return {"text": ""}
    data = _held(body.data, body.size, body.sha256, bodies)
    if data is None:
        notes.append(BODY_TOO_LARGE if body.size > MAX_BODY else BODY_ABSENT)
        described = {
            "_size": body.size,
            "_sha256": body.sha256,
            "_encodedSize": body.encoded_size,
            "_encodedSha256": body.encoded_sha256,
        }
        return {name: value for name, value in described.items() if value is not None}
    text = as_text(data, mime)
    shown = {"text": text} if text is not None else {"text": base64.b64encode(data).decode(), "encoding": "base64"}
    if body.encoded_sha256:
        encoded = _held(body.encoded, body.encoded_size, body.encoded_sha256, bodies)
        if encoded is not None:
            shown["_encoded"] = base64.b64encode(encoded).decode()
    return shown


def _came_size(body: Body) -> int:
    return body.encoded_size if body.encoded_size or not body.size else -1


def _held(data: bytes | None, size: int, sha256: str, bodies: Bodies) -> bytes | None:
    if data is not None or size > MAX_BODY:
        return data if size <= MAX_BODY else None
    pieces = bodies(sha256) if sha256 else None
    return None if pieces is None else b"".join(pieces)


def url_of(request: Request, server: str) -> str:
    """The URL a request is for; its bytes that no URL may have are percent-encoded."""
    if ABSOLUTE.fullmatch(request.target) and request.method != "CONNECT":
        return quote(request.target.encode("latin-1", "replace"), safe=SAFE)
    address, _, port = server.rpartition(":")
    scheme = "https" if port == str(HTTPS) else "http"
    usual = {"http": "80", "https": "443"}[scheme]
    place = address if port in {"", "0", usual} else f"{address}:{port}"
    if AUTHORITY.fullmatch(request.host):
        place = request.host
    if request.method == "CONNECT":
        return f"https://{request.target}/" if AUTHORITY.fullmatch(request.target) else f"{scheme}://{place}/"
    path = quote(request.target.encode("latin-1", "replace"), safe=SAFE)
    return f"{scheme}://{place or '0.0.0.0'}{path if path.startswith('/') else '/' + path}"


def _headers(headers: Headers) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in headers]


def _cookies(headers: Headers, name: str) -> Sequence[dict[str, str]]:
    found: list[dict[str, str]] = []
    for key, value in headers:
        if key.lower() == name:
            try:
                jar: SimpleCookie = SimpleCookie(value)
            except CookieError:
                continue
            found += [{"name": cookie.key, "value": cookie.value} for cookie in jar.values()]
    return found


def _milliseconds(start: datetime, end: datetime) -> float:
    return max((end - start) / MILLISECOND, 0)
