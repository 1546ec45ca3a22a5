"""Exchanges as lines of JSON, a fleet's worth of them.

`Exchange.to_json` says what a line holds. This writes the same text without building the values in between: phones
repeat themselves, so the JSON of heads and facts seen before is kept and put together again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from datetime import datetime
from json.encoder import encode_basestring_ascii as quoted

from captures.exchange import Exchange, Fact, Headers, Request, Response, rfc3339
from captures.redaction import redacted_fact, redacted_value

MAX_KEPT = 4 << 20  # characters of pieces kept; past it all are forgotten
MAX_PIECE = 1 << 14  # longer ones are not kept


class JsonLines:
    """Writes exchanges, each as `json.dumps` of its JSON form would be; credentials redacted without `secrets`."""

    def __init__(self, *, secrets: bool = False) -> None:
        self._secrets = secrets
        self._pieces: dict[Hashable, str] = {}
        self._facts: dict[int, tuple[Fact, str]] = {}
        self._kept = 0

    def line(self, exchange: Exchange) -> str:
        """One line, without its end."""
        response = exchange.response
        started, ended = rfc3339(exchange.started), rfc3339(exchange.ended)
        line = (
            f'{{"kind": "exchange", "capture": {self._quoted(exchange.capture)}, "index": {exchange.index}, '
            f'"client": {quoted(exchange.client)}, "server": {quoted(exchange.server)}, '
            f'"client_mac": {quoted(exchange.client_mac) if exchange.client_mac else "null"}, '
            f'"connection": {quoted(exchange.connection)}, "started": "{started}", '
            f'"request_ended": {_time(exchange.request_ended)}, '
            f'"response_started": {_time(exchange.response_started)}, "ended": "{ended}", '
            f'"request": {self._request(exchange.request)}, '
            f'"response": {"null" if response is None else self._response(response)}, '
            f'"complete": {"true" if exchange.complete else "false"}, '
            f'"problems": {json.dumps(exchange.problems) if exchange.problems else "[]"}, '
            f'"facts": [{", ".join(map(self._fact, exchange.facts))}]'
        )
        request, response = exchange.rewritten_request, exchange.rewritten_response
        if request is None and response is None:
            return line + "}"
        sides = []
        if request is not None:
            sides.append(f'"request": {self._request(request)}')
        if response is not None:
            sides.append(f'"response": {self._response(response)}')
        return f'{line}, "rewritten": {{{", ".join(sides)}}}}}'

    def _request(self, request: Request) -> str:
        key = request.method, request.target, request.version, request.headers
        head = self._piece(key, lambda: self._request_head(request))
        return f'{head}"body": {{"size": {request.body.size}, "sha256": {quoted(request.body.sha256)}}}}}'

    def _response(self, response: Response) -> str:
        key = response.status, response.reason, response.version, response.headers
        head = self._piece(key, lambda: self._response_head(response))
        body = response.body
        sizes = f'"size": {body.size}, "sha256": {quoted(body.sha256)}, "encoded_size": {body.encoded_size}'
        shown = f'{head}"body": {{{sizes}}}'
        if not response.interim:
            return shown + "}"
        interim = [
            {"status": status, "reason": reason, "headers": self._headers(headers)}
            for status, reason, headers in response.interim
        ]
        return f'{shown}, "interim": {json.dumps(interim)}}}'

    def _request_head(self, request: Request) -> str:
        shown = {
            "method": request.method,
            "target": request.target,
            "host": request.host,
            "version": request.version,
            "headers": self._headers(request.headers),
        }
        return json.dumps(shown)[:-1] + ", "

    def _response_head(self, response: Response) -> str:
        shown = {
            "status": response.status,
            "reason": response.reason,
            "version": response.version,
            "headers": self._headers(response.headers),
        }
        return json.dumps(shown)[:-1] + ", "

    def _headers(self, headers: Headers) -> list[list[str]]:
        if self._secrets:
            return [[name, value] for name, value in headers]
        return [[name, redacted_value(name, value)] for name, value in headers]

    def _quoted(self, text: str) -> str:
        return self._piece(text, lambda: quoted(text))

    def _fact(self, fact: Fact) -> str:
        """A fact's JSON; facts are never changed, so the same object has the same text."""
        known = self._facts.get(id(fact))
        if known is not None and known[0] is fact:
            return known[1]
        text = json.dumps(dict(fact if self._secrets else redacted_fact(fact)))
        if len(text) <= MAX_PIECE:
            self._room(len(text))
            self._facts[id(fact)] = fact, text  # holding the fact keeps its identity from being given to another
        return text

    def _piece(self, key: Hashable, make: Callable[[], str]) -> str:
        text = self._pieces.get(key)
        if text is None:
            text = make()
            if len(text) <= MAX_PIECE:
                self._room(len(text))
                self._pieces[key] = text
        return text

    def _room(self, size: int) -> None:
        self._kept += size
        if self._kept > MAX_KEPT:
            self._pieces.clear()
            self._facts.clear()
            self._kept = size


def _time(moment: datetime | None) -> str:
    return "null" if moment is None else f'"{rfc3339(moment)}"'
