"""mitmproxy's HTTP flows as exchanges, and back.

Where upshim changed a message, mitmproxy's own notion of that is used: the flow is the messages as changed, its backup
those that came ("revert changes" in mitmproxy). What mitmproxy has no place for goes into the flow's metadata.
"""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

from mitmproxy import connection, flow, http

from captures import http_wire
from captures.bodies import is_name
from captures.content import decoded_body
from captures.exchange import Body, Exchange, Headers, Request, Response, endpoint, header
from captures.flow_request import authority_of, method_of, path_of, server_of, target_of, version_of
from captures.http_wire import Bodies, Gap, no_bodies

MAX_BODY = 100 << 20  # bytes of a body put into a flow: the format wants it in memory
TOO_LONG = 1 << 63  # bytes that no body has

KEPT = "upshim"  # the key in a flow's metadata
UNKNOWN = "0.0.0.0"
HTTP, HTTPS = 80, 443
HTTP1 = {"1.0", "1.1", "0.9", ""}
ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)

ADDRESS_UNKNOWN = "addresses unknown"
BODY_TOO_LARGE = "bodies too large for a flow"


def exchange_of(one: http.HTTPFlow, capture: str, index: int) -> Exchange:
    """A flow as an exchange. Raises whatever a flow with impossible values makes Python raise."""
    came = _original(one)
    request, response, problems, complete = _messages(came or one)
    rewritten_request = rewritten_response = None
    if came is not None:
        changed_request, changed_response, _, _ = _messages(one)
        rewritten_request = changed_request if changed_request != request else None
        rewritten_response = changed_response if changed_response != response else None
    asked, answered = (came or one).request, (came or one).response
    last = (answered.timestamp_end or answered.timestamp_start) if answered else None
    ended = last or (one.error.timestamp if one.error else None) or asked.timestamp_start
    ended = max(ended, asked.timestamp_end or ended)  # an answer may come before the end of what was asked
    return Exchange(
        capture,
        index,
        _endpoint(one.client_conn.peername, None),
        _endpoint(one.server_conn.peername, one.server_conn.address or (UNKNOWN, asked.port)),
        _moment(asked.timestamp_start),
        _moment(ended),
        request,
        response,
        complete,
        problems,
        rewritten_request=rewritten_request,
        rewritten_response=rewritten_response,
        connection=one.client_conn.id,
        request_ended=_moment(asked.timestamp_end) if asked.timestamp_end else None,
        response_started=_moment(answered.timestamp_start) if answered and answered.timestamp_start else None,
        client_mac=str(_kept(came or one).get("client_mac", "")).encode("utf-8", "replace").decode(),
    )


def flow_of(exchange: Exchange, bodies: Bodies = no_bodies) -> tuple[http.HTTPFlow, tuple[str, ...]]:
    """An exchange as a flow, and what of it could not be kept."""
    notes: list[str] = []
    client, server = _address(exchange.client), _address(exchange.server)
    if UNKNOWN in {client[0], server[0]}:
        notes.append(ADDRESS_UNKNOWN)
    name = exchange.connection or str(_id(f"{exchange.client} {exchange.server}"))
    started = exchange.started.timestamp()
    client_conn = connection.Client(
        id=name, peername=client, sockname=server, timestamp_start=started, state=connection.ConnectionState.CLOSED
    )
    server_conn = connection.Server(
        id=f"{name}-server", address=server, peername=server, state=connection.ConnectionState.CLOSED
    )
    one = http.HTTPFlow(client_conn, server_conn)
    one.id = str(_id(f"{exchange.capture} {exchange.index} {started}"))
    one.timestamp_created = started
    if exchange.response is None or not exchange.complete:
        told = exchange.problems[0] if exchange.problems else "the answer was not seen to its end"
        one.error = flow.Error(told, exchange.ended.timestamp())
    notes += _fill(one, exchange, bodies)
    if exchange.rewritten_request or exchange.rewritten_response:
        one.backup()
        changed = replace(
            exchange,
            request=exchange.rewritten_request or exchange.request,
            response=exchange.rewritten_response or exchange.response,
        )
        notes += _fill(one, changed, bodies)
    return one, tuple(notes)


