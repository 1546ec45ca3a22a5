"""HTTP archives (HAR) read as exchanges.

Browsers and proxies fill the format in their own ways; what this reader takes as it finds it: header lists of objects
or of pairs, pseudo-header fields of HTTP/2, versions written `h2`, `http/2.0` or not at all, bodies in base64, posted
forms as parameters only, missing fields, status 0 for a request without an answer. An archive knows neither the
client's address nor the request target as it stood on the wire (it has the URL), and bodies are after content-decoding.
`captures/har_writer.py` puts what it can keep beyond that into fields that begin with an underscore, as the format
allows.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from captures.bodies import is_name
from captures.content import codings_of, decoded_body
from captures.errors import CaptureError
from captures.exchange import Body, Exchange, Headers, Request, Response, endpoint, header
from captures.har_json import load_log
from captures.har_text import as_bytes
from captures.http_wire import declared_length
from captures.items import CaptureSummary
from dissectors.errors import DissectError

FORMAT = "HTTP archive"
UNKNOWN = "0.0.0.0"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEAR = 365 * 86_400_000  # milliseconds: no request takes longer
VERSION = re.compile(r"(?:http/|h)?([0-9](?:\.[0-9])?)", re.IGNORECASE)
PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class MalformedEntry(Exception):
    """An entry that is no exchange."""


def read(path: Path, _options: object = None) -> Iterator[Exchange | CaptureSummary]:
    """The entries of an archive as exchanges in its order. Raises `CaptureError`."""
    try:
        log = load_log(path)
    except (DissectError, OSError) as error:
        raise CaptureError(path, error) from error
    counts: Counter[str] = Counter()
    problems: list[str] = []
    for number, entry in enumerate(log["entries"]):
        try:
            exchange = _exchange(entry, str(path), counts["exchanges"])
        except MalformedEntry as error:
            counts["refused"] += 1
            problems.append(f"entry {number}: {error}")
        else:
            counts["exchanges"] += 1
            yield exchange
    if problems and not counts["exchanges"]:
        raise CaptureError(path, problems[0])
    yield CaptureSummary(str(path), FORMAT, counts, tuple(problems), partial=bool(problems))


def _exchange(entry: object, capture: str, index: int) -> Exchange:
    if not isinstance(entry, dict) or not isinstance(entry.get("request"), dict):
        raise MalformedEntry("expected an object with a `request`")
    kept = _object(entry, "_upshim")
    problems: list[str] = []
    request, port = _request(entry["request"], problems)
    ours = "_upshim" in entry
    response = _response(_object(entry, "response"), request.method, problems, ours=ours)
    if response is None:
        problems.append("no answer in the archive")
    times = _times(entry, problems)
    server = _address(entry.get("serverIPAddress"))
    rewritten = _object(entry, "_rewritten")
    spare: list[str] = []
    told = [str(each) for each in _list(kept, "problems")] if "problems" in kept else problems
    return Exchange(
        capture,
        index,
        _label(kept, "client") or endpoint(UNKNOWN, 0),
        _label(kept, "server") or endpoint(server, port),
        times[0],
        times[3],
        request,
        response,
        bool(kept.get("complete", response is not None)),
        tuple(told),
        rewritten_request=_request(rewritten["request"], spare)[0] if _object(rewritten, "request") else None,
        rewritten_response=_response(_object(rewritten, "response"), request.method, spare, ours=ours),
        connection=_label(entry, "connection"),
        request_ended=times[1] if request.method else None,
        response_started=times[2] if response else None,
        client_mac=_label(kept, "client_mac"),
    )


def _request(shown: dict[str, Any], problems: list[str]) -> tuple[Request, int]:
    """The request and the port its URL names."""
    method, url = shown.get("method"), shown.get("url")
    ours = "_target" in shown
    # An answer whose request was not seen has none.
    if not isinstance(method, str) or not (method or ours) or not isinstance(url, str):
        raise MalformedEntry("expected a request with `method` and `url`")
    tunnel = method == "CONNECT" and not ours
    if tunnel and "://" not in url:  # some write what stood on the wire
        url = f"//{url}"
    try:
        parts = urlsplit(url)
        port = parts.port if parts.port is not None else PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise MalformedEntry(f"expected a URL, found {url[:80]!r} ({error})") from None
    place = parts.netloc.rpartition("@")[2]
    target = (parts.path or "/") + ("?" + parts.query if "?" in url.partition("#")[0] else "")
    if tunnel and place:
        port = port or PORTS["https"]
        place = place if parts.port is not None else f"{place.rstrip(':')}:{port}"
        target = place
    if ours:
        target = _text(shown, "_target")
    headers = _headers(shown)
    if header(headers, "host") is None and place and not ours:
        headers = (("Host", _latin1(place)), *headers)
    body = _posted(shown, headers, problems, ours=ours)
    return Request(_latin1(method), _latin1(target), _version(shown), headers, body), port


def _posted(request: dict[str, Any], headers: Headers, problems: list[str], *, ours: bool) -> Body:
    shown = _object(request, "postData")
    mime = _text(shown, "mimeType") or ("" if ours else header(headers, "content-type") or "")
    if text := _text(shown, "text"):
        coded = _text(shown, "encoding") or _text(shown, "_encoding")
        body = _content(text, coded, mime, "request", problems)
        return _encoded(_decoded(body, request, headers, problems, ours=ours, text=not coded), shown)
    pairs = [(_text(each, "name"), _text(each, "value")) for each in _list(shown, "params") if isinstance(each, dict)]
    if pairs and "form-urlencoded" in mime.lower():
        return Body.of(urlencode(pairs).encode())
    size = 0 if ours else declared_length(headers) or 0
    if pairs or "_sha256" in shown or size:
        problems.append("request: body is not in the archive")
        return _absent(shown, size, size)
    return Body.of(b"")


def _response(shown: dict[str, Any], method: str, problems: list[str], *, ours: bool) -> Response | None:
    """The answer; none where the status is missing or 0, as it is for a request that failed."""
    told = shown.get("status")
    status = int(told) if isinstance(told, str) and told.isdecimal() and len(told) < 9 else _size(told)
    if not 100 <= status <= 999:
        return None
    headers = _headers(shown)
    content = _object(shown, "content")
    mime = _text(content, "mimeType") or header(headers, "content-type") or ""
    size = _size(content.get("size"))
    if text := _text(content, "text"):
        coded = _text(content, "encoding")
        body = _content(text, coded, mime, "answer", problems)
        body = _encoded(_decoded(body, shown, headers, problems, ours=ours, text=not coded), content)
    elif "_encoded" in content:  # nothing, content-coded
        body = _encoded(Body.of(b""), content)
    elif (size or "_sha256" in content) and method != "HEAD" and status not in {204, 304}:
        problems.append(f"answer: body of {size} bytes is not in the archive")
        body = _absent(content, size, _size(shown.get("bodySize")) or size)
    else:
        body = Body.of(b"")
    interim = tuple(
        (_size(each.get("status")), _latin1(_text(each, "statusText")), _headers(each))
        for each in _list(shown, "_interim")
        if isinstance(each, dict)
    )
    reason = _latin1(_text(shown, "statusText"))
    return Response(status, reason, _version(shown), headers, body, interim)


def _content(text: str, coded: str, mime: str, side: str, problems: list[str]) -> Body:
    if coded.lower() == "base64":
        try:
            return Body.of(base64.b64decode(text, validate=False))
        except (binascii.Error, ValueError) as error:
            problems.append(f"{side}: body is not the base64 it is said to be: {error}")
    return Body.of(as_bytes(text, mime))


def _decoded(
    body: Body, shown: dict[str, Any], headers: Headers, problems: list[str], *, ours: bool, text: bool
) -> Body:
    """A body with the size it came in; `bodySize` tells, if anything does.

    Archives have bodies after decoding. Where decoding changed no size it may not have been done.
    """
    if not codings_of(headers):
        return body
    came = _size(shown.get("bodySize"))
    if not ours:
        came = came or declared_length(headers) or 0
        if came == body.size and not text and body.data is not None:
            body, problem = decoded_body(headers, body.data)
            problems += [problem] if problem else []
            return body
        came = 0 if came == body.size else came  # what is coded is no text
    return Body(body.size, body.sha256, came, data=body.data)


def _encoded(body: Body, shown: dict[str, Any]) -> Body:
    """The body with the content-coded form, where the archive is ours and has it."""
    if (text := _text(shown, "_encoded")) and body.data is not None:
        try:
            return Body.of(body.data, base64.b64decode(text))
        except (binascii.Error, ValueError):
            return body
    return body


def _absent(shown: dict[str, Any], size: int, coded_size: int) -> Body:
    """A body that is told of only; archives of ours have its hash and sizes too."""
    digest, encoded = (name if is_name(name := _text(shown, key)) else "" for key in ("_sha256", "_encodedSha256"))
    size = _size(shown.get("_size")) or size
    return Body(size, digest, _size(shown.get("_encodedSize")) or coded_size, encoded or None)


def _headers(shown: dict[str, Any]) -> Headers:
    """The header fields; pseudo-header fields (RFC 9113 section 8.3) are none."""
    pairs: list[tuple[str, str]] = []
    for each in _list(shown, "headers"):
        if isinstance(each, dict):
            name, value = _text(each, "name"), _text(each, "value")
        elif isinstance(each, list) and len(each) == 2:
            name, value = str(each[0]), str(each[1])
        else:
            raise MalformedEntry("expected headers with `name` and `value`")
        if name == ":authority":
            name = "Host"
        if name and not name.startswith(":"):
            # Browsers join equal fields with line breaks.
            pairs += [(_latin1(name), _latin1(line)) for line in value.split("\n")]
    return tuple(pairs)


def _times(entry: dict[str, Any], problems: list[str]) -> tuple[datetime, datetime, datetime, datetime]:
    """When the request began and ended and the answer began and ended."""
    try:
        started = datetime.fromisoformat(_text(entry, "startedDateTime"))
        started = started.astimezone(UTC) if started.tzinfo else started.replace(tzinfo=UTC)
        _ = started + timedelta(days=366)
    except (ValueError, OverflowError):
        problems.append("the time is not in the archive")
        started = EPOCH
    timings = _object(entry, "timings")
    # `ssl` is a part of `connect`.
    sent = sum(_milliseconds(timings.get(name)) for name in ("blocked", "dns", "connect", "send"))
    waited = _milliseconds(timings.get("wait"))
    total = max(_milliseconds(entry.get("time")), sent + waited + _milliseconds(timings.get("receive")))
    ended, answered, asked = (
        started + timedelta(milliseconds=min(each, YEAR)) for each in (total, sent + waited, sent)
    )
    return started, asked, answered, ended


def _milliseconds(value: object) -> float:
    """A time that applies: -1 says of one that it does not."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return min(max(value, 0), YEAR)
    return 0


