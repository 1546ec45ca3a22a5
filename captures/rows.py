"""Exchanges as rows of a recording's database and back: plain values, JSON where they are nested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from captures.exchange import Body, Exchange, Headers, Request, Response, body_of, request_of, response_of
from captures.exchange import exchange_of as make_exchange

Held = Mapping[str, bytes]
NOTHING_HELD: Held = {}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """A time as the database holds it."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment_of(number: int) -> datetime:
    """The time again. Raises `ValueError` for one beyond those there are."""
    try:
        return _EPOCH + timedelta(0, 0, number)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def as_text(value: str) -> str:
    """Text both databases take: hostile input may hold NUL and lone surrogates."""
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def row_of(exchange: Exchange) -> dict[str, Any]:
    """The columns of an exchange but for its index and facts."""
    return {
        "connection": exchange.connection,
        "client": exchange.client,
        "server": exchange.server,
        "client_mac": exchange.client_mac,
        "started": microseconds(exchange.started),
        "request_ended": exchange.request_ended and microseconds(exchange.request_ended),
        "response_started": exchange.response_started and microseconds(exchange.response_started),
        "ended": microseconds(exchange.ended),
        "complete": exchange.complete,
        "problems": list(exchange.problems),
        "request": _request_row(exchange.request),
        "response": exchange.response and _response_row(exchange.response),
        "rewritten_request": exchange.rewritten_request and _request_row(exchange.rewritten_request),
        "rewritten_response": exchange.rewritten_response and _response_row(exchange.rewritten_response),
    }


def exchange_of(
    row: Mapping[str, Any], facts: Sequence[Any], capture: str, index: int, held: Held = NOTHING_HELD
) -> Exchange:
    """The exchange of such a row, with the bodies of `held`, which is by their sha256.

    Raises `KeyError`, `TypeError`, `ValueError` for another row.
    """
    request_ended, response_started = row["request_ended"], row["response_started"]
    response, asked, answered = row["response"], row["rewritten_request"], row["rewritten_response"]
    return make_exchange(
        capture,
        index,
        row["client"],
        row["server"],
        moment_of(row["started"]),
        moment_of(row["ended"]),
        _request(row["request"], held),
        response and _response(response, held),
        row["complete"],
        tuple(row["problems"]),
        tuple(facts),
        asked and _request(asked, held),
        answered and _response(answered, held),
        row["connection"],
        None if request_ended is None else moment_of(request_ended),
        None if response_started is None else moment_of(response_started),
        row.get("client_mac", ""),
    )


def _request_row(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "target": request.target,
        "version": request.version,
        "headers": request.headers,
        "body": _body_row(request.body),
    }


def _response_row(response: Response) -> dict[str, Any]:
    return {
        "status": response.status,
        "reason": response.reason,
        "version": response.version,
        "headers": response.headers,
        "interim": response.interim,
        "body": _body_row(response.body),
    }


def _body_row(body: Body) -> dict[str, Any]:
    return {
        "size": body.size,
        "sha256": body.sha256,
        "encoded_size": body.encoded_size,
        "encoded_sha256": body.encoded_sha256,
    }


def _headers(pairs: Sequence[Sequence[str]]) -> Headers:
    return tuple([(name, value) for name, value in pairs])


def _body(row: dict[str, Any], held: Held) -> Body:
    sha256, encoded_sha256 = row["sha256"], row["encoded_sha256"]
    data, encoded = held.get(sha256), held.get(encoded_sha256) if encoded_sha256 else None
    return body_of(row["size"], sha256, row["encoded_size"], encoded_sha256, data, encoded)


def _request(row: dict[str, Any], held: Held) -> Request:
    return request_of(row["method"], row["target"], row["version"], _headers(row["headers"]), _body(row["body"], held))


def _response(row: dict[str, Any], held: Held) -> Response:
    interim = tuple([(status, reason, _headers(headers)) for status, reason, headers in row["interim"]])
    headers, body = _headers(row["headers"]), _body(row["body"], held)
    return response_of(row["status"], row["reason"], row["version"], headers, body, interim)
