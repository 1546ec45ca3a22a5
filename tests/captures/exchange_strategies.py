"""Exchanges as hypothesis makes them: whole messages whose bodies are held and whose headers fit them."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from captures.exchange import Body, Exchange, Headers, Request, Response

TOKEN = st.text("abcXYZ019-_", min_size=1, max_size=8)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f\x85\xa0"), max_size=20)
TIMES = st.datetimes(datetime(1995, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))
PATH = st.text("abc/%41?=&;~.\xe9\xc3\xbc\xff", max_size=20).map(lambda rest: f"/{rest}")
ENDPOINTS = st.sampled_from(["10.1.2.3:1037", "192.168.0.9:80", "[2001:db8::3]:1037", "[fe80::1]:443"])
MIME = st.sampled_from(
    ["", "text/xml", "text/plain; charset=utf-16", "text/html; charset=iso-8859-1", "application/octet-stream"]
)
SPARE_HEADERS = st.lists(st.tuples(TOKEN.map("X-{}".format), VALUE), max_size=3)


@st.composite
def contents(draw: st.DrawFn) -> tuple[Headers, Body]:
    """A body and the headers about it."""
    data = draw(st.binary(max_size=60) | st.text(max_size=20).map(str.encode))
    headers = []
    body = Body.of(data)
    if mime := draw(MIME):
        headers.append(("Content-Type", mime))
    if data and draw(st.booleans()):
        headers.append(("Content-Encoding", "gzip"))
        body = Body.of(data, gzip.compress(data, mtime=0))
    headers.append(("Content-Length", str(body.encoded_size)))
    return (*headers, *draw(SPARE_HEADERS)), body


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request with a Host."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "OPTIONS", "Get"]))
    headers, body = draw(contents())
    path = draw(PATH)
    target = draw(st.sampled_from([path, f"http://updates.example.com{path}", "*" if method == "OPTIONS" else path]))
    version = draw(st.sampled_from(["1.1", "1.0"]))
    return Request(method, target, version, (("Host", "updates.example.com"), *headers), body)


@st.composite
def responses(draw: st.DrawFn) -> Response:
    """An answer that may have a body."""
    headers, body = draw(contents())
    interim = draw(st.sampled_from([(), ((100, "Continue", (("X-A", "\xe9"),)),)]))
    status, reason = draw(st.sampled_from([(200, "OK"), (206, "Partial Content"), (404, ""), (500, "\xe9t\xe9")]))
    return Response(status, reason, draw(st.sampled_from(["1.1", "1.0"])), headers, body, interim)


@st.composite
def exchanges(draw: st.DrawFn) -> Exchange:
    """An exchange with times in their order; complete if it has an answer."""
    started = draw(TIMES)
    steps = [timedelta(microseconds=draw(st.integers(0, 10**9))) for _ in range(3)]
    response = draw(st.none() | responses())
    return Exchange(
        "test",
        0,
        draw(ENDPOINTS),
        draw(ENDPOINTS),
        started,
        started + sum(steps, timedelta()),
        draw(requests()),
        response,
        response is not None,
        tuple(draw(st.lists(st.text(max_size=10), max_size=2))),
        rewritten_request=draw(st.none() | requests()),
        rewritten_response=draw(st.none() | responses()) if response else None,
        connection=draw(st.sampled_from(["tcp-1", "\u2603"])),
        request_ended=started + steps[0],
        response_started=started + steps[0] + steps[1] if response else None,
        client_mac=draw(st.sampled_from(["", "00:04:f2:00:00:01"])),
    )
