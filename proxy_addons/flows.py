"""mitmproxy's flows as the values of captures/exchange.py."""

from __future__ import annotations

from datetime import UTC, datetime

from mitmproxy import connection, http

from captures.exchange import Body, Headers, Request, Response, endpoint
from captures.flow_request import method_of, target_of, version_of


def headers_of(message: http.Message) -> Headers:
    """Header names and values, one character per byte."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in message.headers.fields)


def request_of(request: http.Request, headers: Headers, body: Body) -> Request:
    """A request as it stood on the wire."""
    return Request(method_of(request), target_of(request), version_of(request), headers, body)


def response_of(response: http.Response, headers: Headers, body: Body) -> Response:
    """An answer as it stood on the wire."""
    return Response(response.status_code, response.reason, version_of(response), headers, body)


def moment(timestamp: float) -> datetime:
    """mitmproxy's seconds since 1970 as a time."""
    return datetime.fromtimestamp(timestamp, UTC)


def moment_or_none(timestamp: float | None) -> datetime | None:
    """The same where it may not have come about."""
    return None if timestamp is None else moment(timestamp)


def client_of(client: connection.Client, address: str) -> str:
    """The phone's end of its connection; its port is 0 where a load balancer told the address alone."""
    peer, port = client.peername[:2]
    return endpoint(address, port if address == peer else 0)


def server_of(server: connection.Server) -> str:
    """The server's end, by the address connected to; the configured one where no connection came about."""
    address = server.peername or server.address
    return endpoint(*address[:2]) if address else ""


def body_length(headers: Headers, *, of_request: bool) -> int | None:
    """The length a message declares; None where only its end will tell. Raises `ValueError`."""
    declared = set()
    for name, value in headers:
        match name.lower():
            case "transfer-encoding":
                return None
            case "content-length":
                declared.add(value)
    if not declared:
        return 0 if of_request else None
    if len(declared) > 1:
        raise ValueError("several Content-Length headers")
    length = declared.pop().strip()
    if not (length.isascii() and length.isdigit()):
        raise ValueError("a Content-Length that is not a number")
    return int(length)
