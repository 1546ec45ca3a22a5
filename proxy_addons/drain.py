"""Which connections have an exchange in flight, and the polite end of the others while the proxy drains."""

from __future__ import annotations

from weakref import WeakSet

from mitmproxy import http


class Drain:
    """An addon that stands behind all others, so that an exchange is over for it when it is over for them."""

    def __init__(self) -> None:
        self.draining = False
        self._flows: WeakSet[http.HTTPFlow] = WeakSet()

    def busy(self) -> set[str]:
        """The client connections, by their id, that have an exchange in flight."""
        return {flow.client_conn.id for flow in self._flows}

    def __len__(self) -> int:
        return len(self._flows)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """An exchange begins."""
        self._flows.add(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """An answer that streams begins."""
        if flow.response is not None and flow.response.stream:
            self._say_goodbye(flow.response)

    def response(self, flow: http.HTTPFlow) -> None:
        """An exchange is over; mitmproxy writes a buffered answer right after this, without a break."""
        self._flows.discard(flow)
        if flow.response is not None and not flow.response.stream:
            self._say_goodbye(flow.response)

    def error(self, flow: http.HTTPFlow) -> None:
        """An exchange broke."""
        self._flows.discard(flow)

    def _say_goodbye(self, response: http.Response) -> None:
        # Connection-oriented authentication dies with its connection: whoever is being challenged comes back on it.
        if self.draining and response.status_code != 401:
            response.headers["Connection"] = "close"
