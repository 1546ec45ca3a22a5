"""What the proxy has done, as numbers for Prometheus. Names and labels are an interface: alert rules hold them.

No label is made of what a phone says, so that no phone can make the set of series grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from mitmproxy import http
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from captures.recording import Recording
from proxy_addons.failures import Failures
from proxy_addons.rewriter import Checked, Rewriter
from proxy_addons.streams import Hold
from proxy_addons.watch import Message, Watch

OWN_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)  # seconds
UPSTREAM_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Sources(Protocol):
    """Where numbers that somebody else keeps are read from when they are asked for."""

    @property
    def failures(self) -> Failures:
        """What went wrong."""

    @property
    def recording(self) -> object:
        """The recording, if there is one."""

    @property
    def rewriter(self) -> Rewriter:
        """Holds the rules in force."""


class Metrics:
    """The proxy's numbers."""

    def __init__(self, sources: Sources) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(Standing(sources))
        self._checks = Counter(
            "upshim_checks",
            "Update checks by what was decided; action unread: the body is not one upshim can read.",
            ["action", "rule", "dry_run"],
            registry=self.registry,
        )
        self._rewrites = Counter(
            "upshim_rewrites", "Messages that went on changed.", ["message"], registry=self.registry
        )
        self._exchanges = Counter(
            "upshim_exchanges", "HTTP exchanges that are over.", ["kind", "outcome"], registry=self.registry
        )
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
        self.connections = Gauge("upshim_connections", "Open connections of phones.", registry=self.registry)
        self.draining = Gauge("upshim_draining", "1 while upshim finishes what it has begun.", registry=self.registry)

    def checked(self, checked: Checked, seconds: float, *, dry_run: bool) -> None:
        """An update check has been handled."""
        decision = checked.decision
        action = decision.action if checked.phone is not None else "unread"
        rule = decision.rule.name if decision.rule is not None else ""
        self._checks.labels(action, rule, "yes" if dry_run else "no").inc()
        self._own.labels("request").observe(seconds)

    def answered(self, seconds: float) -> None:
        """The answer to an update check has been handled."""
        self._own.labels("response").observe(seconds)

    def exchange(self, flow: http.HTTPFlow, watch: Watch, *, complete: bool) -> None:
        """An exchange is over."""
        kind = "check" if watch.is_check else "other"
        self._exchanges.labels(kind, "answered" if complete else "broken").inc()
        for name, message in (("request", watch.request), ("response", watch.response)):
            self._streamed.labels(name).inc(streamed(message))
            if message.changed:
                self._rewrites.labels(name).inc()
        asked, answer = flow.request.timestamp_end, flow.response
        if asked is not None and answer is not None:
            self._upstream.labels(kind).observe(max(0.0, answer.timestamp_start - asked))

    def render(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)


class Standing(Collector):
    """How things stand at the moment of asking."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        failures, recording, rules = self._sources.failures, self._sources.recording, self._sources.rewriter.rules
        causes = CounterMetricFamily("upshim_failures", "What went wrong, by cause.", labels=["cause"])
        for cause, count in list(failures.counts.items()):
            causes.add_metric([cause], count)
        yield causes
        yield CounterMetricFamily(
            "upshim_fail_open", "Errors of upshim's own; the exchange went on untouched.", failures.faults
        )
        lost = CounterMetricFamily("upshim_recording_lost", "What is missing in the recording.", labels=["what"])
        for what, count in list(recording.lost.items()) if isinstance(recording, Recording) else ():
            lost.add_metric([what], count)
        yield lost
        yield GaugeMetricFamily("upshim_rules", "Rules in force.", len(rules.rules))
        info = InfoMetricFamily("upshim_rules_file", "The rules file in force.")
        info.add_metric([], {"sha256": rules.sha256})
        yield info


def streamed(message: Message) -> int:
    """Body bytes of a message that passed unbuffered."""
    stream = message.stream
    if isinstance(stream, Hold):
        return stream.tee.size
    return stream.size if stream is not None else 0
