"""What the proxy has done, as numbers for Prometheus. Names and labels are an interface: alert rules hold them.

Counters move with the traffic. What stands somewhere else anyway is read when it is asked for: standing.py.
No label is made of what a phone says, but for the versions the census tells apart, so that no phone can make the set
of series grow.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from mitmproxy import http
from mitmproxy.version import VERSION as MITMPROXY
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from proxy_addons.rewriter import Checked
from proxy_addons.standing import Sources, Standing
from proxy_addons.streams import Hold
from proxy_addons.watch import Message, Watch

Child = TypeVar("Child", Counter, Histogram)

OWN_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)  # seconds
RECORD_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
UPSTREAM_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The proxy's numbers."""

    def __init__(self, sources: Sources) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(Standing(sources))
        ProcessCollector(registry=self.registry)  # memory, processor time, descriptors
        build = Info("upshim_build", "What is running.", registry=self.registry)
        build.info({"version": our_version(), "python": platform.python_version(), "mitmproxy": MITMPROXY})
        self._checks = Counter(
            "upshim_checks",
            "Update checks by what was decided; action unread: the body is not one upshim can read.",
            ["action", "rule", "dry_run"],
            registry=self.registry,
        )
        self._offers = Counter(
            "upshim_offers",
            "Answers that offer firmware; source server: its own idea, report: after a rule reported another version, "
            "offer: written in by a rule.",
            ["source", "rule"],
            registry=self.registry,
        )
        self._rewrites = Counter(
            "upshim_rewrites", "Messages that went on changed.", ["message"], registry=self.registry
        )
        self._exchanges = Counter(
            "upshim_exchanges", "HTTP exchanges that are over.", ["kind", "outcome"], registry=self.registry
        )
        self._exchanges.labels("check", "answered")  # a series of its own from the start: none at all is told, too
        self._streamed = Counter(
            "upshim_streamed_bytes",
            "Body bytes that passed without being buffered, counted when a message is over.",
            ["message"],
            registry=self.registry,
        )
        self._own = Histogram(
            "upshim_handling_seconds",
            "Time upshim takes to decode, decide and edit.",
            ["message"],
            buckets=OWN_BUCKETS,
            registry=self.registry,
        )
        self._upstream = Histogram(
            "upshim_upstream_seconds",
            "From the end of a request to the head of the server's answer.",
            ["kind"],
            buckets=UPSTREAM_BUCKETS,
            registry=self.registry,
        )
        self._recorded = Histogram(
            "upshim_record_wait_seconds",
            "How long the end of an answer waited for its record to be safe.",
            buckets=RECORD_BUCKETS,
            registry=self.registry,
        )
        self._refused = Counter(
            "upshim_connections_closed",
            "Connections of phones that upshim closed or did not want, by why.",
            ["why"],
            registry=self.registry,
        )
        self._children: dict[tuple[object, ...], Any] = {}  # looking one up by its labels takes longer than counting
        self.connections = Gauge("upshim_connections", "Open connections of phones.", registry=self.registry)
        self.certificate_expires = Gauge(
            "upshim_certificate_expires_timestamp_seconds",
            "When the certificate expires that phones are shown; 0 without one.",
            registry=self.registry,
        )
        self.server_unreachable = Gauge(
            "upshim_server_unreachable",
            "1 while the server cannot be reached from here and the health check therefore fails.",
            registry=self.registry,
        )
        self.certificate_accepted = Gauge(
            "upshim_certificate_reload_successful",
            "0 where the file with the certificate cannot be used and the old one stays.",
            registry=self.registry,
        )
        self.certificate_accepted.set(1)
        self.draining = Gauge("upshim_draining", "1 while upshim finishes what it has begun.", registry=self.registry)

    def checked(self, checked: Checked, seconds: float, *, dry_run: bool) -> None:
        """An update check has been handled."""
        decision = checked.decision
        action = decision.action if checked.phone is not None else "unread"
        rule = decision.rule.name if decision.rule is not None else ""
        self._of(self._checks, action, rule, "yes" if dry_run else "no").inc()
        self._of(self._own, "request").observe(seconds)

    def answered(self, seconds: float) -> None:
        """The answer to an update check has been handled."""
        self._of(self._own, "response").observe(seconds)

    def recorded(self, seconds: float) -> None:
        """An answer has waited for its record."""
        self._recorded.observe(seconds)

    def refused(self, why: str) -> None:
        """A connection was closed by upshim."""
        self._of(self._refused, why).inc()

    def exchange(self, flow: http.HTTPFlow, watch: Watch, *, complete: bool) -> None:
        """An exchange is over."""
        kind = "check" if watch.is_check else "other"
        self._of(self._exchanges, kind, "answered" if complete else "broken").inc()
        for name, message in (("request", watch.request), ("response", watch.response)):
            self._of(self._streamed, name).inc(streamed(message))
            if message.changed:
                self._of(self._rewrites, name).inc()
        if (source := offer_source(watch)) is not None:
            rule = watch.checked.decision.rule if watch.checked is not None and source != "server" else None
            self._of(self._offers, source, rule.name if rule is not None else "").inc()
        asked, answer = flow.request.timestamp_end, flow.response
        if asked is not None and answer is not None:
            self._of(self._upstream, kind).observe(max(0.0, answer.timestamp_start - asked))

    def _of(self, metric: Child, *labels: str) -> Child:
        """The series of these labels."""
        key = (metric, *labels)
        found: Child | None = self._children.get(key)
        if found is None:
            found = self._children[key] = metric.labels(*labels)
        return found

    def render(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)


def offer_source(watch: Watch) -> str | None:
    """Whose idea the offer in an answer is; None where the phone was offered nothing."""
    answer, decided = watch.response.edited, watch.checked
    if answer is None:
        return None
    if answer.changed:
        return "offer"
    facts = (fact for fact in answer.facts if fact["fact"] == "update-answer")
    if all(offer["empty"] for fact in facts for offer in fact["offers"]):
        return None
    reported = decided is not None and decided.body.changed
    return "report" if reported else "server"


def our_version() -> str:
    """Which upshim this is."""
    try:
        return version("upshim")
    except PackageNotFoundError:
        return "unknown"  # run from its folder


def streamed(message: Message) -> int:
    """Body bytes of a message that passed unbuffered."""
    stream = message.stream
    if isinstance(stream, Hold):
        return stream.tee.size
    return stream.size if stream is not None else 0