def _version(shown: dict[str, Any]) -> str:
    match = VERSION.fullmatch(_text(shown, "httpVersion").strip())
    if match is None:
        return "" if shown.get("httpVersion") == "HTTP/" and "_target" in shown else "1.1"
    return match[1] if "." in match[1] else f"{match[1]}.0"


def _address(shown: object) -> str:
    try:
        return str(ipaddress.ip_address(str(shown).strip("[]")))
    except ValueError:
        return UNKNOWN


def _latin1(text: str) -> str:
    """One character per byte; anything beyond that was UTF-8."""
    return text if all(character <= "\xff" for character in text) else text.encode("utf-8", "replace").decode("latin-1")


def _object(shown: dict[str, Any], name: str) -> dict[str, Any]:
    value = shown.get(name)
    return value if isinstance(value, dict) else {}


def _list(shown: dict[str, Any], name: str) -> list[Any]:
    value = shown.get(name)
    return value if isinstance(value, list) else []


def _text(shown: dict[str, Any], name: str) -> str:
    value = shown.get(name)
    return value if isinstance(value, str) else ""


def _label(shown: dict[str, Any], name: str) -> str:
    """A text that every format can hold: JSON may have halves of characters."""
    return _text(shown, name).encode("utf-8", "replace").decode()


def _size(value: object) -> int:
    """A number that counts something, else 0. In JSON 200.0 is one, too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else 0
