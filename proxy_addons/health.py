"""The health check of a load balancer in front, answered on the very port phones use: it proves that this listener
works, which neither a TCP check nor a second port can.
"""

from __future__ import annotations

from mitmproxy import http

from proxy_addons.flows import body_length, headers_of

PATH = "/__upshim/health"


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
    status, text = (503, "draining") if draining else (503, "server unreachable") if unreachable else (200, "ok")
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return http.Response.make(status, f'{{"status":"{text}"}}\n', headers)
