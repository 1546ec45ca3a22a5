"""The server is reached through another HTTP proxy: CONNECT for TLS and what is not HTTP, absolute form for HTTP."""

from __future__ import annotations

from typing import Literal

from mitmproxy import http
from mitmproxy.proxy.context import Context

# A private module: there is no public way to send what is not HTTP through an upstream proxy.
from mitmproxy.proxy.layers.http import _upstream_proxy
from mitmproxy.proxy.tunnel import LayerStack

from proxy_addons.failures import Failures, fail_open
from proxy_addons.upstreams import Upstreams

ORIGINAL = "upshim_authority"


class Via:
    """An addon that must stand before the one that records: its `response` puts the request target back."""

    def __init__(self, failures: Failures, scheme: Literal["http", "https"], host: str, port: int) -> None:
        self.failures = failures
        self.upstreams = Upstreams()  # which servers may be asked for
        self._scheme: Literal["http", "https"] = scheme
        self._address = host, port

    def tunnel(self, context: Context) -> LayerStack | None:
        """Layers that ask the proxy to connect; None where the server is none of ours."""
        address = context.server.address
        if address is None or not self.upstreams.allow(*address[:2]):
            return None
        context.server.via = (self._scheme, self._address)
        return _upstream_proxy.HttpUpstreamProxy.make(context, True)

    @fail_open
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Send a request to the proxy."""
        request, address = flow.request, flow.server_conn.address
        if address is None or not self.upstreams.allow(*address[:2]):
            return
        if request.scheme == "https" or self._scheme == "https":
            flow.server_conn.via = (self._scheme, self._address)
            return
        host, port = address[:2]
        flow.metadata[ORIGINAL] = request.data.authority
        shown = f"[{host}]" if ":" in host else host
        request.authority = shown if port == 80 else f"{shown}:{port}"
        request.data.host, request.data.port = self._address

    @fail_open
    def response(self, flow: http.HTTPFlow) -> None:
        """What is recorded is what the phone said."""
        self._restore(flow)

    @fail_open
    def error(self, flow: http.HTTPFlow) -> None:
        """As for `response`."""
        self._restore(flow)

    def _restore(self, flow: http.HTTPFlow) -> None:
        if ORIGINAL in flow.metadata:
            flow.request.data.authority = flow.metadata[ORIGINAL]
