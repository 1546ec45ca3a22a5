"""An exchange while it passes through the proxy, and what is recorded of it in the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from mitmproxy import http

from captures.base_recording import new_uid
from captures.exchange import Body, Exchange, Headers
from captures.exchange import exchange_of as make_exchange
from captures.facts import head_facts
from proxy_addons.flows import client_of, moment, moment_or_none, request_of, response_of, server_of
from proxy_addons.rewriter import Checked, Edited
from proxy_addons.streams import Hold, Tee


@dataclass(slots=True)
class Message:
    """One side of an exchange while it passes; `seen` once its head has come."""

    headers: Headers = ()
    seen: bool = False
    stream: Tee | Hold | None = None
    edited: Edited | None = None
    edited_headers: Headers | None = None

    def body(self) -> Body:
        """The body as it came."""
        if self.edited is not None:
            return as_body(self.edited.decoded, self.edited.original)
        if isinstance(self.stream, Hold):
            return self.stream.tee.body()
        return self.stream.body() if self.stream is not None else Body()

    def sent_body(self) -> Body:
        """The body as it went on; asked only where something was changed."""
        return self.body() if self.edited is None else as_body(self.edited.sent_decoded, self.edited.sent)

    @property
    def changed(self) -> bool:
        """Whether what went on differs from what came."""
        return self.edited_headers is not None or (self.edited is not None and self.edited.changed)


@dataclass(slots=True)
class Watch:
    """An exchange while it passes."""

    is_check: bool
    request: Message
    address: str = ""  # of the phone
    response: Message = field(default_factory=Message)
    checked: Checked | None = None
    problems: list[str] = field(default_factory=list)
    held: int = 0  # bytes its bodies may take of what all may take together
    uid: str = field(default_factory=new_uid)


def as_body(decoded: bytes | None, raw: bytes) -> Body:
    """The body of a buffered message."""
    return Body.of(raw) if decoded is None else Body.of(decoded, raw)


def exchange_of(flow: http.HTTPFlow, watch: Watch, *, complete: bool) -> Exchange:
    """The exchange as it is recorded, when it is over."""
    asked, answered = watch.request, watch.response
    request = request_of(flow.request, asked.headers, asked.body())
    response = rewritten_request = rewritten_response = None
    if asked.changed:
        rewritten_request = request_of(flow.request, asked.edited_headers or asked.headers, asked.sent_body())
    if flow.response is not None and answered.seen:
        response = response_of(flow.response, answered.headers, answered.body())
        if answered.changed:
            headers = answered.edited_headers or answered.headers
            rewritten_response = response_of(flow.response, headers, answered.sent_body())
    edited = [message.edited for message in (asked, answered) if message.edited is not None]
    last = (flow.response and flow.response.timestamp_end) or (flow.error and flow.error.timestamp)
    facts = [fact for body in edited for fact in body.facts]
    facts += head_facts(request, response, complete=complete)
    return make_exchange(
        "live",
        0,
        client_of(flow.client_conn, watch.address),
        server_of(flow.server_conn),
        moment(flow.request.timestamp_start),
        moment(last or flow.request.timestamp_start),
        request,
        response,
        complete,
        (*watch.problems, *(problem for body in edited for problem in body.problems)),
        tuple(facts),
        rewritten_request,
        rewritten_response,
        flow.client_conn.id,
        moment_or_none(flow.request.timestamp_end),
        moment_or_none(flow.response.timestamp_start if flow.response else None),
        "",
    )
