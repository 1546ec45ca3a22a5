"""What a request began with on the wire, one character per byte, as captures/exchange.py has it.

mitmproxy keeps these bytes too, but its properties show others: methods in capitals, targets read as UTF-8, names of
hosts taken out of their IDNA form.
"""

from __future__ import annotations

from mitmproxy import http

from captures.exchange import endpoint


def method_of(request: http.Request) -> str:
    """The method, which has its case (RFC 9110 section 9.1)."""
    return request.data.method.decode("latin-1")


def path_of(request: http.Request) -> str:
    """What of the target follows the authority, if one is in it; with the query."""
    return request.data.path.decode("latin-1")


def authority_of(request: http.Request) -> str:
    """The authority in the target, or the `:authority` of HTTP/2."""
    return request.data.authority.decode("latin-1")


def target_of(request: http.Request) -> str:
    """The request target: of CONNECT an authority, else a path or a URL."""
    authority = authority_of(request)
    if method_of(request) == "CONNECT":
        return authority or server_of(request)
    return f"{request.data.scheme.decode('latin-1')}://{authority}{path_of(request)}" if authority else path_of(request)


def server_of(request: http.Request) -> str:
    """The server that was meant, as `host:port`; its name is text in mitmproxy."""
    return endpoint(request.host, request.port).encode("utf-8", "replace").decode("latin-1")


def version_of(message: http.Message) -> str:
    """The version: "1.1" of `HTTP/1.1`."""
    return message.data.http_version.decode("latin-1").removeprefix("HTTP/")
