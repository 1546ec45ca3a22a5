"""How things stand at the moment of asking: numbers that somebody else keeps anyway.

They are collected in the thread that serves the operator, beside the traffic: everything is copied or read at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from captures.base_recording import BaseRecording
from proxy_addons.failures import Failures
from proxy_addons.history import Histories, Unreadable
from proxy_addons.interlocks import breaker
from proxy_addons.log_lines import lines_lost
from proxy_addons.package_watch import PackageWatch
from proxy_addons.rewriter import Rewriter

Value = TypeVar("Value")

PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes


class Sources(Protocol):
    """Where the numbers are."""

    rules_loaded: float
    rules_refused: bool

    @property
    def failures(self) -> Failures:
        """What went wrong."""

    @property
    def recording(self) -> object:
        """The recording, if there is one."""

    @property
    def rewriter(self) -> Rewriter:
        """Holds the rules in force."""

    @property
    def histories(self) -> Histories | None:
        """The phones."""

    @property
    def packages(self) -> PackageWatch | None:
        """Looks for files upstream."""

    def why_stopped(self) -> str:
        """What has switched all rewriting off."""


class Standing(Collector):
    """The metrics that are read when they are asked for."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry need not ask for everything in order to know the names."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        yield from self._failures()
        yield from self._rules()
        yield from self._fleet()
        if isinstance(self._sources.recording, BaseRecording):
            yield from self._recording(self._sources.recording)

    def _failures(self) -> Iterator[Metric]:
        failures = self._sources.failures
        causes = CounterMetricFamily("upshim_failures", "What went wrong, by cause.", labels=["cause"])
        for cause, count in dict(failures.counts).items():
            causes.add_metric([cause], count)
        yield causes
        yield CounterMetricFamily(
            "upshim_fail_open", "Errors of upshim's own; the exchange went on untouched.", failures.faults
        )
        yield CounterMetricFamily("upshim_log_lines_lost", "Lines of the log that nobody read in time.", lines_lost())

    def _rules(self) -> Iterator[Metric]:
        sources = self._sources
        rules = sources.rewriter.rules
        yield GaugeMetricFamily("upshim_rules", "Rules in force.", len(rules.rules))
        info = InfoMetricFamily("upshim_rules_file", "The rules file in force.")
        info.add_metric([], {"sha256": rules.sha256})
        yield info
        yield GaugeMetricFamily(
            "upshim_rules_loaded_timestamp_seconds", "When the rules in force were read.", sources.rules_loaded
        )
        yield GaugeMetricFamily(
            "upshim_rules_reload_successful",
            "0 where the rules file has a mistake and older rules stay in force.",
            not sources.rules_refused,
        )
        yield GaugeMetricFamily("upshim_dry_run", "1 where decisions are not carried out.", sources.rewriter.dry_run)
        yield GaugeMetricFamily(
            "upshim_rewriting_stopped", "1 while the kill switch is on.", bool(sources.why_stopped())
        )
        packages = GaugeMetricFamily(
            "upshim_packages", "Update packages rules send phones to, by what the server says.", labels=["state"]
        )
        for state, count in sources.packages.files.counts().items() if sources.packages is not None else ():
            packages.add_metric([state], count)
        yield packages

    def _fleet(self) -> Iterator[Metric]:
        histories = self._sources.histories
        counts = None if histories is None else undisturbed(histories.census.counts)
        yield GaugeMetricFamily(
            "upshim_history_known", "0 where the past of the phones cannot be read.", counts is not None
        )
        if histories is None or counts is None:
            return
        phones = GaugeMetricFamily(
            "upshim_phones", "Phones by state and reported version.", labels=["state", "version"]
        )
        for (state, version), count in counts.items():
            phones.add_metric([state, version], count)
        yield phones
        now = datetime.now().astimezone()
        labels = ["path", "rule"]
        is_open = GaugeMetricFamily("upshim_breaker_open", "1 where too many attempts have failed.", labels=labels)
        failed = GaugeMetricFamily("upshim_breaker_failed", "Attempts the breaker saw fail.", labels=labels)
        ended = GaugeMetricFamily("upshim_breaker_ended", "Attempts the breaker saw end.", labels=labels)
        for rule in self._sources.rewriter.rules.rules:
            looked_at = undisturbed(partial(breaker, rule, histories, now))
            if looked_at is not None:
                names = [looked_at.path, rule.name]
                is_open.add_metric(names, looked_at.open)
                failed.add_metric(names, looked_at.failed)
                ended.add_metric(names, looked_at.ended)
        yield from (is_open, failed, ended)

    def _recording(self, recording: BaseRecording) -> Iterator[Metric]:
        lost = CounterMetricFamily(
            "upshim_recording_lost",
            "What is missing in the recording and why: exchanges, bodies and packets one by one. What begins with "
            "nothing or in is made up for: a process that writes has died, a journal could not be written.",
            labels=["what"],
        )
        for what, count in dict(recording.lost).items():
            lost.add_metric([what], count)
        yield lost
        backlog = recording.backlog()
        yield GaugeMetricFamily("upshim_recording_waiting", "Exchanges not yet recorded.", backlog.exchanges)
        yield GaugeMetricFamily("upshim_recording_waiting_bytes", "Body bytes not yet written.", backlog.body_bytes)
        yield GaugeMetricFamily("upshim_recording_lag_seconds", "Age of the oldest of those exchanges.", backlog.lag)
        yield CounterMetricFamily("upshim_recorded_exchanges", "Exchanges recorded since the start.", backlog.committed)
        yield CounterMetricFamily(
            "upshim_recorded_bytes", "Body bytes recorded since the start.", backlog.written_bytes
        )
        yield GaugeMetricFamily("upshim_recording_behind", "1 while the database is away.", bool(recording.behind))
        yield GaugeMetricFamily("upshim_recording_spool_bytes", "What waits for the database here.", backlog.spooled)
        yield GaugeMetricFamily(
            "upshim_journal_failed", "1 while recording or journal cannot be written; nothing is rewritten then.",
            recording.journal_failed,
        )  # fmt: skip
        resident = resident_bytes(recording.writer)
        if resident is not None:
            yield GaugeMetricFamily(
                "upshim_writer_resident_memory_bytes", "Memory of the process that writes the recording.", resident
            )
        free = free_bytes(recording.folder)
        if free is not None:
            yield GaugeMetricFamily("upshim_recording_free_bytes", "Room on the recording's disk.", free)


def resident_bytes(process: int | None) -> int | None:
    """The memory of a process; None where there is none."""
    try:
        return None if process is None else int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return None


def free_bytes(folder: Path) -> int | None:
    """Room for a process without privileges; None where it cannot be told."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def undisturbed(read: Callable[[], Value | None]) -> Value | None:
    """What `read` finds, tried again where the traffic changed what it was looking at; None where it cannot be had."""
    for _ in range(5):
        try:
            return read()
        except (RuntimeError, LookupError, Unreadable):
            continue
    return None
