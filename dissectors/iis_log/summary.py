"""What a whole log comes to, gathered entry by entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from dissectors.iis_log.entry import Entry
from dissectors.iis_log.reader import LogReader
from dissectors.update_urls import Resource

MAX_CLIENTS = 50_000  # that are told apart; the requests of more are counted only
MAX_PROBLEMS = 10  # that are shown


class LogSummary:
    """Counts of one log; feed it through `read`, which hands the entries on."""

    def __init__(self) -> None:
        self.reader = LogReader()
        self.entries = 0
        self.first: datetime | None = None
        self.last: datetime | None = None
        self.resources: Counter[tuple[Resource, int | None]] = Counter()
        self.update_clients: Counter[str] = Counter()
        self.problem_count = 0
        self.problems: list[str] = []

    def read(self, chunks: Iterable[bytes]) -> Iterator[Entry]:
        """The entries of the log, counted as they pass. Raises as `LogReader.read` does."""
        for entry in self.reader.read(chunks):
            self._count(entry)
            yield entry

    def _count(self, entry: Entry) -> None:
        self.entries += 1
        if entry.moment:
            self.first = min(self.first or entry.moment, entry.moment)
            self.last = max(self.last or entry.moment, entry.moment)
        resource = entry.resource
        self.resources[resource, entry.status] += 1
        client = entry.client
        if resource is Resource.UPDATE_HANDLER and client:
            known = client in self.update_clients
            if known or len(self.update_clients) < MAX_CLIENTS:
                self.update_clients[client] += 1
        for problem in entry.problems:
            self.problem_count += 1
            if len(self.problems) < MAX_PROBLEMS:
                self.problems.append(f"line {entry.number}: {problem}")

    def to_json(self) -> dict[str, Any]:
        """`kind` iis-log: span, fields, answers per resource (`update-handler`: {`200`: n}), clients that checked."""
        by_resource: dict[str, dict[str, int]] = {}
        for (resource, status), count in sorted(self.resources.items(), key=lambda item: str(item[0][1])):
            by_resource.setdefault(resource.value, {})[str(status)] = count
        problems = list(self.problems)
        if self.problem_count > len(problems):
            problems.append(f"{self.problem_count - len(problems)} more")
        if self.reader.skipped:
            problems.append(f"lines before #Fields: {self.reader.skipped}")
        return {
            "kind": "iis-log",
            "software": list(self.reader.software),
            "fields": list(self.reader.fields.names),
            "field_changes": self.reader.field_changes,
            "entries": self.entries,
            "first": self.first.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if self.first else None,
            "last": self.last.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if self.last else None,
            "resources": by_resource,
            "update_clients": len(self.update_clients),
            "problems": problems,
        }
