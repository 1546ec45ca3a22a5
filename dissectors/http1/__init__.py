"""HTTP/1.x as it is found on wires (RFC 9112): heads, framing, and a sans-IO reader of one direction.

No parser that could be had fits: h11 refuses what a capture must still show, cannot be told of missing bytes and took
chunk ends on trust before 0.16; llhttp's bindings report errors without the message they belong to. This one keeps two
things apart for every message: what it says, and whether its length can be believed.
"""

from __future__ import annotations

from dissectors.http1.framing import Framing, Kind, request_framing, response_framing
from dissectors.http1.head import Headers, RequestHead, ResponseHead, parse_request_head, parse_response_head
from dissectors.http1.reader import Handler, Reader

__all__ = [
    "Framing",
    "Handler",
    "Headers",
    "Kind",
    "Reader",
    "RequestHead",
    "ResponseHead",
    "parse_request_head",
    "parse_response_head",
    "request_framing",
    "response_framing",
]
