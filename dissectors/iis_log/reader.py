"""Reading a W3C extended log line by line (https://www.w3.org/TR/WD-logfile), in constant memory.

Directives may come again anywhere: IIS writes them anew after a restart, and `#Fields` may then be another. A log
without a date column has it in `#Date`, and passes midnight without a word. Values are separated by white space; one
that begins with a quotation mark runs to the closing one (Advanced Logging), with quotation marks inside doubled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta

from dissectors.errors import DissectError, LimitExceeded
from dissectors.iis_log.entry import Entry, FieldSet
from dissectors.lines import Line, text_lines

MAX_FIELDS = 256
MAX_LINES_WITHOUT_FIELDS = 1000  # then it is no such log

_DIRECTIVE = re.compile(r"#\s*([A-Za-z-]{1,32})\s*:\s*(.*)", re.ASCII)
_VALUE = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=[ \t]|$)|([^ \t]+)')
_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[ T]+(\d{2}:\d{2}:\d{2}))?", re.ASCII)
_TIME = re.compile(r"(\d{1,2}:\d{2}:\d{2})(\.\d{1,6})?\d*", re.ASCII)
_ENTRY = re.compile(r"\d{4}-\d{2}-\d{2}[ \t]|\d{1,2}:\d{2}:\d{2}", re.ASCII)
_HALF_A_DAY = timedelta(hours=12)


def looks_like_iis_log(head: bytes) -> bool:
    """Whether the first bytes of a file are those of such a log: directives, `#Fields` among them.

    Entries may come first: the log was cut there.
    """
    try:
        lines = [line.text.strip() for line in text_lines([head])]
    except LimitExceeded:
        return False
    first = next(filter(None, lines), "")
    begins = first.startswith("#") or _ENTRY.match(first) is not None
    return begins and any(line.lower().startswith("#fields:") for line in lines)


class LogReader:
    """State of reading; `software`, `fields` and the counts may be looked at while entries come."""

    def __init__(self) -> None:
        self.software: list[str] = []
        self.fields = FieldSet(())
        self.field_changes = 0
        self.skipped = 0  # lines before any `#Fields`
        self._day: date | None = None
        self._last: datetime | None = None

    def read(self, chunks: Iterable[bytes]) -> Iterator[Entry]:
        """The entries of a log given in chunks of any size.

        Raises `DissectError` where there is no `#Fields`, and `LimitExceeded` for a line or a list of fields that is
        too long.
        """
        for line in text_lines(chunks):
            text = line.text.strip(" \t\r\n")
            if text.startswith("#"):
                self._directive(text, line)
            elif text:
                if self.fields.names:
                    yield self._entry(text, line)
                    continue
                self.skipped += 1
                if self.skipped > MAX_LINES_WITHOUT_FIELDS:
                    raise DissectError(line.offset, "a #Fields directive", f"{self.skipped} lines without one")
        if not self.fields.names:
            raise DissectError(0, "a #Fields directive", "none")

    def _directive(self, text: str, line: Line) -> None:
        match = _DIRECTIVE.match(text)
        if match is None:
            return
        name, value = match[1].lower(), match[2]
        if name == "fields":
            names = tuple(value.split())
            if len(names) > MAX_FIELDS:
                raise LimitExceeded(line.offset, f"at most {MAX_FIELDS} fields", f"{len(names)}")
            if names and names != self.fields.names:
                self.field_changes += bool(self.fields.names)
                self.fields = FieldSet(names)
        elif name in ("date", "start-date"):
            found = _DATE.match(value)
            self._day = _date(found[1]) if found else None
            self._last = None
        elif name == "software" and value not in self.software and len(self.software) < 16:
            self.software.append(value[:200])

    def _entry(self, text: str, line: Line) -> Entry:
        values = tuple(quoted.replace('""', '"') if bare == "" else bare for quoted, bare in _VALUE.findall(text))
        problems: list[str] = []
        expected = len(self.fields.names)
        if len(values) != expected:
            problems.append(f"{len(values)} values for {expected} fields")
        entry = Entry(line.number, self.fields, values)
        moment = self._moment(entry, problems)
        local = " ".join(filter(None, (entry.get("date-local"), entry.get("time-local")))) or None
        return Entry(line.number, self.fields, values, moment, local, tuple(problems))

    def _moment(self, entry: Entry, problems: list[str]) -> datetime | None:
        clock = entry.get("time", "time-utc")
        if clock is None:
            return None
        at = _time(clock)
        written = entry.get("date", "date-utc")
        day = _date(written) if written else self._day
        if at is None or (written and day is None):
            problems.append(f"no date and time: {' '.join(filter(None, (written, clock)))[:40]!r}")
            return None
        if day is None:
            problems.append("no date: neither a column nor #Date")
            return None
        moment = datetime.combine(day, at, UTC)
        if written is None and self._last and self._last - moment > _HALF_A_DAY and day < date.max:
            self._day = day + timedelta(days=1)
            moment += timedelta(days=1)
        self._last = moment
        return moment


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None


def _time(text: str) -> time | None:
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    try:
        return time.fromisoformat(match[1].zfill(8) + (match[2] or ".0").ljust(7, "0"))
    except ValueError:
        return None