def _original(one: http.HTTPFlow) -> http.HTTPFlow | None:
    backup = one.get_state().get("backup")
    return cast(http.HTTPFlow, flow.Flow.from_state(backup)) if backup else None


def _messages(one: http.HTTPFlow) -> tuple[Request, Response | None, tuple[str, ...], bool]:
    kept = _kept(one)
    problems: list[str] = []
    if one.error is not None:
        problems.append(f"mitmproxy: {one.error.msg}")
    if one.websocket is not None:
        problems.append(f"WebSocket: {len(one.websocket.messages)} messages not shown")
    request = _request(one.request, _body(one.request, kept.get("request"), "request", problems))
    response = None
    if one.response is not None:
        body = _body(one.response, kept.get("response"), "answer", problems)
        version = version_of(one.response)
        interim = tuple((int(s), str(r), tuple((str(n), str(v)) for n, v in h)) for s, r, h in kept.get("interim", ()))
        status, reason = one.response.status_code, one.response.reason
        response = Response(status, reason, version, _headers(one.response), body, interim)
    if "problems" in kept:
        problems = [str(each) for each in kept["problems"]]
    return request, response, tuple(problems), bool(kept.get("complete", response is not None and one.error is None))


def _request(request: http.Request, body: Body) -> Request:
    version = version_of(request)
    headers = _headers(request)
    target = target_of(request)
    if version not in HTTP1 and method_of(request) != "CONNECT":
        target = path_of(request)
        # RFC 9113 section 8.3.1: written as HTTP/1.1, the :authority is the Host.
        if header(headers, "host") is None:
            usual = {b"http": HTTP, b"https": HTTPS}.get(request.data.scheme)
            named = server_of(request).removesuffix(f":{usual}")
            headers = (("Host", authority_of(request) or named), *headers)
    return Request(method_of(request), target, version, headers, body)


def _headers(message: http.Message) -> Headers:
    fields = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in message.headers.fields)
    # Old files have the pseudo-header fields of HTTP/2 among the others.
    return tuple((name, value) for name, value in fields if not name.startswith(":"))


def _body(message: http.Message, kept: object, side: str, problems: list[str]) -> Body:
    headers = _headers(message)
    if message.trailers:
        problems.append(f"{side}: {len(message.trailers)} trailer fields not shown")
    if message.raw_content is None:
        told = _told(kept)
        if told is None and isinstance(message, http.Request) and _bodiless(message):
            return Body.of(b"")
        problems.append(f"{side}: body was streamed and is not in the file")
        if told is not None:
            return told
        size = http_wire.declared_length(headers) or 0
        return Body(size, "", size)
    body, problem = decoded_body(headers, message.raw_content)
    if problem:
        problems.append(f"{side}: {problem}")
    return body


def _told(kept: object) -> Body | None:
    """A body as `_described` has put it aside, where it can be one."""
    match kept:
        case [int(size), str(digest), int(encoded_size), (str() | None) as encoded_digest]:
            if not (0 <= size < TOO_LONG and 0 <= encoded_size < TOO_LONG):
                return None
            named = encoded_digest if encoded_digest and is_name(encoded_digest) else None
            return Body(size, digest if is_name(digest) else "", encoded_size, named)
    return None


def _bodiless(request: http.Request) -> bool:
    return not {"content-length", "transfer-encoding"}.intersection(map(str.lower, request.headers))


