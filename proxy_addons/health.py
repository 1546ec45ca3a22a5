"""The health check of a load balancer in front, answered on the very port phones use: it proves that this listener
works, which neither a TCP check nor a second port can.
"""

from __future__ import annotations

from mitmproxy import http

from proxy_addons.flows import body_length, headers_of

PATH = "/__upshim/health"
OK, DRAINING, UNREACHABLE = "ok", "draining", "server unreachable"
BODIES = {state: f'{{"status":"{state}"}}\n'.encode() for state in (OK, DRAINING, UNREACHABLE)}


def is_health_check(request: http.Request, path: str) -> bool:
    """Whether a request is the health check: a GET of exactly this path without a body."""
    if not path or request.path != path or request.method != "GET":
        return False
    try:
        return body_length(headers_of(request), of_request=True) == 0
    except ValueError:
        return False


def health_answer(*, draining: bool, unreachable: bool) -> http.Response:
    """200, or 503 while no new work is wanted: upshim is about to end, or cannot reach the server."""
    state = DRAINING if draining else UNREACHABLE if unreachable else OK
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return http.Response.make(200 if state == OK else 503, BODIES[state], headers)
