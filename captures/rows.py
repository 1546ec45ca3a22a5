"""Exchanges as rows of a recording's database and back: plain values, JSON where they are nested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from captures.exchange import Body, Exchange, Headers, Request, Response

Held = Mapping[str, bytes]
NOTHING_HELD: Held = {}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """A time as the database holds it."""
    return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND


def moment_of(number: int) -> datetime:
    """The time again."""
    seconds, rest = divmod(number, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


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
        "request": _message_row(exchange.request),
        "response": _message_row(exchange.response),
        "rewritten_request": _message_row(exchange.rewritten_request),
        "rewritten_response": _message_row(exchange.rewritten_response),
    }


def exchange_of(
    row: Mapping[str, Any], facts: Sequence[Any], capture: str, index: int, held: Held = NOTHING_HELD
) -> Exchange:
    """The exchange of such a row, with the bodies of `held`, which is by their sha256.

    Raises `KeyError`, `TypeError`, `ValueError` for another row.
    """
    return Exchange(
        capture=capture,
        index=index,
        connection=row["connection"],
        client=row["client"],
        server=row["server"],
        client_mac=row.get("client_mac", ""),
        started=moment_of(row["started"]),
        request_ended=None if row["request_ended"] is None else moment_of(row["request_ended"]),
        response_started=None if row["response_started"] is None else moment_of(row["response_started"]),
        ended=moment_of(row["ended"]),
        complete=row["complete"],
        problems=tuple(row["problems"]),
        request=_request(row["request"], held),
        response=row["response"] and _response(row["response"], held),
        rewritten_request=row["rewritten_request"] and _request(row["rewritten_request"], held),
        rewritten_response=row["rewritten_response"] and _response(row["rewritten_response"], held),
        facts=tuple(facts),
    )


def _message_row(message: Request | Response | None) -> Any:
    if message is None:
        return None
    body = message.body
    row = {name: getattr(message, name) for name in message.__slots__ if name != "body"}
    row["body"] = {name: getattr(body, name) for name in body.__slots__ if name not in {"data", "encoded"}}
    return row


def _headers(pairs: Sequence[Sequence[str]]) -> Headers:
    return tuple((name, value) for name, value in pairs)


def _body(row: dict[str, Any], held: Held) -> Body:
    if not held:
        return Body(**row)
    return Body(**row, data=held.get(row["sha256"]), encoded=held.get(row["encoded_sha256"] or ""))


def _request(row: dict[str, Any], held: Held) -> Request:
    return Request(**{**row, "headers": _headers(row["headers"]), "body": _body(row["body"], held)})


def _response(row: dict[str, Any], held: Held) -> Response:
    interim = tuple((status, reason, _headers(headers)) for status, reason, headers in row["interim"])
    body = _body(row["body"], held)
    return Response(**{**row, "headers": _headers(row["headers"]), "body": body, "interim": interim})