def _kept(one: http.HTTPFlow) -> Mapping[str, Any]:
    """What `flow_of` put aside. A file may hold anything there."""
    try:
        kept = json.loads(one.metadata.get(KEPT, "{}"))
    except (TypeError, ValueError, RecursionError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _fill(one: http.HTTPFlow, exchange: Exchange, bodies: Bodies) -> list[str]:
    """Set the messages of a flow; returns what could not be kept."""
    notes: list[str] = []
    request, response = exchange.request, exchange.response
    kept: dict[str, Any] = {"complete": exchange.complete, "problems": list(exchange.problems)}
    if exchange.client_mac:
        kept["client_mac"] = exchange.client_mac
    headers, content = _content(request, bodies, notes)
    if content is None:
        kept["request"] = _described(request.body)
    started, ended = exchange.started.timestamp(), exchange.ended.timestamp()
    asked_until = exchange.request_ended.timestamp() if exchange.request_ended else None
    one.request = http.Request(
        **_target(request, exchange),
        method=request.method.encode("latin-1", "replace"),
        http_version=f"HTTP/{request.version}".encode("latin-1", "replace"),
        headers=http.Headers(headers),
        content=content,
        trailers=None,
        timestamp_start=started,
        timestamp_end=asked_until,
    )
    if response is not None:
        headers, content = _content(response, bodies, notes)
        if content is None:
            kept["response"] = _described(response.body)
        if response.interim:
            kept["interim"] = response.interim
        one.response = http.Response(
            status_code=response.status,
            reason=response.reason.encode("latin-1", "replace"),
            http_version=f"HTTP/{response.version}".encode("latin-1", "replace"),
            headers=http.Headers(headers),
            content=content,
            trailers=None,
            timestamp_start=exchange.response_started.timestamp() if exchange.response_started else ended,
            timestamp_end=ended,
        )
    one.metadata = {KEPT: json.dumps(kept)}
    return notes


def _content(
    message: Request | Response, bodies: Bodies, notes: list[str]
) -> tuple[tuple[tuple[bytes, bytes], ...], bytes | None]:
    coded = http_wire.coded_body(message.headers, message.body, bodies)
    notes += coded.notes
    fields = tuple((_bytes(name), _bytes(value)) for name, value in coded.headers)
    if coded.size > MAX_BODY:
        notes.append(BODY_TOO_LARGE)
        return fields, None
    pieces = list(coded.pieces)
    if any(isinstance(piece, Gap) for piece in pieces) or not message.body.sha256:
        return fields, None
    return fields, b"".join(cast(list[bytes], pieces))


def _target(request: Request, exchange: Exchange) -> dict[str, Any]:
    """The parts mitmproxy splits a request target into; together they give the target again."""
    address, port = _address(exchange.server)
    scheme = "https" if port == HTTPS else "http"
    name, _, _ = request.host.partition(":")
    parts = {"host": name or address, "port": port or HTTP, "scheme": scheme.encode(), "authority": b""}
    absolute = ABSOLUTE.fullmatch(request.target)
    if request.method == "CONNECT":
        return {**parts, "authority": _bytes(request.target), "path": b"", "scheme": b""}
    if absolute and absolute[2]:
        named = {"scheme": _bytes(absolute[1]), "authority": _bytes(absolute[2]), "path": _bytes(absolute[3])}
        return {**parts, **named}
    if request.version not in HTTP1:
        parts["authority"] = _bytes(request.host)
    return {**parts, "path": _bytes(request.target)}


def _described(body: Body) -> list[object]:
    return [body.size, body.sha256, body.encoded_size, body.encoded_sha256]


def _id(text: str) -> uuid.UUID:
    """The same for the same text; names of files may hold what is no character."""
    return uuid.uuid5(uuid.NAMESPACE_URL, text.encode("utf-8", "backslashreplace").decode())


def _bytes(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _address(shown: str) -> tuple[str, int]:
    address, _, port = shown.rpartition(":")
    number = int(port) if port.isdecimal() and int(port) < 65536 else 0
    try:
        return str(ipaddress.ip_address(address.strip("[]"))), number
    except ValueError:
        return UNKNOWN, number


def _endpoint(peer: tuple[Any, ...] | None, otherwise: tuple[Any, ...] | None) -> str:
    """The address connected with; where there was none, the port of the one meant, as a name is not an address."""
    for known in (peer, otherwise):
        if known:
            address, port = str(known[0]), int(known[1])
            try:
                number = ipaddress.ip_address(address.partition("%")[0])
            except ValueError:
                if known is otherwise:
                    return endpoint(UNKNOWN, port)
            else:
                # A listener for both families names IPv4 peers in IPv6 form.
                return endpoint(str(getattr(number, "ipv4_mapped", None) or number), port)
    return endpoint(UNKNOWN, 0)


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
