"""The exchange: one HTTP request and its answer, wherever they were seen.

The JSON form is a contract of the command line (`exchanges --json`): field names and their order stay. Header names
and values are text with one character per byte (latin-1), so that nothing is lost; times are UTC.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from dissectors.content_type import charset_of
from dissectors.frozen import constructor

Headers = tuple[tuple[str, str], ...]
Fact = Mapping[str, Any]  # {"fact": "update-check", ...}; plain JSON values only

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Body:
    """A message body after transfer- and content-decoding.

    `size` and `sha256` describe the decoded bytes, `encoded_size` the bytes before content-decoding (equal where there
    was no coding, 0 where an archive has the decoded ones alone); `encoded_sha256` names the encoded bytes where they
    differ. `data` is there only while the bytes are held; a streamed body has None. A body that could not be decoded is
    described as it came, and the exchange's problems say so.
    """

    size: int = 0
    sha256: str = EMPTY_SHA256
    encoded_size: int = 0
    encoded_sha256: str | None = None
    data: bytes | None = field(default=None, compare=False, repr=False)
    encoded: bytes | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, data: bytes, encoded: bytes | None = None) -> Body:
        """The body that holds these decoded bytes; `encoded` is how they came, where that differs."""
        digest = hashlib.sha256(data).hexdigest()
        if encoded is None or encoded == data:
            return cls(len(data), digest, len(data), None, data)
        return cls(len(data), digest, len(encoded), hashlib.sha256(encoded).hexdigest(), data, encoded)

    @property
    def as_it_came(self) -> bool:
        """Whether these are the bytes that came, whatever codings the headers name."""
        return self.encoded_sha256 is None and self.encoded_size == self.size


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `target` is the request target as it stood on the wire, `version` is "1.0" or "1.1"."""

    method: str
    target: str
    version: str = "1.1"
    headers: Headers = ()
    body: Body = Body()

    @property
    def host(self) -> str:
        """The Host header, or an empty string."""
        return header(self.headers, "host") or ""

    def to_json(self) -> dict[str, Any]:
        """The request as plain JSON values."""
        return {
            "method": self.method,
            "target": self.target,
            "host": self.host,
            "version": self.version,
            "headers": [list(pair) for pair in self.headers],
            "body": {"size": self.body.size, "sha256": self.body.sha256},
        }


@dataclass(frozen=True, slots=True)
class Response:
    """A final answer; 1xx answers that came before it are in `interim` (status, reason, headers)."""

    status: int
    reason: str = ""
    version: str = "1.1"
    headers: Headers = ()
    body: Body = Body()
    interim: tuple[tuple[int, str, Headers], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The answer as plain JSON values."""
        shown: dict[str, Any] = {
            "status": self.status,
            "reason": self.reason,
            "version": self.version,
            "headers": [list(pair) for pair in self.headers],
            "body": {"size": self.body.size, "sha256": self.body.sha256, "encoded_size": self.body.encoded_size},
        }
        if self.interim:
            shown["interim"] = [
                {"status": status, "reason": reason, "headers": [list(pair) for pair in headers]}
                for status, reason, headers in self.interim
            ]
        return shown


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer.

    `request` and `response` are what the phone sent and what the server answered. Where upshim changed one of them,
    `rewritten_request` is what the server was sent and `rewritten_response` what the phone was given. `client` and
    `server` are "ip:port" ("[ip]:port" for IPv6); `connection` tells connections between the same endpoints apart.
    `client_mac` is where the client's packets came from on the captured link, in colon form: the phone itself, or the
    last router. `complete` means that both messages were seen to their end.
    """

    capture: str
    index: int
    client: str
    server: str
    started: datetime
    ended: datetime
    request: Request
    response: Response | None = None
    complete: bool = True
    problems: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    rewritten_request: Request | None = None
    rewritten_response: Response | None = None
    connection: str = ""
    request_ended: datetime | None = None
    response_started: datetime | None = None
    client_mac: str = ""

    def to_json(self) -> dict[str, Any]:
        """One line of `exchanges --json`."""
        shown: dict[str, Any] = {
            "kind": "exchange",
            "capture": self.capture,
            "index": self.index,
            "client": self.client,
            "server": self.server,
            "client_mac": self.client_mac or None,
            "connection": self.connection,
            "started": rfc3339(self.started),
            "request_ended": rfc3339(self.request_ended) if self.request_ended else None,
            "response_started": rfc3339(self.response_started) if self.response_started else None,
            "ended": rfc3339(self.ended),
            "request": self.request.to_json(),
            "response": None if self.response is None else self.response.to_json(),
            "complete": self.complete,
            "problems": list(self.problems),
            "facts": [dict(fact) for fact in self.facts],
        }
        rewritten = {
            "request": self.rewritten_request and self.rewritten_request.to_json(),
            "response": self.rewritten_response and self.rewritten_response.to_json(),
        }
        if any(rewritten.values()):
            shown["rewritten"] = {side: message for side, message in rewritten.items() if message}
        return shown

    def with_facts(self, facts: tuple[Fact, ...]) -> Exchange:
        """The same exchange with these facts."""
        return self._with("facts", facts)

    def with_index(self, index: int) -> Exchange:
        """The same exchange with this index."""
        return self._with("index", index)

    def _with(self, changed: str, value: object) -> Exchange:
        other: Exchange = object.__new__(Exchange)
        for name in _FIELDS:  # a sixth of what `replace` takes, and every exchange of a capture comes by here
            object.__setattr__(other, name, getattr(self, name))
        object.__setattr__(other, changed, value)
        return other


_FIELDS = tuple(each.name for each in fields(Exchange))


# In the order of the fields; half of what an exchange of a capture takes to show is to make it.
body_of = constructor(Body)
request_of = constructor(Request)
response_of = constructor(Response)
exchange_of = constructor(Exchange)


def bodies_of(exchange: Exchange) -> Iterator[Body]:
    """The bodies of all messages of an exchange."""
    for message in (exchange.request, exchange.response, exchange.rewritten_request, exchange.rewritten_response):
        if message is not None:
            yield message.body


def bodies_held(exchanges: Iterable[Exchange]) -> dict[str, bytes]:
    """The bodies these exchanges hold, by their sha256."""
    held = {}
    for body in (body for exchange in exchanges for body in bodies_of(exchange)):
        if body.data:
            held[body.sha256] = body.data
        if body.encoded and body.encoded_sha256:
            held[body.encoded_sha256] = body.encoded
    return held


def header(headers: Headers, name: str) -> str | None:
    """The first value of a header, its name compared without case."""
    wanted, size = name.lower(), len(name)
    for key, value in headers:
        if len(key) == size and key.lower() == wanted:
            return value
    return None


def charset(headers: Headers) -> str | None:
    """The charset parameter of the Content-Type, if any."""
    return charset_of(header(headers, "content-type") or "")


def rfc3339(moment: datetime) -> str:
    """A time as UTC RFC 3339 with microseconds, the way every upshim output shows times."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    text = utc.isoformat()
    if len(text) != 32:  # a time of whole seconds
        text = utc.isoformat(timespec="microseconds")
    return text[:26] + "Z"


def endpoint(address: str, port: int) -> str:
    """`ip:port`, or `[ip]:port` for IPv6."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
